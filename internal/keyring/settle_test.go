// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// TestSettle: what the clock did is told once, in the order in which it
// happened, and holds when the clock goes back to the beginning.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name        string
		build       func(*role)
		at          time.Duration
		told, after string // after: what the ring shows at the epoch from then on
	}{
		{
			"nothing to tell",
			func(r *role) { r.rotate(0, 0); r.rotate(0, day) },
			day - ns,
			"",
			"1+previous@1d~, 2+current",
		},
		{
			"end of a grace",
			func(r *role) { r.rotate(0, 0); r.rotate(0, day) },
			day,
			"retired 1@1d/grace_ended",
			"1-retired/grace_ended@1d~, 2+current",
		},
		{
			"expiry",
			func(r *role) { r.rotate(0, 0, ttl(day)) },
			9 * day,
			"expired 1@1d",
			"1-expired@1d",
		},
		{
			"lapse",
			func(r *role) { r.rotate(0, 0); r.stage(0, day, held) },
			7 * day,
			"retired 2@7d/lapsed",
			"1+current, 2-retired/lapsed@7d",
		},
		{
			"withdrawal over",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rollback(0, 0, day) },
			day,
			"retired 2@1d/rolled_back",
			"1+current, 2-retired/rolled_back@1d",
		},
		{
			"activation with grace",
			func(r *role) { r.rotate(0, 0); r.stage(0, day, on(2*day)) },
			2 * day,
			"activated 2@2d",
			"1+previous@3d~, 2+current",
		},
		{
			"activation without grace",
			func(r *role) { r.rotate(0, 0); r.stage(0, 0, on(2*day)) },
			3 * day,
			"retired 1@2d/superseded, activated 2@2d",
			"1-retired/superseded@2d, 2+current",
		},
		{
			"a long sleep, in order of time and not of number",
			func(r *role) {
				r.rotate(0, 0, ttl(5*day))
				r.rotate(0, 9*day, ttl(4*day))
				r.stage(0, 3*day, on(2*day), ttl(30*day))
			},
			40 * day,
			"activated 3@2d, expired 2@4d, expired 1@5d, expired 3@30d",
			"1-expired@5d, 2-expired@4d, 3-expired@30d",
		},
		{
			"retired first and expired since: the first end is the one told",
			func(r *role) { r.rotate(0, 0, ttl(5*day)); r.rotate(0, 3*day) },
			6 * day,
			"retired 1@3d/grace_ended",
			"1-expired@5d, 2+current",
		},
		{
			"retired as it expired: expired",
			func(r *role) { r.rotate(0, 0, ttl(3*day)); r.rotate(0, 3*day) },
			6 * day,
			"expired 1@3d",
			"1-expired@3d, 2+current",
		},
		{
			"lapsed first and expired since",
			func(r *role) { r.rotate(0, 0); r.stage(0, 0, held, ttl(8*day)) },
			8 * day,
			"retired 2@7d/lapsed",
			"1+current, 2-expired@8d",
		},
		{
			"a cap before the activation",
			func(r *role) { r.rotate(0, 0); r.stage(0, day, on(3*day)); r.Report(at(0), 2, at(2*day)) },
			4 * day,
			"retired 2@2d/superseded",
			"1+current, 2-retired/superseded@2d",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			same(t, "told", told(r.Settle(at(c.at))), c.told)
			r.is(0, c.after)
			same(t, "told again", told(r.Settle(at(c.at))), "")
			same(t, "told after the clock went back", told(r.Settle(epoch)), "")
			r.is(0, c.after)
		})
	}
}

// TestRetiredThenExpired: a commit between the two ends tells the first, one
// after the second nothing more.
func TestRetiredThenExpired(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0, ttl(5*day))
	r.rotate(0, 3*day)
	same(t, "first", told(r.Settle(at(4*day))), "retired 1@3d/grace_ended")
	r.is(4*day, "1-retired/grace_ended@3d~, 2+current")
	same(t, "second", told(r.Settle(at(5*day))), "")
	r.is(0, "1-expired@5d, 2+current")
	if v := r.Get(1); !v.ExpiredSeen || !v.RetiredAt.Equal(at(3*day)) || v.RetiredBy != keyring.GraceEnded {
		t.Errorf("marks: %+v", v)
	}
}

// TestEndedBeforeActivation: whatever ends a pending version, its date never
// comes, and the previous version is not ended by it.
func TestEndedBeforeActivation(t *testing.T) {
	for name, end := range map[string]func(*role){
		"revoked": func(r *role) { r.revoke(0, 2) },
		"capped":  func(r *role) { r.Report(epoch, 2, at(day)); r.Settle(at(day)) },
		"capped without a commit between": func(r *role) {
			r.Report(epoch, 2, at(day))
			r.Settle(at(3 * day))
		},
		"expired": func(r *role) {
			// Not from a mint, which refuses that.
			r.Get(2).Expires = at(day)
			r.Settle(at(3 * day))
		},
		"expired at its activation": func(r *role) {
			r.Get(2).Expires = at(2 * day)
			r.Settle(at(3 * day))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRole(t)
			r.rotate(0, 0)
			r.stage(0, 0, on(2*day))
			end(r)
			v := r.Get(2)
			if v.Activated || !v.Activate.IsZero() {
				t.Errorf("has an activation: %+v", v)
			}
			for _, d := range []time.Duration{0, 2 * day, 9 * day} {
				if n := number(r.Current(at(d))); n != 1 {
					t.Errorf("at %s version %d is current", offset(at(d)), n)
				}
			}
		})
	}
}

// TestExpiredBeforeItsDate: the same from the clock alone.
func TestExpiredBeforeItsDate(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, 0, on(2*day))
	r.Get(2).Expires = at(2 * day)
	r.is(day, "1+current, 2+pending@2d from 0s")
	r.is(2*day, "1+current, 2-expired@2d")
	r.Get(2).Expires = at(2*day + ns)
	r.is(2*day, "1-retired/superseded@2d, 2+current@48h0m0.000000001s")
	r.Get(2).Expires = at(day)
	r.is(9*day, "1+current, 2-expired@1d")
}
