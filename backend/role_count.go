// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// rotation is an attempt to make a successor.
type rotation struct {
	made    bool
	planned bool
	late    time.Duration // behind the plan
}

// tried notes an attempt. The first version of a role succeeds none.
func (tx *roleTx) tried(how succession, v *keyring.Version, err error) {
	if tx.old == nil || err != nil && mustForward(err) {
		return
	}
	try := rotation{made: err == nil, planned: how.planned}
	if v != nil && how.planned {
		try.late = max(v.Activate.Sub(how.at), 0)
	}
	tx.tries = append(tx.tries, try)
}

// tally has something counted, if the transition is committed.
func (tx *roleTx) tally(fn func(*numbers)) { tx.counts = append(tx.counts, fn) }

// count counts what the transition came to. What the caller got wrong is no failure, and
// what another node is to do is counted there.
func (tx *roleTx) count(err error) {
	tries, counts := tx.tries, tx.counts
	tx.tries, tx.counts = nil, nil
	if err != nil && (refusal.In(err) != nil || isAbsent(err) || mustForward(err)) {
		return
	}
	n, cause := tx.b.numbers, tx.by.wanted()
	for _, try := range tries {
		made := try.made && err == nil
		_, failing := tx.b.problems.get(tx.rec.Name)
		n.rotated(cause, tx.rec.ID, made, failing && cause == causePeriodic)
		if made && try.planned {
			n.rotationDelay.Observe(try.late.Seconds())
		}
	}
	if err != nil {
		return
	}
	for _, fn := range counts {
		fn(n)
	}
}

// wanted is the cause that a successor is counted under.
func (a *actor) wanted() string {
	switch {
	case a.bulk:
		return causeBulk
	case a.cause == causePeriodic, a.cause == causeLeak:
		return a.cause
	default:
		return causeRequest
	}
}
