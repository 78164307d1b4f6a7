// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// losing is a storage with a hook at Lists, and that refuses writes at prefixes.
type losing struct {
	logical.Storage

	listed func(prefix string)
	refuse []string
}

func (s *losing) List(ctx context.Context, prefix string) ([]string, error) {
	if s.listed != nil {
		s.listed(prefix)
	}
	return s.Storage.List(ctx, prefix)
}

func (s *losing) Put(ctx context.Context, e *logical.StorageEntry) error {
	for _, prefix := range s.refuse {
		if strings.HasPrefix(e.Key, prefix) {
			return errStorage
		}
	}
	return s.Storage.Put(ctx, e)
}

// loseEntries removes everything from the calendar.
func (m *testMount) loseEntries() {
	m.t.Helper()
	for name := range allRecords(m.t.(*testing.T), m.storage) {
		if strings.HasPrefix(name, duePrefix) {
			if err := m.storage.Delete(context.Background(), name); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// A write during the first walk after a long seal files what is overdue where the
// walk has not been.
func TestWriteDuringTheFirstWalkIsNotMissed(t *testing.T) {
	s := &losing{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": "1h", "rotation_paused": true})
	m.tick()
	m.clock.advance(18 * time.Hour)
	last := dayPrefix(m.clock.Now())
	s.listed = func(prefix string) {
		if prefix == last {
			s.listed = nil
			m.write("roles/r", map[string]any{"rotation_paused": false})
		}
	}
	m.tick()
	if s.listed != nil {
		t.Fatal("the walk did not come to the present minute")
	}
	m.run(time.Minute)
	m.expectStates("r", "previous current")
}

// Nothing is filed into a minute that is over, whatever the cursor says.
func TestNothingIsFiledIntoThePast(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h", "rotation_paused": true})
	m.clock.advance(72 * time.Hour)
	m.tick() // under a clock that is wrong
	m.clock.advance(-40 * time.Hour)
	m.write("roles/r", map[string]any{"rotation_paused": false})
	if due, now := m.record("r").Due, m.clock.Now().Truncate(time.Minute); due.Before(now) {
		t.Errorf("filed at %s, at %s", due, now)
	}
	m.run(time.Minute)
	m.expectStates("r", "previous current")
}

// Whoever comes across a role that the calendar lacks has the next tick look at it.
func TestMissingEntryIsNoticedByReads(t *testing.T) {
	var key any
	for what, read := range map[string]func(m *testMount){
		"verify":     func(m *testMount) { m.verdict(key) },
		"creds":      func(m *testMount) { m.read("creds/r") },
		"pending":    func(m *testMount) { _, _ = m.do(logical.ReadOperation, "creds/r/pending", nil) },
		"status":     func(m *testMount) { m.read("status/r") },
		"the policy": func(m *testMount) { m.read("roles/r") },
		"a write":    func(m *testMount) { m.write("roles/r", map[string]any{"owner": "b"}) },
	} {
		t.Run(what, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", map[string]any{"rotation_period": "1h"})
			key = m.read("creds/r")["api_key"]
			m.loseEntries()
			m.tidy.next = m.clock.Now().Add(tidyPause) // it would find the role, too
			m.run(80 * time.Minute)
			m.expectStates("r", "current")
			read(m)
			m.run(time.Minute)
			m.expectStates("r", "previous current")
			m.run(60 * time.Minute)
			m.expectStates("r", "retired previous current")
			if names := m.missed.take(); len(names) > 0 {
				t.Errorf("still missed: %v", names)
			}
		})
	}
}

// What was filed days ahead under a wrong clock is filed anew.
func TestRoleFiledUnderAWrongClockIsNoticed(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"rotation_paused": true})
	m.write("roles/r", map[string]any{"rotation_period": "1h"})
	right := m.clock.Now()
	m.clock.advance(72 * time.Hour)
	m.write("roles/r", map[string]any{"owner": "b"})
	m.write("config", map[string]any{"rotation_paused": false})
	m.clock.set(right.Add(time.Minute))
	m.tidy.next = right.Add(tidyPause) // it would find the role, too
	m.read("creds/r")
	m.run(60 * time.Minute)
	m.expectStates("r", "previous current")
}

// A role that waits for the mount's pause is not taken for missed.
func TestPausedRoleIsNotMissed(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h"})
	m.write("config", map[string]any{"rotation_paused": true})
	m.run(2 * time.Hour)
	m.read("creds/r")
	if names := m.missed.take(); len(names) > 0 {
		t.Errorf("missed: %v", names)
	}
}

// A kill whose entry in the calendar could not be written is followed by the next
// tick.
func TestKillThatCannotBeFiledIsLookedAt(t *testing.T) {
	s := &losing{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", nil)
	s.refuse = []string{keyPrefix, duePrefix}
	m.write("revoke/r", map[string]any{"version": 1})
	s.refuse = nil
	m.expectStates("r", "revoked")
	m.run(time.Minute)
	m.expectStates("r", "revoked current")
}

// What is missed is bounded, and a tick without time forgets none of it.
func TestMissedRolesAreBoundedAndKept(t *testing.T) {
	m := newMount(t)
	for i := range 2 * maxMissed {
		m.missed.add(strings.Repeat("a", 1+i%100) + string(rune('0'+i%10)) + strings.Repeat("b", i/100))
	}
	k := m.newTick()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = k.walk(ctx)
	if n := len(m.missed.take()); n != maxMissed {
		t.Errorf("%d are kept", n)
	}
}
