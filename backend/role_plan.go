// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"
)

// setPolicy replaces the policy and what follows from it.
func (tx *roleTx) setPolicy(p policy) error {
	t, err := p.terms(tx.rec.ID, tx.rec.Type, tx.lim)
	if err != nil {
		return err
	}
	if tx.old != nil {
		// Readers may still hold the longer ttl of the old policy.
		if old := tx.terms.bound(); old > t.bound() {
			until := later(tx.rec.Promise.Until, tx.now.Add(old+max(old, tx.terms.grace/2)))
			tx.rec.Promise = promise{TTL: seconds(max(old, tx.promised()) / time.Second), Until: until}
		}
	}
	if tx.rec.Type == typeDynamic {
		tx.rec.LeaseTTL = max(tx.rec.LeaseTTL, seconds(t.ttl/time.Second))
		if tx.old != nil && t.ttl < tx.terms.ttl {
			tx.rec.LeaseUntil = later(tx.rec.LeaseUntil, tx.now.Add(tx.terms.ttl))
		}
	}
	replan := tx.old == nil || !sameCadence(&tx.rec.Policy, &p)
	tx.rec.Policy, tx.terms = p, t
	if replan {
		tx.replan()
	} else {
		tx.plan(tx.rec.Next)
	}
	return nil
}

func sameCadence(a, b *policy) bool {
	same := func(x, y *seconds) bool { return (x == nil) == (y == nil) && (x == nil || *x == *y) }
	return same(a.RotationPeriod, b.RotationPeriod) && a.RotationSchedule == b.RotationSchedule && a.RotationJitter == b.RotationJitter
}

// promised is the longest ttl that some reader may still be waiting out beyond
// the policy in force.
func (tx *roleTx) promised() time.Duration {
	if tx.now.Before(tx.rec.Promise.Until) {
		return tx.rec.Promise.TTL.duration()
	}
	return 0
}

// replan makes the next planned activation the first one after now, or after
// the activation of the version that is pending with a date.
func (tx *roleTx) replan() {
	if tx.terms.cadence == nil {
		tx.rec.Next = time.Time{}
		return
	}
	from := tx.now
	if p := tx.rec.Ring.Pending(tx.now); p != nil && p.Activate.After(from) {
		from = p.Activate
	}
	tx.plan(tx.terms.cadence.first(from, tx.terms.jitter))
}

// plan makes next the next planned activation, or an earlier instant where the
// version that it succeeds would end by itself before its readers have had
// their grace: a rollback hands out an older key, an activation that was missed
// may put the next one off, and a policy may rotate more rarely from now on.
func (tx *roleTx) plan(next time.Time) {
	tx.rec.Next = next
	if next.IsZero() || tx.rec.Type != typeStatic {
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
	if latest := last.Expires.Add(-tx.terms.grace); latest.Before(next) {
		tx.rec.Next = later(tx.now, latest)
	}
}

// defaultGrace is the grace of a rotation for which nobody asked for one: the
// role's, lengthened where readers were told to come back later than it allows.
func (tx *roleTx) defaultGrace() time.Duration {
	g := max(tx.terms.grace, 2*tx.promised())
	if tx.rec.Type == typeDynamic {
		g = max(g, tx.rec.LeaseTTL.duration(), tx.terms.ttl)
	}
	return g
}
