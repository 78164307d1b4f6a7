// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// full is a role with ten live versions: one a minute, each with a longer grace
// than the next, so that the youngest ends first.
func full(t *testing.T) *role {
	r := newRole(t)
	for i := range time.Duration(keyring.MaxLive) {
		r.rotate(i*time.Minute, 50*time.Hour-i*time.Hour)
	}
	if n := r.Live(at(time.Hour)); n != keyring.MaxLive {
		t.Fatalf("%d live", n)
	}
	return r
}

func (r *role) forced(d, grace time.Duration, more ...func(*keyring.Mint)) string {
	r.t.Helper()
	events, err := r.Rotate(at(d), r.mint(grace, more...), true)
	if err != nil {
		r.t.Fatal(err)
	}
	return told(events)
}

func TestTooManyLive(t *testing.T) {
	r := full(t)
	// Version 9 got the grace of version 10: 41 h from minute 9 on.
	const text = "too many live versions: 10 of 10; the next one to end is version 9, at 2026-03-03T05:09:00Z"
	r.unchanged(time.Hour, func() {
		_, err := r.Rotate(at(time.Hour), r.mint(day), false)
		refused(t, err, keyring.ErrTooManyLive, text)
	})
	r.unchanged(time.Hour, func() {
		_, err := r.Stage(at(time.Hour), r.mint(0, held), false)
		refused(t, err, keyring.ErrTooManyLive, text)
	})
	r.unchanged(time.Hour, func() {
		_, err := r.Stage(at(time.Hour), r.mint(0, on(2*time.Hour)), false)
		refused(t, err, keyring.ErrTooManyLive, text)
	})
	// The end of version 9 makes room.
	end := 41*time.Hour + 9*time.Minute
	if _, err := r.Rotate(at(end-ns), r.mint(day), false); !isExactly(err, keyring.ErrTooManyLive) {
		t.Errorf("a nanosecond before: %v", err)
	}
	r.rotate(end, day)
}

// TestNextToEndIsAnyOfThem: what makes room first may be an expiry.
func TestNextToEndIsAnyOfThem(t *testing.T) {
	r := newRole(t)
	for range keyring.MaxLive - 1 {
		r.rotate(0, 9*day)
	}
	r.rotate(0, 9*day, ttl(2*day))
	_, err := r.Rotate(epoch, r.mint(day), false)
	refused(t, err, keyring.ErrTooManyLive, "too many live versions: 10 of 10; the next one to end is version 10, at 2026-03-03T12:00:00Z")

	// What has ended before makes no room.
	r = newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Hour, 0)
	for range keyring.MaxLive - 1 {
		r.rotate(2*time.Hour, 9*day)
	}
	_, err = r.Rotate(at(2*time.Hour), r.mint(day), false)
	refused(t, err, keyring.ErrTooManyLive, "too many live versions: 10 of 10; the next one to end is version 2, at 2026-03-10T14:00:00Z")

	// Equal ends: the oldest is named.
	r = newRole(t)
	for range keyring.MaxLive {
		r.rotate(0, 9*day)
	}
	_, err = r.Rotate(epoch, r.mint(day), false)
	refused(t, err, keyring.ErrTooManyLive, "too many live versions: 10 of 10; the next one to end is version 1, at 2026-03-10T12:00:00Z")
}

// TestRoomThatNeedsNoForce: what the rotation itself ends does not count.
func TestRoomThatNeedsNoForce(t *testing.T) {
	t.Run("without grace", func(t *testing.T) {
		r := full(t)
		same(t, "told", r.rotate(time.Hour, 0), "created 11@1h, retired 10@1h/superseded")
	})
	t.Run("a pending version makes room", func(t *testing.T) {
		r := newRole(t)
		for range keyring.MaxLive - 1 {
			r.rotate(0, 9*day)
		}
		r.stage(0, day, held)
		same(t, "told", r.rotate(0, 9*day), "revoked 10@0s, created 11@0s")
		if n := r.Live(epoch); n != keyring.MaxLive {
			t.Errorf("%d live", n)
		}
	})
	t.Run("withdrawn versions end without grace too", func(t *testing.T) {
		r := full(t)
		r.rollback(time.Hour, 0, day)
		same(t, "told", r.rotate(time.Hour, 0), "created 11@1h, retired 9@1h/superseded, retired 10@1h/superseded")
	})
	t.Run("no current version", func(t *testing.T) {
		r := full(t)
		r.revoke(time.Hour, 10)
		same(t, "told", r.rotate(time.Hour, 9*day), "created 11@1h")
		if _, err := r.Rotate(at(time.Hour), r.mint(9*day), false); !isExactly(err, keyring.ErrTooManyLive) {
			t.Errorf("the eleventh: %v", err)
		}
	})
	t.Run("staged without grace does not end anything yet", func(t *testing.T) {
		r := full(t)
		if _, err := r.Stage(at(time.Hour), r.mint(0, on(time.Hour+ns)), false); !isExactly(err, keyring.ErrTooManyLive) {
			t.Errorf("got %v", err)
		}
	})
}

// TestForceMakesRoom: the oldest grace goes first, not the one that would end
// next, and the end is decided.
func TestForceMakesRoom(t *testing.T) {
	r := full(t)
	same(t, "told", r.forced(time.Hour, day), "retired 1@1h/superseded, created 11@1h")
	same(t, "staged", r.forced(time.Hour, day, held), "retired 2@1h/superseded, staged 12@1h")
	same(t, "in place of the pending one", r.forced(time.Hour, day), "revoked 12@1h, created 13@1h")
	same(t, "again", r.forced(time.Hour, day), "retired 3@1h/superseded, created 14@1h")
	st, _ := r.Status(1, epoch)
	same(t, "status of 1 earlier", describe(st), "-retired/superseded@1h")
}

// TestForceWithRoom ends nothing.
func TestForceWithRoom(t *testing.T) {
	r := newRole(t)
	for range keyring.MaxLive {
		r.forced(0, 9*day)
	}
	if n := r.Live(epoch); n != keyring.MaxLive {
		t.Errorf("%d live", n)
	}
}

func TestExtendedGracesMakeRoomFirst(t *testing.T) {
	r := full(t)
	for _, n := range []int{7, 4, 6} {
		r.Extend(at(time.Hour), n, time.Minute)
	}
	same(t, "first", r.forced(time.Hour, day), "retired 4@1h/superseded, created 11@1h")
	same(t, "second", r.forced(time.Hour, day), "retired 6@1h/superseded, created 12@1h")
	same(t, "third", r.forced(time.Hour, day), "retired 7@1h/superseded, created 13@1h")
	same(t, "then the oldest", r.forced(time.Hour, day), "retired 1@1h/superseded, created 14@1h")
}

// TestExtendedToNoAvail: a grace that was extended beyond the version's own
// expiry is not what it lives on.
func TestExtendedToNoAvail(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, 9*day, ttl(10*day))
	r.rotate(0, 9*day)
	r.Extend(epoch, 2, 2*day)
	for range keyring.MaxLive - 3 {
		r.rotate(0, 9*day)
	}
	same(t, "told", r.forced(0, day), "retired 1@0s/superseded, created 11@0s")
}

// TestWithdrawnVersionsAreNotExtended: what was added to the grace of the version that
// superseded both is for the one that is still in use.
func TestWithdrawnVersionsAreNotExtended(t *testing.T) {
	r := newRole(t)
	for range keyring.MaxLive - 1 {
		r.rotate(0, 9*day)
	}
	r.rollback(time.Hour, 8, 20*day)
	r.rotate(2*time.Hour, 9*day)
	r.Extend(at(2*time.Hour), 8, day)
	same(t, "told", r.forced(2*time.Hour, day), "retired 8@2h/superseded, created 11@2h")
}

// TestOldestGraceIsNotTheLowestNumber: after a rollback and a rotation the
// reinstated version has the lowest number and the youngest grace. Everybody
// held it a moment ago.
func TestOldestGraceIsNotTheLowestNumber(t *testing.T) {
	r := newRole(t)
	for range keyring.MaxLive - 1 {
		r.rotate(0, 30*day)
	}
	r.rollback(time.Hour, 1, 9*day)
	r.rotate(2*time.Hour, 9*day)
	r.is(2*time.Hour, "1+previous@218h~, 2+withdrawn@217h, 3+withdrawn@217h, 4+withdrawn@217h, 5+withdrawn@217h, "+
		"6+withdrawn@217h, 7+withdrawn@217h, 8+withdrawn@217h, 9+withdrawn@217h, 10+current")
	same(t, "first", r.forced(3*time.Hour, day), "retired 2@3h/superseded, created 11@3h")
	same(t, "second", r.forced(3*time.Hour, day), "retired 3@3h/superseded, created 12@3h")
}

// TestExtendedBeforeOlder: a prolonged grace makes room first, though others
// began before it and have a higher number.
func TestExtendedBeforeOlder(t *testing.T) {
	r := newRole(t)
	for range keyring.MaxLive - 1 {
		r.rotate(0, 30*day)
	}
	r.rollback(time.Hour, 1, 9*day)
	r.rotate(2*time.Hour, 9*day)
	r.Extend(at(2*time.Hour), 1, time.Hour)
	same(t, "first", r.forced(3*time.Hour, day), "retired 1@3h/superseded, created 11@3h")
	same(t, "second", r.forced(3*time.Hour, day), "retired 2@3h/superseded, created 12@3h")
}

// TestWithdrawnMakesRoom among others, by when its grace began.
func TestWithdrawnMakesRoom(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, 30*day)                // 1's grace begins
	r.rotate(time.Minute, 30*day)      // 2's grace begins
	r.rotate(time.Hour, 30*day)        // 3's grace begins
	r.rollback(2*time.Hour, 0, 20*day) // 4's grace begins, 3 is current again
	for range 6 {
		r.rotate(3*time.Hour, 30*day) // 3's grace begins
	}
	for _, want := range []string{
		"retired 1@4h/superseded, created 11@4h",
		"retired 2@4h/superseded, created 12@4h",
		"retired 4@4h/superseded, created 13@4h",
		"retired 3@4h/superseded, created 14@4h",
		"retired 5@4h/superseded, created 15@4h",
	} {
		same(t, "told", r.forced(4*time.Hour, day), want)
	}
}

// TestCrowded: what a forced rotation would end is told without ending it.
func TestCrowded(t *testing.T) {
	crowded := func(r *role, d time.Duration, m keyring.Mint) string {
		t.Helper()
		var got string
		r.unchanged(d, func() {
			since, until, yes := r.Crowded(at(d), m)
			if got = "no"; yes {
				got = offset(since) + ", " + offset(until)
			} else if !since.IsZero() || !until.IsZero() {
				t.Errorf("not crowded, but %s, %s", since, until)
			}
		})
		return got
	}
	r := full(t)
	// Version 1 is superseded since minute 1, by a grace of 49 h.
	same(t, "one too many", crowded(r, time.Hour, r.mint(day)), "1m, 49h1m")
	same(t, "staged", crowded(r, time.Hour, r.mint(day, held)), "1m, 49h1m")
	same(t, "without grace", crowded(r, time.Hour, r.mint(0)), "no")
	r.revoke(time.Hour, 5)
	same(t, "room for one", crowded(r, time.Hour, r.mint(day)), "no")
	r.stage(time.Hour, day, held)
	same(t, "in place of the pending one", crowded(r, time.Hour, r.mint(day)), "no")

	// Two at once, where a role came to have more: the youngest grace and the
	// latest end of both. Version 2 ends before version 1 here.
	r = newRole(t)
	r.rotate(0, 0)
	r.rotate(time.Minute, 30*day)
	r.rotate(2*time.Minute, day)
	for range keyring.MaxLive - 3 {
		r.rotate(3*time.Minute, 9*day)
	}
	extra := *r.Get(r.Last)
	extra.N, extra.KeyID, r.Last = r.Last+1, keyID(r.Last+1), r.Last+1
	r.Versions = append(r.Versions, extra)
	same(t, "two too many", crowded(r, time.Hour, r.mint(day)), "2m, 720h1m")

	// After a rollback the withdrawn ones go first.
	r = newRole(t)
	for range keyring.MaxLive - 1 {
		r.rotate(0, 30*day)
	}
	r.rollback(time.Hour, 1, 9*day)
	r.rotate(2*time.Hour, 9*day)
	same(t, "withdrawn", crowded(r, 3*time.Hour, r.mint(day)), "1h, 217h")
}
