// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// The kinds of keys of role "r".
var keyKinds = map[string]func(m *testMount, fields map[string]any) string{
	"static": func(m *testMount, fields map[string]any) string {
		m.write("roles/r", fields)
		return m.read("creds/r")["api_key"].(string)
	},
	"foreign": func(m *testMount, fields map[string]any) string {
		m.write("roles/r", fields)
		key := foreignKey(m.t, 40)
		if got := m.importItems(map[string]any{"role": "r", "key": key})[0]; got["result"] != importDone {
			m.t.Fatal(got)
		}
		return key
	},
	"dynamic": func(m *testMount, fields map[string]any) string {
		fields["type"], fields["ttl"] = policy.Dynamic, "20h"
		m.write("roles/r", fields)
		return m.lease("r", nil).Data["api_key"].(string)
	},
}

// The states of role "r" in which something closing comes.
var roleStates = map[string]func(m *testMount) (id string){
	"live":    func(m *testMount) string { return m.roleID("r") },
	"deleted": func(m *testMount) string { id, _ := m.remove("r"); return id },
	"restored": func(m *testMount) string {
		id, _ := m.remove("r")
		m.write("restore/"+id, nil)
		return id
	},
	"created anew": func(m *testMount) string {
		id, _ := m.remove("r")
		m.write("roles/r", nil)
		return id
	},
	"renamed there and back": func(m *testMount) string { m.rename("r", "n"); return m.rename("n", "r") },
	"renamed, deleted": func(m *testMount) string {
		m.rename("r", "n")
		m.rename("n", "r")
		id, _ := m.remove("r")
		return id
	},
	"deleted twice": func(m *testMount) string {
		id, _ := m.remove("r")
		m.write("roles/r", nil)
		m.remove("r")
		return id
	},
}

// bringBack makes the role with that id live, whatever stands in its way.
func (m *testMount) bringBack(id string) {
	m.t.Helper()
	if m.status(logical.ReadOperation, "roles/r", nil) == 200 {
		if m.roleID("r") == id {
			return
		}
		m.expectVerdict(m.read("creds/r")["api_key"], "VALID") // the new role's
		m.remove("r")
	}
	m.write("restore/"+id, nil)
}

// keyIDOf is the public id of a key, its own form or not.
func (m *testMount) keyIDOf(key string) string {
	m.t.Helper()
	return m.write("lookup", map[string]any{"key": key})["key_id"].(string)
}

func jsonText(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// closings are the ways in which a key can be ended by who holds it.
var closings = map[string]func(m *testMount, key, id string){
	"report": func(m *testMount, key, _ string) { m.expectReport(key, leakActed) },
	"matches": func(m *testMount, key, _ string) {
		got := m.write("report", map[string]any{"matches": []any{map[string]any{"token": key}}})["results"].([]string)
		if len(got) != 1 || got[0] != leakActed {
			m.t.Fatal(got)
		}
	},
	"batch": func(m *testMount, key, _ string) {
		got := m.write("report", map[string]any{"batch": jsonText(m.t, []any{map[string]any{"key": key}})})["results"].([]string)
		if len(got) != 1 || got[0] != leakActed {
			m.t.Fatal(got)
		}
	},
	"revoke by id":  func(m *testMount, _, id string) { m.write("revoke/r", map[string]any{"key_id": id}) },
	"revoke by key": func(m *testMount, key, _ string) { m.write("revoke/r", map[string]any{"key_id": key}) },
	"release": func(m *testMount, key, id string) {
		m.write("config", map[string]any{"max_leak_actions": 0})
		m.expectReport(key, leakDeferred)
		got := m.write("report/release", map[string]any{"key_ids": id})["results"].(map[string]any)
		if got[id] != leakActed {
			m.t.Fatal(got)
		}
	},
}

// TestWhatClosesReachesTheKeyWhateverItsRoleIs: after the role is there again, its
// key is dead for good, and only that one.
func TestWhatClosesReachesTheKeyWhateverItsRoleIs(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for state, bring := range roleStates {
			for closing, end := range closings {
				t.Run(kind+"/"+state+"/"+closing, func(t *testing.T) {
					t.Parallel()
					m := newMount(t)
					m.write("roles/other", nil)
					other := m.read("creds/other")["api_key"]
					key := newKey(m, map[string]any{"rotation_period": 0})
					keyID := m.keyIDOf(key)
					id := bring(m)
					m.clock.advance(time.Minute)
					stored := len(m.under(secretPrefix))
					end(m, key, keyID)
					// The plaintext of the one that was killed goes, and none is made.
					if state == "deleted" && kind != "dynamic" && len(m.under(secretPrefix)) != stored-1 {
						t.Error("a key was made for a role that is deleted")
					}
					m.endsForGood(key, keyID, id, kind)
					m.expectVerdict(other, "VALID")
				})
			}
		}
	}
}

// endsForGood restores the role and expects its key to be dead, on this node and
// the next.
func (m *testMount) endsForGood(key, keyID, roleID, kind string) {
	m.t.Helper()
	for _, value := range dump(m.t, m.storage) {
		if kind != "dynamic" && strings.Contains(value, `"key":"`+key) {
			m.t.Error("the plaintext of a key that was killed is still stored")
		}
	}
	m.clock.advance(time.Minute)
	m.bringBack(roleID)
	m.expectVerdict(key, "REVOKED")
	again := m.restart()
	again.expectVerdict(key, "REVOKED")
	again.expectReport(key, leakRecorded)
	if got := again.write("lookup", map[string]any{"key_id": keyID}); got["state"] != "revoked" || got["role_deleted"] != "" {
		m.t.Errorf("lookup says %v", got)
	}
	if text := fmt.Sprint(again.read("history/r")); !strings.Contains(text, "revoked") || strings.Contains(text, key) {
		m.t.Errorf("the history: %s", text)
	}
	if kind == "dynamic" {
		again.expectVerdict(again.lease("r", nil).Data["api_key"], "VALID")
		return
	}
	fresh := again.read("creds/r")
	if fresh["key_id"] == keyID {
		m.t.Error("the key that was killed is handed out")
	}
	again.expectVerdict(fresh["api_key"], "VALID")
	again.run(3 * time.Minute)
	if again.read("creds/r")["key_id"] != fresh["key_id"] {
		m.t.Error("the key was replaced twice")
	}
}

// TestLookupWhateverTheRoleIs: asking changes nothing, and tells of hidden roles.
func TestLookupWhateverTheRoleIs(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for state, bring := range roleStates {
			t.Run(kind+"/"+state, func(t *testing.T) {
				m := newMount(t)
				key := newKey(m, map[string]any{"owner": "team-a"})
				keyID := m.keyIDOf(key)
				id := bring(m)
				hidden := m.read404("roles/r") || m.roleID("r") != id
				m.unchanged(func() {
					for _, data := range []map[string]any{{"key": key}, {"key_id": keyID}, {"key": "API_KEY=\"" + key + "\"\n"}} {
						got := m.write("lookup", data)
						if got["role_id"] != id || got["owner"] != "team-a" || got["key_id"] != keyID || got["state"] != "current" || (got["role_deleted"] != "") != hidden {
							t.Errorf("%v", got)
						}
					}
				})
			})
		}
	}
}

// TestRotateOfALeakInADeletedRole: the key gets its end at once, and its
// replacement when the role is there again.
func TestRotateOfALeakInADeletedRole(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]time.Duration{"in its grace": 10 * time.Minute, "after its grace": time.Hour} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "30m", "grace_period": "12h", "rotation_period": 0})
			key := m.read("creds/r")["api_key"].(string)
			m.write("rotate/r", map[string]any{"stage": true})
			pending := m.read("creds/r/pending")["api_key"]
			id, _ := m.remove("r")
			m.expectReport(key, leakActed)
			m.expectReport(key, leakRecorded)
			m.clock.advance(back)
			m.write("restore/"+id, nil)
			fresh := m.read("creds/r")
			if fresh["version"] != 3 {
				t.Errorf("version %v is current", fresh["version"])
			}
			m.expectVerdict(fresh["api_key"], "VALID")
			m.expectVerdict(pending, "REVOKED")
			want := "VALID"
			if back >= 30*time.Minute {
				want = "RETIRED"
			}
			m.expectVerdict(key, want)
			m.expectReport(key, leakRecorded)
			m.run(30*time.Minute - min(back, 30*time.Minute))
			m.expectVerdict(key, "RETIRED")
			if m.read("creds/r")["version"] != 3 {
				t.Error("it was replaced again")
			}
		})
	}
}

func TestAlertOfALeakInADeletedRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"on_leak": "alert", "grace_period": "1h"})
	m.write("roles/d", map[string]any{"on_leak": "alert", "type": "dynamic", "ttl": "2h"})
	key, leased := m.read("creds/r")["api_key"], m.lease("d", nil).Data["api_key"]
	static, _ := m.remove("r")
	dynamic, _ := m.remove("d")
	at := m.clock.Now()
	m.expectReport(key, leakRecorded)
	m.expectReport(leased, leakRecorded)
	m.clock.advance(time.Minute)
	m.write("restore/"+static, nil)
	m.write("restore/"+dynamic, nil)
	for _, k := range []any{key, leased} {
		m.expectVerdict(k, "VALID")
		if got := m.write("lookup", map[string]any{"key": k}); got["reported"] != stamp(at) {
			t.Errorf("reported %v", got["reported"])
		}
	}
	if list := m.problemList(); list != "r" {
		t.Errorf("nobody is told that a reported key is accepted: %q", list)
	}
	m.write("rotate/r", nil)
	m.refused(logical.UpdateOperation, "rollback/r", nil, "reported as leaked")
}

// TestRevocationInADeletedRoleWithoutReplacement leaves the role without a key.
func TestRevocationInADeletedRoleWithoutReplacement(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	creds := m.read("creds/r")
	id, _ := m.remove("r")
	resp, err := m.do(logical.UpdateOperation, "revoke/r", map[string]any{"key_id": creds["key_id"], "rotate": false})
	if err != nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "restore/"+id) || resp.Data["replaced"] != false {
		t.Fatal(resp, err)
	}
	m.write("restore/"+id, nil)
	m.expectVerdict(creds["api_key"], "REVOKED")
	m.refused(logical.ReadOperation, "creds/r", nil, "has no current key")
	m.run(3 * time.Minute)
	m.refused(logical.ReadOperation, "creds/r", nil, "has no current key")
}

// TestRevocationOfDeletedRolesNeedsAKey: versions are those of the role that has
// the name.
func TestRevocationOfDeletedRolesNeedsAKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.write("roles/s", nil)
	creds := m.read("creds/r")
	id, _ := m.remove("r")
	m.unchanged(func() {
		for path, data := range map[string]map[string]any{
			"revoke/r": {"version": 1}, "revoke/s": {"key_id": creds["key_id"]}, "revoke/t": {"key_id": creds["api_key"]},
		} {
			if got := m.status(logical.UpdateOperation, path, data); got != 404 {
				t.Errorf("%s: status %d", path, got)
			}
		}
		if got := m.status(logical.UpdateOperation, "revoke/r", map[string]any{"all": true}); got != 404 {
			t.Errorf("all: status %d", got)
		}
	})
	m.write("restore/"+id, nil)
	m.expectVerdict(creds["api_key"], "VALID")
}

// TestReplayInADeletedRole: what was done is answered again, before and after the
// restoration.
func TestReplayInADeletedRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	creds := m.read("creds/r")
	id, _ := m.remove("r")
	data := map[string]any{"key_id": creds["key_id"], "request_id": "pipeline-1"}
	first := m.write("revoke/r", data)
	for range 2 {
		again := m.write("revoke/r", data)
		if again["replayed"] != true || fmt.Sprint(again["revoked_key_ids"]) != fmt.Sprint(first["revoked_key_ids"]) {
			t.Fatal(again)
		}
		if m.status(logical.ReadOperation, "roles/r", nil) == 404 {
			m.write("restore/"+id, nil)
		}
	}
	m.refused(logical.UpdateOperation, "revoke/r", map[string]any{"version": 1, "request_id": "pipeline-1"}, "with other parameters")
}

// TestReportOfWhatIsGoneForGood: a key that is known yet cannot be imported again.
func TestReportOfWhatIsGoneForGood(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		t.Run(kind, func(t *testing.T) {
			m := newMount(t)
			m.write("config", map[string]any{"delete_recovery": 0})
			key := newKey(m, map[string]any{})
			m.remove("r")
			m.unchanged(func() {
				if got := m.status(logical.UpdateOperation, "revoke/r", map[string]any{"key_id": key}); got != 404 {
					t.Errorf("status %d", got)
				}
			})
			m.expectReport(key, leakRecorded)
			m.unchanged(func() { m.expectReport(key, leakRecorded) })
			m.expectRefusedImport(key)
			m.clock.advance(48 * time.Hour)
			m.tidyAll()
			m = m.restart()
			m.expectReport(key, leakRecorded)
			m.expectRefusedImport(key)
		})
	}
}

// expectRefusedImport: the key, which was reported, cannot come back.
func (m *testMount) expectRefusedImport(key string) {
	m.t.Helper()
	for _, role := range []string{"r", "new"} {
		if got := m.importItems(map[string]any{"role": role, "key": key})[0]; got["result"] != importRefused || !strings.Contains(fmt.Sprint(got["error"]), "found in the open") {
			m.t.Errorf("%v", got)
		}
	}
	if got := m.verdict(key); got == "VALID" {
		m.t.Error("the key is good again")
	}
}

// TestWhatClosedADeletedRoleOutlivesIt: once the role is gone for good its key cannot
// be imported.
func TestWhatClosedADeletedRoleOutlivesIt(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for _, onLeak := range []string{policy.LeakRevoke, policy.LeakRotate, policy.LeakAlert} {
			t.Run(kind+"/"+onLeak, func(t *testing.T) {
				m := newMount(t)
				key := newKey(m, map[string]any{"on_leak": onLeak, "leak_grace_period": "100h"})
				m.remove("r")
				m.clock.advance(time.Minute)
				m.write("report", map[string]any{"key": key})
				m.run(24*time.Hour + 2*time.Minute)
				m.expectRefusedImport(key)
				m.clock.advance(48 * time.Hour)
				m.tidyAll()
				m.expectRefusedImport(key)
			})
		}
	}
}

// TestReportOfWhatAnImportTookOver: this node has not been told yet whose the key is
// now.
func TestReportOfWhatAnImportTookOver(t *testing.T) {
	for _, name := range []string{"r", "new"} {
		m := newMount(t)
		m.write("config", map[string]any{"delete_recovery": 0})
		key := keyKinds["foreign"](m, map[string]any{})
		m.remove("r")
		m.expectVerdict(key, "NOT_FOUND") // and remembers whose it was
		other := m.restart()
		if got := other.importItems(map[string]any{"role": name, "key": key})[0]; got["result"] != importDone {
			t.Fatal(got)
		}
		m.expectReport(key, leakActed)
		m.restart().expectVerdict(key, "REVOKED")
	}
}

// meddling does something at a node's first Get of a kind of record.
type meddling struct {
	logical.Storage
	prefix string
	act    func()
}

func (s *meddling) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if act := s.act; act != nil && strings.HasPrefix(key, s.prefix) {
		s.act = nil
		act()
	}
	return s.Storage.Get(ctx, key)
}

// TestRoleChangesBetweenTheLookAndTheLock: whichever role the key's is by then, it
// is dealt with.
func TestRoleChangesBetweenTheLookAndTheLock(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for before, bring := range roleStates {
			for _, then := range []string{"delete", "restore", "create anew"} {
				for _, closing := range []string{"report", "revoke by id", "revoke by key"} {
					if kind == "dynamic" && closing == "revoke by key" {
						continue // looks for the key under the role's lock only
					}
					t.Run(strings.Join([]string{kind, before, then, closing}, "/"), func(t *testing.T) {
						t.Parallel()
						s := &meddling{Storage: &logical.InmemStorage{}, prefix: keyPrefix}
						m := mountOn(t, s, newFakeClock())
						key := newKey(m, map[string]any{"rotation_period": 0})
						keyID := m.keyIDOf(key)
						id := bring(m)
						m = m.restart() // with nothing cached
						s.act = func() {
							live := m.status(logical.ReadOperation, "roles/r", nil) == 200
							switch {
							case then == "restore":
								m.bringBack(id)
							case live:
								m.remove("r")
								fallthrough
							default:
								if then == "create anew" {
									m.write("roles/r", nil)
								}
							}
						}
						closings[closing](m, key, keyID)
						if s.act != nil && closing == "report" {
							t.Fatal("nothing happened in between")
						}
						m.endsForGood(key, keyID, id, kind)
					})
				}
			}
		}
	}
}
