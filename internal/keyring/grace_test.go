// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func (r *role) setEnd(d time.Duration, n int, until time.Duration) string {
	r.t.Helper()
	events, err := r.SetEnd(at(d), n, at(until))
	if err != nil {
		r.t.Fatal(err)
	}
	return told(events)
}

func TestSetEnd(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Hour, day)
	same(t, "earlier", r.setEnd(2*time.Hour, 1, 5*time.Hour), "end_set 1@2h>5h")
	r.is(2*time.Hour, "1+previous@5h, 2+current")
	same(t, "extended", told(r.Extend(at(2*time.Hour), 1, day)), "")
	same(t, "between", r.setEnd(2*time.Hour, 1, 24*time.Hour), "end_set 1@2h>1d")
	r.is(2*time.Hour, "1+previous@1d, 2+current")
	same(t, "the grace", r.setEnd(2*time.Hour, 1, 25*time.Hour), "end_set 1@2h>25h")
	r.is(2*time.Hour, "1+previous@25h~, 2+current")
	same(t, "later", r.setEnd(2*time.Hour, 1, 2*day), "end_set 1@2h>2d")
	r.is(2*time.Hour, "1+previous@2d~, 2+current")
	same(t, "earlier again", r.setEnd(2*time.Hour, 1, 3*time.Hour), "end_set 1@2h>3h")
	r.is(3*time.Hour, "1-retired/superseded@3h, 2+current")
	if _, err := r.SetEnd(at(3*time.Hour), 1, at(day)); err == nil {
		t.Error("what has ended came back")
	} else {
		refused(t, err, keyring.ErrNotEnding, "not on its way out: version 1 is retired")
	}
}

func TestSetEndAtOnce(t *testing.T) {
	for _, until := range []time.Duration{2 * time.Hour, time.Hour, -day} {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(time.Hour, day)
		same(t, "told", r.setEnd(2*time.Hour, 1, until), "end_set 1@2h>2h, retired 1@2h/superseded")
		r.is(0, "1-retired/superseded@2h, 2+current") // whatever the clock says
	}
}

func TestSetEndOfWithdrawn(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Hour, day)
	r.rollback(2*time.Hour, 0, day)
	r.setEnd(3*time.Hour, 2, 2*day)
	r.is(3*time.Hour, "1+current, 2+withdrawn@2d")
	// What is made since ends it, what was there before does not any more.
	r.rotate(4*time.Hour, time.Hour)
	r.is(4*time.Hour, "1+previous@5h~, 2+withdrawn@5h~, 3+current")
	r.setEnd(4*time.Hour, 2, 3*day)
	r.is(4*time.Hour, "1+previous@5h~, 2+withdrawn@3d, 3+current")
	r.rotate(4*time.Hour, 2*time.Hour)
	r.is(4*time.Hour, "1+previous@5h~, 2+withdrawn@6h~, 3+previous@6h~, 4+current")
	// A rollback of that rotation gives it no later end.
	r.rollback(4*time.Hour, 0, day)
	r.is(4*time.Hour, "1+previous@5h~, 2+withdrawn@6h, 3+current, 4+withdrawn@28h")
	same(t, "at once", r.setEnd(4*time.Hour, 2, 0), "end_set 2@4h>4h, retired 2@4h/rolled_back")
}

// A rollback takes an end that was set by hand away from its target.
func TestSetEndThenRollback(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Hour, day)
	r.setEnd(2*time.Hour, 1, 5*time.Hour)
	r.rollback(3*time.Hour, 0, time.Hour)
	r.is(3*time.Hour, "1+current, 2+withdrawn@4h")
}

func TestSetEndRefused(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0, ttl(2*day))
	r.rotate(time.Hour, day)
	r.rotate(2*time.Hour, day, on(day), held)
	for _, c := range []struct {
		n        int
		until    time.Duration
		sentinel error
		text     string
	}{
		{9, day, keyring.ErrUnknown, "no such version: 9"},
		{2, day, keyring.ErrNotEnding, "not on its way out: version 2 is current"},
		{3, day, keyring.ErrNotEnding, "not on its way out: version 3 is pending"},
		{1, 2*day + 1, keyring.ErrBeyond, "too late an end: version 1 ends at 2026-03-03T12:00:00Z, with its own ttl"},
	} {
		r.unchanged(2*time.Hour, func() {
			_, err := r.SetEnd(at(2*time.Hour), c.n, at(c.until))
			refused(t, err, c.sentinel, c.text)
		})
	}
	r.setEnd(2*time.Hour, 1, 2*day)
	r.Bound(at(2*time.Hour), at(day))
	_, err := r.SetEnd(at(2*time.Hour), 1, at(day+1))
	refused(t, err, keyring.ErrBeyond, "too late an end: version 1 ends at 2026-03-02T12:00:00Z, with its role")
	r.Report(at(2*time.Hour), 1, at(5*time.Hour))
	_, err = r.SetEnd(at(2*time.Hour), 1, at(5*time.Hour+1))
	refused(t, err, keyring.ErrBeyond, "too late an end: version 1 ends at 2026-03-01T17:00:00Z, and was reported as leaked: nothing prolongs it")
	r.setEnd(2*time.Hour, 1, 4*time.Hour)
	_, err = r.SetEnd(at(2*time.Hour), 1, at(5*time.Hour))
	refused(t, err, keyring.ErrBeyond, "too late an end: version 1 ends at 2026-03-01T16:00:00Z, and was reported as leaked: nothing prolongs it")
}

func TestBound(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0, ttl(3*day))
	r.rotate(time.Hour, day)
	r.rotate(2*time.Hour, day, on(2*day))
	r.Bound(at(2*time.Hour), at(day))
	r.is(2*time.Hour, "1+previous@1d, 2+current@1d, 3+pending@1d from 2h")
	r.is(day, "1-expired@1d, 2-expired@1d, 3-expired@1d")
	over := r.Clone()
	_, err := over.Rotate(at(day), r.mint(0), true)
	refused(t, err, keyring.ErrOver, "the role has ended: at 2026-03-02T12:00:00Z")
	same(t, "told", told(r.Bound(at(day), time.Time{})), "expired 1@1d, expired 2@1d, expired 3@1d")
	r.is(0, "1-expired@1d, 2-expired@1d, 3-expired@1d")
	if !r.Until.IsZero() || r.Over(at(9*day)) {
		t.Error("the end is still there")
	}
	// How one ended before is not for it to change.
	r = newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Hour, time.Hour)
	r.Bound(at(time.Hour), at(day))
	r.is(2*day, "1-retired/grace_ended@2h~, 2-expired@1d")
	_, err = r.Rotate(at(2*time.Hour), r.mint(0, on(day)), true)
	refused(t, err, keyring.ErrBadActivation, "activation date: the role ends at 2026-03-02T12:00:00Z, not after the activation")
}
