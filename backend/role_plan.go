// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// replan derives the plan from what the record says, whatever was done to it: the
// first activation after the version that is pending with a date, or the one that
// the plan had where none is. A pending version may vanish in any way, the plan is
// as if there had been none.
func (r *roleNow) replan() {
	switch {
	case r.unread != nil:
		return // it stays what it is
	case r.terms.Cadence == nil:
		r.rec.Plan, r.rec.Next = nil, time.Time{}
		return
	}
	p := r.planned()
	r.rec.Plan = &p
	r.rec.Next = p.Slot
	if pending := r.dated(); pending != nil {
		r.rec.Next = p.after(pending, pending.Activate, &r.terms)
	}
	r.rec.Next = r.next()
	if latest := r.latest(); !latest.IsZero() && latest.Before(r.rec.Next) {
		r.rec.Next = latest
	}
	if end := r.rec.Ring.Until; !end.IsZero() && (!r.rec.Next.Before(end) || r.rec.Ring.Over(r.now)) {
		r.rec.Next = time.Time{} // nothing is planned from the end of the role on
	}
}

// next is the next planned activation as of now: the one that is planned, or, where
// that was missed by more than the rotation window, the one that the role waits for.
// A version that would end before does not wait, and a role without a current one
// does not either.
func (r *roleNow) next() time.Time {
	planned := r.rec.Next
	if r.terms.Window == 0 || planned.IsZero() || r.now.Before(planned.Add(r.terms.Window)) || r.rec.Ring.Current(r.now) == nil {
		return planned
	}
	waits := r.terms.Cadence.First(r.now.Add(-r.terms.Window), r.terms.Jitter)
	switch latest := r.latest(); {
	case latest.IsZero() || !latest.Before(waits):
		return waits
	case latest.After(r.now):
		return latest
	default:
		return planned
	}
}

// planned is the plan, counted from the version on top.
func (r *roleNow) planned() plan {
	top := r.rec.Ring.Top(r.now)
	p := plan{Slot: r.rec.Next}
	switch {
	case r.rec.Plan != nil:
		p = *r.rec.Plan
	case r.dated() == nil && !r.rec.Next.IsZero():
		p.count(top) // an older build's, which never counted from another one
	default:
		p = r.olderPlan(top)
	}
	if top != nil && !p.counts(top) {
		p.Slot = p.after(top, top.CurrentSince(), &r.terms)
		p.count(top)
	}
	return p
}

// olderPlan is the plan of a record of an older build whose next activation is that
// after the pending version's, or of one that has none yet.
func (r *roleNow) olderPlan(top *keyring.Version) plan {
	p := plan{Slot: r.terms.Cadence.First(r.now, r.terms.Jitter)}
	if pending := r.dated(); pending != nil && !r.rec.Next.IsZero() {
		if p.Slot = pending.Activate; !pending.Auto && top != nil {
			p.Slot = r.terms.Cadence.First(top.CurrentSince(), r.terms.Jitter)
		}
	}
	p.count(top)
	return p
}

// skipMissed leaves out the activations that were missed: whoever wants no
// replacement does not get one at once because the plan is late.
func (r *roleNow) skipMissed() {
	r.replan()
	if p := r.rec.Plan; p != nil && r.unread == nil && !p.Slot.After(r.now) {
		on := *p
		on.Slot = r.terms.Cadence.After(p.Slot, r.now, r.terms.Jitter)
		r.rec.Plan = &on
	}
}

// anew is the plan of a cadence that begins now.
func (r *roleNow) anew() {
	r.rec.Plan, r.rec.Next = nil, time.Time{}
	if r.terms.Cadence == nil {
		return
	}
	p := r.olderPlan(r.rec.Ring.Top(r.now))
	p.Before = r.rec.Ring.Last
	r.rec.Plan = &p
}

// count says that the slot was counted from the version on top, which may be nil.
func (p *plan) count(top *keyring.Version) {
	if top != nil {
		p.Version, p.Since = top.N, top.CurrentSince()
	}
}

func (p *plan) counts(top *keyring.Version) bool {
	return p.Version == top.N && p.Since.Equal(top.CurrentSince())
}

// after is the activation that follows that of v at at. What the automatic rotation
// made goes on in the plan's phase; whatever else becomes current starts it anew.
func (p *plan) after(v *keyring.Version, at time.Time, t *policy.Terms) time.Time {
	if v.Auto && v.N > p.Before && at.Equal(v.Activate) {
		if at.Before(p.Slot) {
			return t.Cadence.After(at, at, t.Jitter)
		}
		return t.Cadence.After(p.Slot, at, t.Jitter)
	}
	return t.Cadence.First(at, t.Jitter)
}

// dated is the version that is pending with a date, or nil.
func (r *roleNow) dated() *keyring.Version {
	if p := r.rec.Ring.Pending(r.now); p != nil && !p.Activate.IsZero() {
		return p
	}
	return nil
}

// missedWindow reports whether the rotation that was planned waits for another time.
func (r *roleNow) missedWindow() bool { return !r.rec.Next.After(r.now) && r.next().After(r.now) }

// latest is the latest instant for the next activation, zero for none: the version
// that it succeeds would end by itself before its readers have had their grace. A
// rollback hands out an older key, an activation that was missed may put the next
// one off, and a policy may rotate more rarely from now on.
func (r *roleNow) latest() time.Time {
	if r.rec.Type != policy.Static {
		return time.Time{}
	}
	from, last := r.now, r.rec.Ring.Top(r.now)
	if p := r.dated(); p != nil {
		from, last = p.Activate, p // nothing takes the place of what is pending
	}
	if last == nil || last.Expires.IsZero() || !r.endsBeforeTheRole(last.Expires) {
		return time.Time{}
	}
	if st, _ := r.rec.Ring.Status(last.N, r.now); st.State.Ended() {
		return time.Time{}
	}
	return later(from, last.Expires.Add(-r.terms.Grace))
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
	if rec.Owed || r.unread != nil {
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
	// In between the index of problems names the role.
	for _, at := range []time.Time{endToldFrom(rec), rec.Ring.Until} {
		if at.After(now) {
			consider(at)
		}
	}
	if at, ok := r.claimLook(); ok {
		consider(at)
	}
	consider(r.newsLook())
	return next
}

// endNotice is how long before its end a role is among those that somebody should
// look at: time to raise it, or to tell whoever uses its keys.
const endNotice = 7 * 24 * time.Hour

// endToldFrom is from when on the end of the role is told; zero if it has none.
func endToldFrom(rec *roleRecord) time.Time {
	if rec.Ring.Until.IsZero() {
		return time.Time{}
	}
	return rec.Ring.Until.Add(-endNotice)
}

// endsBeforeTheRole reports whether a version with that end leaves a gap: another
// one may still follow it.
func (r *roleNow) endsBeforeTheRole(end time.Time) bool {
	return r.rec.Ring.Until.IsZero() || end.Before(r.rec.Ring.Until)
}

// stageAt is when the automatic rotation makes its next version; zero without
// automatic rotation, and while a version is held.
func (r *roleNow) stageAt() time.Time {
	next := r.next()
	if r.terms.Cadence == nil || r.terms.AutoPaused || next.IsZero() || r.rec.Ring.Over(r.now) {
		return time.Time{}
	}
	at := next.Add(-r.terms.Lead)
	if p := r.rec.Ring.Pending(r.now); p != nil {
		if p.Activate.IsZero() {
			return time.Time{}
		}
		at = later(at, p.Activate) // made before, it would take the place of p
	}
	return at
}

// stageDue reports whether the automatic rotation is to make a version now.
func (r *roleNow) stageDue() bool {
	at := r.stageAt()
	return !at.IsZero() && !at.After(r.now)
}

// nextActivation is the next activation that is planned; zero if there is none.
func (r *roleNow) nextActivation(mountPaused bool) time.Time {
	if p := r.rec.Ring.Pending(r.now); p != nil {
		if !r.endsBeforeTheRole(p.Activate) {
			return time.Time{}
		}
		return p.Activate
	}
	if r.terms.Cadence == nil || r.terms.AutoPaused || mountPaused || r.rec.Ring.Over(r.now) {
		return time.Time{}
	}
	return r.next()
}

// extensionMargin is how long before the end of a grace it is decided whether
// the grace is prolonged: time for a few runs of the periodic function.
func extensionMargin(grace time.Duration) time.Duration {
	return min(keyring.MinLead, grace/4)
}

// extension is a grace that may be prolonged because the version in it is still in
// use.
type extension struct {
	prev, succ *keyring.Version
	until, at  time.Time // its end, and when it is decided
}

// extensions are the graces that may be prolonged: those of automatic rotations, but
// never that of a reported version. Each version ends by itself, so one that is used
// and one that is not are decided apart.
func (r *roleNow) extensions() []extension {
	rec, t, now := r.rec, &r.terms, r.now
	if t.MaxGrace <= t.Grace {
		return nil
	}
	var all []extension
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		st, _ := rec.Ring.Status(v.N, now)
		if st.State != keyring.Previous || !st.Planned {
			continue
		}
		s := rec.Ring.Successor(v.N, now)
		if s == nil || !s.Auto || s.Grace+s.Extended >= t.MaxGrace || !v.Reported.IsZero() || !v.Cap.IsZero() {
			continue
		}
		all = append(all, extension{prev: v, succ: s, until: st.Until, at: st.Until.Add(-extensionMargin(s.Grace))})
	}
	return all
}

// extensionLook is when the first of them is decided.
func (r *roleNow) extensionLook() (first time.Time, ok bool) {
	for _, e := range r.extensions() {
		if !ok || e.at.Before(first) {
			first, ok = e.at, true
		}
	}
	return first, ok
}

// nextRotation is the next activation that answers announce.
func (tx *roleTx) nextRotation() time.Time {
	tx.replan()
	return tx.nextActivation(tx.b.mountPaused())
}
