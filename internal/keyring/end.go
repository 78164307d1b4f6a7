// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"fmt"
	"slices"
	"time"
)

// kill revokes v. One that was not activated yet never will be.
func (r *Ring) kill(v *Version, now time.Time) Event {
	v.RevokedAt = now
	if !v.Activated {
		v.Activate = time.Time{}
	}
	return Event{Kind: EventRevoked, Version: v.N, KeyID: v.KeyID, At: now}
}

// Revoke kills the versions with those numbers at once. Killing one that was
// revoked before changes nothing and makes no event.
func (r *Ring) Revoke(now time.Time, numbers ...int) ([]Event, error) {
	events := r.Settle(now)
	for _, n := range numbers {
		if r.Get(n) == nil {
			return events, fmt.Errorf("%w: %d", ErrUnknown, n)
		}
	}
	for _, n := range numbers {
		if v := r.Get(n); v.RevokedAt.IsZero() {
			events = append(events, r.kill(v, now))
		}
	}
	return events, nil
}

// Bound gives the role another end; zero is none. What has ended by the one that it
// had stays so.
func (r *Ring) Bound(now, until time.Time) []Event {
	events := r.Settle(now)
	r.Until = until
	return append(events, r.Settle(now)...)
}

// Report marks version n as found in the open and makes until its end at the
// latest (zero: the end it has now stays, but nothing prolongs it any more).
// The first report decides; a later one can only bring the end nearer. Without
// until the current version goes on; with it there is no current one from then
// on, unless something supersedes it before.
func (r *Ring) Report(now time.Time, n int, until time.Time) []Event {
	events := r.Settle(now)
	i := r.index(n)
	if i < 0 {
		return events
	}
	v := &r.Versions[i]
	st := r.status(i, now)
	if v.Reported.IsZero() {
		v.Reported = now
	}
	if st.State.Ended() {
		return events
	}
	limit := until
	if st.State != Current {
		limit = earlierSet(until, st.Until)
	}
	if limit.IsZero() || (!v.Cap.IsZero() && !limit.Before(v.Cap)) {
		return events
	}
	v.Cap = later(limit, now)
	events = append(events, Event{Kind: EventCapped, Version: v.N, KeyID: v.KeyID, At: now, Until: v.Cap})
	return append(events, r.Settle(now)...)
}

// DropPending revokes the pending version where no other takes its place. What was
// withdrawn and was to end with it ends no later for that; the current version, which
// was too, is the caller's to end.
func (r *Ring) DropPending(now time.Time) []Event {
	events := r.Settle(now)
	p := r.Pending(now)
	if p == nil {
		return events
	}
	pending := r.index(p.N)
	for i := range r.Versions {
		v := &r.Versions[i]
		if v.Withdrawn.IsZero() || v.marked() || r.superseder(i) != pending {
			continue
		}
		v.WithdrawnUntil = earlierSet(v.WithdrawnUntil, p.Activate.Add(p.Grace))
	}
	return append(events, r.kill(p, now))
}

// Forgettable are the numbers of the ended versions that nothing needs any more,
// oldest first: bare, those whose plaintext is gone, and lingering, those whose is
// not. Needed are the version on top, which says why there is no current one, and
// those that give a version which is not marked as ended its end.
func (r *Ring) Forgettable(now time.Time) (bare, lingering []int) {
	needed := map[int]bool{r.top(now): true}
	for i := range r.Versions {
		if !r.Versions[i].marked() {
			needed[i], needed[r.superseder(i)] = true, true
		}
	}
	for i := range r.Versions {
		switch v := &r.Versions[i]; {
		case needed[i]:
		case v.Plain:
			lingering = append(lingering, v.N)
		default:
			bare = append(bare, v.N)
		}
	}
	return bare, lingering
}

// Forget takes version n out of the ring.
func (r *Ring) Forget(n int) {
	r.Versions = slices.DeleteFunc(r.Versions, func(v Version) bool { return v.N == n })
}
