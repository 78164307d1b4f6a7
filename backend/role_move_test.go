// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// rename deletes the role and brings it back under another name.
func (m *testMount) rename(from, to string) (id string) {
	m.t.Helper()
	id, _ = m.remove(from)
	got := m.write("restore/"+id, map[string]any{"name": to, "reason": "renamed"})
	if got["role"] != to || got["role_id"] != id || got["restored"] != true || got["renamed_from"] != from {
		m.t.Fatalf("renamed: %v", got)
	}
	return id
}

// livesAs expects the role with that id at one name alone.
func (m *testMount) livesAs(id, name string) {
	m.t.Helper()
	found := []string{}
	for _, path := range m.under(rolePrefix) {
		at := strings.TrimPrefix(path, rolePrefix)
		if m.status(logical.ReadOperation, "roles/"+at, nil) == 200 && m.read("roles/" + at)["role_id"] == id {
			found = append(found, at)
		}
	}
	if !slices.Equal(found, []string{name}) {
		m.t.Errorf("the role lives as %v, want %s", found, name)
	}
}

// What comes after a rename, in which nothing may be lost.
var afterRename = map[string]func(m *testMount) *testMount{
	"at once":          func(m *testMount) *testMount { return m },
	"after a restart":  (*testMount).restart,
	"old name in use":  func(m *testMount) *testMount { m.write("roles/r", nil); return m },
	"after the purge":  func(m *testMount) *testMount { m.run(25 * time.Hour); return m.restart() },
	"old name purged":  func(m *testMount) *testMount { m.write("roles/r", nil); m.remove("r"); m.run(25 * time.Hour); return m },
	"after tidy":       func(m *testMount) *testMount { m.run(26 * time.Hour); m.tidyAll(); return m.restart() },
	"an older commit":  func(m *testMount) *testMount { m.asOlderBuild(rolePath("n"), "moved"); return m.restart() },
	"renamed on":       func(m *testMount) *testMount { m.rename("n", "x"); m.rename("x", "n"); return m },
	"by way of r":      func(m *testMount) *testMount { m.rename("n", "r"); m.tidyAll(); m.rename("r", "n"); return m },
	"deleted and back": func(m *testMount) *testMount { id, _ := m.remove("n"); m.write("restore/"+id, nil); return m },
	"copy left": func(m *testMount) *testMount { // by a crash before the copy was removed
		rec := *m.record("n")
		rec.Name, rec.Moved = "r", nil
		rec.Deleted, rec.PurgeAt = m.clock.Now(), m.clock.Now().Add(24*time.Hour)
		rec.Due = m.fileAt(rec.PurgeAt)
		plant(m.t, m.storage, deletedPath(rec.ID), &rec)
		plant(m.t, m.storage, duePath(rec.Due, deletedMark+rec.ID), &indexEntry{Schema: 1})
		m.run(25 * time.Hour)
		m.tidyAll()
		return m.restart()
	},
}

// Everything that leads from a key to its role leads to the name that it has now.
func TestRenamedRoleKeepsItsKeys(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for what, happens := range afterRename {
			t.Run(kind+"/"+what, func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				key := newKey(m, map[string]any{"rotation_period": 0, "owner": "team-a", "scopes": "x", "ttl": "0"})
				if kind == "dynamic" {
					m = newMount(t)
					m.write("roles/r", map[string]any{"type": "dynamic", "ttl": "47h", "owner": "team-a", "scopes": "x"})
					key = m.lease("r", nil).Data["api_key"].(string)
				}
				keyID := m.keyIDOf(key)
				m.expectVerdict(key, "VALID")
				m.clock.advance(time.Minute)
				id := m.rename("r", "n")
				m = happens(m)
				m.livesAs(id, "n")

				got := m.write("verify", map[string]any{"key": key})
				if got["code"] != "VALID" || got["role"] != "n" || got["role_id"] != id || got["key_id"] != keyID {
					t.Errorf("verify: %v", got)
				}
				for path, want := range map[string]string{"verify/n": "VALID", "verify/r": "NOT_FOUND", "verify/x": "NOT_FOUND"} {
					for range 2 {
						for _, fresh := range []bool{false, true} {
							if got := m.write(path, map[string]any{"key": key, "fresh": fresh}); got["code"] != want {
								t.Errorf("%s, fresh %t: %v, want %s", path, fresh, got["code"], want)
							}
						}
						state := map[string]string{"VALID": "STATE"}[want]
						if got := m.write(path, map[string]any{"key_id": keyID, "role_id": id}); state != "" && got["code"] != state || state == "" && got["code"] != want {
							t.Errorf("%s by id: %v", path, got["code"])
						}
					}
				}
				for _, data := range []map[string]any{{"key": key}, {"key_id": keyID}} {
					if got := m.write("lookup", data); got["role"] != "n" || got["owner"] != "team-a" || got["role_deleted"] != "" || got["state"] != "current" {
						t.Errorf("lookup: %v", got)
					}
				}
				if got := m.reportUse(1, keyID, 3); got["applied"] != true || fmt.Sprint(got["results"]) != "[map[ok:true]]" {
					t.Errorf("usage: %v", got)
				}
				m.run(16 * time.Minute)
				m = m.restart()
				if got := m.write("lookup", map[string]any{"key_id": keyID}); !strings.Contains(fmt.Sprint(got["usage"]), "accepted:3") {
					t.Errorf("usage: %v", got["usage"])
				}
				if st := m.read("status/n"); (st["renamed_from"] == "" || st["renamed"] == "") && what != "an older commit" {
					t.Errorf("status: %v from %v", st["renamed"], st["renamed_from"])
				}
				if kind != "foreign" {
					m.importItems(map[string]any{"role": "elsewhere", "key": key}) // refused
				}
				if result := m.importItems(map[string]any{"role": "elsewhere", "key": key})[0]["result"]; result == importDone {
					t.Error("the key of a renamed role was imported into another one")
				}
				m.expectVerdict(key, "VALID")
				if kind == "static" && what != "an older commit" {
					if got := m.read("creds/n"); got["api_key"] != key || got["role"] != "n" {
						t.Errorf("creds: %v", got["role"])
					}
				}

				// And every way to end it.
				m.refused404("revoke/r", map[string]any{"key_id": keyID})
				m.expectVerdict(key, "VALID")
				m.write("config", map[string]any{"max_leak_actions": 0})
				m.expectReport(key, leakDeferred)
				_, waiting, _ := m.listed("report/deferred/", nil)
				if waiting[keyID]["role"] != "n" {
					t.Errorf("it waits as %v", waiting)
				}
				m.tidyAll()
				if got := m.write("report/release", map[string]any{"key_ids": keyID})["results"].(map[string]any); got[keyID] != leakActed {
					t.Errorf("released: %v", got)
				}
				m.expectVerdict(key, "REVOKED")
				m.restart().expectVerdict(key, "REVOKED")
				if kinds := kindsOf(firstOf(m.entriesOf("history/n", nil))); !slices.Contains(kinds, eventRoleRenamed) && what != "copy left" {
					t.Errorf("the history: %v", kinds)
				}
				m.run(3 * time.Hour)
				m.tidyAll()
				m.expectVerdict(key, "REVOKED")
			})
		}
	}
}

func firstOf(entries []map[string]any, _ int) []map[string]any { return entries }

func (m *testMount) refused404(path string, data map[string]any) {
	m.t.Helper()
	if got := m.status(logical.UpdateOperation, path, data); got != 404 {
		m.t.Errorf("%s: %d, want 404", path, got)
	}
}

// A key of a renamed role is killed by its id, whether the role lives or was deleted
// again.
func TestRevokeAfterARename(t *testing.T) {
	t.Parallel()
	for kind, newKey := range keyKinds {
		for _, deleted := range []bool{false, true} {
			for _, whole := range []bool{false, true} {
				m := newMount(t)
				key := newKey(m, map[string]any{"rotation_period": 0})
				keyID := m.keyIDOf(key)
				id := m.rename("r", "n")
				m.write("roles/r", nil)
				if deleted {
					m.remove("n")
				}
				m.refused404("revoke/r", map[string]any{"key_id": keyID})
				given := keyID
				if whole {
					given = key
				}
				m.write("revoke/n", map[string]any{"key_id": given})
				if deleted {
					m.write("restore/"+id, nil)
				}
				if got := m.verdict(key); got != "REVOKED" {
					t.Errorf("%s, deleted %t, whole %t: %s", kind, deleted, whole, got)
				}
				m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
			}
		}
	}
}

// A lease goes on: it holds the name of before.
func TestLeaseOfARenamedRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"type": "dynamic", "ttl": "1h", "max_ttl": "30h"})
	lease, other := m.lease("r", nil), m.lease("r", nil)
	m.rename("r", "n")
	m.write("roles/r", map[string]any{"type": "dynamic"})
	for range 3 {
		m.clock.advance(50 * time.Minute)
		m.tick()
		if resp, err := m.onLease(logical.RenewOperation, lease, time.Hour); err != nil || resp.IsError() || resp.Secret.TTL != time.Hour {
			t.Fatal(resp, err)
		}
		m.expectVerdict(lease.Data["api_key"], "VALID")
	}
	if names, info, _ := m.listed("keys/n", nil); !slices.Contains(names, lease.Data["key_id"].(string)) {
		t.Errorf("keys/n: %v %v", names, info)
	}
	m.request.EntityID = "entity-9"
	third := m.lease("n", nil)
	m.request.EntityID = ""
	m.write("bulk", map[string]any{"action": "revoke", "issued_to": "entity-9", "dry_run": false, "reason": "left"})
	m.run(3 * time.Minute)
	m.expectVerdict(third.Data["api_key"], "REVOKED")
	m.expectVerdict(lease.Data["api_key"], "VALID")
	for _, l := range []*logical.Response{lease, other} {
		if resp, err := m.onLease(logical.RevokeOperation, l, 0); err != nil || resp.IsError() {
			t.Fatal(resp, err)
		}
	}
	m.expectVerdict(lease.Data["api_key"], "REVOKED")
	m.remove("n")
	if resp, err := m.onLease(logical.RenewOperation, third, time.Hour); err == nil && !resp.IsError() {
		t.Error("the lease of a deleted role was renewed")
	}
}

func TestRenameIsRepeatable(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	id := m.rename("r", "n")
	for _, data := range []map[string]any{{"name": "n"}, {"name": "n", "force": true}, nil} {
		if got := m.write("restore/"+id, data); got["restored"] != false || got["role"] != "n" {
			t.Errorf("repeated with %v: %v", data, got)
		}
	}
	m.refused(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "m"}, "name:", "lives, and is called", "n", "delete")
	m.refused(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "r"}, "name:")
	m.refused(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "No"}, "name:", "must be")
	m.run(48 * time.Hour)
	if got := m.write("restore/"+id, map[string]any{"name": "n"}); got["restored"] != false {
		t.Errorf("repeated later: %v", got)
	}
	m.remove("n")
	m.run(26 * time.Hour)
	m.refused404("restore/"+id, map[string]any{"name": "n"})
	m.expectVerdict(key, "NOT_FOUND")
	m.tidyAll()
	if left := append(m.under(movedPrefix), m.under(secretPrefix)...); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What the restoration of one role under another's name does to that one.
func TestRenameOverAHolder(t *testing.T) {
	t.Parallel()
	used := func(m *testMount) { m.expectVerdict(m.read("creds/n")["api_key"], "VALID") }
	for name, c := range map[string]struct {
		policy map[string]any
		before func(m *testMount)
		says   string // empty: it goes
	}{
		"just made":        {},
		"read, never used": {before: func(m *testMount) { m.read("creds/n") }},
		"rotated":          {before: func(m *testMount) { m.write("rotate/n", nil) }},
		"used":             {before: used, says: "its keys were used"},
		"used and stored":  {before: func(m *testMount) { used(m); m.run(20 * time.Minute) }, says: "its keys were used"},
		"used by an edge":  {before: func(m *testMount) { m.reportUse(1, m.read("creds/n")["key_id"], 1) }, says: "its keys were used"},
		"refused":          {policy: map[string]any{"disabled": true}, before: func(m *testMount) { m.verdict(m.read("creds/n")["api_key"]) }, says: "its keys were used"},
		"protected":        {policy: map[string]any{"deletion_protection": true}, says: "deletion_protection"},
		"dynamic":          {policy: map[string]any{"type": "dynamic"}},
		"issued":           {policy: map[string]any{"type": "dynamic"}, before: func(m *testMount) { m.lease("n", nil) }, says: "1 of its keys are out"},
		"handed out once":  {policy: map[string]any{"reveal": "once"}, before: func(m *testMount) { m.read("creds/n") }, says: "was handed out"},
		"imported":         {before: func(m *testMount) { m.importForeign("n") }, says: "was imported"},
		"no recovery":      {before: func(m *testMount) { m.write("config", map[string]any{"delete_recovery": 0}) }, says: "delete_recovery is 0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", nil)
			key := m.read("creds/r")["api_key"]
			id, _ := m.remove("r")
			m.clock.advance(time.Minute)
			m.write("roles/n", c.policy)
			holder := m.roleID("n")
			if c.before != nil {
				c.before(m)
			}
			m.unchanged(func() {
				m.refused(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "n"}, "name: \"n\"", holder, "force=true")
			})
			data := map[string]any{"name": "n", "force": true, "reason": "terraform renamed it"}
			if c.says != "" {
				m.unchanged(func() { m.refused(logical.UpdateOperation, "restore/"+id, data, c.says) })
				m.expectVerdict(key, "NOT_FOUND")
				return
			}
			got := m.write("restore/"+id, data)
			if got["replaced_role_id"] != holder || got["role"] != "n" || got["renamed_from"] != "r" {
				t.Errorf("%v", got)
			}
			m.expectVerdict(key, "VALID")
			m.livesAs(id, "n")
			// Nothing is lost: the other one can be had back.
			if _, info, _ := m.listed("restore/", nil); info[holder]["role"] != "n" {
				t.Errorf("deleted: %v", info)
			}
			if got := m.write("restore/"+id, data); got["restored"] != false || got["replaced_role_id"] != "" {
				t.Errorf("repeated: %v", got)
			}
			m.write("restore/"+holder, map[string]any{"name": "other"})
			m.livesAs(holder, "other")
			m.expectVerdict(key, "VALID")
			history := fmt.Sprint(m.read("history/other"))
			if !strings.Contains(history, "made way for the role with role_id "+id+": terraform renamed it") {
				t.Errorf("the history of the other: %s", history)
			}
		})
	}
}

// Terraform that made a role of the same name anew: force works there, too.
func TestRestoreOverAHolderOfItsOwnName(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	id, _ := m.remove("r")
	m.write("roles/r", nil)
	m.refused(logical.UpdateOperation, "restore/"+id, nil, "role_id:", "another role has the name")
	got := m.write("restore/"+id, map[string]any{"force": true})
	if got["renamed_from"] != "" || got["replaced_role_id"] == "" {
		t.Errorf("%v", got)
	}
	m.expectVerdict(key, "VALID")
}

// The history goes on, also in the archive, under the new name alone.
func TestHistoryOfARenamedRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": 0, "rotation_period": 0})
	for range 60 {
		m.write("rotate/r", nil)
	}
	id := m.rename("r", "n")
	entries, older := m.entriesOf("history/n", nil)
	var renamed map[string]any
	for _, e := range entries {
		if e["kind"] == eventRoleRenamed {
			renamed = e
		}
	}
	if fmt.Sprint(renamed["fields"]) != "map[name:map[new:n old:r]]" || renamed["reason"] != "renamed" {
		t.Errorf("the entry: %v", renamed)
	}
	if older < 0 {
		t.Fatal("no archive")
	}
	if entries, _ := m.entriesOf("history/n", map[string]any{"page": older}); len(entries) == 0 {
		t.Error("an empty page")
	}
	for _, path := range []string{"history/r"} {
		for _, data := range []map[string]any{nil, {"role_id": id}, {"role_id": id, "page": 0}} {
			if got := m.status(logical.ReadOperation, path, data); got != 404 {
				t.Errorf("%s %v: %d", path, data, got)
			}
		}
	}
	m.remove("n")
	m.run(25 * time.Hour)
	if entries, older := m.entriesOf("history/n", map[string]any{"role_id": id}); older < 0 && len(entries) == 0 {
		t.Error("the history is gone with the role")
	}
	for page := range 3 {
		if entries, _ := m.entriesOf("history/n", map[string]any{"role_id": id, "page": page}); len(entries) == 0 {
			t.Errorf("page %d is empty", page)
		}
	}
}

// An older build reads the record of tidy before it removes anything.
func TestOlderBuildsTidyStopsAtARename(t *testing.T) {
	schema := func(m *testMount) int {
		var head struct{ Schema int }
		if err := json.Unmarshal([]byte(dump(t, m.storage)[tidyPath]), &head); err != nil {
			t.Fatal(err)
		}
		return head.Schema
	}
	for _, ran := range []bool{false, true} {
		m := newMount(t)
		m.write("roles/r", nil)
		if ran {
			m.write("tidy", nil)
			if schema(m) != recordSchema {
				t.Errorf("schema %d before any rename", schema(m))
			}
		}
		m.rename("r", "n")
		for range 3 {
			if schema(m) != renameSchema {
				t.Errorf("schema %d after a rename", schema(m))
			}
			m.run(30 * time.Hour)
			m.write("tidy", nil)
			m = m.restart()
		}
		if left := m.under(deletedPrefix); len(left) > 0 {
			t.Errorf("an older build would purge %v", left)
		}
		// Where it cannot be read, where roles live is asked all the same.
		key := m.read("creds/n")["api_key"]
		for _, value := range []string{"{", "[]", `{"schema":3}`} {
			if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: tidyPath, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
			m.restart().expectVerdict(key, "VALID")
		}
	}
}

// In a mount without renames nobody asks where a role lives, and in one with them a
// forged key of a renamed role costs what an unknown one costs.
func TestRenamesCostNothingBeforeTheSecretMatched(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	good := m.read("creds/r")["api_key"].(string)
	id := m.read("creds/r")["key_id"].(string)
	roleID := m.rename("r", "n")
	for name, prepare := range map[string]func(*testMount){
		"cold": func(*testMount) {},
		"warm": func(m *testMount) { m.ask(good) },
	} {
		fresh := m.restart()
		fresh.ask(unknownKey(t))
		prepare(fresh)
		for i := range 4 {
			unknown, _ := fresh.costOf("verify", unknownKey(t))
			wrong, code := fresh.costOf("verify", withID(t, id))
			if i == 0 && unknown != wrong || code != "NOT_FOUND" {
				t.Errorf("%s: an unknown id takes %+v, a wrong secret %+v (%s)", name, unknown, wrong, code)
			}
			for _, call := range p.log {
				if strings.Contains(call, movedPrefix) || strings.Contains(call, roleID) {
					t.Errorf("%s: asked %s before the secret matched", name, call)
				}
			}
		}
	}
	fresh := m.restart()
	fresh.ask(unknownKey(t))
	if cold, code := fresh.costOf("verify", good); code != "VALID" || cold.calls > 5 {
		t.Errorf("cold: %s at %+v", code, cold)
	}
	if hot, code := fresh.costOf("verify", good); code != "VALID" || hot.calls != 0 {
		t.Errorf("hot: %s at %+v", code, hot)
	}
	if hot, code := fresh.costOf("verify/n", good); code != "VALID" || hot.calls != 0 {
		t.Errorf("hot, bound: %s at %+v", code, hot)
	}
}

// lateStorage holds back writes of roles and of where they live: they answer an error
// and land when the test says.
type lateStorage struct {
	logical.Storage

	hold func(path string) bool
	held []func()
}

func (s *lateStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.hold != nil && s.hold(e.Key) {
		copied := *e
		s.held = append(s.held, func() { _ = s.Storage.Put(context.Background(), &copied) })
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

func (s *lateStorage) land() {
	for _, land := range s.held {
		land()
	}
	s.held = nil
}

// A commit of a restoration that lands after another one has happened makes no second
// role, and brings back nothing that was killed.
func TestRestorationThatLandsLate(t *testing.T) {
	t.Parallel()
	first := map[string]map[string]any{"as before": nil, "as n": {"name": "n"}}
	second := map[string]map[string]any{"as before": nil, "as n": {"name": "n"}, "as x": {"name": "x"}}
	for begin, earlier := range map[string]func(m *testMount){
		"never renamed": func(*testMount) {},
		"renamed":       func(m *testMount) { m.rename("r", "q"); m.rename("q", "r") },
	} {
		for a, one := range first {
			for b, two := range second {
				for _, kills := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s then %s, killed %t", begin, a, b, kills), func(t *testing.T) {
						s := &lateStorage{Storage: &logical.InmemStorage{}}
						m := mountOn(t, s, newFakeClock())
						m.write("roles/r", map[string]any{"rotation_period": 0})
						key := m.read("creds/r")["api_key"].(string)
						keyID := m.keyIDOf(key)
						earlier(m)
						id, _ := m.remove("r")
						s.hold = func(path string) bool { return strings.HasPrefix(path, rolePrefix) }
						if got := m.status(logical.UpdateOperation, "restore/"+id, one); got != 500 {
							t.Fatal(got)
						}
						s.hold = nil
						if kills {
							m.expectReport(key, leakActed)
						}
						name := m.write("restore/"+id, two)["role"].(string)
						if len(s.held) != 1 {
							t.Fatal(len(s.held))
						}
						first := "r"
						if one != nil {
							first = "n"
						}
						if name == first {
							return // the later one overwrites it, whatever the order
						}
						s.land()
						want := map[bool]string{false: "VALID", true: "REVOKED"}[kills]
						for _, m := range []*testMount{m, m.restart()} {
							m.livesAs(id, name)
							m.expectVerdict(key, want)
							if got := m.write("verify", map[string]any{"key": key, "fresh": true}); got["code"] != want || got["role"] != name {
								t.Errorf("afresh: %v as %v", got["code"], got["role"])
							}
							if got := m.write("lookup", map[string]any{"key_id": keyID}); got["role"] != name {
								t.Errorf("lookup: %v", got["role"])
							}
							if got := m.status(logical.ReadOperation, "creds/"+first, nil); got != 404 {
								t.Errorf("what landed late is a role: %d", got)
							}
						}
						// The name is free, and what landed there is no role afterwards either.
						m.write("roles/"+first, nil)
						m.remove(first)
						m.remove(name)
						m.run(3 * time.Hour)
						m.tidyAll()
						m.expectVerdict(key, "NOT_FOUND")
						m.write("restore/"+id, nil)
						m.livesAs(id, name)
						m.expectVerdict(key, want)
					})
				}
			}
		}
	}
}

// A record of the role's before its deletion that lands after the rename is no role.
func TestCommitThatLandsAfterTheRename(t *testing.T) {
	s := &lateStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := m.read("creds/r")["api_key"].(string)
	s.hold = func(path string) bool { return path == rolePath("r") }
	m.status(logical.UpdateOperation, "rotate/r", nil)
	s.hold = nil
	id := m.rename("r", "n")
	s.land()
	for _, m := range []*testMount{m, m.restart()} {
		m.livesAs(id, "n")
		m.expectVerdict(key, "VALID")
	}
	m.rename("n", "x")
	m.livesAs(id, "x")
	m.run(3 * time.Hour)
	m.tidyAll()
	if got := m.under(rolePrefix); !slices.Equal(got, []string{rolePath("x")}) {
		t.Errorf("stored: %v", got)
	}
	// Back at the place where one lands: what was there does not count meanwhile.
	m.remove("x")
	rec := &roleRecord{Schema: 1, Name: "r", ID: id, Type: "static"}
	plant(t, m.storage, rolePath("r"), rec)
	m.write("restore/"+id, map[string]any{"name": "r"})
	m.livesAs(id, "r")
	m.expectVerdict(key, "VALID")
}

// A commit of before the rename lands at a name that has a new holder, and somebody takes
// the lock of that name: what was there does not count again.
func TestCommitThatLandsOverAHolder(t *testing.T) {
	for what, acts := range map[string]func(m *testMount){
		"a rotation": func(m *testMount) { m.refused404("rotate/r", nil) },
		"a kill":     func(m *testMount) { m.refused404("revoke/r", map[string]any{"all": true}) },
		"nothing":    func(*testMount) {},
	} {
		t.Run(what, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", map[string]any{"rotation_period": 0})
			key := m.read("creds/r")["api_key"]
			old := *m.record("r")
			m.rename("r", "n")
			m.write("roles/r", nil)
			m.expectVerdict(m.read("creds/r")["api_key"], "VALID") // its record is in the cache
			m.write("revoke/n", map[string]any{"all": true})
			plant(t, m.storage, rolePath("r"), &old)
			acts(m)
			m.expectVerdict(key, "REVOKED")
		})
	}
}

// Where the role is said to live lands late: the role that was restored without it
// is not lost.
func TestMoveThatLandsLate(t *testing.T) {
	s := &lateStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := m.read("creds/r")["api_key"].(string)
	id, _ := m.remove("r")
	s.hold = func(path string) bool { return strings.HasPrefix(path, movedPrefix) }
	if got := m.status(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "n"}); got != 500 {
		t.Fatal(got)
	}
	s.hold = nil
	s.land()
	m.refused404("revoke/r", map[string]any{"key_id": "000000000000"})
	m.expectReport(key, leakActed) // while it is between two names
	for _, m := range []*testMount{m.restart(), m} {
		m.write("restore/"+id, nil)
		m.livesAs(id, "r")
		m.expectVerdict(key, "REVOKED")
	}
}

// read404 reports whether there is nothing at the path.
func (m *testMount) read404(path string) bool {
	m.t.Helper()
	return m.status(logical.ReadOperation, path, nil) == 404
}

// What stands where a restoration looks may change until it has the locks.
func TestRenameThatWasOvertaken(t *testing.T) {
	s := &pausing{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	m.rename("r", "q")
	id, _ := m.remove("q")
	s.between = func() {
		s.between = nil
		m.write("restore/"+id, map[string]any{"name": "x"})
	}
	m.refused(logical.UpdateOperation, "restore/"+id, map[string]any{"name": "n"}, "lives, and is called")
	m.livesAs(id, "x")

	// So may what a key's record leads to.
	s.between = func() {
		s.between = nil
		m.rename("x", "y")
	}
	m.expectReport(key, leakActed)
	m.livesAs(id, "y")
	m.expectVerdict(key, "REVOKED")
	if got := m.write("lookup", map[string]any{"key": key}); got["role"] != "y" || got["state"] != "revoked" {
		t.Errorf("lookup: %v", got)
	}
}

// What a crash may leave of a role that is gone brings nothing back.
func TestNothingIsLeftToRestore(t *testing.T) {
	m := newMount(t)
	m.write("roles/other", nil)
	m.rename("other", "another")
	id := "00000000-0000-4000-8000-000000000000"
	for range 2 {
		m.refused404("restore/"+id, nil)
		m.refused404("restore/"+id, map[string]any{"name": "n"})
		plant(t, m.storage, movedPath(id), &movedRecord{Schema: 1, RoleID: id, Name: "n", Mark: "m", At: m.clock.Now()})
	}
	plant(t, m.storage, deletedPath(id), &roleRecord{Schema: 1, Name: "n", ID: id, Type: "static", Deleted: m.clock.Now(), PurgeAt: m.clock.Now().Add(time.Hour)})
	m.refused404("restore/"+id, map[string]any{"name": "n"})
	m.run(3 * time.Hour)
	m.tidyAll()
	m.run(3 * time.Hour)
	m.tidyAll()
	if left := m.under(movedPrefix); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A storage that fails makes nothing look as if it were gone.
func TestRenamedRoleOnAFailingStorage(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := m.read("creds/r")["api_key"].(string)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "2h"})
	lease := m.lease("d", nil)
	id := m.rename("r", "n")
	m.rename("d", "e")
	for what, ask := range map[string]func(m *testMount) (*logical.Response, error){
		"verify": func(m *testMount) (*logical.Response, error) {
			return m.send(logical.UpdateOperation, "verify", map[string]any{"key": key})
		},
		"bound": func(m *testMount) (*logical.Response, error) {
			return m.send(logical.UpdateOperation, "verify/n", map[string]any{"key": key})
		},
		"lookup": func(m *testMount) (*logical.Response, error) {
			return m.send(logical.UpdateOperation, "lookup", map[string]any{"key": key})
		},
		"restore": func(m *testMount) (*logical.Response, error) {
			return m.send(logical.UpdateOperation, "restore/"+id, nil)
		},
		"creds":   func(m *testMount) (*logical.Response, error) { return m.send(logical.ReadOperation, "creds/n", nil) },
		"list":    func(m *testMount) (*logical.Response, error) { return m.send(logical.ListOperation, "inventory/", nil) },
		"renewal": func(m *testMount) (*logical.Response, error) { return m.onLease(logical.RenewOperation, lease, 0) },
	} {
		want, err := ask(m.restart())
		if err != nil {
			t.Fatal(what, err)
		}
		for n := 1; ; n++ {
			p.reset()
			fresh := m.restart()
			p.arm(n, faultFail)
			got, err := ask(fresh)
			hit := p.hit()
			p.reset()
			if !hit {
				break
			}
			if err == nil && (got == nil || got.IsError() || fmt.Sprint(got.Data["code"], got.Data["role"]) != fmt.Sprint(want.Data["code"], want.Data["role"])) {
				t.Errorf("%s, call %d fails: it answers %v", what, n, got)
			}
		}
	}
}
