// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Between two dates no version changes.
func TestDatesAreAllThereAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		actions := m.actions()
		check := actions[""]
		actions[""] = func(t *rapid.T) {
			check(t)
			dates := append(m.ring.Dates(), m.now, m.now.Add(400*day))
			dates = slices.DeleteFunc(dates, func(at time.Time) bool { return at.Before(m.now) })
			slices.SortFunc(dates, time.Time.Compare)
			for i := range dates[:len(dates)-1] {
				from, last := dates[i], dates[i+1].Add(-1)
				if last.Before(from) {
					continue
				}
				between := from.Add(time.Duration(rapid.Int64Range(0, int64(last.Sub(from))).Draw(t, "between")))
				for _, v := range m.ring.Versions {
					want, _ := m.ring.Status(v.N, from)
					for _, at := range []time.Time{last, between} {
						if got, _ := m.ring.Status(v.N, at); got != want {
							t.Fatalf("version %d: %s at %s, but %s at %s", v.N, describe(want), offset(from), describe(got), offset(at))
						}
					}
				}
			}
		}
		t.Repeat(actions)
	})
}

func TestHold(t *testing.T) {
	auto := func(m *keyring.Mint) { m.Auto = true }
	r := newRole(t)
	r.rotate(0, 0)
	if got := r.Hold(1, at(0)); !got.IsZero() {
		t.Errorf("a current version is held until %s", offset(got))
	}
	r.rotate(time.Hour, 2*time.Hour, auto)
	if got := r.Hold(1, at(90*time.Minute)); !got.Equal(at(5 * time.Hour)) {
		t.Errorf("held until %s, want as long again as the grace", offset(got))
	}
	// What somebody decided ends when it ends.
	manual := newRole(t)
	manual.rotate(0, 0)
	manual.rotate(time.Hour, 2*time.Hour)
	if got := manual.Hold(1, at(time.Hour)); !got.IsZero() {
		t.Errorf("held until %s after a rotation by hand", offset(got))
	}
	// Nothing holds a version beyond its own expiry, or its cap.
	expiring := newRole(t)
	expiring.rotate(0, 0, ttl(4*time.Hour))
	expiring.rotate(time.Hour, 2*time.Hour, auto)
	if got := expiring.Hold(1, at(time.Hour)); !got.Equal(at(4 * time.Hour)) {
		t.Errorf("held until %s, want its expiry", offset(got))
	}
	// Nor beyond the end of the role.
	ending := newRole(t)
	ending.rotate(0, 0)
	ending.rotate(time.Hour, 2*time.Hour, auto)
	ending.Bound(at(time.Hour), at(4*time.Hour))
	if got := ending.Hold(1, at(time.Hour)); !got.Equal(at(4 * time.Hour)) {
		t.Errorf("held until %s, want the end of the role", offset(got))
	}
	r.Report(at(2*time.Hour), 1, at(150*time.Minute))
	if got := r.Hold(1, at(2*time.Hour)); !got.IsZero() {
		t.Errorf("a reported version is held until %s", offset(got))
	}
	if got := r.Hold(9, at(0)); !got.IsZero() {
		t.Errorf("an unknown version is held until %s", offset(got))
	}
}
