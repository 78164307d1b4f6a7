// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A deletion that failed and lands once a restoration has found the role alive, or has
// brought it back, loses nothing: the role can be restored again.
func TestDeletionThatLandsAfterARestoration(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(m *testMount){
		"it lived":   func(*testMount) {},
		"it came":    func(m *testMount) { m.remove("a") },
		"a rotation": func(m *testMount) { m.write("rotate/a", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			m.write("roles/a", map[string]any{"rotation_period": 0})
			id, key := m.record("a").ID, current(m, "a")
			s.fails(rolePrefix)
			if got := m.status(logical.DeleteOperation, "roles/a", nil); got != 500 {
				t.Fatal(got)
			}
			between(m)
			m.write("restore/"+id, nil)
			newest := current(m, "a")
			s.land()
			m.expectVerdict(key, "NOT_FOUND")
			m.write("restore/"+id, nil)
			m.expectVerdict(key, "VALID")
			m.expectVerdict(newest, "VALID")
			m.run(26 * time.Hour)
			m.tidyAll()
			m.expectVerdict(newest, "VALID")
			if left := m.under(deletedPrefix); len(left) > 0 {
				t.Errorf("the copy is kept for good: %v", left)
			}
		})
	}
}

// What was killed after a deletion that failed stays dead, if the deletion lands and the
// role is restored from the copy that it made.
func TestDeletionThatLandsAfterAKill(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(m *testMount, key string){
		"revoke":  func(m *testMount, _ string) { m.write("revoke/a", map[string]any{"all": true}) },
		"report":  func(m *testMount, key string) { m.expectReport(key, leakActed) },
		"grace 0": func(m *testMount, _ string) { m.write("rotate/a", map[string]any{"grace_period": 0}) },
		"by a job": func(m *testMount, _ string) {
			m.startJob("action", "revoke", "name_prefix", "a")
			m.run(time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			m.write("roles/a", map[string]any{"rotation_period": 0})
			id, key := m.record("a").ID, current(m, "a")
			s.fails(rolePrefix)
			if got := m.status(logical.DeleteOperation, "roles/a", nil); got != 500 {
				t.Fatal(got)
			}
			kill(m, key)
			want := m.verdict(key)
			if want == "VALID" {
				t.Fatal("it lives")
			}
			s.land()
			m.write("restore/"+id, nil)
			m.expectVerdict(key, want)
			m.expectVerdict(current(m, "a"), "VALID")
		})
	}
}

// While a deletion may land the purge waits: the copy may be all that tells of what ended.
func TestPurgeWaitsForADeletionThatMayLand(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("config", map[string]any{"delete_recovery": 60})
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.write("rotate/a", map[string]any{"grace_period": 0})
	id := m.record("a").ID
	s.fails(rolePrefix)
	m.status(logical.DeleteOperation, "roles/a", nil)
	m.run(3 * time.Minute)
	if !m.exists(deletedPath(id)) {
		t.Fatal("the copy of a role that may be gone any moment was removed")
	}
	m.run(2 * lateFor)
	if m.exists(deletedPath(id)) {
		t.Error("the copy of a role that lives is kept")
	}
	m.expectVerdict(current(m, "a"), "VALID")
}

// A record that a late write left at an earlier name of a renamed role is no role either
// once the role is gone for good.
func TestNothingLeftOfAPurgedRoleIsARole(t *testing.T) {
	t.Parallel()
	s := &lateStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("config", map[string]any{"delete_recovery": 60})
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := current(m, "r")
	s.hold = func(path string) bool { return path == rolePath("r") }
	m.status(logical.UpdateOperation, "rotate/r", nil)
	s.hold = nil
	id := m.rename("r", "n")
	m.remove("n")
	m.run(5 * time.Minute)
	s.land()
	if m.exists(deletedPath(id)) {
		t.Fatal("the role was not purged")
	}
	for _, m := range []*testMount{m, m.restart()} {
		m.expectVerdict(key, "NOT_FOUND")
		if !m.read404("roles/r") {
			t.Error("the role is back")
		}
		m.refused404("restore/"+id, nil)
		m.refused404("revoke/r", map[string]any{"all": true})
		if got := m.must(logical.ReadOperation, "history/n", map[string]any{"role_id": id}); got["deleted"] != true {
			t.Errorf("its history: %v", got)
		}
	}
	// Its key is free, and tidy takes away the rest.
	item := string(encoded(t, []map[string]any{{"role": "other", "key": key}}))
	m.write("import", map[string]any{"batch": item})
	m.expectVerdict(key, "VALID")
	m.run(2 * time.Hour)
	m.tidyAll()
	if left := append(m.under(movedPrefix), m.under(rolePrefix)...); len(left) != 1 || left[0] != rolePath("other") {
		t.Errorf("left: %v", left)
	}
	m.expectVerdict(key, "VALID")
}

// Tidy of an instance that was not told of a rename does not make the mount forget that
// there was one.
func TestTidyOfAnInstanceThatKnowsOfNoRename(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := current(m, "r")
	other := m.restart()
	if other.renamesKnown(t.Context(), other.storage) {
		t.Fatal("a rename is known before there was one")
	}
	m.rename("r", "n")
	other.run(10 * time.Minute)
	for _, m := range []*testMount{m, other, m.restart()} {
		m.expectVerdict(key, "VALID")
	}
}

// A job whose record lands after the request has failed is worked on soon, and not when
// somebody makes another one.
func TestJobThatLandsLate(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.tick()
	s.fails(jobPrefix)
	if got := m.status(logical.UpdateOperation, "bulk", map[string]any{"action": "rotate", "name_prefix": "a", "dry_run": false}); got != 500 {
		t.Fatal(got)
	}
	m.run(time.Minute)
	s.land()
	m.run(time.Minute)
	m.expectVersion(2, "a")
}

// The request of a job that failed, was repeated and then landed makes one job: that of
// the answer.
func TestJobThatLandsAfterItsRepetition(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wait time.Duration
		same bool // the same request
	}{{0, true}, {time.Minute, true}, {0, false}, {time.Minute, false}} {
		s := &landingStorage{Storage: &logical.InmemStorage{}}
		m := mountOn(t, s, newFakeClock())
		m.write("roles/a", map[string]any{"rotation_period": 0})
		m.tick()
		ask := map[string]any{"action": "rotate", "name_prefix": "a", "dry_run": false, "request_id": "quarter-4"}
		s.fails(jobPrefix)
		if got := m.status(logical.UpdateOperation, "bulk", ask); got != 500 {
			t.Fatal(got)
		}
		m.clock.advance(time.Second)
		want := int64(2)
		if !c.same {
			ask["request_id"], want = "quarter-5", 3
		}
		id := m.write("bulk", ask)["job"]
		m.run(c.wait)
		s.land()
		m.run(3 * time.Minute)
		m.expectVersion(want, "a")
		if got := m.write("bulk", ask)["job"]; got != id {
			t.Errorf("the repetition answers job %v, not %v", got, id)
		}
	}
}

// A role that is renamed while a job is under way does not escape it, wherever its new
// name stands, and is dealt with once.
func TestRenamedRolesDoNotEscapeAJob(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"a0", "c0", "zz"} {
		for _, from := range []string{"b", "x"} { // done with already, and still to come
			for _, action := range []string{"revoke", "rotate"} {
				t.Run(fmt.Sprintf("%s, %s to %s", action, from, to), func(t *testing.T) {
					m := newMount(t)
					for _, name := range []string{"b", "c", "d", "e", "x"} {
						m.write("roles/"+name, map[string]any{"owner": "o", "rotation_period": 0})
					}
					m.write("roles/other", map[string]any{"owner": "p", "rotation_period": 0})
					m.rename("other", "others") // not by this, and not the job's
					m.clock.advance(time.Second)
					job := m.startJob("action", action, "owner", "o", "pace", 2)
					m.run(time.Minute)
					if got := m.read("bulk/" + job); number(t, got["acted"]) != 2 {
						t.Fatal(got)
					}
					m.rename(from, to)
					m.run(time.Minute)
					m = m.restart()
					m.run(5 * time.Minute)
					if got := m.read("bulk/" + job); got["state"] != "done" || number(t, got["acted"]) < 5 {
						t.Errorf("the job: %v", got)
					}
					m.expectVersion(2, "c", "d", "e", to)
					m.expectVersion(1, "others")
				})
			}
		}
	}
	t.Run("outside its prefix", func(t *testing.T) {
		m := newMount(t)
		m.makeRoles("r", 4, nil)
		m.startJob("action", "rotate", "name_prefix", "r", "pace", 1)
		m.run(time.Minute)
		m.rename("r0003", "s")
		m.run(5 * time.Minute)
		m.expectVersion(1, "s")
	})
}

// Nor do the keys of a dynamic role that is renamed while a job is at them.
func TestRenamedRolesKeysDoNotEscapeAJob(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"a0", "zz"} {
		m, s := slowMount(t)
		keys := m.issueTo("d", "leaver", 300)
		s.cost = 10 * time.Millisecond
		job := m.startJob("action", "revoke", "issued_to", "leaver", "pace", 1)
		m.minute()
		if m.storedJob(job).Inside == nil {
			t.Fatal("it is not inside the role")
		}
		s.cost = time.Millisecond
		m.rename("d", to)
		for range 6 {
			m.minute()
		}
		for _, key := range keys {
			m.expectVerdict(key, "REVOKED")
		}
		if got := m.storedJob(job); got.State != jobDone || got.Keys != len(keys) || got.Acted != 1 {
			t.Errorf("the job: %+v", got)
		}
	}
}

// A problem that another node stored is over when the role works here, is deleted, or
// when the server says that the other node changed it.
func TestProblemsOfAnotherNode(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	fails := func() *testMount {
		p := m.problems.failed("a", errors.New("storage is away"), m.clock.Now())
		m.storeProblem(t.Context(), m.storage, "a", p)
		other := m.restart()
		if got := other.read("status/a")["last_error"]; !strings.Contains(got.(string), "storage is away") {
			t.Fatalf("last_error: %v", got)
		}
		return other
	}
	clean := func(other *testMount, when string) {
		t.Helper()
		if got := other.read("status/a")["last_error"]; got != "" || other.exists(problemPath("a")) {
			t.Errorf("%s: last_error %v, stored %v", when, got, other.exists(problemPath("a")))
		}
	}
	other := fails()
	other.run(90 * time.Minute)
	clean(other, "after a look that went well")
	other = fails()
	other.remove("a")
	other.write("roles/a", nil)
	clean(other, "in a new role of the name")
	m.InvalidateKey(t.Context(), rolePath("a"))
	m.InvalidateKey(t.Context(), problemPath("a"))
	clean(m, "on the node that stored it")
	// And one that the other node stores in its turn.
	p := other.problems.failed("a", errors.New("x"), m.clock.Now())
	other.storeProblem(t.Context(), m.storage, "a", p)
	m.InvalidateKey(t.Context(), problemPath("a"))
	m.clearProblem(t.Context(), m.storage, "a", nil)
	clean(m, "stored by the other node since")
}

// What was deleted by a clock that was a year ahead is gone when its time from the
// correction on is over.
func TestDeletedUnderAWrongClock(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.tick()
	right := m.clock.Now()
	m.clock.advance(365 * 24 * time.Hour)
	id, _ := m.remove("a")
	m.clock.set(right.Add(time.Hour))
	m.tick()
	m.tidyAll()
	m.run(20 * time.Hour)
	if !m.exists(deletedPath(id)) {
		t.Fatal("it is gone too early")
	}
	m.run(7 * time.Hour)
	if left := append(m.under(deletedPrefix), m.under(secretPrefix)...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A value that lands late is the same as that of the version which was made after all; and
// one of another key, which another node has stored, is handed to nobody.
func TestValueThatLandsLateIsNotHandedOut(t *testing.T) {
	t.Parallel()
	for _, reveal := range []string{"always", "once"} {
		s := &landingStorage{Storage: &logical.InmemStorage{}}
		m := mountOn(t, s, newFakeClock())
		m.write("roles/a", map[string]any{"rotation_period": 0, "reveal": reveal})
		s.fails(secretPrefix)
		if got := m.status(logical.UpdateOperation, "rotate/a", nil); got != 500 {
			t.Fatal(got)
		}
		m.write("rotate/a", nil)
		if len(m.begun.keys) > 0 {
			t.Errorf("%s: the key of a version that exists is kept for another", reveal)
		}
		s.land()
		id, made := m.roleID("a"), m.record("a").Ring.Get(2)
		secret, err := getRecord[secretRecord](t.Context(), s, secretPath(id, 2))
		if err != nil || secret.of(m.record("a"), made) != nil {
			t.Errorf("%s: what landed is another key's: %v", reveal, err)
		}
		other, _, err := m.mintKey(mustDigests(t, m), "apikey")
		if err != nil {
			t.Fatal(err)
		}
		plant(t, s, secretPath(id, 2), &secretRecord{Schema: recordSchema, Key: other.Reveal()})
		if _, err := m.do(logical.ReadOperation, "creds/a", nil); err == nil || !strings.Contains(err.Error(), "rotate/a makes a new one") {
			t.Errorf("%s: %v", reveal, err)
		}
		m.write("rotate/a", nil)
		m.expectVerdict(current(m, "a"), "VALID")
	}
}

// A look at a role that comes before a late commit lands takes away the entry in the
// calendar that the commit needs: once nothing lands any more the role is looked at, and
// does not wait for tidy, which may take weeks.
func TestLookThatComesBeforeACommitLands(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", map[string]any{"rotation_period": "1h", "grace_period": "5m"})
	m.run(2 * time.Minute)
	s.fails(rolePrefix)
	if got := m.status(logical.UpdateOperation, "rotate/a", map[string]any{"activate_at": "2m"}); got != 500 {
		t.Fatal(got)
	}
	minutes := func(n int) {
		for range n {
			m.tidy.next = m.clock.Now().Add(time.Hour)
			m.run(time.Minute)
		}
	}
	minutes(3)
	s.land()
	if rec := m.record("a"); rec.Ring.Last != 2 || m.exists(duePath(rec.Due, "a")) {
		t.Fatal("nothing was tested")
	}
	minutes(5)
	if rec := m.record("a"); !m.exists(duePath(rec.Due, "a")) || rec.Due.Before(m.clock.Now()) {
		t.Errorf("filed at %v: %v", rec.Due, m.under(duePrefix))
	}
}

// The key of a version that was never made is not kept for longer than it may land.
func TestKeysOfFailedMakingsAreForgotten(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	m := entrusted(t, s, newFakeClock())
	m.write("roles/a", map[string]any{"rotation_period": 0})
	s.fails(secretPrefix)
	if got := m.status(logical.UpdateOperation, "rotate/a", nil); got != 500 || len(m.begun.keys) != 1 {
		t.Fatal(got, len(m.begun.keys))
	}
	m.clock.advance(lateFor - time.Second)
	if m.tick(); len(m.begun.keys) != 1 {
		t.Error("forgotten too soon")
	}
	m.clock.advance(time.Second)
	if m.tick(); len(m.begun.keys) != 0 {
		t.Error("kept")
	}
}
