// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// TestPreviousStoreWorks works on the store of the previous build, and then lets
// that build read what came of it.
func TestPreviousStoreWorks(t *testing.T) {
	p := previousStore(t)
	for _, scene := range []struct {
		name string
		play func(*testing.T, *testMount)
	}{
		{"rotate", p.rotateAll},
		{"stage and promote", p.promoteAll},
		{"roll back", p.rollBackAll},
		{"revoke", p.revokeAll},
		{"report", p.reportAll},
		{"release", p.releaseAll},
		{"renew", p.renewAll},
		{"end leases", p.endLeases},
		{"delete and restore", p.deleteAll},
		{"update", p.updateAll},
		{"import again", p.importAgain},
		{"go on with jobs", p.goOnWithJobs},
		{"count uses", p.countUses},
		{"tidy", p.tidyUp},
		{"rotate the digest secret", p.rotateDigestSecret},
		{"live on", p.liveOn},
	} {
		t.Run(scene.name, func(t *testing.T) {
			m := p.open(t)
			scene.play(t, m)
			p.readable(t, m.storage)
		})
	}
}

// verdicts are the keys of the store that are known in whole, and the code that
// the previous build gave each.
func (p *past) verdicts() map[string]string {
	codes := map[string]string{}
	for _, q := range p.Rounds[0].Questions {
		if key, ok := q.Data["key"].(string); ok && q.Path == "verify" && len(q.Data) == 1 && codes[key] == "" {
			codes[key], _ = q.Answer.Data["code"].(string)
		}
	}
	return codes
}

// roleOf are the names of the roles that verified keys belong to, by key.
func (p *past) roleOf() map[string]string {
	roles := map[string]string{}
	for _, q := range p.Rounds[0].Questions {
		key, ok := q.Data["key"].(string)
		if role, known := q.Answer.Data["role"].(string); ok && known && q.Path == "verify" {
			roles[key] = role
		}
	}
	return roles
}

func codeOf(m *testMount, key string) string {
	m.t.Helper()
	code, _ := m.write("verify", map[string]any{"key": key})["code"].(string)
	return code
}

// endedCode reports whether a key with that code has ended for good.
func endedCode(code string) bool { return code == "REVOKED" || code == "EXPIRED" || code == "RETIRED" }

// sameVerdicts fails where a key is judged otherwise than by the previous build.
func (p *past) sameVerdicts(t *testing.T, m *testMount) {
	t.Helper()
	for key, want := range inOrder(p.verdicts()) {
		if got := codeOf(m, key); got != want {
			t.Errorf("key of %s: %s, and was %s", p.roleOf()[key], got, want)
		}
	}
}

// statusesOf are the roles by name, with their status.
func statusesOf(t *testing.T, m *testMount) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, name := range m.must(logical.ListOperation, "roles/", nil)["keys"].([]string) {
		all[name] = asJSON(t, m.read("status/"+name))
	}
	return all
}

// inOrder goes through a map by its keys.
func inOrder[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}

// versionsIn are the numbers of the versions of that state, newest first.
func versionsIn(t *testing.T, status map[string]any, states ...string) []int64 {
	t.Helper()
	var numbers []int64
	for _, v := range status["versions"].([]any) {
		if v := v.(map[string]any); slices.Contains(states, v["state"].(string)) {
			numbers = append(numbers, number(t, v["version"]))
		}
	}
	return numbers
}

func (p *past) rotateAll(t *testing.T, m *testMount) {
	for name, was := range inOrder(statusesOf(t, m)) {
		resp := m.write("rotate/"+name, map[string]any{"force": true, "request_id": "after-the-upgrade"})
		n := number(t, resp["version"])
		if newest := number(t, was["versions"].([]any)[0].(map[string]any)["version"]); n != newest+1 {
			t.Errorf("%s: version %d follows %d", name, n, newest)
		}
		now := asJSON(t, m.read("status/"+name))
		if number(t, now["current_version"]) != n || number(t, now["pending_version"]) != 0 {
			t.Errorf("%s: version %d is not the current one: %v", name, n, now)
		}
		if prior := number(t, was["current_version"]); number(t, resp["previous_version"]) != prior {
			t.Errorf("%s: the version before is %v, and was %d", name, resp["previous_version"], prior)
		}
		if was["type"] == "static" && was["disabled"] == false {
			want := "VALID"
			if name == "full-schedule" {
				want = "FORBIDDEN_IP" // it has networks
			}
			if code := codeOf(m, m.read("creds/" + name)["api_key"].(string)); code != want {
				t.Errorf("%s: the new key is %s, want %s", name, code, want)
			}
		}
	}
	// Leases of 20 hours are out still, whatever was rotated meanwhile.
	until := m.clock.Now().Add(20 * time.Hour).UTC().Format(time.RFC3339)
	if resp := m.write("rotate/dynamic-shortened", map[string]any{"grace_period": "3h"}); resp["previous_valid_until"] != until {
		t.Errorf("keys of dynamic-shortened end at %v, and their leases as late as %s", resp["previous_valid_until"], until)
	}
}

func (p *past) promoteAll(t *testing.T, m *testMount) {
	promoted := 0
	for name, was := range inOrder(statusesOf(t, m)) {
		pending := number(t, was["pending_version"])
		if pending == 0 {
			m.write("rotate/"+name, map[string]any{"stage": true, "force": true})
			pending = number(t, m.read("status/" + name)["pending_version"])
		} else {
			promoted++
		}
		resp := m.write("promote/"+name, nil)
		now := asJSON(t, m.read("status/"+name))
		if number(t, resp["version"]) != pending || number(t, now["current_version"]) != pending {
			t.Errorf("%s: version %d was pending; promoted: %v", name, pending, resp)
		}
	}
	if promoted < 5 {
		t.Errorf("only %d roles had a pending version", promoted)
	}
}

func (p *past) rollBackAll(t *testing.T, m *testMount) {
	done := 0
	for name, was := range inOrder(statusesOf(t, m)) {
		previous := versionsIn(t, was, "previous")
		if len(previous) == 0 {
			continue
		}
		// A reported version is no target.
		if resp, err := m.do(logical.UpdateOperation, "rollback/"+name, map[string]any{"to_version": previous[0]}); err != nil || resp.IsError() {
			if strings.HasPrefix(name, "leak-") {
				continue
			}
			t.Errorf("%s: %v %v", name, resp, err)
			continue
		}
		now, current := asJSON(t, m.read("status/"+name)), number(t, was["current_version"])
		if number(t, now["current_version"]) != previous[0] || (current != 0 && !slices.Contains(versionsIn(t, now, "withdrawn"), current)) {
			t.Errorf("%s: rolled back to %d: %v", name, previous[0], now)
		}
		done++
	}
	if done < 8 {
		t.Errorf("only %d roles could be rolled back", done)
	}
}

func (p *past) revokeAll(t *testing.T, m *testMount) {
	before := statusesOf(t, m)
	for name, was := range inOrder(before) {
		resp := m.write("revoke/"+name, map[string]any{"all": true, "reason": "after the upgrade"})
		if had := number(t, was["current_version"]) != 0; resp["replaced"] != had {
			t.Errorf("%s: replaced %v, and there was a current version: %v", name, resp["replaced"], had)
		}
	}
	for key, role := range inOrder(p.roleOf()) {
		if _, lives := before[role]; !lives {
			continue
		}
		if code := codeOf(m, key); !endedCode(code) {
			t.Errorf("a key of %s is %s after all were killed", role, code)
		}
	}
}

func (p *past) reportAll(t *testing.T, m *testMount) {
	m.write("config", map[string]any{"max_leak_actions": 1000})
	codes := p.verdicts()
	for key, role := range inOrder(p.roleOf()) {
		if codes[key] != "VALID" {
			continue
		}
		policy := m.read("roles/" + role)
		state := codeOf(m, key)
		ends := func() string { return m.write("lookup", map[string]any{"key": key})["expires"].(string) }
		end := ends()
		result := m.write("report", map[string]any{"key": key, "source": "scanner"})["result"]
		after := codeOf(m, key)
		switch {
		case state != "VALID": // killed with a version reported before it
		case policy["on_leak"] == "revoke" && (result != "acted" || after != "REVOKED"):
			t.Errorf("a reported key of %s: %v, %s", role, result, after)
		case policy["on_leak"] != "revoke" && after == "REVOKED" && result != "acted":
			t.Errorf("a reported key of %s (%v): %v, %s", role, policy["on_leak"], result, after)
		}
		if then := ends(); end != "" && then > end {
			t.Errorf("a reported key of %s ends at %s, and did at %s", role, then, end)
		}
	}
}

func (p *past) releaseAll(t *testing.T, m *testMount) {
	waiting := m.must(logical.ListOperation, "report/deferred/", nil)["keys"].([]string)
	if len(waiting) != 2 {
		t.Fatalf("%v wait", waiting)
	}
	results := m.write("report/release", map[string]any{"key_ids": waiting, "reason": "looked at"})["results"].(map[string]any)
	for _, id := range waiting {
		if results[id] != "acted" {
			t.Errorf("%s: %v", id, results[id])
		}
		if state := m.write("lookup", map[string]any{"key_id": id})["state"]; state != "revoked" {
			t.Errorf("%s is %v", id, state)
		}
	}
	if left := m.must(logical.ListOperation, "report/deferred/", nil)["keys"]; left != nil && len(left.([]string)) != 0 {
		t.Errorf("%v wait still", left)
	}
}

// onPastLease sends what a server sends for a lease that it has stored.
func onPastLease(m *testMount, op logical.Operation, l *pastLease) (*logical.Response, error) {
	secret := &logical.Secret{InternalData: maps.Clone(l.Internal)}
	secret.IssueTime, secret.Renewable, secret.TTL = l.Issued, true, time.Duration(l.TTL)*time.Second
	return m.HandleRequest(context.Background(), &logical.Request{Operation: op, Path: "creds/any", Storage: m.storage, Secret: secret})
}

func (p *past) renewAll(t *testing.T, m *testMount) {
	for _, l := range p.Leases {
		resp, err := onPastLease(m, logical.RenewOperation, l)
		status, text := httpStatus(resp, err)
		if status != l.Renewal.Status {
			t.Errorf("renewing a lease (%s): %d %s, and was %d %s", l.What, status, text, l.Renewal.Status, l.Renewal.Error)
			continue
		}
		if status != 200 {
			continue
		}
		differences("lease", toAny(l.Renewal.Lease), toAny(leaseTimes(t, resp)), func(place string, want, got any) {
			t.Errorf("renewing a lease (%s): %s is %v, and was %v", l.What, place, got, want)
		})
		// As far as it was renewed the key lives, and no further.
		ttl := resp.Secret.TTL
		m.clock.advance(ttl - time.Second)
		before := codeOf(m, l.Key)
		m.clock.advance(time.Second)
		after := codeOf(m, l.Key)
		m.clock.set(p.Instant)
		if before != p.verdicts()[l.Key] || after == before {
			t.Errorf("a renewed key (%s): %s a second before its end and %s then", l.What, before, after)
		}
	}
}

func (p *past) endLeases(t *testing.T, m *testMount) {
	for _, l := range p.Leases {
		for range 2 {
			if resp, err := onPastLease(m, logical.RevokeOperation, l); err != nil || resp.IsError() {
				t.Errorf("ending a lease (%s): %v %v", l.What, resp, err)
			}
		}
		want := "REVOKED"
		if was := p.verdicts()[l.Key]; was != "VALID" && was != "DISABLED" {
			want = was
		}
		if got := codeOf(m, l.Key); got != want {
			t.Errorf("a key whose lease ended (%s): %s, want %s", l.What, got, want)
		}
	}
}

// deleteAll deletes what the previous build made, restores what either build
// deleted, and finds every key as it was.
func (p *past) deleteAll(t *testing.T, m *testMount) {
	restorable := m.must(logical.ListOperation, "restore/", nil)["key_info"].(map[string]any)
	for id, info := range restorable {
		name := info.(map[string]any)["role"].(string)
		if name == "recreated" {
			m.refused(logical.UpdateOperation, "restore/"+id, nil, "another role has the name")
			continue
		}
		if resp := m.write("restore/"+id, map[string]any{"request_id": "restore-again"}); resp["role"] != name || resp["restored"] != true {
			t.Errorf("restoring %s: %v", name, resp)
		}
	}
	if len(restorable) != 3 {
		t.Errorf("restorable: %v", restorable)
	}
	if code := codeOf(m, m.read("creds/deleted")["api_key"].(string)); code != "VALID" {
		t.Errorf("a key of a role that was restored is %s", code)
	}
	for _, l := range p.Leases {
		if l.Internal["role"] == "dynamic-deleted" {
			if code := codeOf(m, l.Key); code != "VALID" {
				t.Errorf("a leased key of a role that was restored is %s", code)
			}
		}
	}
	m = p.open(t) // the keys of those were not good at the instant
	for name := range inOrder(statusesOf(t, m)) {
		policy := m.read("roles/" + name)
		if policy["deletion_protection"] == true {
			m.refused(logical.DeleteOperation, "roles/"+name, nil, "deletion_protection")
			continue
		}
		id := m.must(logical.DeleteOperation, "roles/"+name, nil)["role_id"].(string)
		for key, role := range inOrder(p.roleOf()) {
			if role == name && codeOf(m, key) != "NOT_FOUND" {
				t.Errorf("a key of %s, which is deleted, is known", name)
			}
		}
		m.write("restore/"+id, nil)
		if again := m.write("restore/"+id, nil); again["restored"] != false {
			t.Errorf("restoring %s again: %v", name, again)
		}
	}
	p.sameVerdicts(t, m)
	p.readable(t, m.storage)
}

func (p *past) updateAll(t *testing.T, m *testMount) {
	// What an update leaves alone is written back as it was read.
	kept := func(name string) {
		t.Helper()
		var before, after any
		for record, into := range map[string]*any{string(p.records["role/"+name]): &before, string(allRecords(t, m.storage)["role/"+name]): &after} {
			if err := json.Unmarshal([]byte(record), into); err != nil {
				t.Fatal(err)
			}
		}
		differences("", before, after, func(place string, want, got any) {
			field, _, _ := strings.Cut(place, "/")
			due := strings.HasSuffix(place, "/plain") // for erasure
			// The ttl fell while the older build was at work: its leases may be younger.
			longer := place == "lease_until" && fmt.Sprint(got) > fmt.Sprint(want)
			if !due && !longer && !slices.Contains([]string{"committed", "seq", "due", "policy", "history"}, field) {
				t.Errorf("the record of %s: %s is %v, and was %v", name, place, got, want)
			}
		})
	}
	for name := range inOrder(statusesOf(t, m)) {
		before := asJSON(t, m.read("roles/"+name))
		m.write("roles/"+name, map[string]any{"description": "after the upgrade"})
		m.must(logical.PatchOperation, "roles/"+name, map[string]any{"owner": "team-upgrade", "metadata": map[string]any{"upgraded": "yes"}})
		after := asJSON(t, m.read("roles/"+name))
		for _, field := range []string{"description", "owner", "metadata"} {
			delete(before, field)
		}
		differences("", before, after, func(place string, want, got any) {
			t.Errorf("%s: %s is %v, and was %v", name, place, got, want)
		})
		kept(name)
		// What was read can be written back.
		delete(after, "name")
		m.write("roles/"+name, after)
		differences("", after, asJSON(t, m.read("roles/"+name)), func(place string, want, got any) {
			t.Errorf("%s, written back: %s is %v, and was %v", name, place, got, want)
		})
	}
	p.sameVerdicts(t, m)
}

// importAgain: keys that were imported under any of the digest secrets are
// known.
func (p *past) importAgain(t *testing.T, m *testMount) {
	roles := p.roleOf()
	known := 0
	for key, role := range inOrder(roles) {
		if !strings.HasPrefix(role, "adopted") || strings.HasPrefix(key, "ak_") || strings.HasPrefix(key, "acme_") {
			continue
		}
		item, err := json.Marshal(map[string]any{"role": role, "key": key})
		if err != nil {
			t.Fatal(err)
		}
		results := m.write("import", map[string]any{"batch": string(item)})["results"].([]any)
		if got := results[0].(map[string]any); got["result"] != "already_imported" {
			t.Errorf("a key of %s: %v", role, got)
		}
		known++
	}
	if known < 8 {
		t.Errorf("%d imported keys are known", known)
	}
	p.unchanged(t, m.storage)
}

func (p *past) goOnWithJobs(t *testing.T, m *testMount) {
	before := statusesOf(t, m)
	running := map[string]map[string]any{}
	for id, info := range m.must(logical.ListOperation, "bulk/", nil)["key_info"].(map[string]any) {
		if info.(map[string]any)["state"] == "running" {
			running[id] = m.read("bulk/" + id)
		}
	}
	if len(running) != 2 {
		t.Fatalf("running: %v", running)
	}
	// Each goes on at its pace, one role a tick: the one with the role that
	// comes next, the other, which has not begun, with the first.
	m.run(time.Minute)
	for id, was := range inOrder(running) {
		if job := m.read("bulk/" + id); number(t, job["acted"]) != number(t, was["acted"])+1 {
			t.Errorf("job %s at its pace: %v, and was %v", id, job, was)
		}
	}
	rotated := asJSON(t, m.read("status/bulk-b"))
	if ends := rotated["versions"].([]any)[1].(map[string]any)["ends"]; ends != fiveHoursOn(m) {
		t.Errorf("bulk-b: the version before ends at %v, want %s", ends, fiveHoursOn(m))
	}
	m.run(9 * time.Minute)
	for id := range inOrder(running) {
		job := m.read("bulk/" + id)
		if job["state"] != "done" || number(t, job["acted"]) != 4 || number(t, job["failed"]) != 0 {
			t.Errorf("job %s: %v", id, job)
		}
	}
	for _, name := range []string{"bulk-a", "bulk-b", "bulk-c", "bulk-d"} {
		now := asJSON(t, m.read("status/"+name))
		newest := func(status map[string]any) int64 {
			return number(t, status["versions"].([]any)[0].(map[string]any)["version"])
		}
		want := newest(before[name]) + 2
		if name == "bulk-a" { // the one job was past it
			want--
		}
		if n := newest(now); n != want || number(t, now["current_version"]) != want || len(versionsIn(t, now, "previous", "withdrawn")) != 0 {
			t.Errorf("%s: version %d, want %d, and the others killed: %v", name, n, want, now["versions"])
		}
		last := asJSON(t, m.read("history/"+name))["entries"].([]any)[0].(map[string]any)
		if last["entity_id"] != "entity-responder" || last["display_name"] != "oidc-responder" || last["reason"] != "not begun" {
			t.Errorf("%s: by whom and why: %v", name, last)
		}
	}
	p.replayLater(t, m)
}

func fiveHoursOn(m *testMount) string {
	return m.clock.Now().Add(5 * time.Hour).UTC().Format(time.RFC3339)
}

// replayLater: requests are known as long as their roles remember them, also
// after this build has written the records.
func (p *past) replayLater(t *testing.T, m *testMount) {
	t.Helper()
	for _, q := range p.Replays {
		if _, given := q.Data["request_id"]; !given {
			continue // known for minutes
		}
		if got := sendPast(t, m, q, q.Data); got.Data["replayed"] != true {
			t.Errorf("%s: %v", q, got)
		}
	}
}

func (p *past) countUses(t *testing.T, m *testMount) {
	accepted := func(role string, place string) (n int64) {
		status := asJSON(t, m.read("status/"+role))
		for _, v := range status["versions"].([]any) {
			use := v.(map[string]any)["usage"].(map[string]any)
			if place != "" {
				use = use[place].(map[string]any)
			}
			n += number(t, use["accepted"])
		}
		return n
	}
	roles := p.roleOf()
	codes := p.verdicts()
	seen, told := map[string]int64{}, map[string]int64{}
	for _, role := range roles {
		seen[role], told[role] = accepted(role, ""), accepted(role, "reported")
	}
	reported := map[string]int64{}
	for i, key := range slices.Sorted(maps.Keys(codes)) {
		if codes[key] != "VALID" {
			continue
		}
		role := roles[key]
		answer := m.write("verify", map[string]any{"key": key, "client": fmt.Sprintf("client-%d", i%3)})
		if answer["code"] == "VALID" {
			seen[role]++
		}
		item := fmt.Sprintf(`{"key_id": "%s", "accepted": 3, "last": %d, "client": "edge"}`, answer["key_id"], p.Instant.Unix())
		resp := m.write("usage", map[string]any{"instance": "edge/3", "sequence": i + 1, "batch": item})
		if resp["applied"] != true || resp["results"].([]any)[0].(map[string]any)["ok"] != true {
			t.Fatalf("usage of %s: %v", role, resp)
		}
		reported[role] += 3
	}
	check := func() {
		t.Helper()
		for role := range seen {
			if got := accepted(role, ""); got != seen[role] {
				t.Errorf("%s: %d uses, want %d", role, got, seen[role])
			}
			if got := accepted(role, "reported"); got != told[role]+reported[role] {
				t.Errorf("%s: %d reported uses, want %d", role, got, told[role]+reported[role])
			}
		}
	}
	check()
	m.run(16 * time.Minute)
	m = m.restart()
	check()
}

func (p *past) tidyUp(t *testing.T, m *testMount) {
	m.clock.advance(2 * time.Hour) // what is younger is not taken for left behind
	first := m.write("tidy", nil)  // goes on with the pass that was begun
	if first["done"] != true || first["started"] == "" || number(t, first["failed"]) != 0 {
		t.Errorf("the pass that was begun: %v", first)
	}
	m.clock.advance(time.Hour)
	second := m.write("tidy", nil)
	if second["done"] != true || number(t, second["failed"]) != 0 {
		t.Errorf("the next pass: %v", second)
	}
	// One commit never came: its key and plaintext go. So do a key that ended 30
	// days ago, and what was kept of a deleted role that was restored.
	for what, want := range map[string]int64{
		"removed_keys": 2, "removed_secrets": 1, "removed_archive_pages": 0, "removed_deleted_roles": 1, "removed_usage": 0,
	} {
		if got := number(t, first[what]) + number(t, second[what]); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	m.clock.set(p.Instant)
	p.sameVerdicts(t, m.restart())
}

func (p *past) rotateDigestSecret(t *testing.T, m *testMount) {
	if n := number(t, m.write("config/rotate-digest", nil)["digest_version"]); n != 4 {
		t.Errorf("digest secret %d follows 3", n)
	}
	p.sameVerdicts(t, m)
	p.sameVerdicts(t, m.restart())
}

// liveOn lets days pass.
func (p *past) liveOn(t *testing.T, m *testMount) {
	before := statusesOf(t, m)
	if before["owed"]["current_version"] != json.Number("0") || before["failing"]["last_error"] == "" {
		t.Fatalf("owed: %v, failing: %v", before["owed"], before["failing"])
	}
	m.run(30 * time.Minute) // paused
	for _, name := range []string{"nightly", "extended", "waiting"} {
		if now := asJSON(t, m.read("status/"+name)); now["pending_version"] != json.Number("0") {
			t.Errorf("%s rotates while the mount is paused: %v", name, now)
		}
	}
	m.write("config", map[string]any{"rotation_paused": false})
	m.run(2 * 24 * time.Hour)
	p.replayLater(t, m)
	m = m.restart()
	m.run(2 * 24 * time.Hour)

	now := statusesOf(t, m)
	for name, versions := range map[string]int64{"nightly": 4, "extended": 4, "waiting": 1, "failing": 1, "owed": 1, "dynamic-scheduled": 4} {
		was, is := number(t, before[name]["versions"].([]any)[0].(map[string]any)["version"]), number(t, now[name]["current_version"])
		if is < was+versions || is > was+versions+1 {
			t.Errorf("%s: current version %d after %d and four days, want about %d more", name, is, was, versions)
		}
		if problems := now[name]["problems"].([]any); len(problems) != 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
	if v := now["dated"]["current_version"]; v != json.Number("2") {
		t.Errorf("dated: %v", now["dated"])
	}
	if v := now["dated-far"]["pending_version"]; v != json.Number("2") {
		t.Errorf("dated-far: %v", now["dated-far"])
	}
	for key, was := range inOrder(p.verdicts()) {
		is := codeOf(m, key)
		if endedCode(was) && is != was && is != "NOT_FOUND" {
			t.Errorf("a key of %s that was %s is %s", p.roleOf()[key], was, is)
		}
		if name := p.roleOf()[key]; was == "VALID" && (name == "plain" || name == "once" || name == "paused") && is != "VALID" {
			t.Errorf("the key of %s is %s", name, is)
		}
	}
	// Two weeks later nothing of a deleted role is left but its history.
	m.clock.advance(11 * 24 * time.Hour)
	m.run(3 * time.Hour)
	if left := m.must(logical.ListOperation, "restore/", nil)["keys"]; left != nil && len(left.([]string)) != 0 {
		t.Errorf("still restorable: %v", left)
	}
}
