// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"hash/fnv"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// Two things are told before they happen: that a version ends while it is in use, and
// that the key of a role ends with nothing to follow. Both are found by a look at the
// time, and marked in the version, so that they are told once.

const (
	// longestEnding is how long before its end, at most, it is told of a version that it
	// is in use: else it is the last quarter of its grace.
	longestEnding = 24 * time.Hour
	// noticeSpread is over how much time the roles are spread whose keys end together.
	noticeSpread = time.Hour
)

// leaving is a version on its way out, and when it is looked at whether it is in use.
type leaving struct {
	v     *keyring.Version
	until time.Time
	at    time.Time
	again time.Time // once more, for who comes back rarely
	since time.Time // uses from then on count: who reads as told has moved by then
}

// endings are the versions whose end is to be told if they are in use then.
func (r *roleNow) endings() []leaving {
	prolonged := map[int]bool{}
	for _, e := range r.extensions() {
		prolonged[e.prev.N] = true
	}
	var all []leaving
	for i := range r.rec.Ring.Versions {
		v := &r.rec.Ring.Versions[i]
		st, _ := r.rec.Ring.Status(v.N, r.now)
		if st.State != keyring.Previous && st.State != keyring.Withdrawn || st.Until.IsZero() || v.Ending.Equal(st.Until) || prolonged[v.N] {
			continue
		}
		began := r.rec.Ring.GraceSince(v.N, r.now)
		if began.IsZero() {
			continue
		}
		grace := st.Until.Sub(began)
		lead := min(grace/4, longestEnding)
		all = append(all, leaving{
			v: v, until: st.Until, at: st.Until.Add(-lead), again: st.Until.Add(-lead / 4), since: began.Add(min(r.terms.Bound(), grace/2) + min(grace/4, time.Hour)),
		})
	}
	return all
}

// tellEndings marks the versions that are about to end and in use.
func (tx *roleTx) tellEndings() (int, error) {
	told := 0
	for _, e := range tx.endings() {
		if e.at.After(tx.now) {
			continue
		}
		used, err := tx.b.lastAccepted(tx.ctx, tx.s, tx.rec, e.v.N)
		if err != nil {
			return told, err
		}
		if used.Before(e.since) {
			continue
		}
		e.v.Ending = e.until
		told++
	}
	return told, nil
}

// endingLook is when the first of them is to be looked at. One that was twice found not
// to be in use is looked at again with whatever brings the role up next.
func (r *roleNow) endingLook() (first time.Time) {
	for _, e := range r.endings() {
		at := e.at
		if !at.After(r.now) && r.hears.ending { // each look costs a commit
			at = e.again
		}
		if at.After(r.now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// lastEnd is when the key of the role ends with nothing to follow it, as far as is
// planned; zero if it does not.
func (r *roleNow) lastEnd() (*keyring.Version, time.Time) {
	if r.rec.Type != policy.Static {
		return nil, time.Time{}
	}
	v := r.rec.Ring.Current(r.now)
	if v == nil || !v.Reported.IsZero() {
		return nil, time.Time{}
	}
	end := earlierOf(hardEnd(v), r.rec.Ring.Until)
	if end.IsZero() {
		return nil, time.Time{}
	}
	if p := r.dated(); p != nil && p.Activate.Before(end) && r.endsBeforeTheRole(end) {
		return nil, time.Time{}
	}
	if at := r.stageAt(); !at.IsZero() && !r.hears.paused && r.next().Before(end) && r.endsBeforeTheRole(end) {
		return nil, time.Time{}
	}
	return v, end
}

// noticeOf is by how much before its end, and when, the end of the key is told next;
// zero if it is told no more. due is one that is to be told now.
func (r *roleNow) noticeOf() (v *keyring.Version, due time.Duration, next time.Time) {
	v, end := r.lastEnd()
	if v == nil {
		return nil, 0, next
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.rec.ID)) // a hash.Hash never fails
	for _, notice := range r.hears.notices {
		lead := notice.Duration()
		if lead >= end.Sub(v.CurrentSince()) || v.ExpiryTold > 0 && lead >= v.ExpiryTold {
			continue
		}
		spread := min(noticeSpread, lead/4)
		at := end.Add(-lead - time.Duration(h.Sum32())*time.Second%spread)
		switch {
		case at.After(r.now):
			if next.IsZero() || at.Before(next) {
				next = at
			}
		case due == 0 || lead < due:
			due = lead
		}
	}
	return v, due, next
}

// tellExpiry marks that the end of the key was told.
func (tx *roleTx) tellExpiry() int {
	v, due, _ := tx.noticeOf()
	if due == 0 {
		return 0
	}
	v.ExpiryTold = due
	return 1
}

// newsLook is when the role is to be looked at for what is told before it happens; zero
// for never.
func (r *roleNow) newsLook() time.Time {
	if r.rec.owesNews() {
		return r.now
	}
	first := r.endingLook()
	v, due, next := r.noticeOf()
	switch {
	case v != nil && due > 0:
		return r.now
	case first.IsZero() || !next.IsZero() && next.Before(first):
		return next
	default:
		return first
	}
}
