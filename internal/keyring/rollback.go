// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"fmt"
	"time"
)

// Rollback withdraws the version on top, and every other activated one above
// the target, with grace more to live, and makes the target current again: the
// previous version, or version to where that is above zero. The pending version
// is revoked. A second rollback in a row needs to.
func (r *Ring) Rollback(now time.Time, to int, grace time.Duration) (int, []Event, error) {
	events := r.Settle(now)
	top := r.top(now)
	if top < 0 {
		return 0, events, fmt.Errorf("%w: no version was ever activated", ErrNoTarget)
	}
	if to == 0 && !r.Versions[top].Reinstated.IsZero() {
		return 0, events, fmt.Errorf("%w: version %d is current because of the rollback at %s",
			ErrNeedTarget, r.Versions[top].N, Stamp(r.Versions[top].Reinstated))
	}
	target, err := r.rollbackTarget(now, top, to)
	if err != nil {
		return 0, events, err
	}
	before := make([]Status, len(r.Versions))
	for i := range before {
		before[i] = r.status(i, now)
	}
	if p := r.Pending(now); p != nil {
		events = append(events, r.kill(p, now))
	}
	for i := range r.Versions {
		v := &r.Versions[i]
		// Below the target only those are touched that one above it ends.
		if !v.Activated || i <= target && (i == target || v.Past < r.Versions[target].N) {
			continue
		}
		until, again := now.Add(grace), !v.Withdrawn.IsZero()
		if again {
			until = v.WithdrawnUntil
		}
		// A grace that runs already is never prolonged by the rollback. One that
		// would only have begun with the pending version's activation is gone
		// with it, but not for a reported version.
		if r.successor(i, now) != nil || !v.Reported.IsZero() {
			until = earlierSet(until, before[i].Until)
		}
		v.WithdrawnUntil = until
		if again {
			continue
		}
		v.Withdrawn = now
		events = append(events, Event{Kind: EventWithdrawn, Version: v.N, KeyID: v.KeyID, At: now, Until: r.status(i, now).Until})
	}
	events = append(events, r.Settle(now)...)
	t := &r.Versions[target]
	t.Reinstated = now
	t.Cap = time.Time{} // set by hand: a reported version is no target
	return t.N, append(events, Event{Kind: EventRestored, Version: t.N, KeyID: t.KeyID, At: now}), nil
}

// rollbackTarget finds the version to reinstate, or says why there is none.
func (r *Ring) rollbackTarget(now time.Time, top, to int) (int, error) {
	target := -1
	if to > 0 {
		target = r.index(to)
		switch {
		case target < 0:
			return 0, fmt.Errorf("%w: version %d is not known any more", ErrNoTarget, to)
		case target >= top && r.Versions[target].Withdrawn.IsZero():
			return 0, fmt.Errorf("%w: version %d is not older than version %d, which is the newest activated one", ErrNoTarget, to, r.Versions[top].N)
		}
	} else {
		for i := top - 1; i >= 0; i-- {
			if r.Versions[i].Withdrawn.IsZero() && r.Versions[i].Activated {
				target = i
				break
			}
		}
		if target < 0 {
			return 0, fmt.Errorf("%w: there is no version before version %d", ErrNoTarget, r.Versions[top].N)
		}
	}
	v := &r.Versions[target]
	st := r.status(target, now)
	switch {
	case st.State.Ended():
		return 0, fmt.Errorf("%w: version %d is %s since %s", ErrNoTarget, v.N, st.State, Stamp(st.Until))
	case st.State == Withdrawn:
		return 0, fmt.Errorf("%w: version %d was withdrawn by the rollback at %s", ErrNoTarget, v.N, Stamp(v.Withdrawn))
	case !v.Reported.IsZero():
		return 0, fmt.Errorf("%w: version %d was reported as leaked at %s", ErrNoTarget, v.N, Stamp(v.Reported))
	case !st.Until.IsZero() && st.Until.Sub(now) <= RollbackMargin:
		return 0, fmt.Errorf("%w: version %d ends at %s, too soon", ErrNoTarget, v.N, Stamp(st.Until))
	}
	return target, nil
}
