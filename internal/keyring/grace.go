// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"fmt"
	"time"
)

// SetEnd gives version n, which is in its grace or was withdrawn, another end: an
// earlier one, at once where until is not later than now, or a later one, but never
// past its own expiry, the role's end, or the end that it has where it was reported.
// An earlier one is hard: nothing prolongs it but the next SetEnd, or a rollback to
// the version. A later one counts as a prolonged grace.
func (r *Ring) SetEnd(now time.Time, n int, until time.Time) ([]Event, error) {
	events := r.Settle(now)
	i := r.index(n)
	if i < 0 {
		return events, fmt.Errorf("%w: %d", ErrUnknown, n)
	}
	v, st := &r.Versions[i], r.status(i, now)
	if st.State != Previous && st.State != Withdrawn {
		return events, fmt.Errorf("%w: version %d is %s", ErrNotEnding, n, st.State)
	}
	if limit, why := r.endLimit(v, st); !limit.IsZero() && until.After(limit) {
		return events, fmt.Errorf("%w: version %d ends at %s, %s", ErrBeyond, n, Stamp(limit), why)
	}
	until = later(until, now)
	if v.Reported.IsZero() {
		v.Cap = time.Time{} // one that was set by hand
	}
	if st.State == Withdrawn {
		r.endWithdrawn(i, until)
	} else {
		r.endPrevious(i, until)
	}
	events = append(events, Event{Kind: EventEndSet, Version: v.N, KeyID: v.KeyID, At: now, Until: until})
	return append(events, r.Settle(now)...), nil
}

// GraceSince is since when version n is not handed out any more but still accepted;
// zero if it is not so.
func (r *Ring) GraceSince(n int, now time.Time) time.Time {
	i := r.index(n)
	if i < 0 {
		return time.Time{}
	}
	return r.graceBegan(i, r.status(i, now), now)
}

// endLimit is the latest end that v, which has that status, may be given, and why;
// zero if there is none.
func (r *Ring) endLimit(v *Version, st Status) (limit time.Time, why string) {
	switch limit = earlierSet(v.Expires, r.Until); {
	case !v.Reported.IsZero():
		return st.Until, "and was reported as leaked: nothing prolongs it"
	case limit.IsZero():
		return limit, ""
	case limit.Equal(r.Until):
		return limit, "with its role"
	default:
		return limit, "with its own ttl"
	}
}

func (r *Ring) endPrevious(i int, until time.Time) {
	v, s := &r.Versions[i], &r.Versions[r.superseder(i)]
	grace := s.Activate.Add(s.Grace + s.Extended)
	if until.Before(grace) {
		v.Cap = until
		return
	}
	s.Extended += until.Sub(grace)
}

func (r *Ring) endWithdrawn(i int, until time.Time) {
	v := &r.Versions[i]
	v.WithdrawnUntil = until
	if j := r.superseder(i); j >= 0 && until.After(r.Versions[j].Activate.Add(r.Versions[j].Grace)) {
		v.Past = r.Last
	}
}
