// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// unmoved is a mount in which role r was deleted while its copy could not be written,
// a key of it that was good and one that had ended, and its role_id.
func unmoved(t *testing.T, fields map[string]any) (m *testMount, key, dead, id string) {
	t.Helper()
	s := &failingAt{Storage: &logical.InmemStorage{}}
	m = mountOn(t, s, newFakeClock())
	m.write("roles/r", fields)
	get := func() string {
		if fields["type"] == "dynamic" {
			return m.lease("r", nil).Data["api_key"].(string)
		}
		return current(m, "r")
	}
	dead = get()
	if fields["type"] == "dynamic" {
		m.write("revoke/r", map[string]any{"key_id": m.idOf(dead)})
	} else {
		m.write("rotate/r", map[string]any{"grace_period": 0})
	}
	key = get()
	m.tick()
	m.clock.advance(time.Minute)
	s.at = []string{deletedPrefix, archivePrefix}
	resp, err := m.do(logical.DeleteOperation, "roles/r", nil)
	if err != nil || len(resp.Warnings) != 1 {
		t.Fatal(resp, err)
	}
	s.at = nil
	if len(m.under(rolePrefix)) != 1 || len(m.under(deletedPrefix)) != 0 {
		t.Fatal("the record was not left where it stands")
	}
	return m, key, dead, resp.Data["role_id"].(string)
}

var unmovedKinds = map[string]map[string]any{
	"static": {"rotation_period": "24h", "grace_period": "1h"}, "dynamic": {"type": "dynamic", "ttl": "20h"},
}

// TestUnmovedRoleIsNowhere: a role that was deleted is gone for everybody, wherever its
// record stands.
func TestUnmovedRoleIsNowhere(t *testing.T) {
	for kind, fields := range unmovedKinds {
		t.Run(kind, func(t *testing.T) {
			m, key, dead, id := unmoved(t, fields)
			keyID := m.idOf(key)
			for _, m := range []*testMount{m, m.restart()} {
				m.expectVerdict(key, "NOT_FOUND")
				m.expectVerdict(dead, "NOT_FOUND")
				if got := m.write("verify", map[string]any{"key": key, "fresh": true}); got["code"] != "NOT_FOUND" {
					t.Errorf("verify, fresh: %v", got)
				}
				if got := m.write("verify/r", map[string]any{"key": key}); got["code"] != "NOT_FOUND" {
					t.Errorf("verify/r: %v", got)
				}
				for _, path := range []string{"roles/r", "creds/r", "creds/r/previous", "creds/r/1", "status/r", "history/r"} {
					if got := m.status(logical.ReadOperation, path, nil); got != 404 {
						t.Errorf("%s: %d", path, got)
					}
				}
				if got := m.status(logical.PatchOperation, "roles/r", map[string]any{"owner": "x"}); got != 404 {
					t.Errorf("patch: %d", got)
				}
				for _, path := range []string{"rotate/r", "promote/r", "rollback/r"} {
					if got := m.status(logical.UpdateOperation, path, nil); got != 404 {
						t.Errorf("%s: %d", path, got)
					}
				}
				if got := m.status(logical.UpdateOperation, "revoke/r", map[string]any{"all": true}); got != 404 {
					t.Errorf("revoke: %d", got)
				}
				if got := m.status(logical.ListOperation, "keys/r", nil); got != 404 {
					t.Errorf("keys: %d", got)
				}
				inventory := m.must(logical.ListOperation, "inventory/", nil)
				if info, _ := inventory["key_info"].(map[string]any); len(info) != 0 {
					t.Errorf("inventory: %v", inventory)
				}
				if got := m.write("lookup", map[string]any{"key_id": keyID}); got["role_deleted"] == "" {
					t.Errorf("lookup: %v", got)
				}
				if got := m.must(logical.ReadOperation, "history/r", map[string]any{"role_id": id}); got["deleted"] != true {
					t.Errorf("history: %v", got)
				}
				for _, role := range []string{"r", "other"} {
					got := m.importItems(map[string]any{"role": role, "key": key})[0]
					if why := fmt.Sprint(got["error"]); got["result"] != importRefused || !strings.Contains(why, "can still be restored") {
						t.Errorf("import into %s: %v", role, got)
					}
				}
				job := m.write("bulk", map[string]any{"action": "rotate", "name_prefix": "r"})
				if n := number(t, job["matched"]); n != 0 {
					t.Errorf("bulk: %v", job)
				}
			}
			if got := m.must(logical.ListOperation, "roles/", nil); got["keys"] != nil && len(got["keys"].([]string)) != 0 {
				t.Errorf("listed: %v", got)
			}
		})
	}
}

// moves are the ways in which the record gets to where it belongs.
var moves = map[string]func(m *testMount, id string) *testMount{
	"a tick": func(m *testMount, _ string) *testMount { m.clock.advance(time.Minute); m.tick(); return m },
	"a tick, after a failover": func(m *testMount, _ string) *testMount {
		m = m.restart()
		m.clock.advance(time.Minute)
		m.tick()
		return m
	},
	"tidy, after a failover": func(m *testMount, _ string) *testMount { m = m.restart(); m.tidyAll(); return m },
	"a second deletion":      func(m *testMount, _ string) *testMount { m.deleted("r"); return m },
	"a restoration":          func(m *testMount, id string) *testMount { m.write("restore/"+id, nil); m.remove("r"); return m },
	"a restoration, after a failover": func(m *testMount, id string) *testMount {
		m = m.restart()
		m.write("restore/"+id, nil)
		m.remove("r")
		return m
	},
	"a role of the same name": func(m *testMount, _ string) *testMount { m.write("roles/r", nil); m.remove("r"); return m },
	"an import of the same name": func(m *testMount, _ string) *testMount {
		m.importItems(map[string]any{"role": "r", "key": foreignKey(m.t, 40)})
		m.remove("r")
		return m
	},
}

// deleted deletes what is not there any more.
func (m *testMount) deleted(role string) {
	m.t.Helper()
	if resp, err := m.do(logical.DeleteOperation, "roles/"+role, nil); err != nil || resp != nil {
		m.t.Fatal(resp, err)
	}
}

// TestUnmovedRoleIsMoved: and comes back by a restoration, with what was good and
// without what had ended.
func TestUnmovedRoleIsMoved(t *testing.T) {
	for kind, fields := range unmovedKinds {
		for name, move := range moves {
			t.Run(kind+", "+name, func(t *testing.T) {
				m, key, dead, id := unmoved(t, fields)
				m = move(m, id)
				if !slices.Contains(m.under(deletedPrefix), deletedPath(id)) || len(m.under(rolePrefix)) != 0 {
					t.Fatalf("not moved: %v, %v", m.under(deletedPrefix), m.under(rolePrefix))
				}
				m.expectVerdict(key, "NOT_FOUND")
				m.run(2 * time.Hour)
				m.tidyAll()
				m.write("restore/"+id, nil)
				for _, m := range []*testMount{m, m.restart()} {
					m.expectVerdict(key, "VALID")
					if got := m.verdict(dead); got != "RETIRED" && got != "REVOKED" {
						t.Errorf("what had ended is %s", got)
					}
				}
				if kind == "static" {
					m.run(25 * time.Hour)
					if n := m.record("r").Ring.Last; n < 3 {
						t.Error("its rotation does not go on")
					}
				}
			})
		}
	}
}

// TestUnmovedRoleIsPurged: after its time, or at once where there is none; what ended
// does not come back.
func TestUnmovedRoleIsPurged(t *testing.T) {
	for _, recovery := range []string{"1h", "0"} {
		m, key, dead, _ := unmoved(t, unmovedKinds["static"])
		if recovery == "0" {
			s := m.storage.(*failingAt)
			m.write("config", map[string]any{"delete_recovery": 0})
			m.write("roles/q", map[string]any{"rotation_period": 0})
			key = current(m, "q")
			s.at = []string{deletedPrefix, archivePrefix, duePrefix, secretPrefix}
			if _, err := m.do(logical.DeleteOperation, "roles/q", nil); err != nil {
				t.Fatal(err)
			}
			s.at = nil
			m.expectVerdict(key, "NOT_FOUND")
		}
		m.run(25 * time.Hour)
		for _, path := range slices.Concat(m.under(deletedPrefix), m.under(secretPrefix), m.under(rolePrefix), m.under(duePrefix)) {
			t.Errorf("recovery %s: left: %s", recovery, path)
		}
		if len(m.under(archivePrefix)) == 0 {
			t.Error("the history is gone")
		}
		m.expectVerdict(key, "NOT_FOUND")
		if got := m.importItems(map[string]any{"role": "other", "key": dead})[0]; got["result"] != importRefused {
			t.Errorf("%v", got)
		}
	}
}

// TestUnmovedRoleIsClosed: what ends a key of it ends it there, also before it is moved,
// and where an older copy lies.
func TestUnmovedRoleIsClosed(t *testing.T) {
	for kind, fields := range unmovedKinds {
		for name, end := range closings {
			for _, stale := range []bool{false, true} {
				t.Run(kind+", "+name, func(t *testing.T) {
					m, key, _, id := unmoved(t, fields)
					if stale {
						rec, err := m.unmovedAt(t.Context(), m.storage, "r")
						if err != nil || rec == nil {
							t.Fatal(rec, err)
						}
						plant(t, m.storage, deletedPath(id), rec)
					}
					keyID := m.idOf(key)
					end(m, key, keyID)
					if len(m.under(rolePrefix)) != 1 {
						t.Fatal("it was moved")
					}
					m.expectVerdict(key, "NOT_FOUND")
					m.run(2 * time.Minute)
					m.write("restore/"+id, nil)
					m.expectVerdict(key, "REVOKED")
					m.restart().expectVerdict(key, "REVOKED")
				})
			}
		}
	}
}

// TestUnmovedRoleThatLandsLate: the record was moved, and restored or not, and what was
// ended since stays ended.
func TestUnmovedRoleThatLandsLate(t *testing.T) {
	after := map[string]func(m *testMount, id string){
		"a tick":        func(m *testMount, _ string) { m.clock.advance(time.Minute); m.tick() },
		"tidy":          func(m *testMount, _ string) { m.tidyAll() },
		"a restoration": func(*testMount, string) {},
	}
	for kind, fields := range unmovedKinds {
		for name, next := range after {
			t.Run(kind+", "+name, func(t *testing.T) {
				m, key, dead, id := unmoved(t, fields)
				late, err := m.storage.Get(t.Context(), rolePath("r"))
				if err != nil {
					t.Fatal(err)
				}
				m.clock.advance(time.Minute)
				m.tick()
				if len(m.under(rolePrefix)) != 0 {
					t.Fatal("it was not moved")
				}
				first, then := key, dead
				if name == "tidy" {
					first, then = dead, key
				}
				m.write("report", map[string]any{"key": first})
				if err := m.storage.Put(t.Context(), late); err != nil {
					t.Fatal(err)
				}
				m.write("roles/other", fields)
				m = m.restart()
				m.write("report", map[string]any{"key": then})
				if len(m.under(rolePrefix)) != 2 {
					t.Fatal("it was moved")
				}
				next(m, id)
				m.write("restore/"+id, nil)
				m.expectVerdict(key, "REVOKED")
				if left := m.under(rolePrefix); len(left) != 2 {
					t.Error(left)
				}
			})
		}
	}
}

// TestUnmovedRoleIsInNoCache: not in that of a node either which knew the role and has
// not been told.
func TestUnmovedRoleIsInNoCache(t *testing.T) {
	s := &failingAt{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", nil)
	key := current(m, "r")
	other := m.restart()
	other.expectVerdict(key, "VALID")
	s.at = []string{deletedPrefix}
	m.remove("r")
	if got := other.status(logical.UpdateOperation, "rotate/r", nil); got != 404 {
		t.Errorf("rotate: %d", got)
	}
	other.expectVerdict(key, "NOT_FOUND")
}

// TestUnmovedRoleAndOlderBuilds: they refuse the record, which they would take for a
// living role, and read again what it is moved to.
func TestUnmovedRoleAndOlderBuilds(t *testing.T) {
	schema := func(m *testMount, path string) int {
		entry, err := m.storage.Get(t.Context(), path)
		if err != nil || entry == nil {
			t.Fatal(path, entry, err)
		}
		var rec roleRecord
		if err := entry.DecodeJSON(&rec); err != nil {
			t.Fatal(err)
		}
		return rec.Schema
	}
	m, key, _, id := unmoved(t, unmovedKinds["static"])
	for range 2 {
		if got := schema(m, rolePath("r")); got != markedSchema {
			t.Errorf("marked: %d", got)
		}
		m.write("revoke/r", map[string]any{"key_id": m.idOf(key)})
	}
	m.clock.advance(time.Minute)
	m.tick()
	if got := schema(m, deletedPath(id)); got != recordSchema {
		t.Errorf("moved: %d", got)
	}
	m.write("restore/"+id, nil)
	if got := schema(m, rolePath("r")); got != recordSchema {
		t.Errorf("restored: %d", got)
	}
}

// TestTidyKeepsWhatAnUnmovedRoleNeeds: its keys are not those of a role that is gone.
func TestTidyKeepsWhatAnUnmovedRoleNeeds(t *testing.T) {
	for kind, fields := range unmovedKinds {
		m, key, _, id := unmoved(t, fields)
		s := m.storage.(*failingAt)
		s.at = []string{deletedPrefix} // it cannot be moved
		m.clock.advance(3 * time.Hour)
		m.tick()
		_, _ = m.do(logical.UpdateOperation, "tidy", nil)
		m.clock.advance(3 * time.Hour)
		m.tick()
		_, _ = m.do(logical.UpdateOperation, "tidy", nil)
		if len(m.under(rolePrefix)) != 1 {
			t.Fatal("it was moved")
		}
		if got := m.importItems(map[string]any{"role": "other", "key": key})[0]; got["result"] != importRefused {
			t.Errorf("%s: %v", kind, got)
		}
		if _, err := m.do(logical.CreateOperation, "roles/r", nil); err == nil {
			t.Fatal("another role took its place")
		}
		s.at = nil
		m.run(3 * time.Hour)
		m.write("restore/"+id, nil)
		m.expectVerdict(key, "VALID")
		if left := m.under(rolePrefix); len(left) != 1 || !strings.HasSuffix(left[0], "/r") {
			t.Errorf("%v", left)
		}
	}
}

// A role whose record stands at its name still is renamed, and one that has to make way
// for another goes only once it can be restored.
func TestUnmovedRolesAndRenames(t *testing.T) {
	for kind, fields := range unmovedKinds {
		t.Run(kind, func(t *testing.T) {
			m, key, dead, id := unmoved(t, fields)
			if got := m.write("restore/"+id, map[string]any{"name": "n"}); got["role"] != "n" || got["renamed_from"] != "r" {
				t.Errorf("%v", got)
			}
			m.livesAs(id, "n")
			m.expectVerdict(key, "VALID")
			if got := m.verdict(dead); got == "VALID" {
				t.Error("a key that ended verifies")
			}

			s := m.storage.(*failingAt)
			m.remove("n")
			m.write("roles/x", map[string]any{"type": "dynamic"})
			holder := m.roleID("x")
			s.at = []string{deletedPrefix}
			force := map[string]any{"name": "x", "force": true}
			if got := m.status(logical.UpdateOperation, "restore/"+id, force); got != 500 {
				t.Errorf("%d", got)
			}
			s.at = nil
			m.write("restore/"+id, force)
			m.livesAs(id, "x")
			m.write("restore/"+holder, map[string]any{"name": "y"})
			m.livesAs(holder, "y")
			m.expectVerdict(key, "VALID")
		})
	}
}

// TestFindUnmoved: among so many roles of the calendar, past records of later builds,
// and not where storage does not answer.
func TestFindUnmoved(t *testing.T) {
	const looked = 200
	start, _, _, id := unmoved(t, unmovedKinds["static"])
	before, err := getRecord[shownRole](t.Context(), start.storage, rolePath("r"))
	if err != nil || before == nil {
		t.Fatal(before, err)
	}
	minute := before.Due.Add(-time.Minute)
	stored := dump(t, start.storage)
	for _, c := range []struct {
		others int
		later  bool
		fails  string
		want   string
	}{
		{others: looked - 1, want: "r"},
		{others: looked, want: ""},
		{others: 1, later: true, want: "r"},
		{others: 1, fails: "get " + rolePath("other0")},
		{fails: "list " + minutePrefix(minute)},
	} {
		s := &broken{Storage: copyStorage(t, stored)}
		m := mountOn(t, s, start.clock)
		for n := range c.others {
			for _, name := range []string{fmt.Sprint("other", n), fmt.Sprint(deletedMark, n)} {
				if err := putBytes(t.Context(), s, duePath(minute, name), dueValue); err != nil {
					t.Fatal(err)
				}
			}
		}
		if c.later {
			plant(t, s, rolePath("other0"), &roleRecord{Schema: 99, Name: "other0", ID: id})
		}
		s.call = c.fails
		got, err := m.findUnmoved(t.Context(), s, id)
		if got != c.want || errors.Is(err, errStorage) != (c.fails != "") || c.fails == "" && err != nil {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}
