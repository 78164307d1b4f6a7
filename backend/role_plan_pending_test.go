// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// pendings are the ways in which a version may be pending, ten minutes before the
// planned activation of a role that rotates every hour.
var pendings = map[string]func(m *testMount){
	"staged by the plan": func(m *testMount) { m.run(51 * time.Minute) },
	"with a date": func(m *testMount) {
		m.clock.advance(5 * time.Minute)
		m.write("rotate/r", map[string]any{"activate_at": "70m"})
		m.run(46 * time.Minute)
	},
	"held": func(m *testMount) {
		m.clock.advance(5 * time.Minute)
		m.write("rotate/r", map[string]any{"stage": true})
		m.run(46 * time.Minute)
	},
	"promoted for a date": func(m *testMount) {
		m.clock.advance(5 * time.Minute)
		m.write("rotate/r", map[string]any{"stage": true})
		m.write("promote/r", map[string]any{"activate_at": "70m"})
		m.run(46 * time.Minute)
	},
}

// vanishings are the ways in which a pending version comes to nothing, or has to
// do with a plan that changes around it.
var vanishings = map[string]func(m *testMount, pending string){
	"revoked": func(m *testMount, _ string) { m.write("revoke/r", map[string]any{"version": 2}) },
	"revoked by id": func(m *testMount, _ string) {
		m.write("revoke/r", map[string]any{"key_id": m.record("r").Ring.Get(2).KeyID})
	},
	"reported":         func(m *testMount, key string) { m.write("report", map[string]any{"key": key}) },
	"all revoked":      func(m *testMount, _ string) { m.write("revoke/r", map[string]any{"all": true}) },
	"current revoked":  func(m *testMount, _ string) { m.write("revoke/r", map[string]any{"version": 1}) },
	"current reported": func(m *testMount, _ string) { m.write("report", map[string]any{"key": m.read("creds/r")["api_key"]}) },
	"rotated":          func(m *testMount, _ string) { m.write("rotate/r", nil) },
	"replaced, revoked": func(m *testMount, _ string) {
		m.write("rotate/r", map[string]any{"activate_at": "15m"})
		m.write("revoke/r", map[string]any{"version": 3})
	},
	"rolled back": func(m *testMount, _ string) { m.write("rollback/r", nil) },
	"an import": func(m *testMount, _ string) {
		m.write("import", map[string]any{"batch": `{"role":"r","key":"` + strings.Repeat("k7", 12) + `"}`})
	},
	"paused, revoked, unpaused": func(m *testMount, _ string) {
		m.write("roles/r", map[string]any{"rotation_paused": true})
		m.write("revoke/r", map[string]any{"version": 2})
		m.write("roles/r", map[string]any{"rotation_paused": false})
	},
	"revoked, paused by the mount": func(m *testMount, _ string) {
		m.write("config", map[string]any{"rotation_paused": true})
		m.write("revoke/r", map[string]any{"version": 2})
		m.run(2 * time.Minute)
		m.write("config", map[string]any{"rotation_paused": false})
	},
	"cadence changed, revoked": func(m *testMount, _ string) {
		m.write("roles/r", map[string]any{"rotation_period": "50m"})
		m.write("revoke/r", map[string]any{"version": 2})
	},
	"revoked, cadence changed": func(m *testMount, _ string) {
		m.write("revoke/r", map[string]any{"version": 2})
		m.write("roles/r", map[string]any{"rotation_period": "50m"})
	},
	"rotation off, revoked, on": func(m *testMount, _ string) {
		m.write("roles/r", map[string]any{"rotation_period": 0})
		m.write("revoke/r", map[string]any{"version": 2})
		m.write("roles/r", map[string]any{"rotation_period": "1h"})
	},
	"grace changed, revoked": func(m *testMount, _ string) {
		m.write("roles/r", map[string]any{"grace_period": "5m"})
		m.write("revoke/r", map[string]any{"version": 2})
	},
	"restored without it": func(m *testMount, key string) {
		id := m.record("r").ID
		m.must(logical.DeleteOperation, "roles/r", nil)
		m.write("report", map[string]any{"key": key})
		m.write("restore/"+id, nil)
	},
	"restored, revoked": func(m *testMount, _ string) {
		id := m.record("r").ID
		m.must(logical.DeleteOperation, "roles/r", nil)
		m.write("restore/"+id, nil)
		m.write("revoke/r", map[string]any{"version": 2})
	},
	"revoked in a batch of roles": func(m *testMount, _ string) {
		m.write("bulk", map[string]any{"action": "rotate", "roles": "r", "dry_run": false})
	},
}

// putOff is by how much a change puts the next activation off of itself: a new
// cadence counts from its beginning, and a role that waits for the mount's pause is
// looked at now and then.
var putOff = map[string]time.Duration{
	"cadence changed, revoked": 41 * time.Minute, "revoked, cadence changed": 41 * time.Minute,
	"rotation off, revoked, on": 51 * time.Minute, "revoked, paused by the mount": pausedRetry,
}

// However a pending version comes to nothing, the plan is not a slot late: the
// role has a current key at every minute, none for longer than the distance of its
// rotations. The same holds for the record of an older build.
func TestPlanOutlivesThePendingVersion(t *testing.T) {
	for how, pend := range pendings {
		for what, vanish := range vanishings {
			for _, older := range []bool{false, true} {
				if what == "rolled back" {
					continue // needs a previous version: below
				}
				name := how + "/" + what
				if older {
					name += "/older"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					m := newMount(t)
					m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "100m"})
					pend(m)
					if older {
						m.dropPlan("r")
					}
					vanish(m, m.read("creds/r/pending")["api_key"].(string))
					m.expectFreshKeys("r", 3*time.Hour, time.Hour+putOff[what])
				})
			}
		}
	}
}

func TestPlanOutlivesThePendingVersionOfARollback(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "30m", "ttl": "2h"})
	m.run(61 * time.Minute)
	m.write("rotate/r", map[string]any{"activate_at": "10m"})
	vanishings["rolled back"](m, "")
	m.expectFreshKeys("r", 3*time.Hour, time.Hour)
}

// A held version that lapses leaves a plan that is overdue.
func TestPlanGoesOnWhenAHeldVersionLapses(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "48h", "grace_period": "1h"})
	m.write("rotate/r", map[string]any{"stage": true})
	for range 7 * 24 {
		m.clock.advance(time.Hour)
		m.tick()
	}
	m.run(2 * time.Minute)
	m.expectStates("r", "previous retired current")
	m.expectFreshKeys("r", 49*time.Hour, 48*time.Hour)
}

// Whoever kills without replacement gets none before the plan's next activation,
// and that one is in its slot.
func TestKillWithoutReplacementKeepsTheSlot(t *testing.T) {
	for how, pend := range pendings {
		t.Run(how, func(t *testing.T) {
			m := newMount(t)
			start := m.clock.Now()
			m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "100m"})
			pend(m)
			late := 0
			if how == "with a date" || how == "promoted for a date" {
				m.run(20 * time.Minute) // past the slot that the date put off
				late = 1
			}
			m.write("revoke/r", map[string]any{"all": true, "rotate": false})
			m.run(start.Add(time.Duration(1+late)*time.Hour - time.Second).Sub(m.clock.Now()))
			if cur := m.record("r").Ring.Current(m.clock.Now()); cur != nil {
				t.Fatalf("version %d is current at %s", cur.N, m.clock.Now())
			}
			m.run(time.Minute)
			m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
		})
	}
}

// A version with a date is not replaced by the plan, even where it ends so soon
// after its date that another one has to follow at once.
func TestPlanWaitsForAPendingVersionThatEndsSoon(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "24h", "grace_period": "24h", "ttl": "73h"})
	m.write("rotate/r", map[string]any{"activate_at": "68h"})
	for range 68*6 - 1 {
		m.clock.advance(10 * time.Minute)
		m.tick()
	}
	m.expectStates("r", "current pending")
	m.run(10*time.Minute + time.Second)
	if st := m.states("r"); st != "previous previous current" && st != "previous current pending" && st != "previous current" {
		t.Errorf("after the activation: %s", st)
	}
	m.expectFreshKeys("r", 4*time.Hour, 24*time.Hour)
}

// A version of the cadence before does not carry its phase into the new one.
func TestNewCadenceBeginsAfterThePendingVersion(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	m.run(51 * time.Minute)
	at := m.record("r").Ring.Get(2).Activate
	m.write("roles/r", map[string]any{"rotation_period": "10h", "rotation_jitter": "2h"})
	rec := m.record("r")
	r, err := m.lookOf(rec, m.limitsNow(t))
	if err != nil {
		t.Fatal(err)
	}
	want := at.Add(10*time.Hour + r.terms.Jitter)
	if !rec.Next.Equal(want) {
		t.Errorf("next at %s, want %s", rec.Next, want)
	}
	m.run(20 * time.Minute)
	if next := m.record("r").Next; !next.Equal(want) {
		t.Errorf("after the activation: next at %s, want %s", next, want)
	}
}

func (m *testMount) limitsNow(t testing.TB) policy.Limits {
	t.Helper()
	lim, err := m.limits(context.Background(), m.storage)
	if err != nil {
		t.Fatal(err)
	}
	return lim
}

// dropPlan leaves the role's record as an older build writes it.
func (m *testMount) dropPlan(role string) {
	m.t.Helper()
	rec := m.record(role)
	if rec.Plan == nil {
		m.t.Fatal("the record has no plan")
	}
	rec.Plan = nil
	plant(m.t, m.storage, rolePath(role), rec)
	m.roles.drop(rolePath(role))
}

// expectFreshKeys lets time pass, and expects at every minute a current key that
// verifies, is no older than the distance of rotations, and a plan that follows
// from the record.
func (m *testMount) expectFreshKeys(role string, d, distance time.Duration) {
	m.t.Helper()
	for end := m.clock.Now().Add(d); m.clock.Now().Before(end); m.run(time.Minute) {
		resp, err := m.do(logical.ReadOperation, "creds/"+role, nil)
		if err != nil || resp.IsError() {
			m.t.Fatalf("%s: %v %v", m.clock.Now(), err, resp)
		}
		m.expectVerdict(resp.Data["api_key"], "VALID")
		rec := m.record(role)
		if since := rec.Ring.Current(m.clock.Now()).CurrentSince(); m.clock.Now().Sub(since) > distance+time.Minute {
			m.t.Fatalf("%s: version %v is current since %s", m.clock.Now(), resp.Data["version"], since)
		}
		r, err := m.lookOf(rec, m.limitsNow(m.t))
		if err != nil {
			m.t.Fatal(err)
		}
		stored, _ := json.Marshal([]any{rec.Plan, rec.Next})
		if rec.Plan == nil {
			continue // as an older build left it
		}
		r.now = rec.Committed
		r.replan()
		if derived, _ := json.Marshal([]any{rec.Plan, rec.Next}); string(derived) != string(stored) {
			m.t.Fatalf("the plan is %s, and follows as %s", stored, derived)
		}
	}
}
