// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func TestRollback(t *testing.T) {
	for _, c := range []struct {
		name       string
		build      func(*role)
		at         time.Duration
		to         int
		grace      time.Duration
		told, want string
	}{
		{
			"to the previous version",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day) },
			2 * day, 0, day,
			"withdrawn 2@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d",
		},
		{
			"without grace",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day) },
			2 * day, 0, 0,
			"withdrawn 2@2d>2d, retired 2@2d/rolled_back, reinstated 1@2d", "1+current, 2-retired/rolled_back@2d",
		},
		{
			"the pending version is revoked",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day); r.stage(day, day, on(4*day)) },
			2 * day, 0, day,
			"revoked 3@2d, withdrawn 2@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d, 3-revoked@2d",
		},
		{
			"the held version is revoked",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day); r.stage(day, day, held) },
			2 * day, 0, day,
			"revoked 3@2d, withdrawn 2@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d, 3-revoked@2d",
		},
		{
			"what a pending version would have ended sooner has the whole grace",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day); r.stage(day, 0, on(3*day)) },
			2 * day, 0, 5 * day,
			"revoked 3@2d, withdrawn 2@2d>7d, reinstated 1@2d", "1+current, 2+withdrawn@7d, 3-revoked@2d",
		},
		{
			"the highest was revoked and stays so",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day); r.revoke(day, 2) },
			2 * day, 0, day,
			"withdrawn 2@2d>1d, reinstated 1@2d", "1+current, 2-revoked@1d",
		},
		{
			"the highest expired and stays so",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day, ttl(day)) },
			2 * day, 0, day,
			"expired 2@1d, withdrawn 2@2d>1d, reinstated 1@2d", "1+current, 2-expired@1d",
		},
		{
			"the highest expires before the grace given ends",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day, ttl(3*day)) },
			2 * day, 0, 4 * day,
			"withdrawn 2@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d",
		},
		{
			"further back: a grace that runs is not prolonged",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 20*day); r.rotate(day, 3*day) },
			2 * day, 1, 8 * day,
			"withdrawn 2@2d>4d, withdrawn 3@2d>10d, reinstated 1@2d", "1+current, 2+withdrawn@4d, 3+withdrawn@10d",
		},
		{
			"further back: a grace that runs is cut",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 20*day); r.rotate(day, 9*day) },
			2 * day, 1, day,
			"withdrawn 2@2d>3d, withdrawn 3@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d, 3+withdrawn@3d",
		},
		{
			"over one that has ended",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 20*day); r.rotate(day, 0) },
			2 * day, 1, day,
			"withdrawn 2@2d>1d, withdrawn 3@2d>3d, reinstated 1@2d", "1+current, 2-retired/superseded@1d, 3+withdrawn@3d",
		},
		{
			"over a pending one that was revoked before its activation",
			func(r *role) {
				r.rotate(0, 0)
				r.stage(0, 20*day, on(2*day))
				r.rotate(day, 20*day)
			},
			2 * day, 0, day,
			"withdrawn 3@2d>3d, reinstated 1@2d", "1+current, 2-revoked@1d, 3+withdrawn@3d",
		},
		{
			"over one that was withdrawn before, to the one on top before the last rotation",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(0, 20*day)
				r.rollback(day, 0, 9*day)
				r.rotate(2*day, 20*day)
			},
			3 * day, 0, day,
			"withdrawn 3@3d>4d, reinstated 1@3d", "1+current, 2+withdrawn@10d, 3+withdrawn@4d",
		},
		{
			"an end that a rotation gave to a withdrawn one is kept",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(0, 20*day)
				r.rollback(day, 0, 9*day)
				r.rotate(2*day, 4*day)
			},
			3 * day, 0, 9 * day,
			"withdrawn 3@3d>12d, reinstated 1@3d", "1+current, 2+withdrawn@6d, 3+withdrawn@12d",
		},
		{
			"one below the target keeps its end",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 5*day); r.rotate(day, 9*day) },
			2 * day, 0, day,
			"withdrawn 3@2d>3d, reinstated 2@2d", "1+previous@5d~, 2+current, 3+withdrawn@3d",
		},
		{
			"the target's own expiry stays",
			func(r *role) { r.rotate(0, 0, ttl(6*day)); r.rotate(day, 2*day) },
			2 * day, 0, day,
			"withdrawn 2@2d>3d, reinstated 1@2d", "1+current@6d, 2+withdrawn@3d",
		},
		{
			"more than ten seconds left",
			func(r *role) { r.rotate(0, 0); r.rotate(day, day+10*time.Second+ns) },
			2 * day, 0, day,
			"withdrawn 2@2d>3d, reinstated 1@2d", "1+current, 2+withdrawn@3d",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			same(t, "told", r.rollback(c.at, c.to, c.grace), c.told)
			r.is(c.at, c.want)
			if c.grace == 0 {
				r.is(0, c.want) // decided, whatever the clock says
			}
		})
	}
}

func TestRollbackRefused(t *testing.T) {
	for _, c := range []struct {
		name     string
		build    func(*role)
		at       time.Duration
		to       int
		sentinel error
		text     string
	}{
		{
			"empty", func(*role) {}, 0, 0,
			keyring.ErrNoTarget, "nothing to roll back to: no version was ever activated",
		},
		{
			"only pending", func(r *role) { r.stage(0, 0, held) }, 0, 0,
			keyring.ErrNoTarget, "nothing to roll back to: no version was ever activated",
		},
		{
			"one version", func(r *role) { r.rotate(0, 0) }, 0, 0,
			keyring.ErrNoTarget, "nothing to roll back to: there is no version before version 1",
		},
		{
			"one version and one that never came",
			func(r *role) { r.stage(0, 0, on(day)); r.rotate(0, 0) }, 0, 0,
			keyring.ErrNoTarget, "nothing to roll back to: there is no version before version 2",
		},
		{
			"exactly ten seconds left",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 2*day+10*time.Second) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 ends at 2026-03-03T12:00:10Z, too soon",
		},
		{
			"ten seconds to its own expiry",
			func(r *role) { r.rotate(0, 0, ttl(2*day+10*time.Second)); r.rotate(0, 9*day) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 ends at 2026-03-03T12:00:10Z, too soon",
		},
		{
			"retired",
			func(r *role) { r.rotate(0, 0); r.rotate(0, day) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 is retired since 2026-03-02T12:00:00Z",
		},
		{
			"revoked",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.revoke(day, 1) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 is revoked since 2026-03-02T12:00:00Z",
		},
		{
			"expired",
			func(r *role) { r.rotate(0, 0, ttl(day)); r.rotate(0, 9*day) }, 2 * day, 1,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 is expired since 2026-03-02T12:00:00Z",
		},
		{
			"the previous version is dead although an older one lives",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rotate(day, 0) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 is retired since 2026-03-02T12:00:00Z",
		},
		{
			"a second time in a row",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rotate(0, 9*day); r.rollback(day, 0, 0) }, 2 * day, 0,
			keyring.ErrNeedTarget, "a second rollback in a row needs a version: version 2 is current because of the rollback at 2026-03-02T12:00:00Z",
		},
		{
			"unknown",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 0, 3,
			keyring.ErrNoTarget, "nothing to roll back to: version 3 is not known any more",
		},
		{
			"the current one",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 0, 2,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 is not older than version 2, which is the newest activated one",
		},
		{
			"the pending one",
			func(r *role) { r.rotate(0, 0); r.stage(0, 9*day, held) }, 0, 2,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 is not older than version 1, which is the newest activated one",
		},
		{
			"one that never came",
			func(r *role) { r.rotate(0, 0); r.stage(0, 0, held); r.rotate(0, day) }, 0, 2,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 is revoked since 2026-03-01T12:00:00Z",
		},
		{
			"forward to a withdrawn one",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rollback(day, 0, 9*day) }, 2 * day, 2,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 was withdrawn by the rollback at 2026-03-02T12:00:00Z",
		},
		{
			"back to a withdrawn one",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(0, 9*day)
				r.rollback(day, 0, 9*day)
				r.rotate(day, 9*day)
			}, 2 * day, 2,
			keyring.ErrNoTarget, "nothing to roll back to: version 2 was withdrawn by the rollback at 2026-03-02T12:00:00Z",
		},
		{
			"a reported one",
			func(r *role) { r.rotate(0, 0); r.Report(at(day), 1, time.Time{}); r.rotate(day, 9*day) }, 2 * day, 0,
			keyring.ErrNoTarget, "nothing to roll back to: version 1 was reported as leaked at 2026-03-02T12:00:00Z",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			r.unchanged(c.at, func() {
				n, _, err := r.Rollback(at(c.at), c.to, day)
				refused(t, err, c.sentinel, c.text)
				if n != 0 {
					t.Errorf("version %d", n)
				}
			})
		})
	}
}

// TestRollbackAgain: the second in a row names its version; after a rotation
// the first is a first one again.
func TestRollbackAgain(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, 30*day)
	r.rotate(0, 30*day)
	same(t, "first", r.rollback(day, 0, 5*day), "withdrawn 3@1d>6d, reinstated 2@1d")
	same(t, "second", r.rollback(2*day, 1, 5*day), "withdrawn 2@2d>7d, reinstated 1@2d")
	r.is(2*day, "1+current, 2+withdrawn@7d, 3+withdrawn@6d")
	r.rotate(3*day, 30*day)
	same(t, "after a rotation", r.rollback(4*day, 0, 0), "withdrawn 4@4d>4d, retired 4@4d/rolled_back, reinstated 1@4d")
	r.is(4*day, "1+current, 2+withdrawn@7d, 3+withdrawn@6d, 4-retired/rolled_back@4d")
	for n, want := range map[int]keyring.Version{
		1: {Reinstated: at(4 * day)},
		2: {Reinstated: at(day), Withdrawn: at(2 * day), WithdrawnUntil: at(7 * day)},
		3: {Withdrawn: at(day), WithdrawnUntil: at(6 * day)},
		4: {Withdrawn: at(4 * day), WithdrawnUntil: at(4 * day)},
	} {
		v := r.Get(n)
		got := keyring.Version{Reinstated: v.Reinstated, Withdrawn: v.Withdrawn, WithdrawnUntil: v.WithdrawnUntil}
		if got != want {
			t.Errorf("version %d:\n got  %+v\n want %+v", n, got, want)
		}
	}
}

// TestRollbackThenClock: the ends of graces come back with no clock once the
// rollback has seen them pass.
func TestRollbackThenClock(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, day)   // 1 ends at 1d
	r.rotate(0, 9*day) // 2 ends at 9d
	r.rollback(2*day, 0, day)
	r.is(2*day, "1-retired/grace_ended@1d~, 2+current, 3+withdrawn@3d")
	r.is(0, "1-retired/grace_ended@1d~, 2+current, 3+withdrawn@3d")
}
