// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
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
	m.write("bulk", map[string]any{"action": "enable", "roles": "a,gone", "dry_run": false})
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

func TestBulkRefusals(t *testing.T) {
	m := newMount(t)
	for _, c := range []struct {
		data map[string]any
		want string
	}{
		{map[string]any{"action": "destroy", "owner": "x"}, `action: "destroy"`},
		{map[string]any{"action": "rotate"}, "nothing selects"},
		{map[string]any{"action": "rotate", "issued_to": "x"}, "goes with revoke only"},
		{map[string]any{"action": "revoke", "owner": "x", "grace_period": 5}, "goes with rotate only"},
		{map[string]any{"action": "revoke", "roles": "NO"}, `roles: "NO"`},
		{map[string]any{"action": "revoke", "owner": "x", "pace": -1}, "pace: -1"},
	} {
		m.refused(logical.UpdateOperation, "bulk", c.data, c.want)
	}
}
