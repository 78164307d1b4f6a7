// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// ended is a key that ended in some way, and what an import of it is told.
type ended struct {
	name string
	// end makes role a and ends a key of it, which it returns.
	end  func(m *testMount) string
	want string
	// gone only: while the role lives its key is good.
	gone bool
}

func current(m *testMount, role string) string {
	m.t.Helper()
	return m.read("creds/" + role)["api_key"].(string)
}

func waysToEnd() []ended {
	static := map[string]any{"rotation_period": 0, "grace_period": "1h"}
	plain := func(m *testMount) string {
		m.write("roles/a", static)
		return current(m, "a")
	}
	foreign := func(m *testMount) string {
		key := foreignKey(m.t, 40)
		m.importItems(map[string]any{"role": "a", "key": key})
		return key
	}
	after := func(key func(*testMount) string, steps ...func(*testMount, string)) func(*testMount) string {
		return func(m *testMount) string {
			held := key(m)
			m.clock.advance(time.Minute)
			for _, step := range steps {
				step(m, held)
			}
			return held
		}
	}
	writes := func(path string, data map[string]any) func(*testMount, string) {
		return func(m *testMount, _ string) { m.write(path, data) }
	}
	waits := func(d time.Duration) func(*testMount, string) {
		return func(m *testMount, _ string) { m.run(d) }
	}
	report := func(m *testMount, key string) { m.write("report", map[string]any{"key": key}) }
	policy := func(data map[string]any) func(*testMount, string) { return writes("roles/a", data) }
	dynamic := func(m *testMount) string {
		m.write("roles/a", map[string]any{"type": "dynamic", "ttl": "20h"})
		return m.lease("a", nil).Data["api_key"].(string)
	}
	many := func(m *testMount, _ string) {
		for range 25 {
			m.write("rotate/a", map[string]any{"grace_period": 0, "force": true})
			m.clock.advance(2 * time.Hour)
			m.tick()
		}
	}
	return []ended{
		{name: "revoked", end: after(plain, writes("revoke/a", map[string]any{"all": true})), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "revoked and forgotten", end: after(plain, writes("revoke/a", map[string]any{"all": true}), many), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "reported and revoked", end: after(plain, report), want: "was revoked at 2026-03-02T09:01:00Z, and was reported as found in the open at 2026-03-02T09:01:00Z"},
		{name: "reported, alert", end: after(plain, policy(map[string]any{"on_leak": "alert"}), report), want: "reported as found in the open at 2026-03-02T09:01:00Z", gone: true},
		{name: "reported, rotated", end: after(plain, policy(map[string]any{"on_leak": "rotate"}), report), want: "reported as found in the open at 2026-03-02T09:01:00Z", gone: true},
		{name: "retired", end: after(plain, writes("rotate/a", nil), waits(time.Hour)), want: "was retired at 2026-03-02T10:01:00Z"},
		{name: "expired", end: func(m *testMount) string {
			m.write("roles/a", map[string]any{"rotation_period": 0, "ttl": "1h"})
			key := current(m, "a")
			m.run(2 * time.Hour)
			return key
		}, want: "expired at 2026-03-02T10:00:00Z"},
		{name: "rolled back", end: after(plain, func(m *testMount, _ string) {
			m.write("rotate/a", map[string]any{"stage": true})
			m.write("promote/a", nil)
		}, writes("rollback/a", nil), waits(2*time.Hour), writes("revoke/a", map[string]any{"version": 1})), want: "was revoked at 2026-03-02T11:01:00Z"},
		{name: "foreign, revoked", end: after(foreign, writes("revoke/a", map[string]any{"all": true})), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "foreign, revoked, under an older secret", end: after(foreign, writes("revoke/a", map[string]any{"all": true}), writes("config/rotate-digest", nil), writes("config/rotate-digest", nil)), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "dynamic, revoked", end: after(dynamic, func(m *testMount, key string) {
			id, err := keyformat.Parse(key)
			if err != nil {
				m.t.Fatal(err)
			}
			m.write("revoke/a", map[string]any{"key_id": id.ID()})
		}), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "dynamic, generation revoked", end: after(dynamic, writes("revoke/a", map[string]any{"all": true})), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "dynamic, generation revoked and forgotten", end: after(dynamic, writes("revoke/a", map[string]any{"all": true}), func(m *testMount, _ string) {
			m.clock.advance(2 * time.Hour)
			m.tidyAll()
		}, many), want: "was revoked at 2026-03-02T09:01:00Z"},
		{name: "dynamic, reported", end: after(dynamic, policy(map[string]any{"on_leak": "alert"}), report), want: "was reported as found in the open at 2026-03-02T09:01:00Z", gone: true},
	}
}

// waysToImport are items that would adopt the key for a role.
func waysToImport(role, key string) []map[string]any {
	items := []map[string]any{{"role": role, "key": key}, {"role": role, "sha256": sha(key)}}
	if own, err := keyformat.Parse(key); err == nil {
		items[1]["key_id"] = own.ID()
	}
	return items
}

// TestEndedKeyDoesNotComeBack: not by deleting its role for good, making it anew
// and importing the key, as long as history is kept.
func TestEndedKeyDoesNotComeBack(t *testing.T) {
	for _, way := range waysToEnd() {
		for _, recovery := range []string{"0", "1h"} {
			t.Run(way.name+", recovery "+recovery, func(t *testing.T) {
				m := newMount(t)
				m.write("config", map[string]any{"delete_recovery": recovery})
				key := way.end(m)
				code := m.verdict(key)
				refused := func(role, want string) {
					t.Helper()
					for _, item := range waysToImport(role, key) {
						got := m.importItems(item)[0]
						if text, _ := got["error"].(string); got["result"] != "refused" || !strings.Contains(text, want) || strings.Contains(text, key) {
							t.Fatalf("an import into %s: %v, want %q", role, got, want)
						}
					}
				}
				if !way.gone {
					refused("other", way.want+": a key that ended cannot come back: make a new one")
					if strings.Contains(way.want, "revoked") && !strings.HasPrefix(way.name, "dynamic") {
						refused("a", way.want)
					}
				}
				m.must(logical.DeleteOperation, "roles/a", nil)
				m.expectVerdict(key, "NOT_FOUND")
				refused("a", way.want)
				deleted := m.clock.Now()
				m.run(2 * time.Hour)
				if left := m.under(deletedPrefix); len(left) > 0 {
					t.Fatalf("not purged: %v", left)
				}
				m.tidyAll()
				m = m.restart()
				for _, then := range []time.Duration{0, 31 * 24 * time.Hour, 390 * 24 * time.Hour} {
					m.clock.set(deleted.Add(2*time.Hour + then))
					m.tidyAll()
					m.write("roles/b", nil)
					for _, role := range []string{"a", "b"} {
						refused(role, way.want)
					}
					if code := m.verdict(key); code != "NOT_FOUND" && (code != "MALFORMED" || !strings.HasPrefix(way.name, "foreign")) {
						t.Errorf("a key whose role is gone is %s", code)
					}
					if own, err := keyformat.Parse(key); err == nil {
						if got := m.status(logical.UpdateOperation, "lookup", map[string]any{"key_id": own.ID()}); got != 404 {
							t.Errorf("lookup of a key whose role is gone: %d", got)
						}
					}
					// Foreign ones are known as long as keys of other forms are looked for.
					known := leakRecorded
					if _, err := keyformat.Parse(key); err != nil && !m.importedRec().mayBe(key) {
						known = leakUnknown
					}
					if got := m.write("report", map[string]any{"key": key})["result"]; got != known {
						t.Errorf("report of a key whose role is gone: %v", got)
					}
				}
				m.clock.set(deleted.Add(archiveKept + 2*time.Hour))
				m.tidyAll()
				if found := m.leftovers(); len(found) > 0 {
					t.Error(strings.Join(found, "\n"))
				}
				// What nobody remembers any more is as good as new.
				if got := m.importItems(waysToImport("a", key)[0])[0]; got["result"] != "imported" {
					t.Errorf("after 400 days: %v", got)
				}
				if code == "VALID" && !way.gone {
					t.Errorf("the key had not ended")
				}
			})
		}
	}
}

// TestGoodKeyOfADeletedRoleComesBack: a mistaken import can be mended, and so can
// a mistaken deletion.
func TestGoodKeyOfADeletedRoleComesBack(t *testing.T) {
	for _, recovery := range []string{"0", "1h"} {
		for _, name := range []string{"minted", "foreign", "previous", "pending"} {
			m := newMount(t)
			m.write("config", map[string]any{"delete_recovery": recovery})
			key := foreignKey(t, 40)
			if name == "foreign" {
				m.importItems(map[string]any{"role": "a", "key": key})
			} else {
				m.write("roles/a", map[string]any{"rotation_period": 0, "grace_period": "200h"})
				key = current(m, "a")
			}
			switch name {
			case "previous":
				m.write("rotate/a", nil)
			case "pending":
				m.write("rotate/a", map[string]any{"stage": true})
				key = m.read("creds/a/pending")["api_key"].(string)
			}
			m.must(logical.DeleteOperation, "roles/a", nil)
			if recovery != "0" {
				if got := m.importItems(map[string]any{"role": "b", "key": key})[0]; got["result"] != "refused" || !strings.Contains(got["error"].(string), "can still be restored") {
					t.Errorf("%s: %v", name, got)
				}
				m.run(2 * time.Hour)
			}
			if got := m.importItems(map[string]any{"role": "b", "key": key})[0]; got["result"] != "imported" {
				t.Fatalf("%s, recovery %s: %v", name, recovery, got)
			}
			m.expectVerdict(key, "VALID")
			m.clock.advance(2 * time.Hour)
			m.tidyAll()
			m.run(3 * time.Hour)
			m.expectVerdict(key, "VALID")
			if current(m, "b") != key {
				t.Errorf("%s: creds hands out another key", name)
			}
			if found := m.leftovers(); len(found) > 0 {
				t.Errorf("%s: %s", name, strings.Join(found, "\n"))
			}
		}
	}
}

// TestDeletionForGoodFailsForNoSideWork: once the role is gone nothing fails the
// request, and what was left is removed later, with its tombstones written first.
func TestDeletionForGoodFailsForNoSideWork(t *testing.T) {
	prepare := func(m *testMount) any {
		m.write("config", map[string]any{"delete_recovery": 0})
		m.write("roles/a", map[string]any{"rotation_period": 0})
		revoked := current(m, "a")
		m.write("revoke/a", map[string]any{"version": 1})
		return staged{id: m.read("roles/a")["role_id"].(string), dead: revoked, live: current(m, "a")}
	}
	committed := false
	faulted(t, prepare, func(m *testMount, _ any) error {
		p := m.storage.(*probe)
		err := deleteOp(m, nil)
		committed = false
		for i, call := range p.log {
			if call == "delete role/a" && (i+1 < p.at || p.at == 0) {
				committed = true
			}
		}
		if committed && err != nil {
			t.Errorf("the deletion happened and was refused: %v", err)
		}
		return err
	}, func(m *testMount, x any, acknowledged bool) {
		s := x.(staged)
		if acknowledged {
			m.expectVerdict(s.live, "NOT_FOUND")
		}
		refused := func() {
			t.Helper()
			for _, role := range []string{"a", "b"} {
				for _, item := range waysToImport(role, s.dead.(string)) {
					if got := m.importItems(item)[0]; got["result"] != "refused" || !strings.Contains(got["error"].(string), "was revoked at") {
						t.Errorf("a revoked key is imported again: %v", got)
					}
				}
			}
		}
		refused()
		if err := deleteOp(m, nil); err != nil {
			t.Error(err)
		}
		m.expectVerdict(s.live, "NOT_FOUND")
		if got := m.status(logical.UpdateOperation, "restore/"+s.id, nil); got != 404 {
			t.Errorf("restore: %d", got)
		}
		m.run(3 * time.Hour)
		m.tidyAll()
		refused()
		if left := append(m.under(deletedPrefix), append(m.under(secretPrefix+s.id), m.under(duePrefix)...)...); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if len(m.under(archivePrefix+s.id)) == 0 {
			t.Error("the history is gone")
		}
		if got := m.importItems(map[string]any{"role": "b", "key": s.live})[0]; got["result"] != "imported" {
			t.Errorf("a key that was good: %v", got)
		}
		m.expectVerdict(s.live, "VALID")
	})
}

// TestPurgeWaitsForTombstones: with a fault at every call of the tick that purges.
func TestPurgeWaitsForTombstones(t *testing.T) {
	for _, typ := range []string{"static", "dynamic"} {
		prepare := func(m *testMount) any {
			m.write("config", map[string]any{"delete_recovery": "1h"})
			m.write("roles/a", map[string]any{"type": typ})
			key := current(m, "a")
			m.write("revoke/a", map[string]any{"all": true})
			m.remove("a")
			m.clock.advance(61 * time.Minute)
			return key
		}
		tick := func(m *testMount, _ any) error { return ticking(m, nil) }
		faulted(t, prepare, tick, func(m *testMount, x any, _ bool) {
			for _, wait := range []time.Duration{0, 3 * time.Hour} {
				m.run(wait)
				for _, item := range waysToImport("b", x.(string)) {
					if got := m.importItems(item)[0]; got["result"] != "refused" || !strings.Contains(got["error"].(string), "was revoked at") {
						t.Errorf("%s, after %s: %v", typ, wait, got)
					}
				}
			}
			if left := append(m.under(deletedPrefix), m.under(secretPrefix)...); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestManyIssuedKeysAreEntombedInTurns: a look at a deleted role is bounded, and
// the next goes on where it stopped.
func TestManyIssuedKeysAreEntombedInTurns(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/a", map[string]any{"type": "dynamic", "ttl": "20h"})
	var keys []string
	for range entombAtOnce + 100 {
		keys = append(keys, m.lease("a", nil).Data["api_key"].(string))
	}
	m.write("revoke/a", map[string]any{"all": true})
	id, _ := m.remove("a")
	if left := m.under(issuedPrefix + id); len(left) != 100 {
		t.Errorf("%d keys are left to later looks", len(left))
	}
	if left := m.under(deletedPrefix); len(left) != 1 {
		t.Errorf("the copy went first: %v", left)
	}
	m.run(5 * time.Minute)
	if left := append(m.under(issuedPrefix+id), m.under(deletedPrefix)...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	for _, key := range keys {
		if got := m.importItems(map[string]any{"role": "b", "key": key})[0]; got["result"] != "refused" {
			t.Fatal(got)
		}
	}
}

// TestTombstonesOutliveRaces: imports, deletions, purges and tidy at once never
// bring a revoked key back, and never lose one that was imported.
func TestTombstonesOutliveRaces(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	for round := range 15 {
		m.write("roles/a", map[string]any{"rotation_period": 0})
		dead := current(m, "a")
		m.write("revoke/a", map[string]any{"version": 1})
		live := current(m, "a")
		m.clock.advance(2 * time.Hour) // for tidy the records are old
		name := fmt.Sprint("b", round)
		var wg sync.WaitGroup
		wg.Go(func() { m.must(logical.DeleteOperation, "roles/a", nil) })
		wg.Go(func() { _, _ = m.do(logical.UpdateOperation, "tidy", nil) })
		adopted := make([]bool, 2)
		for i := range adopted {
			wg.Go(func() {
				for range 3 {
					for _, item := range append(waysToImport("x", dead), waysToImport("a", dead)...) {
						if got := m.importItems(item)[0]; got["result"] == "imported" {
							t.Errorf("a revoked key was imported: %v", got)
						}
					}
					if got := m.importItems(map[string]any{"role": name, "key": live})[0]; got["result"] != "refused" {
						adopted[i] = true
					}
				}
			})
		}
		wg.Wait()
		if code := m.verdict(dead); code == "VALID" {
			t.Fatalf("a revoked key is %s", code)
		}
		if adopted[0] || adopted[1] {
			m.expectVerdict(live, "VALID")
			m.tidyAll()
			m.expectVerdict(live, "VALID")
		}
	}
}

// TestImportIsRefusedWhereTheRecordChanged between the look and the write: the
// record that was left there says by then that the key was revoked.
func TestImportIsRefusedWhereTheRecordChanged(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/a", nil)
	key := current(m, "a")
	m.remove("a")
	own, err := keyformat.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	left, err := getRecord[keyRecord](context.Background(), m.storage, keyPath(own.ID()))
	if err != nil || left == nil {
		t.Fatal(left, err)
	}
	for _, change := range []func(*keyRecord){
		func(rec *keyRecord) { rec.End = &keyEnd{State: "revoked", At: m.clock.Now()} },
		func(rec *keyRecord) { rec.RoleID = "another" },
		func(rec *keyRecord) { rec.Version = 7 },
	} {
		changed := *left
		change(&changed)
		w := &swappingStorage{Storage: m.storage, path: keyPath(own.ID()), after: 3, record: &changed}
		n := mountOn(t, w, m.clock)
		if got := n.importItems(map[string]any{"role": "b", "key": key})[0]; got["result"] != "refused" || !strings.Contains(got["error"].(string), "changed by somebody else") {
			t.Error(got)
		}
		if w.gets < 3 {
			t.Errorf("the record was read %d times", w.gets)
		}
		w.replace(left)
	}
}

// swappingStorage replaces a record before it is read for the n-th time.
type swappingStorage struct {
	logical.Storage
	path        string
	after, gets int
	record      any
}

func (s *swappingStorage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if path == s.path {
		if s.gets++; s.gets == s.after {
			s.replace(s.record)
		}
	}
	return s.Storage.Get(ctx, path)
}

func (s *swappingStorage) replace(rec any) {
	entry, err := logical.StorageEntryJSON(s.path, rec)
	if err == nil {
		err = s.Put(context.Background(), entry)
	}
	if err != nil {
		panic(err)
	}
}
