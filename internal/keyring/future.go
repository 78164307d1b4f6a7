// SPDX-License-Identifier: MPL-2.0

package keyring

import "time"

// Dates are the instants at which the status of a version may change by itself, in no
// order and with repetitions.
func (r *Ring) Dates() []time.Time {
	var dates []time.Time
	note := func(t time.Time) {
		if !t.IsZero() {
			dates = append(dates, t)
		}
	}
	note(r.Until)
	for i := range r.Versions {
		v := &r.Versions[i]
		note(firstVerifies(v.Created, v.Activate))
		if v.Activate.IsZero() {
			note(v.Created.Add(PendingWindow))
		} else {
			note(v.Activate)
			note(v.Activate.Add(v.Grace))
			note(v.Activate.Add(v.Grace + v.Extended))
		}
		note(v.Expires)
		note(v.Cap)
		note(v.WithdrawnUntil)
	}
	return dates
}

// Hold is until when somebody who cannot ask may go on accepting version n, which ends
// with the grace of an automatic rotation: as long again as the grace, but never beyond
// an end that somebody set. Zero: it ends when it ends.
func (r *Ring) Hold(n int, now time.Time) time.Time {
	i := r.index(n)
	if i < 0 {
		return time.Time{}
	}
	st := r.status(i, now)
	j := r.superseder(i)
	if j < 0 || !st.Planned || st.Until.IsZero() || !r.Versions[j].Auto {
		return time.Time{}
	}
	v := &r.Versions[i]
	hold := st.Until.Add(r.Versions[j].Grace)
	if limit := earlierSet(earlierSet(v.Expires, v.Cap), r.Until); !limit.IsZero() && limit.Before(hold) {
		hold = limit
	}
	if !hold.After(st.Until) {
		return time.Time{}
	}
	return hold
}
