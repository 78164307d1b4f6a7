// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// failingAt is a storage whose writes and deletions below the prefixes fail.
type failingAt struct {
	logical.Storage

	at []string
}

func (s *failingAt) hits(path string) bool {
	for _, at := range s.at {
		if strings.HasPrefix(path, at) {
			return true
		}
	}
	return false
}

func (s *failingAt) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.hits(e.Key) {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

func (s *failingAt) Delete(ctx context.Context, path string) error {
	if s.hits(path) {
		return errStorage
	}
	return s.Storage.Delete(ctx, path)
}

// newFailing is a mount with static role r, which has no plan, on such a storage.
func newFailing(t *testing.T) (*testMount, *failingAt) {
	t.Helper()
	s := &failingAt{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": 0})
	m.tick()
	m.clock.advance(time.Minute)
	return m, s
}

// owing revokes the current version where there can be no replacement.
func owing(m *testMount, s *failingAt, more ...string) {
	m.t.Helper()
	key := current(m, "r")
	s.at = append([]string{keyPrefix}, more...)
	m.write("revoke/r", map[string]any{"all": true})
	s.at = nil
	m.expectVerdict(key, "REVOKED")
	if rec := m.record("r"); !rec.Owed || rec.Ring.Current(m.now()) != nil {
		m.t.Fatalf("nothing is owed: %+v", rec.Ring)
	}
}

// TestOwedReplacementComesAtOnce: with the next tick, whatever of its side work a kill
// could not do.
func TestOwedReplacementComesAtOnce(t *testing.T) {
	for name, fails := range map[string][]string{
		"nothing else fails": nil, "no calendar": {duePrefix}, "no index": {attentionPrefix}, "neither": {duePrefix, attentionPrefix},
		"nothing but the role": {duePrefix, attentionPrefix, archivePrefix, secretPrefix, prefixesPath},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newFailing(t)
			owing(m, s, fails...)
			m.clock.advance(time.Minute)
			m.tick()
			m.expectVerdict(current(m, "r"), "VALID")
			if m.record("r").Owed {
				t.Error("still owed")
			}
			m.run(3 * time.Hour)
			if n := m.record("r").Ring.Last; n != 2 {
				t.Errorf("%d versions", n)
			}
		})
		t.Run(name+", after a failover", func(t *testing.T) {
			m, s := newFailing(t)
			key := current(m, "r")
			owing(m, s, fails...)
			m = m.restart()
			m.clock.advance(time.Minute)
			m.expectVerdict(key, "REVOKED") // somebody comes by
			m.tick()
			m.expectVerdict(current(m, "r"), "VALID")
		})
	}
}

// TestDebtRemainsUntilThereIsACurrentVersion: who stages a version for later gets what
// is owed at once.
func TestDebtRemainsUntilThereIsACurrentVersion(t *testing.T) {
	for name, stage := range map[string]map[string]any{"held": {"stage": true}, "dated": {"activate_at": "48h"}} {
		t.Run(name, func(t *testing.T) {
			m, s := newFailing(t)
			owing(m, s)
			resp := m.writeResp("rotate/r", stage)
			if got := int(number(t, resp.Data["version"])); got != 3 || len(resp.Warnings) == 0 {
				t.Errorf("%v %v", resp.Data, resp.Warnings)
			}
			m.expectStates("r", "revoked current pending")
			key := current(m, "r")
			m.run(time.Hour)
			m.expectStates("r", "revoked current pending")
			m.expectVerdict(key, "VALID")
			if rec := m.record("r"); rec.Owed {
				t.Error("still owed")
			}
			if name == "dated" {
				m.run(48 * time.Hour)
				m.expectStates("r", "revoked previous current")
			}
		})
	}
	t.Run("which fails, too", func(t *testing.T) {
		m, s := newFailing(t)
		owing(m, s)
		s.at = []string{keyPrefix}
		if _, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"activate_at": "48h"}); err == nil {
			t.Fatal("no error")
		}
		s.at = nil
		if !m.record("r").Owed {
			t.Fatal("nothing is owed any more")
		}
		m.run(2 * time.Minute)
		m.expectVerdict(current(m, "r"), "VALID")
	})
}

// TestWhoWantsNoReplacementGetsNone: also none that was owed before.
func TestWhoWantsNoReplacementGetsNone(t *testing.T) {
	for name, ask := range map[string]map[string]any{
		"all": {"all": true, "rotate": false}, "the version": {"version": 1, "rotate": false},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newFailing(t)
			owing(m, s)
			m.write("revoke/r", ask)
			m.run(3 * time.Hour)
			m.expectStates("r", "revoked")
			if m.record("r").Owed {
				t.Error("still owed")
			}
		})
	}
	t.Run("but for another version", func(t *testing.T) {
		m, s := newFailing(t)
		m.write("rotate/r", nil)
		key := current(m, "r")
		s.at = []string{keyPrefix}
		m.write("revoke/r", map[string]any{"version": 2})
		s.at = nil
		m.expectVerdict(key, "REVOKED")
		m.write("revoke/r", map[string]any{"version": 1, "rotate": false})
		m.run(3 * time.Minute)
		m.expectVerdict(current(m, "r"), "VALID")
	})
	t.Run("all, with a previous version left", func(t *testing.T) {
		m, s := newFailing(t)
		m.write("rotate/r", nil)
		s.at = []string{keyPrefix}
		m.write("revoke/r", map[string]any{"version": 2})
		s.at = nil
		m.write("revoke/r", map[string]any{"all": true, "rotate": false})
		m.run(3 * time.Hour)
		m.expectStates("r", "revoked revoked")
	})
	t.Run("in a deleted role", func(t *testing.T) {
		m, _ := newFailing(t)
		id := m.idOf(current(m, "r"))
		roleID, _ := m.remove("r")
		m.write("revoke/r", map[string]any{"key_id": id})
		m.write("revoke/r", map[string]any{"key_id": id, "rotate": false})
		m.write("restore/"+roleID, nil)
		m.run(3 * time.Hour)
		m.expectStates("r", "revoked")
	})
}

// TestLeakIsCappedWithoutReplacement: a reported key that is to be replaced ends even if
// its replacement cannot be made, no later than it would have ended, and the
// replacement comes before.
func TestLeakIsCappedWithoutReplacement(t *testing.T) {
	for name, fails := range map[string][]string{"the key's record": {keyPrefix}, "the plaintext": {secretPrefix}} {
		m, s := newFailing(t)
		m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "1h"})
		key := current(m, "r")
		s.at = fails
		m.expectReport(key, leakActed)
		m.expectVerdict(key, "VALID")
		s.at = nil
		for _, m := range []*testMount{m, m.restart()} {
			if cur := m.record("r").Ring.Current(m.now()); cur.N != 1 || !cur.Cap.Equal(m.clock.Now().Add(time.Hour)) {
				t.Fatalf("%s: %+v", name, cur)
			}
		}
		m.clock.advance(time.Minute)
		m.tick()
		m.expectStates("r", "previous current")
		m.clock.advance(59 * time.Minute)
		m.expectVerdict(key, "RETIRED")
		m.run(2 * time.Hour)
		if n := m.record("r").Ring.Last; n != 2 {
			t.Errorf("%s: %d versions", name, n)
		}
	}
	// It was to end with the pending version, which dies.
	m, s := newFailing(t)
	m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "10h"})
	key := current(m, "r")
	m.write("rotate/r", map[string]any{"activate_at": "30m", "grace_period": "30m"})
	s.at = []string{keyPrefix}
	m.expectReport(key, leakActed)
	s.at = nil
	m.clock.advance(time.Hour)
	m.expectVerdict(key, "RETIRED")
}

// TestFailedReactionUsesUpNoSlot: a report that could not be acted on leaves the budget
// as it was.
func TestFailedReactionUsesUpNoSlot(t *testing.T) {
	for _, role := range []map[string]any{{"rotation_period": 0}, {"type": "dynamic"}} {
		m, s := newFailing(t)
		m.write("config", map[string]any{"max_leak_actions": 1})
		m.write("roles/x", role)
		key := current(m, "x")
		s.at = []string{rolePrefix, keyPrefix}
		for range 3 {
			if _, err := m.do(logical.UpdateOperation, "report", map[string]any{"key": key}); err == nil {
				t.Fatal("no error")
			}
		}
		s.at = nil
		m.expectReport(key, leakActed)
		m.expectVerdict(key, "REVOKED")
		m.expectReport(current(m, "r"), leakDeferred)
	}
}

// unreadUsage is a storage whose counts cannot be read while on.
type unreadUsage struct {
	logical.Storage

	on bool
}

func (s *unreadUsage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if s.on && strings.HasPrefix(path, usagePrefix) {
		return nil, errStorage
	}
	return s.Storage.Get(ctx, path)
}

// TestNoVersionWaitsForCounts: where a version is to be made at the same look as the use
// of the keys is looked at, it is made whether that can be read or not.
func TestNoVersionWaitsForCounts(t *testing.T) {
	counts := &unreadUsage{Storage: &logical.InmemStorage{}}
	s := &failingAt{Storage: counts}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": "2h", "grace_period": "90m", "max_grace_period": "2h"})
	m.run(2*time.Hour + time.Minute)
	m.expectVersion(2, "r")
	counts.on = true
	m.clock.advance(87 * time.Minute) // when it is decided about the grace of version 1
	s.at = []string{keyPrefix}
	m.write("revoke/r", map[string]any{"version": 2})
	s.at = nil
	m.clock.advance(time.Minute)
	m.tick()
	if cur := m.record("r").Ring.Current(m.now()); cur == nil || cur.N != 3 {
		t.Errorf("nothing replaces version 2: %v", cur)
	}
}

// TestUnreadCountsAreNoUse: nobody is told that a version is unclaimed, or is not, as long
// as its use cannot be read; then it is looked for again.
func TestUnreadCountsAreNoUse(t *testing.T) {
	counts := &unreadUsage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, counts, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "2h", "reveal": "once"})
	m.write("rotate/r", nil)
	m.run(59 * time.Minute)
	counts.on = true
	m.run(5 * time.Minute)
	if v := m.record("r").Ring.Get(2); v.LookedFor || len(m.under(problemPrefix)) == 0 {
		t.Errorf("looked for: %v, problems %v", v.LookedFor, m.under(problemPrefix))
	}
	counts.on = false
	m.run(20 * time.Minute)
	if v := m.record("r").Ring.Get(2); v.Unclaimed.IsZero() {
		t.Error("nobody is told that version 2 is unclaimed")
	}
}
