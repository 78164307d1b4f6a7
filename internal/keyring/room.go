// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"fmt"
	"time"
)

// makeRoom ends n superseded or withdrawn versions: those that live on a
// prolonged grace first, then those whose grace began first.
func (r *Ring) makeRoom(now time.Time, n int) []Event {
	var events []Event
	for ; n > 0; n-- {
		events = append(events, r.retire(r.evictable(now), now, Superseded))
	}
	return events
}

// evictable is the index of the version to end first. There is one wherever too
// many live: all but the current and the pending one are in some grace.
func (r *Ring) evictable(now time.Time) int {
	best, bestExtended, bestSince := -1, false, time.Time{}
	for i := range r.Versions {
		st := r.status(i, now)
		since := r.graceBegan(i, st, now)
		if since.IsZero() {
			continue
		}
		extended := st.State == Previous && st.Planned && r.successor(i, now).Extended != 0
		if best < 0 || extended && !bestExtended || extended == bestExtended && since.Before(bestSince) {
			best, bestExtended, bestSince = i, extended, since
		}
	}
	return best
}

// graceBegan is since when the version at i, which has that status, is not handed
// out any more but still accepted; zero if it is not so.
func (r *Ring) graceBegan(i int, st Status, now time.Time) time.Time {
	switch st.State {
	case Previous:
		return r.successor(i, now).Activate
	case Withdrawn:
		return r.Versions[i].Withdrawn
	default:
		return time.Time{}
	}
}

// Crowded reports whether Rotate with force would end a version early to make
// room for m; of those, since when the one that was superseded last is, and the
// latest of their ends as known now.
func (r *Ring) Crowded(now time.Time, m Mint) (since, until time.Time, crowded bool) {
	pending := r.Pending(now)
	over := r.liveAfter(now, pending, m) - MaxLive
	next := r.Clone()
	if pending != nil {
		next.kill(next.Get(pending.N), now)
	}
	for ; over > 0; over-- {
		i := next.evictable(now)
		st := next.status(i, now)
		since, until, crowded = later(since, next.graceBegan(i, st, now)), later(until, st.Until), true
		next.retire(i, now, Superseded)
	}
	return since, until, crowded
}

// nextToEnd names the version whose end will make room first.
func (r *Ring) nextToEnd(now time.Time) string {
	var n int
	var at time.Time
	for i := range r.Versions {
		st := r.status(i, now)
		if !st.State.Ended() && !st.Until.IsZero() && (at.IsZero() || st.Until.Before(at)) {
			n, at = r.Versions[i].N, st.Until
		}
	}
	return fmt.Sprintf("version %d, at %s", n, Stamp(at))
}
