// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// look is what the ring is expected to show at an instant.
type look struct {
	at   time.Duration
	want string
}

const ns = time.Nanosecond

// TestStatusAtBoundaries looks at each kind of end and of beginning one
// nanosecond before, at, and after the instant, without any commit in between.
func TestStatusAtBoundaries(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(*role)
		looks []look
	}{
		{
			"a current version without expiry has no end",
			func(r *role) { r.rotate(0, day) },
			[]look{{0, "1+current"}, {1000 * day, "1+current"}},
		},
		{
			"expiry of the current version",
			func(r *role) { r.rotate(0, day, ttl(2*day)) },
			[]look{
				{2*day - ns, "1+current@2d"},
				{2 * day, "1-expired@2d"},
				{2*day + ns, "1-expired@2d"},
			},
		},
		{
			"deadline: the successor's activation plus the successor's grace",
			func(r *role) { r.rotate(0, 9*day); r.rotate(day, 2*day) },
			[]look{
				{day, "1+previous@3d~, 2+current"},
				{3*day - ns, "1+previous@3d~, 2+current"},
				{3 * day, "1-retired/grace_ended@3d~, 2+current"},
				{3*day + ns, "1-retired/grace_ended@3d~, 2+current"},
			},
		},
		{
			"a deadline does not move when the successor is superseded",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 4*day); r.rotate(2*day, day) },
			[]look{
				{2 * day, "1+previous@5d~, 2+previous@3d~, 3+current"},
				{3 * day, "1+previous@5d~, 2-retired/grace_ended@3d~, 3+current"},
				{5 * day, "1-retired/grace_ended@5d~, 2-retired/grace_ended@3d~, 3+current"},
			},
		},
		{
			"own expiry before the deadline is a hard end",
			func(r *role) { r.rotate(0, 0, ttl(2*day)); r.rotate(day, 2*day) },
			[]look{
				{day, "1+previous@2d, 2+current"},
				{2*day - ns, "1+previous@2d, 2+current"},
				{2 * day, "1-expired@2d, 2+current"},
				{3 * day, "1-expired@2d, 2+current"},
			},
		},
		{
			"own expiry at the deadline is a hard end",
			func(r *role) { r.rotate(0, 0, ttl(3*day)); r.rotate(day, 2*day) },
			[]look{{3*day - ns, "1+previous@3d, 2+current"}, {3 * day, "1-expired@3d, 2+current"}},
		},
		{
			"own expiry after the deadline: retired, then expired",
			func(r *role) { r.rotate(0, 0, ttl(4*day)); r.rotate(day, 2*day) },
			[]look{
				{3*day - ns, "1+previous@3d~, 2+current"},
				{3 * day, "1-retired/grace_ended@3d~, 2+current"},
				{4*day - ns, "1-retired/grace_ended@3d~, 2+current"},
				{4 * day, "1-expired@4d, 2+current"},
			},
		},
		{
			"grace 0 ends the predecessor at the activation",
			func(r *role) { r.rotate(0, day); r.stage(day, 0, on(2*day)) },
			[]look{
				{2*day - ns, "1+current@2d, 2+pending from 1d"},
				{2 * day, "1-retired/superseded@2d, 2+current"},
			},
		},
		{
			"activation by the clock",
			func(r *role) { r.rotate(0, 0); r.stage(day, 3*day, on(2*day)) },
			[]look{
				{day, "1+current@5d~, 2+pending from 1d"},
				{2*day - ns, "1+current@5d~, 2+pending from 1d"},
				{2 * day, "1+previous@5d~, 2+current"},
				{5*day - ns, "1+previous@5d~, 2+current"},
				{5 * day, "1-retired/grace_ended@5d~, 2+current"},
			},
		},
		{
			"a pending version verifies from seven days before its activation",
			func(r *role) { r.rotate(0, 0); r.stage(day, day, on(20*day), ttl(30*day)) },
			[]look{
				{day, "1+current@21d~, 2-pending@43d from 13d"},
				{13*day - ns, "1+current@21d~, 2-pending@43d from 13d"},
				{13 * day, "1+current@21d~, 2+pending@43d from 13d"},
				{20 * day, "1+previous@21d~, 2+current@43d"},
				{43*day - ns, "1-retired/grace_ended@21d~, 2+current@43d"},
				{43 * day, "1-retired/grace_ended@21d~, 2-expired@43d"},
			},
		},
		{
			"the ttl of a version staged nearer than seven days counts from its creation",
			func(r *role) { r.rotate(0, 0); r.stage(day, day, on(7*day), ttl(30*day)) },
			[]look{{day, "1+current@8d~, 2+pending@31d from 1d"}},
		},
		{
			"a held version lapses after seven days",
			func(r *role) { r.rotate(0, 0); r.stage(day, day, held) },
			[]look{
				{day, "1+current, 2+pending@8d from 1d"},
				{8*day - ns, "1+current, 2+pending@8d from 1d"},
				{8 * day, "1+current, 2-retired/lapsed@8d"},
			},
		},
		{
			"a held version expires before it lapses",
			func(r *role) { r.rotate(0, 0); r.stage(day, day, held, ttl(2*day)) },
			[]look{
				{3*day - ns, "1+current, 2+pending@3d from 1d"},
				{3 * day, "1+current, 2-expired@3d"},
			},
		},
		{
			"a held version lapses before it expires",
			func(r *role) { r.rotate(0, 0); r.stage(day, day, held, ttl(8*day)) },
			[]look{
				{8*day - ns, "1+current, 2+pending@8d from 1d"},
				{8 * day, "1+current, 2-retired/lapsed@8d"},
				{9 * day, "1+current, 2-expired@9d"},
			},
		},
		{
			"a withdrawn version until the end that the rollback gave it",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day); r.rollback(2*day, 0, 3*day) },
			[]look{
				{2 * day, "1+current, 2+withdrawn@5d"},
				{5*day - ns, "1+current, 2+withdrawn@5d"},
				{5 * day, "1+current, 2-retired/rolled_back@5d"},
			},
		},
		{
			"a withdrawn version until its own expiry",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 9*day, ttl(2*day)); r.rollback(2*day, 0, 3*day) },
			[]look{
				{3*day - ns, "1+current, 2+withdrawn@3d"},
				{3 * day, "1+current, 2-expired@3d"},
			},
		},
		{
			"a withdrawn version until the end that a later rotation gives it",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(day, 9*day)
				r.rollback(2*day, 0, 9*day)
				r.rotate(3*day, day)
			},
			[]look{
				{3 * day, "1+previous@4d~, 2+withdrawn@4d~, 3+current"},
				{4*day - ns, "1+previous@4d~, 2+withdrawn@4d~, 3+current"},
				{4 * day, "1-retired/grace_ended@4d~, 2-retired/grace_ended@4d~, 3+current"},
			},
		},
		{
			"a withdrawn version whose own end comes with that of the later rotation",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(day, 9*day)
				r.rollback(2*day, 0, 2*day)
				r.rotate(3*day, day)
			},
			[]look{
				{3 * day, "1+previous@4d~, 2+withdrawn@4d~, 3+current"},
				{4 * day, "1-retired/grace_ended@4d~, 2-retired/grace_ended@4d~, 3+current"},
			},
		},
		{
			"a withdrawn version until its own end where a later rotation leaves it longer",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(day, 9*day)
				r.rollback(2*day, 0, 2*day)
				r.rotate(3*day, 9*day)
			},
			[]look{
				{3 * day, "1+previous@12d~, 2+withdrawn@4d, 3+current"},
				{4 * day, "1+previous@12d~, 2-retired/rolled_back@4d, 3+current"},
			},
		},
		{
			"a withdrawn version supersedes nothing",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 2*day); r.rollback(2*day, 0, 20*day) },
			[]look{{10 * day, "1+current, 2+withdrawn@22d"}},
		},
		{
			"a revoked version still supersedes the one before it",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 2*day); r.revoke(2*day, 2) },
			[]look{
				{2 * day, "1+previous@3d~, 2-revoked@2d"},
				{3*day - ns, "1+previous@3d~, 2-revoked@2d"},
				{3 * day, "1-retired/grace_ended@3d~, 2-revoked@2d"},
			},
		},
		{
			"an expired version still supersedes the one before it",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 3*day, ttl(2*day)) },
			[]look{
				{3 * day, "1+previous@4d~, 2-expired@3d"},
				{4 * day, "1-retired/grace_ended@4d~, 2-expired@3d"},
			},
		},
		{
			"a pending version that was revoked supersedes nothing",
			func(r *role) { r.rotate(0, 0); r.stage(day, 2*day, on(3*day)); r.revoke(2*day, 2) },
			[]look{
				{2 * day, "1+current, 2-revoked@2d"},
				{30 * day, "1+current, 2-revoked@2d"},
			},
		},
		{
			"a pending version with a cap before its date supersedes nothing",
			func(r *role) {
				r.rotate(0, 0)
				r.stage(day, 2*day, on(5*day))
				r.Report(at(2*day), 2, at(4*day))
			},
			[]look{
				{2 * day, "1+current, 2+pending@4d from 1d"},
				{4*day - ns, "1+current, 2+pending@4d from 1d"},
				{4 * day, "1+current, 2-retired/superseded@4d"},
				{30 * day, "1+current, 2-retired/superseded@4d"},
			},
		},
		{
			"a cap at the date of activation comes first",
			func(r *role) {
				r.rotate(0, 0)
				r.stage(day, 2*day, on(5*day))
				r.Report(at(2*day), 2, at(5*day))
			},
			[]look{{5 * day, "1+current, 2-retired/superseded@5d"}},
		},
		{
			"a cap after the date of activation leaves nothing current when it comes",
			func(r *role) {
				r.rotate(0, 0)
				r.stage(day, day, on(5*day))
				r.Report(at(2*day), 2, at(7*day))
			},
			[]look{
				{5 * day, "1+previous@6d~, 2+current@7d"},
				{7*day - ns, "1-retired/grace_ended@6d~, 2+current@7d"},
				{7 * day, "1-retired/grace_ended@6d~, 2-retired/superseded@7d"},
			},
		},
		{
			"a cap before the deadline is a hard end",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 5*day); r.Report(at(2*day), 1, at(4*day)) },
			[]look{
				{2 * day, "1+previous@4d, 2+current"},
				{4*day - ns, "1+previous@4d, 2+current"},
				{4 * day, "1-retired/superseded@4d, 2+current"},
			},
		},
		{
			"a cap at the deadline leaves it a planned end",
			func(r *role) { r.rotate(0, 0); r.rotate(day, 5*day); r.Report(at(2*day), 1, at(6*day)) },
			[]look{{2 * day, "1+previous@6d~, 2+current"}, {6 * day, "1-retired/grace_ended@6d~, 2+current"}},
		},
		{
			"a cap at the expiry leaves it the expiry",
			func(r *role) { r.rotate(0, 0, ttl(4*day)); r.rotate(day, 5*day); r.Report(at(2*day), 1, at(9*day)) },
			[]look{{2 * day, "1+previous@4d, 2+current"}, {4 * day, "1-expired@4d, 2+current"}},
		},
		{
			"revoked before expired before retired",
			func(r *role) {
				r.rotate(0, 0, ttl(4*day))
				r.rotate(day, day)
				r.revoke(3*day, 1)
			},
			[]look{{3 * day, "1-revoked@3d, 2+current"}, {9 * day, "1-revoked@3d, 2+current"}},
		},
		{
			"revoked before withdrawn",
			func(r *role) {
				r.rotate(0, 0)
				r.rotate(day, 9*day)
				r.rollback(2*day, 1, 9*day)
				r.revoke(3*day, 2)
			},
			[]look{{3 * day, "1+current, 2-revoked@3d"}, {20 * day, "1+current, 2-revoked@3d"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			// Backwards and again forwards: a look changes nothing.
			for i := len(c.looks) - 1; i >= 0; i-- {
				r.is(c.looks[i].at, c.looks[i].want)
			}
			for _, l := range c.looks {
				r.is(l.at, l.want)
				settled := role{Ring: r.Clone(), t: t}
				settled.Settle(at(l.at))
				settled.is(l.at, l.want)
			}
		})
	}
}

func TestStatusOfUnknown(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	for _, n := range []int{-1, 0, 2} {
		if st, ok := r.Status(n, epoch); ok || st != (keyring.Status{}) {
			t.Errorf("version %d: got %+v, %v", n, st, ok)
		}
		if r.Get(n) != nil || r.Successor(n, epoch) != nil {
			t.Errorf("version %d is known", n)
		}
	}
}

func TestEnded(t *testing.T) {
	for state, want := range map[keyring.State]bool{
		keyring.Revoked: true, keyring.Expired: true, keyring.Retired: true,
		keyring.Withdrawn: false, keyring.Pending: false, keyring.Current: false, keyring.Previous: false,
	} {
		if state.Ended() != want {
			t.Errorf("%s: got %v", state, !want)
		}
	}
}

func number(v *keyring.Version) int {
	if v == nil {
		return 0
	}
	return v.N
}

// TestWhichIsWhich asks for current, pending, previous and top, and counts.
func TestWhichIsWhich(t *testing.T) {
	r := newRole(t)
	check := func(d time.Duration, current, pending, previous, top, live int) {
		t.Helper()
		now := at(d)
		got := [5]int{number(r.Current(now)), number(r.Pending(now)), number(r.PreviousOf(now)), number(r.Top(now)), r.Live(now)}
		if want := [5]int{current, pending, previous, top, live}; got != want {
			t.Errorf("at %s: current, pending, previous, top, live:\n got  %v\n want %v", offset(now), got, want)
		}
	}
	check(0, 0, 0, 0, 0, 0)
	r.stage(0, 0, held)
	check(0, 0, 1, 0, 0, 1)
	r.promote(0, 0, 0)
	check(0, 1, 0, 0, 1, 1)
	r.rotate(day, 9*day)
	check(day, 2, 0, 1, 2, 2)
	r.rotate(2*day, 3*day)
	check(2*day, 3, 0, 2, 3, 3)
	check(5*day-ns, 3, 0, 2, 3, 3)
	check(5*day, 3, 0, 1, 3, 2)
	r.stage(5*day, day, on(6*day))
	check(5*day, 3, 4, 1, 3, 3)
	check(6*day, 4, 0, 3, 4, 3)
	r.revoke(6*day, 4)
	check(6*day, 0, 0, 3, 4, 2)
	r.rollback(6*day, 0, day)
	check(6*day, 3, 0, 1, 3, 2)
	check(10*day, 3, 0, 0, 3, 1)

	for n, want := range map[int]int{1: 2, 2: 3, 3: 0, 4: 0} {
		if got := number(r.Successor(n, at(6*day))); got != want {
			t.Errorf("successor of %d: got %d, want %d", n, got, want)
		}
	}
	for n := 1; n <= 4; n++ {
		if got := number(r.ByKeyID(keyID(n))); got != n {
			t.Errorf("%s: got version %d", keyID(n), got)
		}
	}
	if r.ByKeyID("key") != nil {
		t.Error("an unknown key id was found")
	}
}

// TestSuccessorIsActivated: what is pending does not count as a successor yet.
func TestSuccessorIsActivated(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, day, on(day))
	if got := number(r.Successor(1, at(day-ns))); got != 0 {
		t.Errorf("before: got %d", got)
	}
	if got := number(r.Successor(1, at(day))); got != 2 {
		t.Errorf("at the activation: got %d", got)
	}
}

// TestByKeyIDOfGenerations: generations of a dynamic role have no key id, and
// an empty one finds none of them.
func TestByKeyIDOfGenerations(t *testing.T) {
	var r keyring.Ring
	if _, err := r.Rotate(epoch, keyring.Mint{Grace: day}, false); err != nil {
		t.Fatal(err)
	}
	if v := r.ByKeyID(""); v != nil {
		t.Errorf("got version %d", v.N)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	c := r.Clone()
	c.Get(1).RevokedAt = epoch
	if _, err := c.Rotate(epoch, keyring.Mint{}, false); err != nil {
		t.Fatal(err)
	}
	r.is(0, "1+current")
	if r.Last != 1 || c.Last != 2 {
		t.Errorf("last: got %d and %d", r.Last, c.Last)
	}
}

func TestCurrentSince(t *testing.T) {
	r := newRole(t)
	r.rotate(time.Hour, 0)
	since := func(want time.Duration) {
		t.Helper()
		if got := r.Current(at(9 * day)).CurrentSince(); !got.Equal(at(want)) {
			t.Errorf("got %s, want %s", offset(got), offset(at(want)))
		}
	}
	since(time.Hour)
	r.rotate(day, 20*day)
	since(day)
	r.rollback(2*day, 0, day)
	since(2 * day)
}

func TestEraseAt(t *testing.T) {
	for _, c := range []struct {
		st          keyring.Status
		want        time.Time
		wantIfShown time.Time // revealed at 1h
	}{
		{keyring.Status{State: keyring.Retired, Planned: true, Until: at(day)}, at(day + time.Hour), at(time.Hour)},
		{keyring.Status{State: keyring.Retired, Until: at(day)}, at(day), at(time.Hour)},
		{keyring.Status{State: keyring.Expired, Until: at(day)}, at(day), at(time.Hour)},
		{keyring.Status{State: keyring.Revoked, Until: at(day)}, at(day), at(time.Hour)},
		{keyring.Status{State: keyring.Previous, Planned: true, Until: at(day)}, time.Time{}, at(time.Hour)},
		{keyring.Status{State: keyring.Current, Until: at(day)}, time.Time{}, at(time.Hour)},
		{keyring.Status{State: keyring.Pending, Until: at(day)}, time.Time{}, at(time.Hour)},
		{keyring.Status{State: keyring.Withdrawn, Until: at(day)}, time.Time{}, at(time.Hour)},
	} {
		v := keyring.Version{Plain: true}
		if got := v.EraseAt(c.st); !got.Equal(c.want) {
			t.Errorf("%s: got %s, want %s", describe(c.st), got, c.want)
		}
		v.Revealed = at(time.Hour)
		if got := v.EraseAt(c.st); !got.Equal(c.wantIfShown) {
			t.Errorf("revealed, %s: got %s, want %s", describe(c.st), got, c.wantIfShown)
		}
		v.Plain = false
		if got := v.EraseAt(c.st); !got.IsZero() {
			t.Errorf("erased, %s: got %s", describe(c.st), got)
		}
	}
}

func TestNextEnd(t *testing.T) {
	r := newRole(t)
	next := func(d time.Duration, want string) {
		t.Helper()
		got := "none"
		if e := r.NextEnd(at(d)); !e.IsZero() {
			got = offset(e)
		}
		if got != want {
			t.Errorf("at %s: got %s, want %s", offset(at(d)), got, want)
		}
	}
	next(0, "none")
	r.rotate(0, 0, plain)
	next(0, "none")
	r.rotate(0, 4*day, plain, ttl(3*day))
	next(0, "3d")
	r.rotate(day, day, plain)
	next(day, "2d")
	next(2*day-ns, "2d")
	next(2*day, "2d") // ended, waits for its commit
	next(2*day+ns, "48h0m0.000000001s")
	r.Settle(at(2 * day))
	next(2*day, "49h") // the plaintext of version 2
	next(2*day+time.Hour, "49h")
	next(2*day+2*time.Hour, "50h") // overdue: now
	r.Get(2).Plain = false
	next(2*day+2*time.Hour, "4d")
	r.revoke(3*day, 1)
	next(3*day, "3d") // to be erased at once
	r.Get(1).Plain = false
	next(3*day, "none")
	r.Get(3).Revealed = at(day)
	next(3*day, "3d") // handed out and to be erased, though it lives
	r.Get(3).Plain = false
	next(3*day, "none")
}

func TestStamp(t *testing.T) {
	zone := time.FixedZone("", 3600)
	same(t, "stamp", keyring.Stamp(epoch.In(zone).Add(time.Millisecond)), "2026-03-01T12:00:00Z")
}
