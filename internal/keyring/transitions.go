// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"errors"
	"fmt"
	"sort"
	"time"
)

// EventKind names what happened to a version.
type EventKind string

// The kinds of events of a version.
const (
	EventCreated   EventKind = "created"   // minted, and handed out from now on
	EventStaged    EventKind = "staged"    // minted, to be activated later
	EventActivated EventKind = "activated" // became the one handed out
	EventRetired   EventKind = "retired"
	EventExpired   EventKind = "expired"
	EventRevoked   EventKind = "revoked"
	EventWithdrawn EventKind = "withdrawn"
	EventRestored  EventKind = "reinstated" // current again after a rollback
	EventExtended  EventKind = "extended"   // its grace was prolonged
	EventCapped    EventKind = "capped"     // reported: it ends at the latest then
	EventEndSet    EventKind = "end_set"    // somebody gave it another end
)

// Event is one thing that happened to one version.
type Event struct {
	Kind    EventKind
	Version int
	KeyID   string
	At      time.Time
	Reason  Reason    // of a retirement
	Until   time.Time // of a withdrawal, an extension, a cap or an end set: the new end; of a staging: the activation
}

// Refusals. They are the caller's mistakes, told apart with errors.Is; the text
// of what is returned names versions and times.
var (
	ErrPendingExists = errors.New("a version is pending")
	ErrNoPending     = errors.New("no version is pending")
	ErrTooManyLive   = errors.New("too many live versions")
	ErrBadActivation = errors.New("activation date")
	ErrNoTarget      = errors.New("nothing to roll back to")
	ErrNeedTarget    = errors.New("a second rollback in a row needs a version")
	ErrUnknown       = errors.New("no such version")
	ErrNotEnding     = errors.New("not on its way out")
	ErrBeyond        = errors.New("too late an end")
	ErrOver          = errors.New("the role has ended")
)

// Stamp is how this package and the engine write a time in a text.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Mint is what a new version is made from.
type Mint struct {
	KeyID  string
	Prefix string
	TTL    time.Duration // 0: no expiry
	Grace  time.Duration // of the predecessor, from the activation on
	// Activate is the date; zero is now, unless Held.
	Activate time.Time
	Held     bool // activated by a promotion only
	Auto     bool
	Plain    bool
	// Number is the version's number, above every one given out before; zero is
	// the next. Imported versions keep theirs.
	Number int
	// Strength and Foreign describe an imported key.
	Strength string
	Foreign  bool
}

// Settle records what the clock alone has done up to now, so that no later
// clock can undo it: activations, expiries, retirements, lapses. It returns
// them in the order of their times. Every other transition settles first.
func (r *Ring) Settle(now time.Time) []Event {
	// States are taken before anything is marked: a mark must not change what
	// another version is judged by.
	type seen struct {
		Status
		activated bool
		retired   time.Time // where it retired before it expired
		why       Reason
	}
	states := make([]seen, len(r.Versions))
	for i := range r.Versions {
		s := seen{Status: r.status(i, now), activated: r.activated(&r.Versions[i], now)}
		switch end, why, _ := r.retirement(i); {
		case s.State == Retired:
			s.retired, s.why = s.Until, s.Reason
		case s.State == Expired && end.Before(s.Until): // zero stays zero
			s.retired, s.why = end, why
		}
		states[i] = s
	}
	var events []Event
	for i := range r.Versions {
		v, st := &r.Versions[i], states[i]
		if st.activated && !v.Activated {
			v.Activated = true
			events = append(events, Event{Kind: EventActivated, Version: v.N, KeyID: v.KeyID, At: v.Activate})
		}
		if st.State != Expired && st.State != Retired {
			continue
		}
		if !st.retired.IsZero() && !v.marked() {
			v.RetiredAt, v.RetiredBy = st.retired, st.why
			events = append(events, Event{Kind: EventRetired, Version: v.N, KeyID: v.KeyID, At: st.retired, Reason: st.why})
		}
		if st.State == Expired {
			if !v.marked() {
				events = append(events, Event{Kind: EventExpired, Version: v.N, KeyID: v.KeyID, At: st.Until})
			}
			v.ExpiredSeen, v.Expires = true, st.Until
		}
		if !v.Activated {
			v.Activate = time.Time{}
		}
	}
	sort.SliceStable(events, func(a, b int) bool { return events[a].At.Before(events[b].At) })
	return events
}

// Rotate mints the next version. A pending version is revoked by it, and the
// grace is cut to what that one would have left its predecessor. force
// makes room where MaxLive versions live; without it that is ErrTooManyLive.
// Nothing changes when an error is returned, beyond what Settle marks.
func (r *Ring) Rotate(now time.Time, m Mint, force bool) ([]Event, error) {
	events := r.Settle(now)
	if err := r.check(now, m); err != nil {
		return events, err
	}
	m.Grace = r.cutGrace(now, m)
	pending := r.Pending(now)
	over := r.liveAfter(now, pending, m) - MaxLive
	if over > 0 && !force {
		return events, fmt.Errorf("%w: %d of %d; the next one to end is %s", ErrTooManyLive, r.Live(now), MaxLive, r.nextToEnd(now))
	}
	if pending != nil {
		events = append(events, r.kill(pending, now))
	}
	events = append(events, r.makeRoom(now, over)...)
	events = append(events, r.mint(now, m)...)
	return events, nil
}

// cutGrace is the grace of m, at most what the pending version would have left
// its predecessor: whoever was to end with it ends no later for its being
// replaced.
func (r *Ring) cutGrace(now time.Time, m Mint) time.Duration {
	p := r.Pending(now)
	if p == nil || !r.planned(p) {
		return m.Grace
	}
	return max(0, min(m.Grace, p.Activate.Add(p.Grace).Sub(later(m.Activate, now))))
}

// liveAfter is how many versions would live once m is minted and the pending
// version is gone.
func (r *Ring) liveAfter(now time.Time, pending *Version, m Mint) int {
	next := r.Clone()
	if pending != nil {
		next.kill(next.Get(pending.N), now)
	}
	next.mint(now, m)
	return next.Live(now)
}

// check refuses what would never be handed out: anything once the role has ended,
// and a date at which the role has ended or the version would have expired. A date
// in the past is now.
func (r *Ring) check(now time.Time, m Mint) error {
	switch {
	case r.Over(now):
		return fmt.Errorf("%w: at %s", ErrOver, Stamp(r.Until))
	case m.Held:
		return nil
	case !r.Until.IsZero() && !m.Activate.Before(r.Until):
		return fmt.Errorf("%w: the role ends at %s, not after the activation", ErrBadActivation, Stamp(r.Until))
	case m.TTL == 0:
		return nil
	}
	if end := firstVerifies(now, m.Activate).Add(m.TTL); !m.Activate.Before(end) {
		return fmt.Errorf("%w: a version made now would expire at %s, not after its activation", ErrBadActivation, Stamp(end))
	}
	return nil
}

// Stage mints a version that waits. It is refused while one is pending.
func (r *Ring) Stage(now time.Time, m Mint, force bool) ([]Event, error) {
	if p := r.Pending(now); p != nil {
		when := "held until it is promoted"
		if !p.Activate.IsZero() {
			when = "to be activated at " + Stamp(p.Activate)
		}
		return nil, fmt.Errorf("%w: version %d, %s", ErrPendingExists, p.N, when)
	}
	return r.Rotate(now, m, force)
}

// mint appends the version. What it ends at once is ended by decision and
// therefore marked.
func (r *Ring) mint(now time.Time, m Mint) []Event {
	v := Version{
		N: max(r.Last+1, m.Number), KeyID: m.KeyID, Prefix: m.Prefix, Created: now, TTL: m.TTL,
		Grace: m.Grace, Auto: m.Auto, Plain: m.Plain, Strength: m.Strength, Foreign: m.Foreign,
	}
	immediate := !m.Held && !m.Activate.After(now)
	switch {
	case immediate:
		v.Activate, v.Activated = now, true
	case !m.Held:
		v.Activate = m.Activate
	}
	if m.TTL > 0 {
		v.Expires = firstVerifies(now, v.Activate).Add(m.TTL)
	}
	r.Last = v.N
	r.Versions = append(r.Versions, v)
	if !immediate {
		return []Event{{Kind: EventStaged, Version: v.N, KeyID: v.KeyID, At: now, Until: v.Activate}}
	}
	return append(
		[]Event{{Kind: EventCreated, Version: v.N, KeyID: v.KeyID, At: now}},
		r.Settle(now)...)
}

func (r *Ring) retire(i int, now time.Time, why Reason) Event {
	v := &r.Versions[i]
	v.RetiredAt, v.RetiredBy = now, why
	return Event{Kind: EventRetired, Version: v.N, KeyID: v.KeyID, At: now, Reason: why}
}

// successor is the version that supersedes the one at i, or nil.
func (r *Ring) successor(i int, now time.Time) *Version {
	for j := i + 1; j < len(r.Versions); j++ {
		if s := &r.Versions[j]; s.N > r.Versions[i].Past && s.Withdrawn.IsZero() && r.activated(s, now) {
			return s
		}
	}
	return nil
}

// Successor is the version that supersedes version n at now, or nil.
func (r *Ring) Successor(n int, now time.Time) *Version {
	if i := r.index(n); i >= 0 {
		return r.successor(i, now)
	}
	return nil
}

// Promote gives the pending version its activation: now when at is not later,
// else that date, at most PendingWindow ahead. grace is what its predecessor
// gets from then on, or less where that would prolong a reported version.
// It never mints and never prolongs the version's life.
func (r *Ring) Promote(now, at time.Time, grace time.Duration) (int, []Event, error) {
	events := r.Settle(now)
	v := r.Pending(now)
	if v == nil {
		return 0, events, ErrNoPending
	}
	if at.Before(now) {
		at = now
	}
	if at.After(now.Add(PendingWindow)) {
		return 0, events, fmt.Errorf("%w: %s is more than %d days ahead", ErrBadActivation, Stamp(at), PendingWindow/(24*time.Hour))
	}
	expires := v.Expires
	if v.TTL > 0 {
		expires = earlierSet(expires, firstVerifies(v.Created, at).Add(v.TTL))
	}
	if end := earlierSet(earlierSet(expires, v.Cap), r.Until); !end.IsZero() && !at.Before(end) {
		return 0, events, fmt.Errorf("%w: version %d ends at %s and would never be handed out", ErrBadActivation, v.N, Stamp(end))
	}
	// Nothing prolongs a reported version. The current one cannot be capped
	// for that: the pending version may yet be revoked.
	pending := r.index(v.N)
	for i := range r.Versions {
		s, st := &r.Versions[i], r.status(i, now)
		if s.Reported.IsZero() || r.superseder(i) != pending {
			continue
		}
		switch st.State {
		case Current:
			grace = max(0, min(grace, st.Until.Sub(at)))
		case Withdrawn:
			s.Cap = st.Until
		}
	}
	v.Activate, v.Grace, v.Expires, v.Auto = at, grace, expires, false
	if at.After(now) {
		return v.N, append(events, Event{Kind: EventStaged, Version: v.N, KeyID: v.KeyID, At: now, Until: at}), nil
	}
	v.Activated = true
	events = append(events, Event{Kind: EventActivated, Version: v.N, KeyID: v.KeyID, At: now})
	return v.N, append(events, r.Settle(now)...), nil
}

// Extend prolongs the life of version n, which is in its grace, by step. A
// reported version, one in no grace and one whose end is not that grace's are
// left alone.
func (r *Ring) Extend(now time.Time, n int, step time.Duration) []Event {
	events := r.Settle(now)
	i := r.index(n)
	if i < 0 || step <= 0 {
		return events
	}
	v := &r.Versions[i]
	if st := r.status(i, now); st.State != Previous || !st.Planned || !v.Reported.IsZero() {
		return events
	}
	r.successor(i, now).Extended += step
	until := r.status(i, now).Until
	return append(events, Event{Kind: EventExtended, Version: v.N, KeyID: v.KeyID, At: now, Until: until})
}
