// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// asItem asks one question in a batch.
func (m *testMount) asItem(path string, question map[string]any) (item, whole map[string]any) {
	m.t.Helper()
	raw, err := json.Marshal([]any{question})
	if err != nil {
		m.t.Fatal(err)
	}
	whole = m.write(path, map[string]any{"batch": string(raw)})
	return whole["results"].([]any)[0].(map[string]any), whole
}

// enforced is what an answer has an edge enforce, alone or in a batch.
func enforced(t *testing.T, item, whole map[string]any) string {
	t.Helper()
	shared := item
	if whole != nil {
		for _, name := range []string{"role", "metadata", "allowed_cidrs", "rate_limit", "disabled"} {
			if item[name] != nil {
				t.Errorf("%s stands in the item: %v", name, item)
			}
		}
		shared = whole["roles"].(map[string]any)[item["role_id"].(string)].(map[string]any)
	}
	scopes := item["scopes"]
	if scopes == nil {
		scopes = shared["scopes"]
	}
	return fmt.Sprintf("%v %v %v %v %v %v", shared["role"], scopes, shared["metadata"], shared["allowed_cidrs"], shared["rate_limit"], shared["disabled"])
}

// Every form of the question is answered with the same timeline and the same facts,
// whatever form is the highest that the asker knows.
func TestTimelinesInEveryForm(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{
		"rotation_period": 0, "scopes": "a:*,b", "allowed_cidrs": "10.0.0.0/8", "rate_limit": 5, "metadata": map[string]any{"env": "prod"}, "disabled": true,
	})
	m.write("roles/other", map[string]any{"type": "dynamic", "ttl": "1h"})
	id := m.roleID("s")
	key, keyID := m.read("creds/s")["api_key"], m.read("creds/s")["key_id"]
	other := m.read("creds/other")
	byKey := map[string]any{"key": key}
	byID := map[string]any{"key_id": keyID, "role_id": id}
	with := func(question map[string]any, n any) map[string]any {
		q := map[string]any{"timeline": n}
		for name, v := range question {
			q[name] = v
		}
		return q
	}
	const facts = "s [a:* b] map[env:prod] [10.0.0.0/8] 5 true"
	for _, path := range []string{"verify", "verify/s"} {
		for _, n := range []int{timeline.Schema, timeline.Schema + 1, 1 << 40} {
			for code, question := range map[string]map[string]any{"DISABLED": byKey, "STATE": byID} {
				single := m.write(path, with(question, n))
				item, whole := m.asItem(path, with(question, n))
				for _, got := range []map[string]any{single, item} {
					if line := lineOf(t, got); got["code"] != code || got["valid"] != false || len(line) != 1 || line.Code(0) != timeline.Disabled ||
						got["role_id"] != id || got["key_id"] != keyID || number(t, got["version"]) != 1 || got["lease"] != false {
						t.Errorf("%s, timeline %d, %s: %v", path, n, code, got)
					}
				}
				if got := enforced(t, single, nil); got != facts {
					t.Errorf("%s: %s", path, got)
				}
				if got := enforced(t, item, whole); got != facts {
					t.Errorf("%s, in a batch: %s", path, got)
				}
				if cursor := m.feed.Cursor(); single["cursor"] != cursor || whole["cursor"] != cursor || item["cursor"] != nil {
					t.Errorf("%s: cursors %v and %v, want %s", path, single["cursor"], whole["cursor"], cursor)
				}
			}
		}
	}
	if got := m.write("verify", with(map[string]any{"key": other["api_key"]}, 1)); got["lease"] != true || got["code"] != "VALID" || got["valid"] != true {
		t.Errorf("a leased key: %v", got)
	}

	// What is unknown there has none, and says nothing.
	for name, question := range map[string]map[string]any{
		"another role's":        {"key": other["api_key"]},
		"another role's, by id": {"key_id": other["key_id"], "role_id": m.roleID("other")},
		"of no role":            {"key_id": keyID, "role_id": m.roleID("other")},
		"forged":                {"key": key.(string) + "x"},
	} {
		item, whole := m.asItem("verify/s", with(question, 1))
		for _, got := range []map[string]any{m.write("verify/s", with(question, 1)), item} {
			for _, told := range []string{"timeline", "cursor", "role", "role_id", "key_id", "scopes", "metadata"} {
				if got[told] != nil {
					t.Errorf("%s: %v", name, got)
				}
			}
			if code := got["code"]; code != "NOT_FOUND" && code != "MALFORMED" {
				t.Errorf("%s: %v", name, got)
			}
		}
		if len(whole["roles"].(map[string]any)) != 0 {
			t.Errorf("%s: %v", name, whole)
		}
	}

	// No other form is one.
	for _, n := range []any{0, -1, 1.5, "one", true} {
		for _, question := range []map[string]any{byKey, byID} {
			m.refused(logical.UpdateOperation, "verify", with(question, n), "timeline")
			if item, _ := m.asItem("verify", with(question, n)); item["code"] != "MALFORMED" || item["error"] == nil || item["timeline"] != nil {
				t.Errorf("timeline %v: %v", n, item)
			}
		}
	}
	for name, v := range map[string]any{"scopes": []string{"b"}, "any_scope": []string{"b"}, "remote_addr": "10.1.2.3"} {
		q := with(byKey, 1)
		q[name] = v
		m.refused(logical.UpdateOperation, "verify", q, "timeline", "enforce")
	}
}

// In a batch what the keys of a role share stands once; a key with fewer scopes has its
// own.
func TestFactsStandOnce(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h", "scopes": "a,b"})
	m.write("roles/s", map[string]any{"rotation_period": 0})
	var items []any
	for _, creds := range []map[string]any{m.write("creds/d", map[string]any{"scopes": "b"}), m.read("creds/d"), m.read("creds/s")} {
		items = append(items, map[string]any{"key": creds["api_key"], "timeline": 1})
	}
	raw, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	whole := m.write("verify", map[string]any{"batch": string(raw)})
	roles := whole["roles"].(map[string]any)
	if len(roles) != 2 || fmt.Sprint(roles[m.roleID("d")].(map[string]any)["scopes"]) != "[a b]" {
		t.Errorf("%v", roles)
	}
	for i, want := range []string{"[b]", "<nil>", "<nil>"} {
		if got := fmt.Sprint(whole["results"].([]any)[i].(map[string]any)["scopes"]); got != want {
			t.Errorf("item %d has the scopes %s, want %s", i, got, want)
		}
	}
}

// Nothing is counted for a timeline, and no token of a rate limit spent.
func TestTimelinesCostNoUse(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{"rate_limit": 1})
	creds := m.read("creds/s")
	for range 5 {
		m.write("verify", map[string]any{"key": creds["api_key"], "timeline": 1})
		m.write("verify", map[string]any{"key_id": creds["key_id"], "role_id": m.roleID("s"), "timeline": 1})
		m.asItem("verify", map[string]any{"key": creds["api_key"], "timeline": 1})
	}
	if got := usageLine(usageIn(t, m, "s", 1)); got != "0" {
		t.Errorf("counted %s", got)
	}
	if got := m.ask(creds["api_key"]); got["code"] != "VALID" {
		t.Errorf("the only token is spent: %v", got)
	}
}

// readAfter is storage that something happens to before it is read.
type readAfter struct {
	logical.Storage
	before func()
}

func (s *readAfter) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.before()
	return s.Storage.Get(ctx, key)
}

// What is decided while the engine looks comes after the cursor.
func TestCursorComesBeforeTheRecords(t *testing.T) {
	s := &readAfter{&logical.InmemStorage{}, func() {}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/s", nil)
	key := m.read("creds/s")["api_key"]
	for name, ask := range map[string]func(*testMount) map[string]any{
		"one": func(m *testMount) map[string]any { return m.write("verify", map[string]any{"key": key, "timeline": 1}) },
		"batch": func(m *testMount) map[string]any {
			_, whole := m.asItem("verify", map[string]any{"key": key, "timeline": 1})
			return whole
		},
	} {
		m := m.restart()
		m.write("changes", nil)
		before := m.feed.Cursor()
		s.before = func() { m.feed.Publish(feed.Notice{RoleID: "any"}) }
		got := ask(m)
		s.before = func() {}
		if got["cursor"] != before || m.feed.Cursor() == before {
			t.Errorf("%s: cursor %v, want %s; it is %s now", name, got["cursor"], before, m.feed.Cursor())
		}
	}
}

// A deleted role's key has no timeline, and the same one again when the role is back,
// under whatever name.
func TestTimelineOfARoleThatIsBack(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{"rotation_period": 0, "valid_until": stamp(m.clock.Now().Add(48 * time.Hour))})
	creds := m.read("creds/s")
	ask := func() map[string]any {
		return m.write("verify", map[string]any{"key_id": creds["key_id"], "role_id": creds["role_id"], "timeline": 1})
	}
	creds["role_id"] = m.roleID("s")
	first := ask()
	want := fmt.Sprint(first["timeline"])
	if line := lineOf(t, first); len(line) != 2 || line.Code(1) != timeline.Expired || line.Renewable(1) || line.End(0) != "hard" {
		t.Errorf("%v", first)
	}
	m.must(logical.DeleteOperation, "roles/s", nil)
	if got := ask(); got["code"] != "NOT_FOUND" || got["timeline"] != nil {
		t.Errorf("deleted: %v", got)
	}
	m.write("restore/"+creds["role_id"].(string), map[string]any{"name": "back"})
	if got := ask(); fmt.Sprint(got["timeline"]) != want || got["role"] != "back" || got["key_id"] != creds["key_id"] {
		t.Errorf("%v, was %s", got, want)
	}
}

// A staged version is told as unknown until it verifies, if it does not do so at once.
func TestTimelineOfAPendingVersion(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{"rotation_period": "24h", "grace_period": "1h"})
	m.write("rotate/s", map[string]any{"activate_at": "2h"})
	key := m.read("creds/s/pending")["api_key"]
	var got []string
	for _, e := range lineOf(t, m.write("verify", map[string]any{"key": key, "timeline": 1})).Entries() {
		got = append(got, fmt.Sprintf("%s %s +%v", e.Code, e.State, e.From.Sub(m.clock.Now())))
	}
	if want := "[VALID pending +0s VALID current +2h0m0s]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// hold_until is as long again as the grace of an automatic rotation, and never past an
// end that the key has anyway.
func TestHoldUntil(t *testing.T) {
	for name, c := range map[string]struct {
		role map[string]any
		by   func(m *testMount)
		want time.Duration // after the activation; 0: none
	}{
		"automatic":       {want: 2 * time.Hour},
		"by hand":         {by: func(m *testMount) { m.write("rotate/r", map[string]any{"activate_at": "10m"}) }},
		"expiry":          {role: map[string]any{"ttl": "25h30m"}, want: 90 * time.Minute},
		"end of the role": {role: map[string]any{"valid_until": "25h45m"}, want: 105 * time.Minute},
		"a lease's end":   {role: map[string]any{"type": "dynamic", "ttl": "100m", "max_ttl": "2h"}},
		"no grace":        {role: map[string]any{"grace_period": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			declared := map[string]any{"rotation_period": "24h", "grace_period": "1h"}
			for field, v := range c.role {
				declared[field] = v
			}
			if until, ok := declared["valid_until"].(string); ok {
				d, err := time.ParseDuration(until)
				if err != nil {
					t.Fatal(err)
				}
				declared["valid_until"] = stamp(m.clock.Now().Add(d))
			}
			m.write("roles/r", declared)
			activation := m.clock.Now().Add(24 * time.Hour)
			key := m.read("creds/r")["api_key"]
			m.run(24*time.Hour - 5*time.Minute)
			if declared["type"] == "dynamic" {
				key = m.read("creds/r")["api_key"]
			}
			if c.by != nil {
				c.by(m)
			}
			var got time.Duration
			for _, e := range lineOf(t, m.write("verify", map[string]any{"key": key, "timeline": 1})).Entries() {
				if !e.HoldUntil.IsZero() {
					got = e.HoldUntil.Sub(activation)
					if e.Code != "RETIRED" || e.End != "planned" || !e.From.Equal(activation.Add(time.Hour)) {
						t.Errorf("%+v", e)
					}
				}
			}
			if got != c.want {
				t.Errorf("held until %v after the activation, want %v: %v", got, c.want, m.write("verify", map[string]any{"key": key, "timeline": 1}))
			}
		})
	}
}
