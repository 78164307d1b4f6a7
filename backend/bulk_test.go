// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestBulkIsADryRunByDefault(t *testing.T) {
	m := newMount(t)
	m.write("roles/pay-a", map[string]any{"owner": "pay"})
	m.write("roles/pay-b", map[string]any{"owner": "pay", "metadata": map[string]any{"tier": "gold"}})
	m.write("roles/web", map[string]any{"owner": "web", "scopes": "orders:*"})
	for _, c := range []struct {
		sel  map[string]any
		want []string
	}{
		{map[string]any{"owner": "pay"}, []string{"pay-a", "pay-b"}},
		{map[string]any{"name_prefix": "pay-"}, []string{"pay-a", "pay-b"}},
		{map[string]any{"metadata": map[string]any{"tier": "gold"}}, []string{"pay-b"}},
		{map[string]any{"scope": "orders:read"}, []string{"web"}},
		{map[string]any{"roles": "web,pay-a,web"}, []string{"pay-a", "web"}},
		{map[string]any{"owner": "pay", "name_prefix": "web"}, []string{}},
	} {
		c.sel["action"] = "revoke"
		got := m.write("bulk", c.sel)
		if !slices.Equal(got["roles"].([]string), c.want) || got["state"] != "dry_run" || got["complete"] != true {
			t.Errorf("%v selects %v, want %v", c.sel, got["roles"], c.want)
		}
	}
	m.run(2 * time.Minute)
	for _, r := range []string{"pay-a", "pay-b", "web"} {
		m.expectStates(r, "current")
	}
}

func TestBulkJob(t *testing.T) {
	m := newMount(t)
	for _, r := range []string{"a", "b", "c"} {
		m.write("roles/"+r, map[string]any{"owner": "pay"})
	}
	m.write("roles/other", map[string]any{"owner": "web"})
	job := m.write("bulk", map[string]any{"action": "rotate", "owner": "pay", "dry_run": false, "pace": 2, "reason": "quarter"})["job"].(string)
	m.run(time.Minute) // two at a time
	if got := m.read("bulk/" + job); number(t, got["acted"]) != 2 || got["state"] != "running" {
		t.Fatal(got)
	}
	m = m.restart()
	m.run(time.Minute)
	if got := m.read("bulk/" + job); number(t, got["acted"]) != 3 || got["state"] != "done" {
		t.Fatal(got)
	}
	for _, r := range []string{"a", "b", "c"} {
		m.expectStates(r, "previous current")
	}
	m.expectStates("other", "current")
	m.must(logical.DeleteOperation, "bulk/"+job, nil)
	if resp, err := m.do(logical.ReadOperation, "bulk/"+job, nil); resp != nil || err != nil {
		t.Fatal(resp, err)
	}
}

func TestBulkRequestID(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	params := map[string]any{"action": "rotate", "roles": "a", "dry_run": false, "request_id": "incident-17"}
	first := m.write("bulk", params)
	again := m.write("bulk", params)
	if again["job"] != first["job"] || again["replayed"] != true || first["replayed"] != nil {
		t.Fatal(first, again)
	}
	m.run(2 * time.Minute)
	m.expectStates("a", "previous current")
	params["action"] = "revoke"
	m.refused(logical.UpdateOperation, "bulk", params, "request_id", "other parameters")
	m.request.ClientTokenAccessor = "accessor-2"
	if other := m.write("bulk", params); other["job"] == first["job"] {
		t.Fatal("another caller got the same job")
	}
}

func TestDeletedRolesAreListed(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	id := m.read("roles/a")["role_id"].(string)
	m.must(logical.DeleteOperation, "roles/a", nil)
	got := m.must(logical.ListOperation, "restore/", nil)
	if !slices.Equal(got["keys"].([]string), []string{id}) || got["key_info"].(map[string]any)[id].(map[string]any)["role"] != "a" {
		t.Fatal(got)
	}
	m.write("restore/"+id, map[string]any{"request_id": "undo-delete-1"})
	if got := m.must(logical.ListOperation, "restore/", nil); got["keys"] != nil {
		t.Fatal(got)
	}
	m.must(logical.DeleteOperation, "roles/a", nil)
	m.clock.advance(24 * time.Hour)
	if got := m.must(logical.ListOperation, "restore/", nil); got["keys"] != nil {
		t.Fatal("listed after its time")
	}
}

func TestBulkKillsGoFirstAndCanBeStopped(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	slow := m.write("bulk", map[string]any{"action": "rotate", "name_prefix": "a", "dry_run": false})["job"].(string)
	kill := m.write("bulk", map[string]any{"action": "revoke", "name_prefix": "a", "rotate": false, "dry_run": false})["job"].(string)
	m.must(logical.DeleteOperation, "bulk/"+slow, nil)
	m.run(time.Minute)
	m.expectVerdict(key, "REVOKED")
	m.expectStates("a", "revoked")
	if got := m.read("bulk/" + slow)["state"]; got != "stopped" {
		t.Fatal(got)
	}
	if got := m.read("bulk/" + kill)["state"]; got != "done" {
		t.Fatal(got)
	}
}

func TestBulkDisableAndEnable(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	m.write("bulk", map[string]any{"action": "disable", "roles": "a", "dry_run": false})
	m.run(time.Minute)
	m.expectVerdict(key, "DISABLED")
	m.write("bulk", map[string]any{"action": "enable", "roles": "a", "dry_run": false})
	m.run(time.Minute)
	m.expectVerdict(key, "VALID")
}

func TestBulkOffboarding(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.request.EntityID = "entity-leaver"
	leaver := m.lease("d", nil).Data["api_key"]
	m.request.EntityID = "entity-stayer"
	stayer := m.lease("d", nil).Data["api_key"]
	job := m.write("bulk", map[string]any{"action": "revoke", "issued_to": "entity-leaver", "dry_run": false})["job"].(string)
	m.run(time.Minute)
	m.expectVerdict(leaver, "REVOKED")
	m.expectVerdict(stayer, "VALID")
	if got := m.read("bulk/" + job); number(t, got["keys"]) != 1 {
		t.Fatal(got)
	}
}

// TestBulkRefusals: whatever is wrong with a job is told before anything is made
// of it, dry run or not, and always the same.
func TestBulkRefusals(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"owner": "team", "scopes": "*"})
	names := make([]string, 12)
	for i := range names {
		names[i] = fmt.Sprintf("gone-%02d", i)
	}
	rotate := func(fields ...any) map[string]any {
		data := map[string]any{"action": "rotate", "owner": "team"}
		for i := 0; i < len(fields); i += 2 {
			data[fields[i].(string)] = fields[i+1]
		}
		return data
	}
	for _, c := range []struct {
		data map[string]any
		want string
	}{
		{map[string]any{"action": "destroy", "owner": "x"}, `action: "destroy": must be one of rotate, revoke, disable, enable`},
		{map[string]any{"owner": "x"}, "action: is missing"},
		{map[string]any{"action": "", "owner": "x"}, "action: is empty"},
		{map[string]any{"action": "Revoke", "owner": "x"}, `action: "Revoke"`},
		{map[string]any{"action": "rotate"}, "nothing selects"},
		{map[string]any{"action": "rotate", "owner": nil, "roles": nil}, "nothing selects"},
		{map[string]any{"action": "rotate", "issued_to": "x"}, "goes with revoke only"},
		{map[string]any{"action": "revoke", "owner": "x", "grace_period": 5}, "goes with rotate only"},
		{map[string]any{"action": "revoke", "roles": "NO"}, `roles: "NO"`},
		{map[string]any{"action": "revoke", "owner": "x", "pace": -1}, "pace: -1"},
		{rotate("pace", 10001), "pace: 10001"},
		{rotate("pace", ""), "pace: is empty"},
		{rotate("pace", 1.5), "pace: 1.5"},
		{rotate("dry_run", ""), "dry_run: is empty"},
		{rotate("dry_run", " "), "dry_run: is empty"},
		{rotate("dry_run", "no"), `dry_run: "no"`},
		{rotate("dry_run", 2), "dry_run: 2"},
		{rotate("issued_to", ""), "issued_to: is empty"},
		{map[string]any{"action": "revoke", "owner": "team", "issued_to": ""}, "issued_to: is empty"},
		{map[string]any{"action": "revoke", "owner": "team", "issued_to": "  "}, "issued_to: is empty"},
		{rotate("owner", ""), "owner: is empty"},
		{rotate("owner", "\t"), "owner: is empty"},
		{rotate("name_prefix", ""), "name_prefix: is empty"},
		{rotate("name_prefix", "A"), `name_prefix: "A": no role's name begins so`},
		{rotate("name_prefix", "/"), `name_prefix: "/"`},
		{rotate("scope", ""), "scope: is empty"},
		{rotate("scope", ":"), `scope: ":": must be segments`},
		{rotate("scope", "a::b"), `scope: "a::b"`},
		{rotate("scope", "*:a"), `scope: "*:a"`},
		{rotate("metadata", ""), "metadata: is empty"},
		{rotate("metadata", map[string]any{}), "metadata: is empty"},
		{rotate("metadata", map[string]any{"": "x"}), `metadata: "": a name is empty`},
		{rotate("metadata", map[string]any{"tier": ""}), `metadata: "tier": the value of this name is empty`},
		{rotate("metadata", "tier"), "metadata: \"tier\": is not name=value"},
		{rotate("metadata", "env=prod,team=x"), "has a comma"},
		{rotate("roles", ""), "roles: is empty"},
		{rotate("roles", []string{}), "roles: is empty"},
		{rotate("roles", "a,,b"), "has an empty element"},
		{rotate("roles", "a,gone"), "roles: no such roles: gone: correct the names"},
		{rotate("roles", strings.Join(names, ",")), "roles: no such roles: gone-00, gone-01, gone-02, gone-03, gone-04, gone-05, gone-06, gone-07, gone-08, gone-09 and 2 more"},
		{rotate("grace_period", "900ms"), "grace_period"},
		{rotate("grace_period", "-1s"), "grace_period"},
		{rotate("grace_period", "401d"), "more than 400 days"},
		{rotate("rotate", ""), "rotate: is empty"},
		{rotate("request_id", "short"), "request_id"},
		{rotate("selector", "x"), "selector: unknown field"},
		{rotate("owner", strings.Repeat("x", 70000), "issued_to", nil), "owner: has more than 65536 bytes"},
	} {
		for _, dry := range []bool{true, false} {
			data := maps.Clone(c.data)
			if _, asked := data["dry_run"]; !asked {
				data["dry_run"] = dry
			}
			m.unchanged(func() { m.refused(logical.UpdateOperation, "bulk", data, c.want) })
		}
	}
}

// TestBulkHoldsAKeyInNoSelector: of several that do, always the same is told.
func TestBulkHoldsAKeyInNoSelector(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"].(string)
	for range 20 {
		m.refused(logical.UpdateOperation, "bulk", map[string]any{"action": "revoke", "owner": key, "issued_to": key, "metadata": map[string]any{"k": key}}, "issued_to: holds an API key")
		m.refused(logical.UpdateOperation, "bulk", map[string]any{"action": "revoke", "owner": key, "metadata": map[string]any{"k": key}}, "metadata: holds an API key")
		m.refused(logical.UpdateOperation, "bulk", map[string]any{"action": "revoke", "scope": key}, "scope:")
	}
}

// TestBulkTakesNullForAbsent: above all the dry run.
func TestBulkTakesNullForAbsent(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"owner": "team"})
	got := m.write("bulk", map[string]any{"action": "revoke", "owner": "team", "dry_run": nil, "issued_to": nil, "scope": nil, "rotate": nil, "pace": nil, "roles": nil, "reason": nil})
	if got["state"] != "dry_run" || !slices.Equal(got["roles"].([]string), []string{"a"}) {
		t.Fatal(got)
	}
	m.run(2 * time.Minute)
	m.expectStates("a", "current")
}

// TestBulkReasonIsCleaned: the text that comes with a kill does not stop it.
func TestBulkReasonIsCleaned(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	resp, err := m.do(logical.UpdateOperation, "bulk", map[string]any{"action": "revoke", "roles": "a", "dry_run": false, "reason": "left\u0000\u202e" + strings.Repeat("x", 600)})
	if err != nil || resp.IsError() || len(resp.Warnings) == 0 {
		t.Fatal(resp, err)
	}
	if got := []rune(resp.Data["reason"].(string)); len(got) != 512 || strings.ContainsAny(string(got), "\u0000\u202e") {
		t.Errorf("%q", string(got))
	}
	m.run(time.Minute)
	m.expectStates("a", "revoked current")
}

// TestBulkGraceIsBoundedByEachRole: a role refuses what rotate/<role> would refuse.
func TestBulkGraceIsBoundedByEachRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/often", map[string]any{"rotation_period": "1h", "owner": "team"})
	m.write("roles/seldom", map[string]any{"rotation_period": "90d", "owner": "team"})
	job := m.write("bulk", map[string]any{"action": "rotate", "owner": "team", "grace_period": "10h", "dry_run": false})["job"].(string)
	m.run(time.Minute)
	got := m.read("bulk/" + job)
	if number(t, got["acted"]) != 1 || number(t, got["failed"]) != 1 || !strings.Contains(fmt.Sprint(got["failures"]), "nine times") {
		t.Error(got)
	}
	m.expectStates("often", "current")
	m.expectStates("seldom", "previous current")
}

// TestBulkRoleThatGoesMeanwhile is a failure of the job, whose request can still
// be repeated.
func TestBulkRoleThatGoesMeanwhile(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	m.write("roles/b", nil)
	params := map[string]any{"action": "revoke", "roles": "a,b", "dry_run": false, "request_id": "incident-18"}
	job := m.write("bulk", params)["job"].(string)
	m.must(logical.DeleteOperation, "roles/b", nil)
	if again := m.write("bulk", params); again["job"] != job || again["replayed"] != true {
		t.Error(again)
	}
	m.run(time.Minute)
	got := m.read("bulk/" + job)
	if number(t, got["acted"]) != 1 || number(t, got["failed"]) != 1 || !strings.Contains(fmt.Sprint(got["failures"]), `role "b" does not exist`) {
		t.Error(got)
	}
}

// storeJobs stores jobs of that kind.
func (m *testMount) storeJobs(n int, action, state string) (ids []string) {
	m.t.Helper()
	for i := range n {
		job := &jobRecord{
			Schema: 1, ID: fmt.Sprintf("%s-%s-%03d", action, state, i), Action: action, Select: selector{Owner: "nobody"}, State: state, Created: m.clock.Now(),
		}
		if state != jobRunning {
			job.Finished = m.clock.Now().Add(time.Duration(i) * time.Second)
		}
		if err := putRecord(context.Background(), m.storage, jobPath(job.ID), job); err != nil {
			m.t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	m.jobs.forget()
	return ids
}

// TestFinishedJobsMakeRoom: the oldest go first, and a kill never waits for any.
func TestFinishedJobsMakeRoom(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	ended := m.storeJobs(100, bulkRotate, jobDone)
	kill := map[string]any{"action": "revoke", "roles": "a", "rotate": false, "dry_run": false}
	m.write("bulk", kill)
	kept := m.under(jobPrefix)
	if len(kept) != 100 || slices.Contains(kept, jobPath(ended[0])) || !slices.Contains(kept, jobPath(ended[1])) {
		t.Errorf("%d jobs are kept; the oldest: %v", len(kept), slices.Contains(kept, jobPath(ended[0])))
	}
	m.run(time.Minute)
	m.expectVerdict(key, "REVOKED")
	m.write("bulk", map[string]any{"action": "enable", "roles": "a", "dry_run": false})
	if kept := m.under(jobPrefix); len(kept) != 100 || slices.Contains(kept, jobPath(ended[1])) {
		t.Errorf("%d jobs are kept", len(kept))
	}
}

func TestRunningJobsAreBoundedButForKills(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	m.storeJobs(100, bulkRotate, jobRunning)
	m.refused(logical.UpdateOperation, "bulk", map[string]any{"action": "enable", "roles": "a", "dry_run": false}, "100 jobs that end no keys are running")
	m.storeJobs(899, bulkRevoke, jobRunning)
	kill := map[string]any{"action": "revoke", "roles": "a", "dry_run": false}
	m.write("bulk", kill)
	m.refused(logical.UpdateOperation, "bulk", kill, "there are 1000 jobs: delete some")
	if kept := m.under(jobPrefix); len(kept) != 1000 {
		t.Errorf("%d jobs are kept: none of those that run may go", len(kept))
	}
}

// TestUnreadableJobStopsNoKill: a record of a newer build, or one that storage
// does not give.
func TestUnreadableJobStopsNoKill(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/a", nil)
	newer := json.RawMessage(`{"schema":7,"id":"later","state":{"what":"ever"}}`)
	if err := putRecord(context.Background(), m.storage, jobPath("later"), newer); err != nil {
		t.Fatal(err)
	}
	kill := map[string]any{"action": "revoke", "roles": "a", "dry_run": false, "request_id": "incident-19"}
	job := m.write("bulk", kill)["job"].(string)
	if again := m.write("bulk", kill); again["job"] != job || again["replayed"] != true {
		t.Error(again)
	}
	if _, info, _ := m.listed("bulk/", nil); info["later"]["state"] != "unreadable" || info[job]["state"] != "running" {
		t.Error(info)
	}
	// Whether it was made before cannot be known of one that kills nothing.
	if _, err := m.do(logical.UpdateOperation, "bulk", map[string]any{"action": "enable", "roles": "a", "dry_run": false, "request_id": "incident-20"}); err == nil {
		t.Error("a job was made that may be one that cannot be read")
	}
	m.write("bulk", map[string]any{"action": "enable", "roles": "a", "dry_run": false})
	m.clock.advance(time.Minute)
	_ = ticking(m, nil) // it tells of the record, and goes on with the others
	m.expectStates("a", "revoked current")
	if got := m.read("bulk/" + job)["state"]; got != "done" {
		t.Error(got)
	}

	m.storeJobs(99, bulkRotate, jobDone)
	start, faults := dump(t, m.storage), 0
	for n := 1; ; n++ {
		p = newProbe(copyStorage(t, start))
		m = mountOn(t, p, m.clock)
		p.arm(n, faultFail)
		_, err := m.do(logical.UpdateOperation, "bulk", map[string]any{"action": "revoke", "roles": "a", "dry_run": false})
		hit, call := p.hit(), p.log[len(p.log)-1]
		if n <= len(p.log) {
			call = p.log[n-1]
		}
		p.reset()
		if !hit {
			break
		}
		faults++
		if err != nil && !strings.HasPrefix(call, "put ") {
			t.Errorf("a kill was refused because %s failed: %v", call, err)
		}
	}
	if faults < 100 {
		t.Errorf("%d calls failed", faults)
	}
}
