// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// roleTx is one transition of one role, under the role's lock: it works on a
// copy of the stored record, and commit writes it with a single Put. What must
// exist before the record may point at it (keys, plaintexts, calendar entry,
// archive) is written before; what nothing points at any more is deleted after.
// A crash at any line leaves the old state or the new one, and at worst
// something that tidy finds.
type roleTx struct {
	roleNow // of the copy, which the transition changes

	b   *backend
	ctx context.Context //nolint:containedctx // a transition lives no longer than its call
	s   logical.Storage
	by  actor
	lim policy.Limits
	old *roleRecord // as stored, shared; nil for a role that is being created

	minted   []mintedKey
	tries    []rotation
	counts   []func(*numbers) // what is counted once it is committed
	warnings []string
	told     *telling // what the outbox holds of it
	// kill: the transition ends something that must end; nothing that is not part
	// of that may stop it.
	kill bool
	// hidden: the role is deleted, and rec is the copy that a restoration brings
	// back. Nothing is made for it, its keys only end.
	hidden bool
	// back: a deleted role comes back. Of what the indexes had of it nothing is left,
	// or under another name.
	back bool
	// unmoved: hidden, and the copy stands at the role's name still.
	unmoved bool
}

// mintedKey is a key whose records are to be written before the commit.
type mintedKey struct {
	version int
	record  *keyRecord
	plain   string // empty: not stored
	written bool   // its records are in storage already
	adopt   *adopted
}

// opening is what a transition begins with.
type opening struct {
	by  actor
	lim policy.Limits
	// old is the record as it is stored, read under the role's lock; nil for a role
	// that is being made.
	old *roleRecord
	// rec is what the transition works on where that is not a copy of old.
	rec *roleRecord
}

// begin starts a transition, whatever it is for: what the clock alone did is
// settled in it. Where the plan of the role cannot be read it stays what it is; what
// ends keys needs none. The caller holds the role's lock.
func (b *backend) begin(ctx context.Context, s logical.Storage, o opening) *roleTx {
	if o.rec == nil {
		o.rec = o.old.clone()
	}
	r, _ := b.lookOf(o.rec, o.lim) // whoever needs the plan asks whether it was read
	tx := &roleTx{roleNow: *r, b: b, ctx: ctx, s: s, by: o.by, lim: o.lim, old: o.old}
	tx.record(tx.rec.Ring.Settle(tx.now), actor{cause: causePeriodic})
	tx.noteFallenTTL()
	tx.replan()
	return tx
}

// mutate runs fn on the role under its lock and commits what it changed. Where fn
// answers false, or an error, the record stays as it was.
func (b *backend) mutate(ctx context.Context, s logical.Storage, name string, by actor, fn func(*roleTx) (bool, error)) (*roleRecord, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	return b.mutateLocked(ctx, s, name, by, lim, fn)
}

func (b *backend) mutateLocked(ctx context.Context, s logical.Storage, name string, by actor, lim policy.Limits, fn func(*roleTx) (bool, error)) (*roleRecord, error) {
	old, err := b.heldRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, noRole(name)
	}
	return b.begin(ctx, s, opening{by: by, lim: lim, old: old}).run(fn)
}

// run lets fn change the role and commits that, if fn says that there is something.
func (tx *roleTx) run(fn func(*roleTx) (bool, error)) (*roleRecord, error) {
	changed, err := fn(tx)
	if err != nil {
		tx.count(err)
		return nil, err
	}
	if !changed {
		return tx.old, nil
	}
	if err := tx.commit(); err != nil {
		return nil, err
	}
	return tx.rec, nil
}

// warn adds a warning to the answer.
func (tx *roleTx) warn(format string, args ...any) {
	tx.warnings = append(tx.warnings, fmt.Sprintf(format, args...))
}
