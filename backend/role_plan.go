// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// replan makes the next planned activation the first one after now, or after
// the activation of the version that is pending with a date.
func (tx *roleTx) replan() {
	if tx.terms.Cadence == nil {
		tx.rec.Next = time.Time{}
		return
	}
	from := tx.now
	if p := tx.rec.Ring.Pending(tx.now); p != nil && p.Activate.After(from) {
		from = p.Activate
	}
	tx.plan(tx.terms.Cadence.First(from, tx.terms.Jitter))
}

// rebase starts the plan of automatic rotations anew from an activation.
func (tx *roleTx) rebase(from time.Time) {
	tx.rec.Next = time.Time{}
	if tx.terms.Cadence != nil {
		tx.plan(tx.terms.Cadence.First(from, tx.terms.Jitter))
	}
}

// plan makes next the next planned activation, or an earlier instant where the
// version that it succeeds would end by itself before its readers have had
// their grace: a rollback hands out an older key, an activation that was missed
// may put the next one off, and a policy may rotate more rarely from now on.
func (tx *roleTx) plan(next time.Time) {
	tx.rec.Next = next
	if next.IsZero() || tx.rec.Type != policy.Static {
		return
	}
	last := tx.rec.Ring.Top(tx.now)
	if p := tx.rec.Ring.Pending(tx.now); p != nil && !p.Activate.IsZero() {
		last = p
	}
	if last == nil || last.Expires.IsZero() {
		return
	}
	if st, _ := tx.rec.Ring.Status(last.N, tx.now); st.State.Ended() {
		return
	}
	if latest := last.Expires.Add(-tx.terms.Grace); latest.Before(next) {
		tx.rec.Next = later(tx.now, latest)
	}
}

// nextLook is when the periodic function has to look at the role next; zero:
// never, as far as is known now.
func (r *roleNow) nextLook() time.Time {
	rec, now := r.rec, r.now
	next := rec.Ring.NextEnd(now)
	consider := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if rec.Owed {
		consider(now)
	}
	if p := rec.Ring.Pending(now); p != nil {
		// The clock alone activates; the look records that it did, so that no
		// other clock can undo it.
		consider(p.Activate)
	}
	consider(r.stageAt())
	if at, ok := r.extensionLook(); ok {
		consider(at)
	}
	return next
}

// stageAt is when the automatic rotation makes its next version; zero without
// automatic rotation, and while a version is held.
func (r *roleNow) stageAt() time.Time {
	if r.terms.Cadence == nil || r.terms.AutoPaused || r.rec.Next.IsZero() {
		return time.Time{}
	}
	if p := r.rec.Ring.Pending(r.now); p != nil && p.Activate.IsZero() {
		return time.Time{}
	}
	return r.rec.Next.Add(-r.terms.Lead)
}

// stageDue reports whether the automatic rotation is to make a version now.
func (r *roleNow) stageDue() bool {
	at := r.stageAt()
	return !at.IsZero() && !at.After(r.now)
}

// nextActivation is the next activation that is planned; zero if there is none.
func (r *roleNow) nextActivation(mountPaused bool) time.Time {
	if p := r.rec.Ring.Pending(r.now); p != nil {
		return p.Activate
	}
	if r.terms.Cadence == nil || r.terms.AutoPaused || mountPaused {
		return time.Time{}
	}
	return r.rec.Next
}

// extensionMargin is how long before the end of a grace it is decided whether
// the grace is prolonged: time for a few runs of the periodic function.
func extensionMargin(grace time.Duration) time.Duration {
	return min(keyring.MinLead, grace/4)
}

// extensible returns the previous version whose grace may be prolonged because
// it is still in use, with its successor; nil if there is none. Only the grace
// of an automatic rotation is, and never that of a reported version.
func (r *roleNow) extensible() (prev, succ *keyring.Version) {
	rec, t, now := r.rec, &r.terms, r.now
	if t.MaxGrace <= t.Grace {
		return nil, nil
	}
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		if st, _ := rec.Ring.Status(v.N, now); st.State != keyring.Previous || !st.Planned {
			continue
		}
		s := rec.Ring.Successor(v.N, now)
		if s == nil || !s.Auto || s.Grace+s.Extended >= t.MaxGrace || !v.Reported.IsZero() || !v.Cap.IsZero() {
			continue
		}
		return v, s
	}
	return nil, nil
}

func (r *roleNow) extensionLook() (time.Time, bool) {
	prev, succ := r.extensible()
	if prev == nil {
		return time.Time{}, false
	}
	st, _ := r.rec.Ring.Status(prev.N, r.now)
	return st.Until.Add(-extensionMargin(succ.Grace)), true
}

// nextRotation is the next activation that answers announce.
func (tx *roleTx) nextRotation() time.Time {
	return tx.nextActivation(tx.b.mountPaused())
}
