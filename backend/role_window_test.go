// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// windowed is a role that rotates at 3 each day, within two hours, on the eve of a
// rotation, and that is no worker's to rotate until the given time.
func windowed(t *testing.T, fields map[string]any) (m *testMount, at func(day, hour, minute int)) {
	m = newMount(t)
	start := m.clock.Now().Truncate(24 * time.Hour)
	at = func(day, hour, minute int) {
		m.clock.set(start.AddDate(0, 0, day).Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute))
	}
	at(0, 20, 0)
	all := map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "2h", "grace_period": "1h"}
	for name, v := range fields {
		all[name] = v
	}
	m.write("roles/r", all)
	return m, at
}

func (m *testMount) expectRotation(version int, words string, overdue bool) {
	m.t.Helper()
	status := m.read("status/r")
	if n := number(m.t, status["current_version"]); n != int64(version) || !strings.HasPrefix(status["rotation"].(string), words) {
		m.t.Errorf("at %s: version %d, rotation %q; want %d, %q", m.clock.Now(), n, status["rotation"], version, words)
	}
	if got := strings.Join(status["problems"].([]string), ";"); strings.Contains(got, "overdue") != overdue {
		m.t.Errorf("at %s: problems %q", m.clock.Now(), got)
	}
}

// An overdue role rotates within its window; after that it waits for the next one,
// and is not overdue meanwhile.
func TestRotationWindow(t *testing.T) {
	for _, c := range []struct {
		what    string
		wakes   [3]int // day, hour, minute
		version int    // after the tick then
		next    string // by status, before and after
	}{
		{"within", [3]int{1, 4, 59}, 2, ""},
		{"after", [3]int{1, 5, 0}, 1, "T03:00:00Z"},
		{"within the next", [3]int{2, 3, 0}, 2, ""},
		{"within a later one", [3]int{5, 4, 30}, 2, ""},
		{"after several", [3]int{5, 5, 1}, 1, "T03:00:00Z"},
	} {
		t.Run(c.what, func(t *testing.T) {
			m, at := windowed(t, nil)
			at(c.wakes[0], c.wakes[1], c.wakes[2])
			if c.version == 1 {
				next := m.clock.Now().Truncate(24 * time.Hour).Add(27 * time.Hour)
				m.expectRotation(1, "at "+stamp(next)+": the rotation of ", false)
				if got := m.read("status/r")["next_rotation"]; got != stamp(next) {
					t.Errorf("next rotation %v, want %s", got, stamp(next))
				}
				if ttl := number(t, m.read("creds/r")["ttl"]); ttl != 300 {
					t.Errorf("readers come back after %d s, as if a rotation were overdue", ttl)
				}
				m.tick()
				m.expectRotation(1, "at "+stamp(next), false)
				m.clock.set(next.Add(-9 * time.Minute))
				m.run(10 * time.Minute)
				m.expectRotation(2, "at ", false)
				return
			}
			m.tick()
			m.expectRotation(2, "at ", false)
			if next := m.record("r").Next; next.Hour() != 3 || next.Minute() != 0 {
				t.Errorf("the next rotation is at %s", next)
			}
		})
	}
}

// A role without a window is overdue until it has rotated.
func TestNoRotationWindow(t *testing.T) {
	m, at := windowed(t, map[string]any{"rotation_window": 0})
	at(1, 17, 0)
	m.expectRotation(1, "overdue since ", true)
	m.tick()
	m.expectRotation(2, "at ", false)
}

// Within the window a rotation can be overdue.
func TestOverdueWithinTheWindow(t *testing.T) {
	m, at := windowed(t, nil)
	at(1, 4, 0)
	m.expectRotation(1, "overdue since ", true)
}

// Expiries, owed replacements, roles without a current key and rotations by hand do
// not wait for the window.
func TestWindowHoldsNothingElseUp(t *testing.T) {
	t.Run("expiry", func(t *testing.T) {
		// 24 h, a lead of 10 m and a grace of 1 h: the key ends at 21:10 of the next day.
		m, at := windowed(t, map[string]any{"ttl": "25h10m"})
		at(1, 5, 30)
		m.expectRotation(1, "at "+stamp(m.clock.Now().Truncate(24*time.Hour).Add(20*time.Hour+10*time.Minute)), false)
		m.tick()
		m.expectRotation(1, "at ", false)
		at(1, 19, 58)
		m.run(14 * time.Minute)
		m.expectRotation(2, "at ", false)
	})
	t.Run("expiry overdue", func(t *testing.T) {
		m, at := windowed(t, map[string]any{"ttl": "25h10m"})
		at(1, 21, 0)
		m.expectRotation(1, "overdue since ", true)
		m.tick()
		m.expectRotation(2, "at ", false)
	})
	t.Run("no current key", func(t *testing.T) {
		m, at := windowed(t, nil)
		m.write("revoke/r", map[string]any{"version": 1, "rotate": false})
		at(1, 6, 0)
		m.tick()
		m.expectRotation(2, "at ", false)
	})
	t.Run("owed", func(t *testing.T) {
		m, at := windowed(t, nil)
		m.write("revoke/r", map[string]any{"version": 1, "rotate": false})
		rec := m.record("r")
		rec.Owed = true
		plant(t, m.storage, rolePath("r"), rec)
		m = m.restart()
		at(0, 22, 0)
		m.tick()
		m.expectRotation(2, "at ", false)
	})
	t.Run("by hand", func(t *testing.T) {
		m, at := windowed(t, nil)
		at(1, 6, 0)
		m.write("rotate/r", nil)
		m.expectRotation(2, "at ", false)
	})
	t.Run("paused", func(t *testing.T) {
		m, at := windowed(t, map[string]any{"rotation_paused": true})
		at(1, 4, 0)
		m.tick()
		at(1, 6, 0)
		m.write("roles/r", map[string]any{"rotation_paused": false})
		m.run(3 * time.Minute)
		m.expectRotation(1, "at ", false)
		at(2, 3, 0)
		m.tick()
		m.expectRotation(2, "at ", false)
	})
}

// The window is part of the jittered plan, and what the plan puts off keeps to the
// schedule.
func TestWindowWithJitter(t *testing.T) {
	m, at := windowed(t, map[string]any{"rotation_jitter": "5h"})
	shift := m.record("r").Next.Sub(m.clock.Now().Truncate(24 * time.Hour).Add(27 * time.Hour))
	at(1, 3, 0)
	m.clock.advance(shift + 2*time.Hour - time.Second)
	m.tick()
	m.expectRotation(2, "at ", false)
	m, at = windowed(t, map[string]any{"rotation_jitter": "5h"})
	shift = m.record("r").Next.Sub(m.clock.Now().Truncate(24 * time.Hour).Add(27 * time.Hour))
	at(1, 3, 0)
	m.clock.advance(shift + 2*time.Hour)
	m.tick()
	m.expectRotation(1, "at ", false)
}

func TestDynamicRotationWindow(t *testing.T) {
	m, at := windowed(t, map[string]any{"type": "dynamic"})
	at(1, 6, 0)
	m.tick()
	m.expectRotation(1, "at ", false)
	at(2, 3, 30)
	m.tick()
	m.expectRotation(2, "at ", false)
	m.refused(logical.UpdateOperation, "roles/r", map[string]any{"rotation_schedule": "", "rotation_period": "24h"}, "rotation_window", "write rotation_window=0 with it")
	m.patch("roles/r", map[string]any{"rotation_schedule": nil, "rotation_window": nil})
}

// Where handing keys out once turns rotation off, the window goes with the schedule.
func TestWindowGoesWithTheSchedule(t *testing.T) {
	m, _ := windowed(t, nil)
	m.write("roles/r", map[string]any{"reveal": "once"})
	if got := m.read("roles/r"); got["rotation_schedule"] != "" || number(t, got["rotation_window"]) != 0 {
		t.Errorf("schedule %v, window %v", got["rotation_schedule"], got["rotation_window"])
	}
}
