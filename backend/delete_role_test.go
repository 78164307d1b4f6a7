// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// remove deletes the role and returns its role_id and until when it can be
// restored.
func (m *testMount) remove(role string) (id, until string) {
	m.t.Helper()
	got := m.must(logical.DeleteOperation, "roles/"+role, nil)
	return got["role_id"].(string), got["restorable_until"].(string)
}

func (m *testMount) status(op logical.Operation, path string, data map[string]any) int {
	m.t.Helper()
	status, _ := httpStatus(m.do(op, path, data))
	return status
}

// under is what is stored below the prefix.
func (m *testMount) under(prefix string) (paths []string) {
	m.t.Helper()
	for _, path := range sortedKeys(dump(m.t, m.storage)) {
		if strings.HasPrefix(path, prefix) {
			paths = append(paths, path)
		}
	}
	return paths
}

func TestDeleteEndsTheKeysAndRestoreBringsThemBack(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"owner": "team", "rotation_period": "12h", "grace_period": "1h"})
	first := m.read("creds/a")["api_key"]
	m.write("rotate/a", nil)
	second := m.read("creds/a")["api_key"]
	policy := plain(t, m.read("roles/a"))

	id, until := m.remove("a")
	if id != policy["role_id"] || until != m.clock.Now().Add(24*time.Hour).Format(time.RFC3339) {
		t.Fatal(id, until)
	}
	gone := func(m *testMount) {
		t.Helper()
		m.expectVerdict(first, "NOT_FOUND")
		m.expectVerdict(second, "NOT_FOUND")
		for _, path := range []string{"roles/a", "creds/a", "status/a"} {
			if got := m.status(logical.ReadOperation, path, nil); got != 404 {
				t.Errorf("%s: %d", path, got)
			}
		}
	}
	gone(m)
	gone(m.restart())
	if resp, err := m.do(logical.DeleteOperation, "roles/a", nil); resp != nil || err != nil {
		t.Errorf("deleted twice: %v %v", resp, err)
	}

	m.run(10 * time.Minute)
	got := m.write("restore/"+id, map[string]any{"reason": "a rename"})
	if got["role"] != "a" || got["role_id"] != id || number(t, got["current_version"]) != 2 || got["restored"] != true {
		t.Fatalf("%v", got)
	}
	for _, m := range []*testMount{m, m.restart()} {
		m.expectVerdict(first, "VALID")
		m.expectVerdict(second, "VALID")
		if again := plain(t, m.read("roles/a")); fmt.Sprint(again) != fmt.Sprint(policy) {
			t.Errorf("%v, want %v", again, policy)
		}
		if m.read("creds/a")["api_key"] != second {
			t.Error("another key is current")
		}
	}
	if got := m.write("restore/"+id, nil); got["restored"] != false || got["role"] != "a" {
		t.Errorf("restored twice: %v", got)
	}

	// The calendar knows it again: graces end, plaintexts go, rotation goes on.
	m.run(3 * time.Hour)
	m.expectVerdict(first, "RETIRED")
	m.run(10 * time.Hour)
	if v := number(t, m.read("creds/a")["version"]); v != 3 {
		t.Errorf("version %d", v)
	}
	if kept := m.under(secretPrefix + id); len(kept) != 2 {
		t.Errorf("plaintexts: %v", kept)
	}
	// Nothing of the deletion is left when its time comes.
	m.run(13 * time.Hour)
	if left := append(m.under(deletedPrefix), m.under(duePrefix+"2026")...); len(left) != 1 || strings.Contains(left[0], deletedMark) {
		t.Errorf("left: %v", left)
	}
	m.expectVerdict(m.restart().read("creds/a")["api_key"], "VALID")
}

// A second deletion has a time of its own, whatever the first left in the
// calendar.
func TestDeletedTwiceIsPurgedAfterTheSecond(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	id, _ := m.remove("a")
	m.write("restore/"+id, nil)
	m.clock.advance(12 * time.Hour)
	m.remove("a")
	m.run(13 * time.Hour)
	m.write("restore/"+id, nil)
	m.expectVerdict(key, "VALID")
	m.remove("a")
	m.run(25 * time.Hour)
	if left := append(m.under(deletedPrefix), append(m.under(secretPrefix), m.under(duePrefix)...)...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatEndedMeanwhileStaysEnded(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0, "ttl": "3h"})
	first := m.read("creds/a")["api_key"]
	m.write("rotate/a", map[string]any{"grace_period": "1h"})
	second := m.read("creds/a")["api_key"]
	id, _ := m.remove("a")
	m.clock.advance(2 * time.Hour)
	m.write("restore/"+id, nil)
	m.expectVerdict(first, "RETIRED")
	m.expectVerdict(second, "VALID")
	// A clock that goes back does not bring it back.
	m.clock.advance(-90 * time.Second)
	m.restart().expectVerdict(first, "RETIRED")

	id, _ = m.remove("a")
	m.clock.advance(2 * time.Hour)
	if got := m.write("restore/"+id, nil); number(t, got["current_version"]) != 0 {
		t.Errorf("%v", got)
	}
	m.expectVerdict(second, "EXPIRED")
}

func TestDeletedRoleIsPurgedAfterItsTime(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": "1h"})
	m.write("roles/a", nil)
	m.write("roles/b", nil)
	key := m.read("creds/a")["api_key"]
	id, until := m.remove("a")
	if until != m.clock.Now().Add(time.Hour).Format(time.RFC3339) {
		t.Error(until)
	}
	m.run(59 * time.Minute)
	if left := m.under(deletedPrefix); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	m.clock.advance(time.Minute)
	// Its time is over although nobody has purged it yet.
	if got := m.status(logical.UpdateOperation, "restore/"+id, nil); got != 404 {
		t.Errorf("restored late: %d", got)
	}
	m.run(3 * time.Minute)
	if left := append(m.under(deletedPrefix), m.under(secretPrefix+id)...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	for _, path := range m.under(duePrefix) {
		if strings.Contains(path, id) || strings.HasSuffix(path, "/a") {
			t.Errorf("left: %s", path)
		}
	}
	if pages := m.under(archivePrefix + id); len(pages) == 0 {
		t.Error("the history is gone")
	}
	if got := m.status(logical.UpdateOperation, "restore/"+id, nil); got != 404 {
		t.Errorf("restored after the purge: %d", got)
	}
	m.expectVerdict(key, "NOT_FOUND")
	m.expectVerdict(m.read("creds/b")["api_key"], "VALID")
}

func TestRecreatedRoleRevivesNothing(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	old := m.read("creds/a")["api_key"]
	id, _ := m.remove("a")
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	second := m.read("roles/a")["role_id"]
	if second == id {
		t.Fatal("the role_id is used again")
	}
	for _, m := range []*testMount{m, m.restart()} {
		m.expectVerdict(old, "NOT_FOUND")
		m.expectVerdict(key, "VALID")
	}
	m.unchanged(func() {
		m.refused(logical.UpdateOperation, "restore/"+id, nil, `role_id: "`+id+`": another role has the name "a" now, with role_id `+second.(string)+": delete that one first")
	})
	// The purge of the first leaves the second alone.
	m.run(25 * time.Hour)
	m.expectVerdict(key, "VALID")
	if left := m.under(deletedPrefix); len(left) != 0 {
		t.Errorf("left: %v", left)
	}

	// Two deleted roles of one name are told apart.
	secondID, _ := m.remove("a")
	m.write("roles/a", nil)
	thirdID, _ := m.remove("a")
	m.write("restore/"+secondID, nil)
	m.expectVerdict(key, "VALID")
	m.refused(logical.UpdateOperation, "restore/"+thirdID, nil, "another role has the name")
}

// The look that the role needs may fall on the very minute of the purge.
func TestRestoredRoleIsFiledAgain(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "24h10m"})
	id, _ := m.remove("a")
	m.write("restore/"+id, nil)
	m.run(24*time.Hour + 11*time.Minute)
	if v := number(t, m.read("creds/a")["version"]); v != 2 {
		t.Errorf("version %d", v)
	}
}

// A copy that a crash left beside the living role is not what a purge goes by.
func TestPurgeLeavesTheLivingAlone(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	id, _ := m.remove("a")
	copied := dump(t, m.storage)[deletedPath(id)]
	m.write("restore/"+id, nil)
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: deletedPath(id), Value: []byte(copied)}); err != nil {
		t.Fatal(err)
	}
	m.clock.advance(25 * time.Hour)
	m.run(2 * time.Minute)
	if left := m.under(deletedPrefix); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	m.expectVerdict(m.restart().read("creds/a")["api_key"], "VALID")
}

func TestStaleCopyRevivesNothing(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	id, _ := m.remove("a")
	copied := dump(t, m.storage)[deletedPath(id)]
	m.write("restore/"+id, nil)
	m.write("revoke/a", map[string]any{"all": true})
	m.expectVerdict(key, "REVOKED")

	// As if the restoration had crashed right after its commit.
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: deletedPath(id), Value: []byte(copied)}); err != nil {
		t.Fatal(err)
	}
	m.write("restore/"+id, nil)
	m.expectVerdict(key, "REVOKED")
	m.remove("a")
	m.write("restore/"+id, nil)
	m.expectVerdict(key, "REVOKED")

	// Nor does one that a deletion for good finds.
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: deletedPath(id), Value: []byte(copied)}); err != nil {
		t.Fatal(err)
	}
	m.write("config", map[string]any{"delete_recovery": 0})
	m.remove("a")
	if got := m.status(logical.UpdateOperation, "restore/"+id, nil); got != 404 {
		t.Errorf("%d", got)
	}
	m.expectVerdict(key, "NOT_FOUND")
}

func TestDeleteForGood(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	id, until := m.remove("a")
	if until != "" {
		t.Error(until)
	}
	if left := append(m.under(secretPrefix), append(m.under(deletedPrefix), m.under(duePrefix)...)...); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if pages := m.under(archivePrefix + id); len(pages) == 0 {
		t.Error("the history is gone")
	}
	m.expectVerdict(key, "NOT_FOUND")
	if got := m.status(logical.UpdateOperation, "restore/"+id, nil); got != 404 {
		t.Errorf("%d", got)
	}
}

func TestDeletionProtection(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"deletion_protection": true})
	m.unchanged(func() {
		m.refused(logical.DeleteOperation, "roles/a", nil, `deletion_protection: true: role "a" is protected: set it to false first`)
	})
	m.write("roles/a", map[string]any{"deletion_protection": false})
	m.remove("a")
}

func TestRestoreOfNothing(t *testing.T) {
	m := newMount(t)
	m.unchanged(func() {
		for _, id := range []string{"x", "..", "6b9e2c1e-0000-4000-8000-000000000000", strings.Repeat("a", 2000)} {
			if got := m.status(logical.UpdateOperation, "restore/"+id, nil); got != 404 {
				t.Errorf("%s: %d", id, got)
			}
		}
		if resp, err := m.do(logical.ReadOperation, "restore/x", nil); !errors.Is(err, logical.ErrUnsupportedOperation) {
			t.Errorf("%v %v", resp, err)
		}
	})
}

func TestDynamicRoleComesBackWithItsKeys(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "10h"})
	kept, dead := m.lease("d", nil), m.lease("d", nil)
	id, _ := m.remove("d")
	m.expectVerdict(kept.Data["api_key"], "NOT_FOUND")
	// A lease that ends while its role is hidden ends its key for good.
	if _, err := m.onLease(logical.RevokeOperation, dead, 0); err != nil {
		t.Fatal(err)
	}
	m.write("restore/"+id, nil)
	for _, m := range []*testMount{m, m.restart()} {
		m.expectVerdict(kept.Data["api_key"], "VALID")
		m.expectVerdict(dead.Data["api_key"], "REVOKED")
	}
}

func TestDeletionAndRestorationAreHistory(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	id, _ := m.remove("a")
	m.write("restore/"+id, map[string]any{"reason": "a mistake"})
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("a"))
	if err != nil {
		t.Fatal(err)
	}
	if !rec.Deleted.IsZero() || rec.DeletedBy != "" || !rec.PurgeAt.IsZero() {
		t.Errorf("%+v", rec)
	}
	n := len(rec.History)
	if a, b := rec.History[n-2], rec.History[n-1]; a.Kind != eventRoleDeleted || b.Kind != eventRoleRestored || b.Reason != "a mistake" || a.Display != "token-operator" {
		t.Errorf("%+v %+v", a, b)
	}
}

var allFaults = []fault{faultFail, faultApplied, faultCrash, faultApplyCrash, faultReadOnly}

// faulted runs op with every fault at every call to storage in turn. prepare
// sets the stage; after is given the engine that had the fault and one that was
// started anew on what it left.
func faulted(t *testing.T, prepare func(m *testMount) any, op func(m *testMount, x any) error, after func(m *testMount, x any, acknowledged bool)) {
	t.Helper()
	for _, f := range allFaults {
		for _, anew := range []bool{false, true} {
			for n := 1; ; n++ {
				p := newProbe(&logical.InmemStorage{})
				m := mountOn(t, p, newFakeClock())
				x := prepare(m)
				if anew {
					m = m.restart() // nothing cached
				}
				p.arm(n, f)
				err := op(m, x)
				calls, _ := p.count()
				p.reset()
				if calls < n {
					break
				}
				if anew || f == faultCrash || f == faultApplyCrash {
					m = m.restart()
				}
				after(m, x, err == nil)
				if t.Failed() {
					t.Fatalf("fault %d at call %d, started anew: %v", f, n, anew)
				}
			}
		}
	}
}

type staged struct {
	id   string
	dead any // a key that was refused before
	live any
}

func prepareRole(recovery string) func(m *testMount) any {
	return func(m *testMount) any {
		m.write("config", map[string]any{"delete_recovery": recovery})
		m.write("roles/a", map[string]any{"rotation_period": 0})
		s := staged{id: m.read("roles/a")["role_id"].(string), dead: m.read("creds/a")["api_key"]}
		m.write("rotate/a", map[string]any{"grace_period": 0})
		s.live = m.read("creds/a")["api_key"]
		return s
	}
}

func deleteOp(m *testMount, _ any) error {
	_, err := m.do(logical.DeleteOperation, "roles/a", nil)
	return err
}

func TestDeletionSurvivesFaults(t *testing.T) {
	for _, recovery := range []string{"24h", "0"} {
		faulted(t, prepareRole(recovery), deleteOp, func(m *testMount, x any, acknowledged bool) {
			s := x.(staged)
			got := m.verdict(s.live)
			if got != "VALID" && got != "NOT_FOUND" || acknowledged && got == "VALID" {
				t.Errorf("acknowledged %v, and the key is %s", acknowledged, got)
			}
			if got == "VALID" {
				m.expectVerdict(s.dead, "RETIRED")
				m.write("rotate/a", nil) // it goes on as if nothing had been
			}
			if err := deleteOp(m, nil); err != nil {
				t.Error(err)
			}
			m.expectVerdict(s.live, "NOT_FOUND")
			m.expectVerdict(s.dead, "NOT_FOUND")
			status := m.status(logical.UpdateOperation, "restore/"+s.id, nil)
			if recovery == "0" {
				if status != 404 {
					t.Errorf("restored: %d", status)
				}
				return
			}
			if status != 200 {
				t.Errorf("restore: %d", status)
			}
			m.expectVerdict(s.live, "VALID")
			m.expectVerdict(s.dead, "RETIRED")
			m.remove("a")
			m.clock.advance(25 * time.Hour)
			m.run(2 * time.Minute)
			if left := append(m.under(deletedPrefix), append(m.under(secretPrefix), m.under(duePrefix)...)...); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestRestorationSurvivesFaults(t *testing.T) {
	prepare := func(m *testMount) any {
		s := prepareRole("24h")(m)
		m.remove("a")
		return s
	}
	restore := func(m *testMount, x any) error {
		_, err := m.do(logical.UpdateOperation, "restore/"+x.(staged).id, nil)
		return err
	}
	faulted(t, prepare, restore, func(m *testMount, x any, acknowledged bool) {
		s := x.(staged)
		if got := m.verdict(s.live); got != "VALID" && got != "NOT_FOUND" || acknowledged && got != "VALID" {
			t.Errorf("acknowledged %v, and the key is %s", acknowledged, got)
		}
		if err := restore(m, x); err != nil {
			t.Error(err)
		}
		m.expectVerdict(s.live, "VALID")
		m.expectVerdict(s.dead, "RETIRED")
		m.write("revoke/a", map[string]any{"all": true})
		if err := restore(m, x); err != nil {
			t.Error(err)
		}
		m.expectVerdict(s.live, "REVOKED")
		m.clock.advance(25 * time.Hour)
		m.run(lateFor + 2*time.Minute) // whether role or copy is looked at first is chance
		if left := m.under(deletedPrefix); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		m.remove("a")
		m.write("restore/"+s.id, nil)
		m.expectVerdict(s.live, "REVOKED")
	})
}

func TestPurgeSurvivesFaults(t *testing.T) {
	prepare := func(m *testMount) any {
		s := prepareRole("1h")(m)
		m.remove("a")
		m.write("roles/a", nil)
		m.clock.advance(61 * time.Minute)
		return s
	}
	tick := func(m *testMount, _ any) error {
		_, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
		return err
	}
	faulted(t, prepare, tick, func(m *testMount, x any, _ bool) {
		s := x.(staged)
		m.expectVerdict(s.live, "NOT_FOUND")
		m.expectVerdict(m.read("creds/a")["api_key"], "VALID")
		m.run(2 * time.Hour) // beyond the longest wait after a failure
		left := append(m.under(deletedPrefix), m.under(secretPrefix+s.id)...)
		for _, path := range m.under(duePrefix) {
			if strings.Contains(path, deletedMark) {
				left = append(left, path)
			}
		}
		if len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if len(m.under(archivePrefix+s.id)) == 0 {
			t.Error("the history is gone")
		}
		m.expectVerdict(m.read("creds/a")["api_key"], "VALID")
	})
}
