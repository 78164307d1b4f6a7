// SPDX-License-Identifier: MPL-2.0

// Package keyring holds the life of the versions of one role: their states
// and every transition between them.
//
// Everything here is a pure function of a Ring and an instant. The package
// never asks for the time and never does I/O, so that the engine, its tests
// and its simulations all share one definition of what verifies when.
//
// A version's state follows from its dates. No tick is needed for a version to
// become current, to retire or to expire. Ends that somebody decided, and ends
// that a later commit came across (see Ring.Settle), are marks: a clock that
// goes backwards cannot undo them.
package keyring

import (
	"slices"
	"time"
)

const (
	// PendingWindow is how long before its activation a version verifies at
	// most, and how long a held version (one without activation date) waits
	// for its promotion before it lapses.
	PendingWindow = 7 * 24 * time.Hour

	// RollbackMargin is what the target of a rollback must have left to live.
	// Less would hand out a key that ends while the answer travels.
	RollbackMargin = 10 * time.Second

	// MaxLive is how many versions of one role may verify at a time.
	MaxLive = 10

	// PlaintextLinger is how long the plaintext outlives a planned end.
	PlaintextLinger = time.Hour
)

// State is what a version is at an instant.
type State string

// The states of a version, in order of precedence.
const (
	Revoked   State = "revoked"   // killed at once, for good
	Expired   State = "expired"   // its own ttl is over, or the role is
	Retired   State = "retired"   // past its deadline, withdrawn and over, or lapsed
	Withdrawn State = "withdrawn" // taken back by a rollback, still accepted for a while
	Pending   State = "pending"   // before its activation
	Current   State = "current"   // the one handed out
	Previous  State = "previous"  // superseded, inside its grace
)

// Ended reports whether the state is final.
func (s State) Ended() bool { return s == Revoked || s == Expired || s == Retired }

// Reason says why a version is retired, or what somebody gave as the reason of its
// end.
type Reason string

// The reasons of retirement.
const (
	GraceEnded Reason = "grace_ended" // the grace of the rotation that superseded it is over
	RolledBack Reason = "rolled_back" // a rollback withdrew it, and its time is over
	Superseded Reason = "superseded"  // a rotation ended it without grace, it made room, its leak or somebody ended it early
	Lapsed     Reason = "lapsed"      // held for seven days without being promoted
)

// The reasons that somebody may give for an end, beside Superseded.
const (
	Unspecified Reason = "unspecified"
	Leaked      Reason = "leaked"     // it was found in the open
	Offboarded  Reason = "offboarded" // who used it is gone
	Abuse       Reason = "abuse"      // it was misused
	Policy      Reason = "policy"     // a rule wants it
)

// Codes are all reasons that somebody may give.
var Codes = []Reason{Unspecified, Leaked, Offboarded, Superseded, Abuse, Policy}

// Version is one version of a role: a key of a static role, a generation of a
// dynamic one.
type Version struct {
	N      int    `json:"n"`
	KeyID  string `json:"key_id,omitempty"`
	Prefix string `json:"prefix,omitempty"`

	Created time.Time `json:"created"`
	// Activate is the date of activation; zero for a held version and for one
	// that ended before its activation.
	Activate time.Time `json:"activate,omitzero"`
	// Activated marks an activation that somebody decided or that a commit
	// came across, so that it holds whatever the clock says later.
	Activated bool `json:"activated,omitempty"`
	// Auto tells the automatic rotation from what somebody asked for.
	Auto bool `json:"auto,omitempty"`

	// TTL and Expires: how long the version may live and until when; zero is
	// forever. Frozen at creation; a promotion may only shorten Expires, and so does
	// the mark of an expiry with the role.
	TTL     time.Duration `json:"ttl,omitempty"`
	Expires time.Time     `json:"expires,omitzero"`

	// Grace is how long the version's predecessor outlives its activation,
	// Extended what was added because the predecessor was still in use.
	Grace    time.Duration `json:"grace"`
	Extended time.Duration `json:"extended,omitempty"`

	// Withdrawn is the rollback that took the version back, WithdrawnUntil
	// the latest instant at which it still verifies.
	Withdrawn      time.Time `json:"withdrawn,omitzero"`
	WithdrawnUntil time.Time `json:"withdrawn_until,omitzero"`
	// Past: no version up to this number ends a withdrawn one any more, because
	// somebody gave it a later end. Those made since do.
	Past int `json:"past,omitempty"`
	// Reinstated is the rollback that made the version current again.
	Reinstated time.Time `json:"reinstated,omitzero"`

	// Reported is when somebody found the key in the open. Nothing prolongs a
	// reported version any more: Cap is its end at the latest. Of one that was not
	// reported it is an earlier end that somebody gave it.
	Reported time.Time `json:"reported,omitzero"`
	Cap      time.Time `json:"cap,omitzero"`
	// LeakRotated: the one replacement that a report may cause has happened.
	LeakRotated bool `json:"leak_rotated,omitempty"`

	// Code is the reason that somebody gave for its end; empty where nobody did.
	Code Reason `json:"reason_code,omitempty"`

	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	ExpiredSeen bool      `json:"expired_seen,omitempty"`
	RetiredAt   time.Time `json:"retired_at,omitzero"`
	RetiredBy   Reason    `json:"retired_by,omitempty"`

	// Plain says that the plaintext is stored.
	Plain bool `json:"plain,omitempty"`
	// Revealed is when a reveal-once version was handed out.
	Revealed time.Time `json:"revealed,omitzero"`
	// LookedFor: near the end of the version that it superseded somebody looked
	// whether anybody has come for it; Unclaimed is when, if nobody had.
	LookedFor bool      `json:"looked_for,omitempty"`
	Unclaimed time.Time `json:"unclaimed,omitzero"`
	// Ending is the end of which it was told that it comes while the version is in use.
	// ExpiryTold is the shortest time before its end by which that was told.
	Ending     time.Time     `json:"ending,omitzero"`
	ExpiryTold time.Duration `json:"expiry_told,omitempty"`
	// Strength is what is known of an imported key; empty for minted ones.
	Strength string `json:"strength,omitempty"`
	// Foreign marks an imported key that has not this engine's own form.
	Foreign bool `json:"foreign,omitempty"`
}

// Ring is the versions of one role, by ascending number, and the highest
// number ever given out.
type Ring struct {
	Versions []Version `json:"versions"`
	Last     int       `json:"last"`
	// Until is the end of the role: whatever lives then expires, and nothing is
	// made, or becomes current, from then on. Zero is none. Only Bound changes it.
	Until time.Time `json:"until,omitzero"`
}

// Status is what a version is at an instant, and until when.
type Status struct {
	State  State
	Reason Reason // why it retired; of a revoked version its Code
	// Verifies: a presented key of this version is accepted.
	Verifies bool
	// VerifiesFrom is when a pending version begins to be accepted.
	VerifiesFrom time.Time
	// Until is the earliest known end of a version that has not ended (zero:
	// none known), and the end itself of one that has.
	Until time.Time
	// Planned: Until is, or was, the end of the grace of a rotation.
	Planned bool
}

// Clone returns a copy that shares nothing with r.
func (r *Ring) Clone() Ring {
	return Ring{Versions: slices.Clone(r.Versions), Last: r.Last, Until: r.Until}
}

// Over reports whether the role has ended.
func (r *Ring) Over(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

// Get returns version n, or nil. The pointer is into the ring.
func (r *Ring) Get(n int) *Version {
	if i := r.index(n); i >= 0 {
		return &r.Versions[i]
	}
	return nil
}

func (r *Ring) index(n int) int {
	i, ok := slices.BinarySearchFunc(r.Versions, n, func(v Version, n int) int { return v.N - n })
	if !ok {
		return -1
	}
	return i
}

// ByKeyID returns the version with that key id, or nil. Generations of a dynamic
// role have none.
func (r *Ring) ByKeyID(id string) *Version {
	if id == "" {
		return nil
	}
	for i := range r.Versions {
		if r.Versions[i].KeyID == id {
			return &r.Versions[i]
		}
	}
	return nil
}

// Status returns the state of version n at now, and false if the ring does not
// hold it.
func (r *Ring) Status(n int, now time.Time) (Status, bool) {
	i := r.index(n)
	if i < 0 {
		return Status{}, false
	}
	return r.status(i, now), true
}

// planned reports whether v is activated, or will be at its date. One that ends
// before its date never is.
func (r *Ring) planned(v *Version) bool {
	if v.Activate.IsZero() {
		return false
	}
	end := earlierSet(earlierSet(v.Expires, v.Cap), r.Until)
	return v.Activated || end.IsZero() || end.After(v.Activate)
}

// activated reports whether v has become, by decision or by the clock, one that is
// or was handed out.
func (r *Ring) activated(v *Version, now time.Time) bool {
	return r.planned(v) && (v.Activated || !now.Before(v.Activate))
}

// firstVerifies is the first instant at which the version verifies.
func firstVerifies(created, activate time.Time) time.Time {
	if activate.IsZero() {
		return created
	}
	return later(created, activate.Add(-PendingWindow))
}

// superseder is the index of the version that ends the one at i: the next
// higher that is not withdrawn and activated, or going to be; -1 if none is.
func (r *Ring) superseder(i int) int {
	for j := i + 1; j < len(r.Versions); j++ {
		if s := &r.Versions[j]; s.N > r.Versions[i].Past && s.Withdrawn.IsZero() && r.planned(s) {
			return j
		}
	}
	return -1
}

// retirement is the earliest known end of the version at i that is neither its
// own expiry nor a mark, why that is its end, and whether it is the end of a
// grace. Zero: none known.
func (r *Ring) retirement(i int) (end time.Time, why Reason, planned bool) {
	v := &r.Versions[i]
	if v.Activate.IsZero() {
		end, why = v.Created.Add(PendingWindow), Lapsed
	} else if j := r.superseder(i); j >= 0 {
		s := &r.Versions[j]
		grace := s.Grace
		if v.Withdrawn.IsZero() {
			grace += s.Extended // what is withdrawn is not waited for
		}
		end, why = s.Activate.Add(grace), Superseded
		if grace > 0 {
			why, planned = GraceEnded, true
		}
	}
	if !v.Withdrawn.IsZero() && (end.IsZero() || v.WithdrawnUntil.Before(end)) {
		end, why, planned = v.WithdrawnUntil, RolledBack, false
	}
	if !v.Cap.IsZero() && (end.IsZero() || v.Cap.Before(end)) {
		end, why, planned = v.Cap, Superseded, false
	}
	return end, why, planned
}

func (r *Ring) status(i int, now time.Time) Status {
	v := &r.Versions[i]

	if !v.RevokedAt.IsZero() {
		return Status{State: Revoked, Reason: v.Code, Until: v.RevokedAt}
	}
	end, why, planned := r.retirement(i)
	expires := v.Expires
	if !v.marked() && (end.IsZero() || !end.Before(r.Until)) {
		// How one ended, and when, is not for the end of the role to change.
		expires = earlierSet(expires, r.Until)
	}
	if v.ExpiredSeen || (!expires.IsZero() && !now.Before(expires)) {
		return Status{State: Expired, Until: expires}
	}
	if !v.RetiredAt.IsZero() {
		return Status{State: Retired, Reason: v.RetiredBy, Until: v.RetiredAt, Planned: v.RetiredBy == GraceEnded}
	}
	if !end.IsZero() && !now.Before(end) {
		return Status{State: Retired, Reason: why, Until: end, Planned: planned}
	}

	st := Status{Verifies: true, Until: end, Planned: planned}
	if !expires.IsZero() && (end.IsZero() || !end.Before(expires)) {
		st.Until, st.Planned = expires, false
	}
	switch {
	case !v.Withdrawn.IsZero():
		st.State = Withdrawn
	case !r.activated(v, now):
		st.State = Pending
		st.VerifiesFrom = firstVerifies(v.Created, v.Activate)
		st.Verifies = !now.Before(st.VerifiesFrom)
	case i == r.top(now):
		st.State = Current
	default:
		st.State = Previous
	}
	return st
}

// top is the index of the highest activated version that is not withdrawn,
// ended or not; -1 if there is none.
func (r *Ring) top(now time.Time) int {
	for i := len(r.Versions) - 1; i >= 0; i-- {
		if r.Versions[i].Withdrawn.IsZero() && r.activated(&r.Versions[i], now) {
			return i
		}
	}
	return -1
}

// Top returns the highest activated version that is not withdrawn, whether or
// not it has ended; nil if there is none. If it has not ended it is the
// current one.
func (r *Ring) Top(now time.Time) *Version {
	if i := r.top(now); i >= 0 {
		return &r.Versions[i]
	}
	return nil
}

// Current returns the version that is handed out, or nil.
func (r *Ring) Current(now time.Time) *Version {
	if i := r.top(now); i >= 0 && r.status(i, now).State == Current {
		return &r.Versions[i]
	}
	return nil
}

// Pending returns the version that waits for its activation, or nil. There is
// never more than one.
func (r *Ring) Pending(now time.Time) *Version {
	for i := len(r.Versions) - 1; i >= 0; i-- {
		if r.status(i, now).State == Pending {
			return &r.Versions[i]
		}
	}
	return nil
}

// PreviousOf returns the highest version in state previous, or nil.
func (r *Ring) PreviousOf(now time.Time) *Version {
	for i := len(r.Versions) - 1; i >= 0; i-- {
		if r.status(i, now).State == Previous {
			return &r.Versions[i]
		}
	}
	return nil
}

// Live counts the versions that have not ended.
func (r *Ring) Live(now time.Time) int {
	n := 0
	for i := range r.Versions {
		if !r.status(i, now).State.Ended() {
			n++
		}
	}
	return n
}

// CurrentSince is since when v, the current version, has been the one handed
// out: its activation, or the rollback that reinstated it.
func (v *Version) CurrentSince() time.Time { return later(v.Activate, v.Reinstated) }

// EraseAt is when the stored plaintext of the version, which has that status,
// is to be erased: at its end, PlaintextLinger after a planned one; when it was
// handed out, if that happens once only. Zero: not yet, or there is none.
func (v *Version) EraseAt(s Status) time.Time {
	switch {
	case !v.Plain:
		return time.Time{}
	case !v.Revealed.IsZero():
		return v.Revealed
	case !s.State.Ended():
		return time.Time{}
	case s.State == Retired && s.Planned:
		return s.Until.Add(PlaintextLinger)
	default:
		return s.Until
	}
}

// NextEnd is the earliest instant after now at which a version ends by what is
// known now, or at which the plaintext of an ended one is to be erased; zero if
// there is none. Instants at or before now that still wait for a commit are
// returned as now.
func (r *Ring) NextEnd(now time.Time) time.Time {
	var next time.Time
	for i := range r.Versions {
		v := &r.Versions[i]
		st := r.status(i, now)
		var at time.Time
		switch {
		case !st.State.Ended():
			at = st.Until
		case !v.marked():
			at = now
		}
		if erase := v.EraseAt(st); !erase.IsZero() {
			at = earlierSet(at, later(erase, now))
		}
		next = earlierSet(next, at)
	}
	return next
}

// marked reports whether the version's end is recorded in it.
func (v *Version) marked() bool {
	return !v.RevokedAt.IsZero() || v.ExpiredSeen || !v.RetiredAt.IsZero()
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// earlierSet is the earlier of the two; a zero time counts as not set.
func earlierSet(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
