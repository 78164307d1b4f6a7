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
		var since time.Time // the beginning of its grace
		extended := false
		switch st := r.status(i, now); st.State {
		case Previous:
			s := r.successor(i, now)
			since, extended = s.Activate, s.Extended > 0 && st.Planned
		case Withdrawn:
			since = r.Versions[i].Withdrawn
		default:
			continue
		}
		if best < 0 || extended && !bestExtended || extended == bestExtended && since.Before(bestSince) {
			best, bestExtended, bestSince = i, extended, since
		}
	}
	return best
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
