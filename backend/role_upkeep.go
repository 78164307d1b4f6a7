// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// upkeep does what is due for one role: what the clock ended was settled
// before; plaintexts are erased by the commit; here graces are prolonged and
// versions made. It returns how much was done.
func (tx *roleTx) upkeep(cfg *configRecord) (int, error) {
	acted := len(tx.rec.History) - len(tx.old.History)
	for i := range tx.rec.Ring.Versions {
		if tx.erasable(&tx.rec.Ring.Versions[i], &tx.rec.Ring) {
			acted++
		}
	}
	extended, err := tx.extendGrace()
	acted += extended
	looked, lookErr := tx.lookForClaim()
	acted += looked
	told, tellErr := tx.tellEndings()
	acted += told + tx.tellExpiry()
	if tx.rec.owesNews() {
		acted++ // the commit tells it
	}
	err = cmp.Or(err, lookErr, tellErr)
	var produce func() error
	switch {
	case tx.rec.Owed:
		produce = tx.payOwed
	case !cfg.RotationPaused && tx.stageDue():
		produce = tx.rotateByPlan
	default:
		return acted, err
	}
	if err != nil {
		if mustForward(err) {
			return acted, err
		}
		// No version waits for counts that cannot be read. They are looked for again
		// with the next look.
		tx.b.Logger().Warn("the use of a role's keys is looked for later", "role", tx.rec.Name, "error", err)
	}
	return acted + 1, produce()
}

// payOwed makes the replacement of a killed version that could not be made with
// the kill. A pause of the automatic rotation does not hold it up: somebody
// asked for it.
func (tx *roleTx) payOwed() error {
	if tx.rec.Ring.Over(tx.now) || tx.covered() {
		tx.rec.Owed = false
		return nil
	}
	_, err := tx.succeed(succession{grace: tx.defaultGrace(), force: true})
	return err
}

// covered reports whether no replacement is owed any more: there is a current version,
// and it goes on, or another one comes before it ends. One that was reported while its
// role was deleted, or could not be replaced then, has an end.
func (r *roleNow) covered() bool {
	cur := r.rec.Ring.Current(r.now)
	switch {
	case cur == nil:
		return false
	case cur.Cap.IsZero() && !r.endsBeforeALook(cur):
		return true
	}
	next := r.dated()
	return next != nil && next.Activate.Before(hardEnd(cur))
}

// endsBeforeALook reports whether the version ends by itself so soon that the
// periodic function may come too late.
func (r *roleNow) endsBeforeALook(v *keyring.Version) bool {
	end := hardEnd(v)
	return !end.IsZero() && end.Sub(r.now) <= keyring.MinLead && r.endsBeforeTheRole(end)
}

// bridge makes the successor of a current version that ends before the periodic
// function may come by, halfway to that end: a rollback, an import or a promotion
// may make such a version current. Where there can be no successor the transition
// stands, and it is owed. Nothing is made where automatic rotation is off or paused.
func (tx *roleTx) bridge() error {
	cur := tx.rec.Ring.Current(tx.now)
	if cur == nil || tx.rec.Type != policy.Static || !tx.endsBeforeALook(cur) || tx.rec.Ring.Pending(tx.now) != nil {
		return nil
	}
	end, n := hardEnd(cur), cur.N
	if tx.terms.Cadence == nil || tx.terms.AutoPaused || tx.b.mountPaused() {
		tx.warn("version %d ends by itself at %s, and nothing replaces it: rotate/%s does", n, stamp(end), tx.rec.Name)
		return nil
	}
	_, err := tx.succeed(succession{
		grace: tx.defaultGrace(), at: tx.now.Add(end.Sub(tx.now) / 2), planned: true, force: true, apart: true,
	})
	switch {
	case err == nil:
		tx.warn("version %d ends by itself at %s: version %d succeeds it before", n, stamp(end), tx.rec.Ring.Last)
	case mustForward(err):
		return err
	default:
		tx.b.Logger().Error("a version that ends soon has no successor yet", "role", tx.rec.Name, "error", err)
		tx.warn("version %d ends by itself at %s, and its successor could not be made: the worker tries again; rotate/%s makes one at once",
			n, stamp(end), tx.rec.Name)
		tx.rec.Owed = true
	}
	return nil
}

// extendGrace prolongs the graces of automatic rotations by a step each where the
// version that they ended is still in use.
func (tx *roleTx) extendGrace() (int, error) {
	extended := 0
	for _, e := range tx.extensions() {
		if e.at.After(tx.now) {
			continue
		}
		used, err := tx.b.lastAccepted(tx.ctx, tx.s, tx.rec, e.prev.N)
		if err != nil {
			return extended, err
		}
		grace := e.succ.Grace
		if used.Before(e.until.Add(-max(grace, extensionMargin(grace)))) || used.Before(e.succ.Activate) {
			continue
		}
		step := min(max(grace, time.Minute), tx.terms.MaxGrace-grace-e.succ.Extended)
		events := tx.rec.Ring.Extend(tx.now, e.prev.N, step)
		tx.record(events, actor{cause: causeLimit, reason: "the previous version is still in use"})
		extended += len(events)
		if len(events) > 0 {
			tx.tally(func(n *numbers) { n.extensions.WithLabelValues(extendedByUse).Inc() })
		}
	}
	return extended, nil
}

// rotateByPlan makes the version that the plan wants: staged for its
// activation, or, where that is overdue, current at once, once for all that was
// missed.
func (tx *roleTx) rotateByPlan() error {
	if tx.postponed() {
		return nil
	}
	if ahead, ttl := tx.rec.Next.Sub(tx.now), tx.terms.TTL; tx.rec.Type == policy.Static && ttl > 0 && ahead >= ttl {
		return fmt.Errorf("ttl %s is too short for a staging %s ahead", ttl, ahead)
	}
	_, err := tx.succeed(succession{grace: tx.defaultGrace(), at: tx.rec.Next, planned: true, force: true})
	return err
}

// postponed puts the planned rotation off where it would have to end a version
// that somebody who reads as he was told to may still hold: after many rotations
// by hand, or when the policy's distance between rotations became much shorter.
// A key that would end by itself meanwhile does not wait.
func (tx *roleTx) postponed() bool {
	planned := tx.rec.Next
	m := keyring.Mint{Grace: tx.defaultGrace(), TTL: tx.terms.TTL, Activate: planned}
	since, until, crowded := tx.rec.Ring.Crowded(tx.now, m)
	if !crowded {
		return false
	}
	if tx.rec.Type == policy.Static {
		told := max(min(tx.terms.Bound(), tx.terms.Longest), tx.promised())
		until = since.Add(told + tx.terms.Grace/2)
	}
	if !until.After(tx.now) {
		return false
	}
	put := *tx.rec.Plan
	put.Slot = until.Add(tx.terms.Lead)
	if tx.terms.Window > 0 {
		put.Slot = tx.terms.Cadence.First(put.Slot, tx.terms.Jitter)
	}
	tx.rec.Plan = &put
	tx.replan()
	return tx.rec.Next.After(planned)
}
