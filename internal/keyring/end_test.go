// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func TestRevoke(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0, plain)
	r.rotate(0, 9*day)
	r.rotate(0, 9*day)
	r.stage(0, day, on(2*day))
	same(t, "two of them, one twice", r.revoke(day, 3, 1, 3), "revoked 3@1d, revoked 1@1d")
	r.is(day, "1-revoked@1d, 2+previous@9d~, 3-revoked@1d, 4+pending from 0s")
	r.is(0, "1-revoked@1d, 2+previous@9d~, 3-revoked@1d, 4+pending from 0s")
	if r.Current(at(day)) != nil {
		t.Error("revoking the current version made another one current")
	}
	r.unchanged(day+time.Hour, func() {
		same(t, "again, later", r.revoke(day+time.Hour, 1, 3), "")
	})
	r.unchanged(day, func() { same(t, "none", r.revoke(day), "") })
	r.unchanged(day, func() {
		_, err := r.Revoke(at(day), 2, 7)
		refused(t, err, keyring.ErrUnknown, "no such version: 7")
	})
	same(t, "the pending one", r.revoke(day, 4), "revoked 4@1d")
	r.is(30*day, "1-revoked@1d, 2-retired/grace_ended@9d~, 3-revoked@1d, 4-revoked@1d")
}

// TestRevokeEnded: what ended otherwise can still be revoked, which erases its
// plaintext at once.
func TestRevokeEnded(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0, plain)
	r.rotate(0, day, ttl(day))
	same(t, "revoke", r.revoke(day, 1, 2), "retired 1@1d/grace_ended, expired 2@1d, revoked 1@1d, revoked 2@1d")
	r.is(day, "1-revoked@1d, 2-revoked@1d")
	if next := r.NextEnd(at(day)); !next.Equal(at(day)) {
		t.Errorf("erased at %s", next)
	}
}

func TestKillAll(t *testing.T) {
	build := func(t *testing.T) *role {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, day)
		r.rotate(0, 9*day)
		r.rotate(0, 9*day)
		r.rollback(0, 0, 9*day)
		r.stage(0, day, on(3*day))
		r.is(day, "1-retired/grace_ended@1d~, 2+previous@9d~, 3+current@4d~, 4+withdrawn@4d~, 5+pending from 0s")
		return r
	}
	const ended = "1-retired/grace_ended@1d~, 2-revoked@1d, 3-revoked@1d, 4-revoked@1d, 5-revoked@1d"
	const dead = "retired 1@1d/grace_ended, revoked 2@1d, revoked 3@1d, revoked 4@1d, revoked 5@1d"
	t.Run("without replacement", func(t *testing.T) {
		r := build(t)
		same(t, "told", r.revoke(day, live(&r.Ring, at(day))...), dead)
		r.is(day, ended)
		r.is(0, ended)
		r.is(99*day, ended)
		r.unchanged(2*day, func() { same(t, "again", r.revoke(2*day, live(&r.Ring, at(2*day))...), "") })
	})
	t.Run("with one", func(t *testing.T) {
		r := build(t)
		m := r.mint(9 * day)
		events, replaced, err := kill(&r.Ring, at(day), live(&r.Ring, at(day)), &m)
		if err != nil || !replaced {
			t.Fatal(replaced, err)
		}
		same(t, "told", told(events), dead+", created 6@1d")
		r.is(day, ended+", 6+current")
		r.is(0, ended+", 6+current")
		r.is(99*day, ended+", 6+current")
	})
}

func TestKillAndReplace(t *testing.T) {
	replace := func(r *role, d time.Duration, n int, m keyring.Mint) string {
		r.t.Helper()
		events, _, err := kill(&r.Ring, at(d), []int{n}, &m)
		if err != nil {
			r.t.Fatal(err)
		}
		return told(events)
	}
	t.Run("current, with a pending one", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 5*day)
		r.stage(0, day, on(3*day))
		same(t, "told", replace(r, day, 2, r.mint(9*day)), "revoked 2@1d, revoked 3@1d, created 4@1d")
		r.is(day, "1+previous@5d~, 2-revoked@1d, 3-revoked@1d, 4+current")
		r.is(0, "1+previous@5d~, 2-revoked@1d, 3-revoked@1d, 4+current")
	})
	t.Run("current: what is withdrawn ends no later for the pending one's death", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 9*day)
		r.rollback(0, 0, 9*day)
		r.stage(0, 0, on(3*day))
		r.is(day, "1+current@3d, 2+withdrawn@3d, 3+pending from 0s")
		same(t, "told", replace(r, day, 1, r.mint(9*day)), "revoked 1@1d, revoked 3@1d, created 4@1d")
		r.is(day, "1-revoked@1d, 2+withdrawn@3d~, 3-revoked@1d, 4+current")
	})
	t.Run("current, where there can be no replacement", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 5*day)
		r.stage(0, day, on(3*day))
		events, replaced, err := kill(&r.Ring, at(day), []int{2}, nil)
		if err != nil || replaced {
			t.Fatal(replaced, err)
		}
		same(t, "told", told(events), "revoked 2@1d, revoked 3@1d")
		r.is(day, "1+previous@5d~, 2-revoked@1d, 3-revoked@1d")
	})
	t.Run("current, where there can be no replacement: what is withdrawn ends no later for the pending one's death", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 9*day)
		r.rollback(0, 0, 9*day)
		r.stage(0, 0, on(3*day))
		r.is(day, "1+current@3d, 2+withdrawn@3d, 3+pending from 0s")
		if _, _, err := kill(&r.Ring, at(day), []int{1}, nil); err != nil {
			t.Fatal(err)
		}
		r.is(day, "1-revoked@1d, 2+withdrawn@3d, 3-revoked@1d")
		r.is(3*day, "1-revoked@1d, 2-retired/rolled_back@3d, 3-revoked@1d")
	})
	t.Run("pending: nothing takes its place", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(3*day))
		same(t, "told", replace(r, day, 2, r.mint(9*day)), "revoked 2@1d")
		r.is(day, "1+current, 2-revoked@1d")
	})
	t.Run("previous: nothing takes its place", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 5*day)
		same(t, "told", replace(r, day, 1, r.mint(2*day)), "revoked 1@1d")
		r.is(day, "1-revoked@1d, 2+current")
	})
	t.Run("its ttl begins at once", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		same(t, "told", replace(r, day, 1, r.mint(0, ttl(day))), "revoked 1@1d, created 2@1d")
		r.is(day, "1-revoked@1d, 2+current@2d")
	})
	t.Run("with ten alive nobody else makes room", func(t *testing.T) {
		r := newRole(t)
		for range keyring.MaxLive {
			r.rotate(0, 9*day)
		}
		same(t, "told", replace(r, 0, 10, r.mint(day)), "revoked 10@0s, created 11@0s")
	})
	t.Run("with more than ten alive room is made, never refused", func(t *testing.T) {
		r := newRole(t)
		for range keyring.MaxLive {
			r.rotate(0, 9*day)
		}
		// Only a role that another build wrote has so many.
		more := r.Versions[0]
		more.N, more.KeyID = 11, keyID(11)
		r.Last, r.Versions = 11, append(r.Versions, more)
		same(t, "told", replace(r, 0, 11, r.mint(day)), "revoked 11@0s, retired 1@0s/superseded, created 12@0s")
	})
}

func TestReport(t *testing.T) {
	never := time.Time{}
	for _, c := range []struct {
		name       string
		build      func(*role)
		n          int
		until      time.Time
		told, want string // at 2d
	}{
		{
			"current, nothing to happen",
			func(r *role) { r.rotate(0, 0) }, 1, never,
			"", "1+current",
		},
		{
			"current with an expiry, nothing to happen",
			func(r *role) { r.rotate(0, 0, ttl(9*day)) }, 1, never,
			"", "1+current@9d",
		},
		{
			"current while one is pending, nothing to happen",
			func(r *role) { r.rotate(0, 0); r.stage(0, day, on(5*day)) }, 1, never,
			"", "1+current@6d~, 2+pending from 0s",
		},
		{
			"current, to end",
			func(r *role) { r.rotate(0, 0) }, 1, at(4 * day),
			"capped 1@2d>4d", "1+current@4d",
		},
		{
			"previous, to end sooner",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 1, at(4 * day),
			"capped 1@2d>4d", "1+previous@4d, 2+current",
		},
		{
			"previous, to end later: it keeps its end",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 1, at(12 * day),
			"capped 1@2d>9d", "1+previous@9d~, 2+current",
		},
		{
			"previous, to keep its end",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 1, never,
			"capped 1@2d>9d", "1+previous@9d~, 2+current",
		},
		{
			"at once",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 1, at(2 * day),
			"capped 1@2d>2d, retired 1@2d/superseded", "1-retired/superseded@2d, 2+current",
		},
		{
			"in the past is at once",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day) }, 1, at(day),
			"capped 1@2d>2d, retired 1@2d/superseded", "1-retired/superseded@2d, 2+current",
		},
		{
			"withdrawn",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rollback(0, 0, 9*day) }, 2, at(4 * day),
			"capped 2@2d>4d", "1+current, 2+withdrawn@4d",
		},
		{
			"held, to keep its end",
			func(r *role) { r.rotate(0, 0); r.stage(0, 0, held) }, 2, never,
			"capped 2@2d>7d", "1+current, 2+pending@7d from 0s",
		},
		{
			"ended",
			func(r *role) { r.rotate(0, 0); r.rotate(0, day) }, 1, at(9 * day),
			"retired 1@1d/grace_ended", "1-retired/grace_ended@1d~, 2+current",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			same(t, "told", told(r.Report(at(2*day), c.n, c.until)), c.told)
			r.is(2*day, c.want)
			if got := r.Get(c.n).Reported; !got.Equal(at(2 * day)) {
				t.Errorf("reported at %s", got)
			}
		})
	}
}

// TestReportAtOnceIsDecided: an end brought to now is a mark.
func TestReportAtOnceIsDecided(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, 9*day)
	r.Report(at(2*day), 1, at(day))
	r.is(0, "1-retired/superseded@2d, 2+current")
}

func TestReportAgain(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(0, 20*day)
	r.Report(at(day), 1, at(9*day))
	r.unchanged(2*day, func() {
		same(t, "later end", told(r.Report(at(2*day), 1, at(12*day))), "")
		same(t, "same end", told(r.Report(at(2*day), 1, at(9*day))), "")
		same(t, "no end", told(r.Report(at(2*day), 1, time.Time{})), "")
	})
	same(t, "nearer end", told(r.Report(at(3*day), 1, at(8*day))), "capped 1@3d>8d")
	r.is(3*day, "1+previous@8d, 2+current")
	if got := r.Get(1).Reported; !got.Equal(at(day)) {
		t.Errorf("first reported at %s", offset(got))
	}
	r.unchanged(3*day, func() { same(t, "unknown", told(r.Report(at(3*day), 7, at(4*day))), "") })
}

// TestReportedIsNeverProlonged: by no promotion, rollback, rotation or
// extension.
func TestReportedIsNeverProlonged(t *testing.T) {
	never := time.Time{}
	t.Run("promotion with a longer grace", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 1, never)
		r.promote(day, day, 30*day)
		r.is(day, "1+previous@6d~, 2+current")
	})
	t.Run("promotion with a shorter grace", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 1, never)
		r.promote(day, day, 2*day)
		r.is(day, "1+previous@3d~, 2+current")
	})
	t.Run("promotion put off: to its activation, no grace", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 1, never)
		r.promote(day, 7*day, 30*day)
		r.is(day, "1+current@7d, 2+pending from 0s")
	})
	t.Run("promotion of a held one: there was no end", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, held)
		r.Report(at(0), 1, never)
		r.promote(day, day, 30*day)
		r.is(day, "1+previous@31d~, 2+current")
	})
	t.Run("promotion after the reported one was revoked: no grace to cut", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 1, never)
		r.revoke(0, 1)
		r.promote(day, day, 30*day)
		if got := r.Get(2).Grace; got != 30*day {
			t.Errorf("grace %s", got)
		}
	})
	t.Run("promotion: a withdrawn one keeps its end, the current one has its grace", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 30*day)
		r.Report(at(0), 2, never)
		r.rollback(0, 0, 20*day)
		r.stage(0, day, on(5*day))
		r.is(0, "1+current@6d~, 2+withdrawn@6d~, 3+pending from 0s")
		r.promote(day, day, 9*day)
		r.is(day, "1+previous@10d~, 2+withdrawn@6d, 3+current")
	})
	t.Run("rollback while its end was coming", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 30*day)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 2, never)
		r.rollback(day, 0, 20*day)
		r.is(day, "1+current, 2+withdrawn@6d, 3-revoked@1d")
	})
	t.Run("second rollback while its end was coming", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 30*day)
		r.rotate(0, 30*day)
		r.Report(at(0), 3, never)
		r.rollback(0, 0, 20*day)
		r.stage(0, day, on(5*day))
		r.rollback(day, 1, 20*day)
		r.is(day, "1+current, 2+withdrawn@21d, 3+withdrawn@6d, 4-revoked@1d")
	})
	t.Run("extension", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 5*day)
		r.Report(at(0), 1, never)
		r.unchanged(0, func() { same(t, "told", told(r.Extend(epoch, 1, day)), "") })
	})
	t.Run("rotation in place of a pending version", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.stage(0, day, on(5*day))
		r.Report(at(0), 1, never)
		r.rotate(0, 30*day)
		r.is(0, "1+previous@6d~, 2-revoked@0s, 3+current")
	})
}

// TestReportedStaysCurrent: a report that only says so leaves the role its
// current version, also when the pending one dies.
func TestReportedStaysCurrent(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, day, on(5*day))
	r.Report(at(0), 1, time.Time{})
	r.revoke(day, 2)
	r.is(90*day, "1+current, 2-revoked@1d")
}

// TestPromoteCapped: a reported version that would end before it is handed out
// is not promoted, and the promotion does not lift its cap.
func TestPromoteCapped(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, day, held)
	r.Report(at(0), 2, at(3*day))
	r.unchanged(day, func() {
		_, _, err := r.Promote(at(day), at(3*day), 0)
		refused(t, err, keyring.ErrBadActivation, "activation date: version 2 ends at 2026-03-04T12:00:00Z and would never be handed out")
	})
	r.promote(day, 3*day-ns, 9*day)
	r.is(3*day, "1+previous@287h59m59.999999999s~, 2-retired/superseded@3d")
}

func TestExtend(t *testing.T) {
	build := func(t *testing.T) *role {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 3*day)
		return r
	}
	t.Run("previous", func(t *testing.T) {
		r := build(t)
		same(t, "told", told(r.Extend(at(day), 1, time.Hour)), "extended 1@1d>73h")
		same(t, "told again", told(r.Extend(at(2*day), 1, 2*time.Hour)), "extended 1@2d>75h")
		r.is(day, "1+previous@75h~, 2+current")
		if v := r.Get(2); v.Extended != 3*time.Hour || v.Grace != 3*day {
			t.Errorf("extended %s, grace %s", v.Extended, v.Grace)
		}
		r.is(75*time.Hour, "1-retired/grace_ended@75h~, 2+current")
	})
	t.Run("up to its expiry", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0, ttl(4*day))
		r.rotate(0, 3*day)
		same(t, "told", told(r.Extend(at(day), 1, 2*day)), "extended 1@1d>4d")
		r.unchanged(day, func() { same(t, "no further", told(r.Extend(at(day), 1, day)), "") })
	})
	t.Run("withdrawn ones are not waited for", func(t *testing.T) {
		r := newRole(t)
		r.rotate(0, 0)
		r.rotate(0, 9*day)
		r.rollback(0, 0, 9*day)
		r.rotate(0, 3*day)
		same(t, "told", told(r.Extend(at(day), 1, day)), "extended 1@1d>4d")
		r.is(day, "1+previous@4d~, 2+withdrawn@3d~, 3+current")
		r.unchanged(day, func() { same(t, "told", told(r.Extend(at(day), 2, day)), "") })
	})
	t.Run("ended", func(t *testing.T) {
		r := build(t)
		same(t, "told", told(r.Extend(at(3*day), 1, day)), "retired 1@3d/grace_ended")
		r.is(0, "1-retired/grace_ended@3d~, 2+current")
	})
	for name, op := range map[string]func(*role) []keyring.Event{
		"current":     func(r *role) []keyring.Event { return r.Extend(at(day), 2, day) },
		"unknown":     func(r *role) []keyring.Event { return r.Extend(at(day), 3, day) },
		"by nothing":  func(r *role) []keyring.Event { return r.Extend(at(day), 1, 0) },
		"by a cutoff": func(r *role) []keyring.Event { return r.Extend(at(day), 1, -ns) },
	} {
		t.Run(name, func(t *testing.T) {
			r := build(t)
			r.unchanged(day, func() { same(t, "told", told(op(r)), "") })
		})
	}
}

func numbers(versions []keyring.Version) string {
	var all []int
	for _, v := range versions {
		all = append(all, v.N)
	}
	return fmt.Sprint(all)
}

func TestTrim(t *testing.T) {
	r := newRole(t)
	for range 6 {
		r.rotate(0, 0)
	}
	r.Get(2).Plain = true
	for _, c := range []struct {
		keep       int
		gone, left string
	}{
		{5, "[]", "[1 2 3 4 5 6]"},
		{4, "[]", "[1 2 3 4 5 6]"},
		{3, "[1]", "[2 3 4 5 6]"},
		{1, "[3 4]", "[2 5 6]"},
		{0, "[5]", "[2 6]"},
		{0, "[]", "[2 6]"},
	} {
		before := slices.Clone(r.Versions)
		gone := trim(&r.Ring, epoch, c.keep)
		same(t, fmt.Sprintf("gone, keeping %d", c.keep), numbers(gone), c.gone)
		same(t, fmt.Sprintf("left, keeping %d", c.keep), numbers(r.Versions), c.left)
		if _, lingering := r.Forgettable(epoch); fmt.Sprint(lingering) != "[2]" {
			t.Errorf("lingering: %v", lingering)
		}
		for _, v := range gone {
			if i := slices.IndexFunc(before, func(b keyring.Version) bool { return b.N == v.N }); before[i] != v {
				t.Errorf("version %d comes back changed", v.N)
			}
		}
	}
	same(t, "next after a trim", r.rotate(0, 0), "created 7@0s, retired 6@0s/superseded")
}

func TestTrimKeeps(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(*role)
		left  string
	}{
		{"the one on top that ended", func(r *role) { r.rotate(0, 0); r.rotate(0, 0); r.revoke(0, 2) }, "[2]"},
		{"what is pending", func(r *role) { r.rotate(0, 0); r.stage(0, 0, held) }, "[1 2]"},
		{
			"what ended without a mark yet",
			func(r *role) { r.rotate(0, 0); r.rotate(0, ns); r.rotate(0, 0) },
			"[1 2 3]",
		},
		{
			"what ends another one",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rotate(0, 0); r.rotate(0, 0) },
			"[1 2 4]",
		},
		{
			"not what was withdrawn and ended",
			func(r *role) { r.rotate(0, 0); r.rotate(0, 9*day); r.rollback(0, 0, 0) },
			"[1]",
		},
		{"nothing", func(*role) {}, "[]"},
		{"only the pending one", func(r *role) { r.stage(0, 0, held); r.stage(7*day, 0, held) }, "[2]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			c.build(r)
			trim(&r.Ring, at(7*day), 0)
			same(t, "left", numbers(r.Versions), c.left)
		})
	}
}
