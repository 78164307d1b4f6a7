// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func TestRotate(t *testing.T) {
	r := newRole(t)
	same(t, "first", r.rotate(0, day), "created 1@0s")
	r.is(0, "1+current")
	same(t, "second", r.rotate(time.Hour, day), "created 2@1h")
	r.is(time.Hour, "1+previous@25h~, 2+current")
	same(t, "without grace", r.rotate(2*time.Hour, 0), "created 3@2h, retired 2@2h/superseded")
	r.is(2*time.Hour, "1+previous@25h~, 2-retired/superseded@2h, 3+current")
	// The end without grace was decided: no clock undoes it.
	r.is(0, "1+previous@25h~, 2-retired/superseded@2h, 3+current")
	same(t, "settles first", r.rotate(26*time.Hour, time.Minute), "retired 1@25h/grace_ended, created 4@26h")
	r.is(0, "1-retired/grace_ended@25h~, 2-retired/superseded@2h, 3+previous@26h1m~, 4+current")
}

// TestMintedVersion looks at every field of what is minted.
func TestMintedVersion(t *testing.T) {
	for _, c := range []struct {
		name string
		m    keyring.Mint
		want keyring.Version
	}{
		{
			"now",
			keyring.Mint{KeyID: "k", Prefix: "p", Grace: time.Hour},
			keyring.Version{Activate: at(day), Activated: true, Grace: time.Hour},
		},
		{
			"now, all set",
			keyring.Mint{KeyID: "k", Prefix: "p", TTL: 2 * day, Auto: true, Plain: true, Activate: at(day)},
			keyring.Version{Activate: at(day), Activated: true, TTL: 2 * day, Expires: at(3 * day), Auto: true, Plain: true},
		},
		{
			"a date in the past is now",
			keyring.Mint{KeyID: "k", Prefix: "p", TTL: 2 * day, Activate: at(0)},
			keyring.Version{Activate: at(day), Activated: true, TTL: 2 * day, Expires: at(3 * day)},
		},
		{
			"a nanosecond ahead",
			keyring.Mint{KeyID: "k", Prefix: "p", TTL: 2 * day, Activate: at(day + ns)},
			keyring.Version{Activate: at(day + ns), TTL: 2 * day, Expires: at(3 * day)},
		},
		{
			"more than seven days ahead: the ttl begins when it first verifies",
			keyring.Mint{KeyID: "k", Prefix: "p", TTL: 8 * day, Activate: at(10 * day)},
			keyring.Version{Activate: at(10 * day), TTL: 8 * day, Expires: at(11 * day)},
		},
		{
			"held",
			keyring.Mint{KeyID: "k", Prefix: "p", TTL: 2 * day, Held: true, Activate: at(5 * day)},
			keyring.Version{TTL: 2 * day, Expires: at(3 * day)},
		},
		{
			"imported",
			keyring.Mint{KeyID: "k", Prefix: "p", Number: 7, Strength: "weak", Foreign: true},
			keyring.Version{Activate: at(day), Activated: true, Strength: "weak", Foreign: true},
		},
		{
			"imported with a number above the next",
			keyring.Mint{KeyID: "k", Prefix: "p", Number: 12},
			keyring.Version{N: 12, Activate: at(day), Activated: true},
		},
		{
			"a number that was given out before is not given out again",
			keyring.Mint{KeyID: "k", Prefix: "p", Number: 6},
			keyring.Version{Activate: at(day), Activated: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := keyring.Ring{Last: 6}
			if _, err := r.Rotate(at(day), c.m, false); err != nil {
				t.Fatal(err)
			}
			c.want.N = max(c.want.N, 7)
			c.want.KeyID, c.want.Prefix, c.want.Created = "k", "p", at(day)
			if len(r.Versions) != 1 || r.Versions[0] != c.want {
				t.Errorf("\n got  %+v\n want %+v", r.Versions, c.want)
			}
			if r.Last != c.want.N {
				t.Errorf("last: %d", r.Last)
			}
		})
	}
}

func TestStage(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	same(t, "dated", r.stage(day, time.Hour, on(2*day)), "staged 2@1d>2d")
	r.is(day, "1+current@49h~, 2+pending from 1d")

	r.unchanged(day, func() {
		_, err := r.Stage(at(day), r.mint(0, held), true)
		refused(t, err, keyring.ErrPendingExists, "a version is pending: version 2, to be activated at 2026-03-03T12:00:00Z")
	})
	same(t, "after the activation", r.stage(2*day, time.Hour, held), "activated 2@2d, staged 3@2d")
	r.is(2*day, "1+previous@49h~, 2+current, 3+pending@9d from 2d")
	r.unchanged(2*day, func() {
		_, err := r.Stage(at(3*day), r.mint(0), false)
		refused(t, err, keyring.ErrPendingExists, "a version is pending: version 3, held until it is promoted")
	})
	same(t, "after the lapse", r.stage(9*day, 0, on(10*day)),
		"retired 1@49h/grace_ended, retired 3@9d/lapsed, staged 4@9d>10d")
}

// TestRotateRevokesPending: dated or held, what waits dies with a rotation.
func TestRotateRevokesPending(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, day, on(day))
	same(t, "dated", r.rotate(time.Hour, time.Hour), "revoked 2@1h, created 3@1h")
	r.is(time.Hour, "1+previous@2h~, 2-revoked@1h, 3+current")
	r.stage(time.Hour, day, held)
	same(t, "held", r.rotate(2*time.Hour, 50*day), "retired 1@2h/grace_ended, revoked 4@2h, created 5@2h")
	// A held version had not decided any end: the grace is what was asked for.
	r.is(2*time.Hour, "1-retired/grace_ended@2h~, 2-revoked@1h, 3+previous@1202h~, 4-revoked@2h, 5+current")
}

// TestRotateNeverProlongs: a rotation that replaces the pending version leaves
// nobody more time than that one would have.
func TestRotateNeverProlongs(t *testing.T) {
	for _, c := range []struct {
		name  string
		grace time.Duration
		more  []func(*keyring.Mint)
		want  string
	}{
		{"shorter", time.Hour, nil, "1+previous@25h~, 2-revoked@1d, 3+current"},
		{"as long", 3 * day, nil, "1+previous@4d~, 2-revoked@1d, 3+current"},
		{"longer is cut", 3*day + ns, nil, "1+previous@4d~, 2-revoked@1d, 3+current"},
		{"much longer is cut", 30 * day, nil, "1+previous@4d~, 2-revoked@1d, 3+current"},
		{"dated, cut", 30 * day, []func(*keyring.Mint){on(3 * day)}, "1+current@4d~, 2-revoked@1d, 3+pending from 1d"},
		{"dated at that end", day, []func(*keyring.Mint){on(4 * day)}, "1+current@4d, 2-revoked@1d, 3+pending from 1d"},
		{"dated beyond: somebody must be current until then", day, []func(*keyring.Mint){on(5 * day)}, "1+current@5d, 2-revoked@1d, 3+pending from 1d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			r.rotate(0, 0)
			r.stage(0, 2*day, on(2*day))
			r.rotate(day, c.grace, c.more...)
			r.is(day, c.want)
		})
	}
}

// TestRotateEndsWithdrawn: without grace a rotation ends what was withdrawn as
// well, by decision and not by the clock.
func TestRotateEndsWithdrawn(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.rotate(day, 9*day)
	r.rollback(2*day, 0, 9*day)
	same(t, "rotation", r.rotate(3*day, 0), "created 3@3d, retired 1@3d/superseded, retired 2@3d/superseded")
	r.is(0, "1-retired/superseded@3d, 2-retired/superseded@3d, 3+current")
}

func TestBadActivation(t *testing.T) {
	for _, c := range []struct {
		name string
		more []func(*keyring.Mint)
		text string
	}{
		{"expires before", []func(*keyring.Mint){on(3 * day), ttl(day)}, "activation date: a version made now would expire at 2026-03-03T12:00:00Z, not after its activation"},
		{"expires at", []func(*keyring.Mint){on(3 * day), ttl(2 * day)}, "activation date: a version made now would expire at 2026-03-04T12:00:00Z, not after its activation"},
		{"expires after", []func(*keyring.Mint){on(3 * day), ttl(2*day + ns)}, ""},
		{"far ahead, expires at", []func(*keyring.Mint){on(30 * day), ttl(7 * day)}, "activation date: a version made now would expire at 2026-03-31T12:00:00Z, not after its activation"},
		{"far ahead, expires after", []func(*keyring.Mint){on(30 * day), ttl(7*day + ns)}, ""},
		{"no expiry", []func(*keyring.Mint){on(300 * day)}, ""},
		{"now", []func(*keyring.Mint){ttl(ns)}, ""},
		{"date of now", []func(*keyring.Mint){on(day), ttl(ns)}, ""},
		{"date in the past", []func(*keyring.Mint){on(0), ttl(ns)}, ""},
		{"held", []func(*keyring.Mint){on(3 * day), held, ttl(ns)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			r.rotate(0, 0)
			r.stage(0, 0, held)
			if c.text == "" {
				r.rotate(day, 0, c.more...)
				return
			}
			r.unchanged(day, func() {
				_, err := r.Rotate(at(day), r.mint(0, c.more...), true)
				refused(t, err, keyring.ErrBadActivation, c.text)
			})
		})
	}
}

// TestRefusalTellsWhatWasSettled: the marks that a refused operation leaves are
// told.
func TestRefusalTellsWhatWasSettled(t *testing.T) {
	build := func(t *testing.T) *role {
		r := newRole(t)
		r.rotate(0, 0, ttl(day))
		return r
	}
	for name, op := range map[string]func(*role) ([]keyring.Event, error){
		"rotate": func(r *role) ([]keyring.Event, error) {
			return r.Rotate(at(2*day), r.mint(0, on(4*day), ttl(day)), false)
		},
		"promote": func(r *role) ([]keyring.Event, error) {
			_, events, err := r.Promote(at(2*day), at(2*day), 0)
			return events, err
		},
		"rollback": func(r *role) ([]keyring.Event, error) {
			_, events, err := r.Rollback(at(2*day), 0, 0)
			return events, err
		},
		"revoke": func(r *role) ([]keyring.Event, error) { return r.Revoke(at(2*day), 7) },
	} {
		t.Run(name, func(t *testing.T) {
			r := build(t)
			events, err := op(r)
			if err == nil {
				t.Fatal("not refused")
			}
			same(t, "told", told(events), "expired 1@1d")
			r.is(0, "1-expired@1d")
		})
	}
}

func TestPromote(t *testing.T) {
	for _, c := range []struct {
		name       string
		stage      []func(*keyring.Mint)
		at, on     time.Duration
		grace      time.Duration
		told, want string
	}{
		{
			"a held one, now",
			[]func(*keyring.Mint){held},
			2 * day, 2 * day, day,
			"activated 2@2d", "1+previous@3d~, 2+current",
		},
		{
			"a held one, with a date in the past, now",
			[]func(*keyring.Mint){held},
			2 * day, 0, day,
			"activated 2@2d", "1+previous@3d~, 2+current",
		},
		{
			"a held one, later",
			[]func(*keyring.Mint){held},
			2 * day, 4 * day, day,
			"staged 2@2d>4d", "1+current@5d~, 2+pending from 1d",
		},
		{
			"a held one, at the end of its last day, seven days later",
			[]func(*keyring.Mint){held},
			8*day - ns, 15*day - ns, 0,
			"staged 2@191h59m59.999999999s>359h59m59.999999999s",
			"1+current@359h59m59.999999999s, 2+pending from 191h59m59.999999999s",
		},
		{
			"a dated one, earlier",
			[]func(*keyring.Mint){on(20 * day)},
			2 * day, 2 * day, 3 * day,
			"activated 2@2d", "1+previous@5d~, 2+current",
		},
		{
			"a dated one, to another date",
			[]func(*keyring.Mint){on(4 * day)},
			2 * day, 9 * day, 3 * day,
			"staged 2@2d>9d", "1+current@12d~, 2+pending from 2d",
		},
		{
			"without grace",
			[]func(*keyring.Mint){held},
			2 * day, 2 * day, 0,
			"activated 2@2d, retired 1@2d/superseded", "1-retired/superseded@2d, 2+current",
		},
		{
			"the ttl counts from the first instant at which it verifies: earlier now",
			[]func(*keyring.Mint){on(20 * day), ttl(10 * day)},
			2 * day, 2 * day, day,
			"activated 2@2d", "1+previous@3d~, 2+current@11d",
		},
		{
			"an earlier date brings the expiry nearer",
			[]func(*keyring.Mint){on(20 * day), ttl(8 * day)},
			8 * day, 14 * day, 0,
			"staged 2@8d>14d", "1+current@14d, 2+pending@15d from 7d",
		},
		{
			"a later date does not prolong it",
			[]func(*keyring.Mint){on(10 * day), ttl(10 * day)},
			6 * day, 12 * day, day,
			"staged 2@6d>12d", "1+current@13d~, 2+pending@13d from 5d",
		},
		{
			"of what was left when held",
			[]func(*keyring.Mint){held, ttl(10 * day)},
			7 * day, 7 * day, day,
			"activated 2@7d", "1+previous@8d~, 2+current@11d",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			r.rotate(0, 0)
			r.stage(day, 9*day, append(c.stage, func(m *keyring.Mint) { m.Auto = true })...)
			same(t, "told", r.promote(c.at, c.on, c.grace), c.told)
			r.is(c.at, c.want)
			if c.on <= c.at {
				r.is(0, c.want) // decided, whatever the clock says
			}
			if r.Get(2).Auto {
				t.Error("still counts as automatic")
			}
		})
	}
}

func TestPromoteRefused(t *testing.T) {
	for _, c := range []struct {
		name     string
		stage    []func(*keyring.Mint)
		at, on   time.Duration
		sentinel error
		text     string
	}{
		{"nothing pending", nil, day, day, keyring.ErrNoPending, "no version is pending"},
		{"lapsed", []func(*keyring.Mint){held}, 8 * day, 8 * day, keyring.ErrNoPending, "no version is pending"},
		{"activated by the clock", []func(*keyring.Mint){on(2 * day)}, 2 * day, 2 * day, keyring.ErrNoPending, "no version is pending"},
		{
			"more than seven days ahead",
			[]func(*keyring.Mint){held},
			2 * day, 9*day + ns, keyring.ErrBadActivation,
			"activation date: 2026-03-10T12:00:00Z is more than 7 days ahead",
		},
		{
			"at its expiry",
			[]func(*keyring.Mint){held, ttl(3 * day)},
			2 * day, 4 * day, keyring.ErrBadActivation,
			"activation date: version 2 ends at 2026-03-05T12:00:00Z and would never be handed out",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRole(t)
			r.rotate(0, 0)
			if c.stage != nil {
				r.stage(day, 0, c.stage...)
			}
			r.unchanged(c.at, func() {
				n, _, err := r.Promote(at(c.at), at(c.on), day)
				refused(t, err, c.sentinel, c.text)
				if n != 0 {
					t.Errorf("version %d", n)
				}
			})
		})
	}
}

// TestPromoteBeforeExpiry is the other side of the boundary.
func TestPromoteBeforeExpiry(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(day, 0, held, ttl(3*day))
	r.promote(2*day, 4*day-ns, 0)
	r.is(4*day-ns, "1-retired/superseded@95h59m59.999999999s, 2+current@4d")
}

// TestPromoteImported: an end that does not come from a ttl counts as well.
func TestPromoteImported(t *testing.T) {
	r := newRole(t)
	r.rotate(0, 0)
	r.stage(0, 0, held)
	r.Get(2).Expires = at(2 * day)
	r.unchanged(0, func() {
		_, _, err := r.Promote(epoch, at(2*day), 0)
		refused(t, err, keyring.ErrBadActivation, "activation date: version 2 ends at 2026-03-03T12:00:00Z and would never be handed out")
	})
	r.promote(0, 2*day-ns, 0)
}

// TestPromoteFirst: there may be nothing to supersede.
func TestPromoteFirst(t *testing.T) {
	r := newRole(t)
	same(t, "stage", r.stage(0, day, held), "staged 1@0s")
	r.is(0, "1+pending@7d from 0s")
	same(t, "promote", r.promote(day, day, 0), "activated 1@1d")
	r.is(0, "1+current")
}
