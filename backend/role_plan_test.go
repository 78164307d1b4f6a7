// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// The shift is a fixed part of the jitter, the role's own.
func TestRolesAreSpreadByTheirID(t *testing.T) {
	m := newMount(t)
	const period, jitter = 10 * time.Hour, 2 * time.Hour
	shifts := map[time.Duration]bool{}
	for _, name := range []string{"a", "b", "c", "d"} {
		m.write("roles/"+name, map[string]any{"rotation_period": "10h", "rotation_jitter": "2h"})
		rec, err := getRecord[roleRecord](t.Context(), m.storage, rolePath(name))
		if err != nil {
			t.Fatal(err)
		}
		shift := rec.Next.Sub(m.clock.Now()) - period
		if shift < 0 || shift >= jitter || shift != keyring.Jitter(rec.ID, jitter) {
			t.Errorf("%s: shifted by %s", name, shift)
		}
		shifts[shift] = true
	}
	if len(shifts) < 2 {
		t.Errorf("all shifted alike: %v", shifts)
	}
}

// A stage_ahead that was raised later shortens a role's staging rather than its
// keys' overlap.
func TestStagingFitsTheTTL(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 3600, "grace_period": 60, "ttl": 3600 + 600 + 60})
	m.write("config", map[string]any{"stage_ahead": "30m"})
	for range 4 * 60 {
		m.run(time.Minute)
		m.expectVerdict(m.read("creds/a")["api_key"], "VALID")
	}
	if v := number(t, m.read("creds/a")["version"]); v != 5 {
		t.Errorf("version %d", v)
	}
}

// TestPlanOutlivesTheSamePolicy: what comes to the same cadence leaves the plan as it is,
// whatever else is written with it.
func TestPlanOutlivesTheSamePolicy(t *testing.T) {
	for name, c := range map[string]struct{ first, then map[string]any }{
		"the default, written":  {nil, map[string]any{"rotation_period": "2160h"}},
		"the default, reset":    {map[string]any{"rotation_period": "2160h"}, map[string]any{"rotation_period": nil}},
		"the period, again":     {map[string]any{"rotation_period": "2000h"}, map[string]any{"rotation_period": 2000 * 3600}},
		"no jitter":             {map[string]any{"rotation_period": "2000h"}, map[string]any{"rotation_jitter": 0}},
		"a schedule, no period": {map[string]any{"rotation_schedule": "0 3 1 */6 *"}, map[string]any{"rotation_period": 0}},
		"all that was read":     {map[string]any{"rotation_period": "2000h"}, nil},
	} {
		m := newMount(t)
		m.write("roles/r", c.first)
		m.clock.advance(40 * 24 * time.Hour)
		before := *m.record("r").Plan
		then := c.then
		if then == nil {
			then = m.read("roles/r")
		}
		then["description"] = "x"
		m.patch("roles/r", then)
		if rec := m.record("r"); *rec.Plan != before || !rec.Next.Equal(before.Slot) {
			t.Errorf("%s: %+v became %+v", name, before, *rec.Plan)
		}
	}
	for name, then := range map[string]map[string]any{
		"another period": {"rotation_period": "2159h"}, "a schedule": {"rotation_schedule": "0 3 1 */6 *"}, "jitter": {"rotation_jitter": "100h"},
	} {
		m := newMount(t)
		m.write("roles/r", nil)
		m.clock.advance(40 * 24 * time.Hour)
		before := *m.record("r").Plan
		m.patch("roles/r", then)
		if rec := m.record("r"); rec.Plan.Slot.Equal(before.Slot) {
			t.Errorf("%s: the plan is still %+v", name, *rec.Plan)
		}
	}
}
