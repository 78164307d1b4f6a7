// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"
)

// What the engine asks of its storage, counted: the part of the benchmarks that
// does not depend on the machine.
func TestStorageCalls(t *testing.T) {
	const (
		maxStart       = 5
		maxIdle        = 20
		maxPerRotation = 8
	)
	s := newTreeStore()
	fillStore(t, s, 500)
	m, c := benchMount(t, s)
	if all, lists := c.all.Load(), c.lists.Load(); all > maxStart || lists > 0 {
		t.Errorf("the start makes %d storage calls, %d of them lists", all, lists)
	}
	begin := m.clock.Now()

	for range 3 {
		m.clock.advance(time.Minute)
		before := c.all.Load()
		m.tickOnly()
		if n := c.all.Load() - before; n > maxIdle {
			t.Errorf("a tick with nothing due makes %d storage calls, more than %d", n, maxIdle)
		}
	}

	m.read("creds/" + benchRole(7))
	before := c.all.Load()
	m.read("creds/" + benchRole(7))
	if n := c.all.Load() - before; n != 0 {
		t.Errorf("a cached read makes %d storage calls", n)
	}

	m.clock.set(begin.Add(dueAfter + 11*time.Minute))
	if n := m.rotateDue(c)["calls/rotation"]; n > maxPerRotation {
		t.Errorf("%.2f storage calls per rotation, more than %d", n, maxPerRotation)
	}
}

// After a month asleep each day is read once, not each minute.
func TestStorageCallsAfterAMonthAsleep(t *testing.T) {
	s := newTreeStore()
	fillStore(t, s, 500)
	m, c := benchMount(t, s)
	m.clock.advance(30 * 24 * time.Hour)
	got := m.rotateDue(c) // 1,000 of the 2,000 roles that are due
	if got["calls/rotation"] > 12 || got["lists"] > 10*dueRoles {
		t.Errorf("after a month: %v", got)
	}
}
