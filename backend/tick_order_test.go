// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// fleetAsleep is a mount that slept for ten days, with roles of every urgency. The
// most urgent one has the last name.
func fleetAsleep(t *testing.T, s logical.Storage) (*testMount, []string) {
	m := mountOn(t, s, newFakeClock())
	start := m.clock.Now()
	at := func(d time.Duration, fn func()) {
		m.clock.set(start.Add(d))
		fn()
	}
	role := func(name string, fields map[string]any) {
		m.write("roles/"+name, fields)
	}
	const h, day = time.Hour, 24 * time.Hour
	byHand := map[string]any{"rotation_period": 0, "grace_period": "1h"}
	role("z-owed", byHand)
	role("y-ended", byHand)
	role("x-ended", byHand)
	at(day, func() {
		m.write("revoke/z-owed", map[string]any{"version": 1, "rotate": false})
		rec := m.record("z-owed")
		rec.Owed = true
		plant(t, m.storage, rolePath("z-owed"), rec)
		role("t-overdue", map[string]any{"rotation_period": "24h"})
	})
	at(36*h, func() { role("s-overdue", map[string]any{"rotation_period": "24h", "grace_period": "1h"}) })
	at(2*day, func() {
		m.write("rotate/y-ended", nil)
		m.write("rotate/s-overdue", nil) // so it has a version that ended, too
	})
	at(3*day, func() { m.write("rotate/x-ended", nil) })
	at(7*day, func() { role("v-overdue", map[string]any{"rotation_period": "48h", "ttl": "96h"}) })
	at(8*day, func() {
		role("w-overdue", map[string]any{"rotation_period": "24h", "grace_period": "1h", "ttl": "54h"})
	})
	at(9*day-h, func() {
		role("u-activated", map[string]any{"rotation_period": 0, "ttl": "120h"})
		m.write("rotate/u-activated", map[string]any{"activate_at": "2h"})
	})
	at(9*day+3*time.Minute, func() {
		role("q-staging", map[string]any{"rotation_period": "24h", "grace_period": "1h", "ttl": "40h"})
	})
	at(9*day+4*time.Minute, func() { role("p-staging", map[string]any{"rotation_period": "24h"}) })
	at(9*day+5*time.Minute, func() {
		role("r-staging", map[string]any{"rotation_period": "24h", "grace_period": "1h", "ttl": "30h"})
	})
	at(9*day+6*time.Minute, func() { role("o-staging", map[string]any{"rotation_period": "24h"}) })
	at(10*day-h, func() {
		role("n-idle", map[string]any{"rotation_period": 0, "ttl": "120h"})
		role("m-idle", byHand)
		role("l-idle", byHand)
		for i, name := range []string{"l-idle", "m-idle", "n-idle"} {
			if err := putBytes(t.Context(), m.storage, duePath(start.Add(9*day-time.Duration(i)*h), name), dueValue); err != nil {
				t.Fatal(err)
			}
		}
	})
	m.clock.set(start.Add(10 * day))
	var names []string
	stored, err := m.storage.List(t.Context(), rolePrefix)
	if err != nil {
		t.Fatal(err)
	}
	names = append(names, stored...)
	slices.Sort(names)
	slices.Reverse(names)
	return m, names
}

func (m *testMount) newTick() *tick {
	m.t.Helper()
	cfg, err := m.config(context.Background(), m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	return &tick{b: m.backend, s: m.storage, now: m.now(), config: cfg, lim: m.limitsNow(m.t)}
}

func TestWorkIsDoneInTheOrderOfUrgency(t *testing.T) {
	m, want := fleetAsleep(t, &logical.InmemStorage{})
	k := m.newTick()
	var entries []dueEntry
	for e, err := range dueEntries(t.Context(), m.storage, m.cursor(), m.clock.Now()) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	jobs := k.judgeAll(t.Context(), entries)
	slices.SortStableFunc(jobs, dueJob.compare)
	var got []string
	for _, job := range jobs {
		if !slices.Contains(got, job.name) { // an idle one has an entry of its own, and may have one too many
			got = append(got, job.name)
		}
		if mints := strings.HasSuffix(job.name, "-overdue") || strings.HasSuffix(job.name, "-staging"); job.mints != mints {
			t.Errorf("%s: makes a version: %t", job.name, job.mints)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the order is\n%v, want\n%v", got, want)
	}
}

// orderedWrites notes in which order roles were written.
type orderedWrites struct {
	logical.Storage

	mu    sync.Mutex
	roles []string
}

func (s *orderedWrites) Put(ctx context.Context, e *logical.StorageEntry) error {
	if name, ok := strings.CutPrefix(e.Key, rolePrefix); ok {
		s.mu.Lock()
		s.roles = append(s.roles, name)
		s.mu.Unlock()
	}
	return s.Storage.Put(ctx, e)
}

// The order holds for a backlog that is read in many pieces, whatever the calendar
// says; and where it is larger than what a tick orders, nothing of it is left out.
func TestBacklogIsDoneInTheOrderOfUrgency(t *testing.T) {
	for _, backlog := range []int{0, 3} {
		s := &orderedWrites{Storage: &logical.InmemStorage{}}
		m, want := fleetAsleep(t, s)
		want = slices.DeleteFunc(want, func(name string) bool { return strings.HasSuffix(name, "-idle") })
		k := m.newTick()
		k.workers, k.batch, k.backlog = 1, 2, backlog
		s.roles = nil
		if err := k.walk(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := s.roles
		if backlog > 0 {
			slices.Sort(got)
			slices.Reverse(got)
			got = slices.Compact(got) // what is filed anew on the way comes up again
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d at a time, the order is\n%v, want\n%v", backlog, got, want)
		}
	}
}

// At a pace that is too slow for the backlog the keys that end next are served.
func TestPaceIsForTheKeysThatEndNext(t *testing.T) {
	s := &orderedWrites{Storage: &logical.InmemStorage{}}
	m, _ := fleetAsleep(t, s)
	m.write("config", map[string]any{"max_rotations_per_second": 2})
	k := m.newTick()
	k.workers, k.batch, k.pace = 1, 2, m.pace(k.config)
	s.roles = nil
	if err := k.walk(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"z-owed", "y-ended", "x-ended", "w-overdue", "v-overdue", "u-activated"}
	if !slices.Equal(s.roles, want) {
		t.Errorf("done: %v, want %v", s.roles, want)
	}
}
