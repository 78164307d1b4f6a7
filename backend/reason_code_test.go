// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// codedKill kills the key of the role r, current and static unless it says
// otherwise, with a reason code, or without one where that is empty.
type codedKill struct {
	role map[string]any
	kill func(m *testMount, key, id string, data map[string]any)
	// none is the code where the request names none.
	none string
}

func coded(data map[string]any, more map[string]any) map[string]any {
	all := map[string]any{}
	for name, v := range data {
		all[name] = v
	}
	for name, v := range more {
		all[name] = v
	}
	return all
}

var dynamicRole = map[string]any{"type": "dynamic"}

var codedKills = map[string]codedKill{
	"revoke a version": {kill: func(m *testMount, _, _ string, data map[string]any) {
		m.write("revoke/r", coded(data, map[string]any{"version": 1}))
	}, none: "unspecified"},
	"revoke by key id": {kill: func(m *testMount, _, id string, data map[string]any) {
		m.write("revoke/r", coded(data, map[string]any{"key_id": id}))
	}, none: "unspecified"},
	"revoke all": {kill: func(m *testMount, _, _ string, data map[string]any) {
		m.write("revoke/r", coded(data, map[string]any{"all": true}))
	}, none: "unspecified"},
	"report": {kill: func(m *testMount, key, _ string, data map[string]any) {
		m.write("report", coded(data, map[string]any{"key": key}))
	}, none: "leaked"},
	"release": {kill: func(m *testMount, key, id string, data map[string]any) {
		m.write("config", map[string]any{"max_leak_actions": 1})
		m.write("roles/other", nil)
		m.expectReport(m.read("creds/other")["api_key"], "acted")
		m.expectReport(key, "deferred")
		m.write("report/release", coded(data, map[string]any{"key_ids": id}))
	}, none: "leaked"},
	"bulk": {kill: func(m *testMount, _, _ string, data map[string]any) {
		m.write("bulk", coded(data, map[string]any{"action": "revoke", "roles": "r", "dry_run": false}))
		m.run(3 * time.Minute)
	}, none: "unspecified"},
	"a dynamic key": {role: dynamicRole, kill: func(m *testMount, _, id string, data map[string]any) {
		m.write("revoke/r", coded(data, map[string]any{"key_id": id}))
	}, none: "unspecified"},
	"a generation": {role: dynamicRole, kill: func(m *testMount, _, _ string, data map[string]any) {
		m.write("revoke/r", coded(data, map[string]any{"version": 1}))
	}, none: "unspecified"},
	"report of a dynamic key": {role: dynamicRole, kill: func(m *testMount, key, _ string, data map[string]any) {
		m.write("report", coded(data, map[string]any{"key": key}))
	}, none: "leaked"},
	"bulk, issued to somebody": {role: dynamicRole, kill: func(m *testMount, _, _ string, data map[string]any) {
		m.write("bulk", coded(data, map[string]any{"action": "revoke", "issued_to": "token-operator", "dry_run": false}))
		m.run(3 * time.Minute)
	}, none: "unspecified"},
	"a report while the role is deleted": {kill: func(m *testMount, key, _ string, data map[string]any) {
		id, _ := m.remove("r")
		m.write("report", coded(data, map[string]any{"key": key}))
		m.write("restore/"+id, nil)
	}, none: "leaked"},
}

func (m *testMount) keyOf(dynamic bool) (key, id string) {
	got := m.read("creds/r")
	if dynamic {
		got = m.lease("r", nil).Data
	}
	return got["api_key"].(string), got["key_id"].(string)
}

// Whatever kills a key tells verify why, and lookup, and the history; and that
// holds after a restart, and when the role has forgotten the version.
func TestReasonCodeOfKills(t *testing.T) {
	for what, c := range codedKills {
		for _, code := range []string{"", "unspecified", "leaked", "offboarded", "superseded", "abuse", "policy"} {
			t.Run(what+"/"+code, func(t *testing.T) {
				m := newMount(t)
				m.write("roles/r", coded(map[string]any{"owner": "a"}, c.role))
				key, id := m.keyOf(c.role != nil)
				data, want := map[string]any{"reason": "for a test"}, c.none
				if what == "report" || strings.HasPrefix(what, "report") || strings.HasPrefix(what, "a report") {
					data = map[string]any{}
				}
				if code != "" {
					data["reason_code"], want = code, code
				}
				c.kill(m, key, id, data)
				check := func() {
					t.Helper()
					if got := m.ask(key); got["code"] != "REVOKED" || got["reason"] != want {
						t.Errorf("verify: %v, want REVOKED, %s", got, want)
					}
					if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != want || got["state"] != "revoked" {
						t.Errorf("lookup: %v, want %s", got, want)
					}
				}
				check()
				m = m.restart()
				check()
				if what == "bulk, issued to somebody" {
					return // the history does not tell of single keys there
				}
				entries, _ := m.entriesOf("history/r", nil)
				told := ""
				for _, e := range entries {
					if e["kind"] == "revoked" && told == "" {
						told = e["reason_code"].(string)
					}
				}
				if told != want && (code != "" || told != "") {
					t.Errorf("history: %q, want %q", told, want)
				}
				if c.role != nil {
					return
				}
				if got := m.read("status/r")["versions"].([]any); got[len(got)-1].(map[string]any)["reason_code"] != want {
					t.Errorf("status: %v", got[len(got)-1])
				}
				for range keepEnded + 3 {
					m.write("rotate/r", map[string]any{"grace_period": 0})
				}
				m.run(2 * time.Hour)
				m.write("rotate/r", map[string]any{"grace_period": 0})
				if m.record("r").Ring.Get(1) != nil {
					t.Fatal("the version is not forgotten yet")
				}
				check()
			})
		}
	}
}

// A version that is ended without being killed keeps why, too.
func TestReasonCodeOfOtherEnds(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	first, id := m.keyOf(false)
	m.write("rotate/r", map[string]any{"grace_period": 0, "reason_code": "offboarded"})
	if got := m.ask(first); got["code"] != "RETIRED" || got["reason"] != "superseded" {
		t.Errorf("verify: %v", got)
	}
	if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != "offboarded" || got["reason"] != "superseded" {
		t.Errorf("lookup: %v", got)
	}
	_, id = m.keyOf(false)
	m.write("rotate/r", nil)
	m.write("grace/r", map[string]any{"valid_until": 0, "reason_code": "policy"})
	if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != "policy" {
		t.Errorf("lookup: %v", got)
	}
	// One that a rotation took the place of.
	m.write("rotate/r", map[string]any{"stage": true})
	staged := m.read("creds/r/pending")["api_key"]
	m.write("rotate/r", nil)
	if got := m.ask(staged); got["code"] != "REVOKED" || got["reason"] != "superseded" {
		t.Errorf("a pending version: %v", got)
	}
	// What the clock ends has none.
	_, id = m.keyOf(false)
	m.write("rotate/r", map[string]any{"grace_period": "1h", "reason_code": "abuse"})
	m.run(61 * time.Minute)
	if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != "" || got["reason"] != "grace_ended" {
		t.Errorf("after its grace: %v", got)
	}
}

func TestReasonCodeOfDeletion(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key, id := m.keyOf(false)
	roleID := m.must(logical.DeleteOperation, "roles/r", map[string]any{"reason_code": "offboarded"})["role_id"].(string)
	entries, _ := m.entriesOf("history/r", map[string]any{"role_id": roleID})
	if e := entries[0]; e["kind"] != "role_deleted" || e["reason_code"] != "offboarded" {
		t.Errorf("history: %v", e)
	}
	if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != "offboarded" || got["role_deleted"] == "" {
		t.Errorf("lookup: %v", got)
	}
	m.write("restore/"+roleID, nil)
	m.expectVerdict(key, "VALID")
	if got := m.write("lookup", map[string]any{"key_id": id}); got["reason_code"] != "" {
		t.Errorf("restored: %v", got)
	}
	m.refused(logical.ReadOperation, "roles/r", map[string]any{"reason_code": "leaked"}, "reason_code", "goes with DELETE")
	m.refused(logical.DeleteOperation, "roles/r", map[string]any{"reason_code": "bored"}, "reason_code", "unspecified, leaked")
	m.refused(logical.UpdateOperation, "revoke/r", map[string]any{"all": true, "reason_code": ""}, "reason_code: is empty")
	m.expectVerdict(key, "VALID")
}

// A later kill without a code leaves the one that there was.
func TestReasonCodeStays(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"on_leak": "rotate"})
	key, _ := m.keyOf(false)
	m.expectReport(key, "acted")
	m.write("revoke/r", map[string]any{"version": 1})
	if got := m.ask(key); got["reason"] != string(keyring.Leaked) {
		t.Errorf("reported, then revoked: %v", got)
	}
}
