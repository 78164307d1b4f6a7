// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
)

// mutateKey changes the record of a dynamic key under the key's lock, with one
// Put. fn gets a copy, nil if there is none. Where it answers false, or an error,
// the record stays as it was. says is whose decision is told, nil for one that is not.
func (b *backend) mutateKey(ctx context.Context, s logical.Storage, id string, says *keyTeller, fn func(*keyRecord) (bool, error)) (*keyRecord, error) {
	unlock := b.lockKey(id)
	defer unlock()
	stored, err := b.lockedKey(ctx, s, id)
	if err != nil {
		return nil, err
	}
	var rec *keyRecord
	if stored != nil {
		c := *stored
		rec = &c
	}
	switch changed, err := fn(rec); {
	case err != nil:
		return nil, err
	case !changed:
		return stored, nil
	}
	ctx, done := b.underway(ctx)
	defer done()
	told, err := b.foretellKey(ctx, s, stored, rec, says)
	if err != nil {
		return nil, err
	}
	if err := b.commitKey(ctx, s, stored, rec, told); err != nil {
		return nil, err
	}
	if isDynamic(rec) && stored != nil && stored.RevokedAt.IsZero() && !rec.RevokedAt.IsZero() && rec.Revoked != causeLease {
		b.numbers.revoked(rec.Code)
	}
	return rec, nil
}

// keyTeller is who decides about a dynamic key, and of which role it is.
type keyTeller struct {
	by   teller
	role *roleRecord
}

// foretellKey puts what the change of a key tells into the outbox. A kill does not wait
// for that: where it fails this node tells it later.
func (b *backend) foretellKey(ctx context.Context, s logical.Storage, old, rec *keyRecord, says *keyTeller) (*telling, error) {
	if says == nil || rec == nil {
		return nil, nil
	}
	st := keyStatus(rec, says.role, b.now(says.role.Committed))
	var told *telling
	facts, err := b.addressed(ctx, s, keyFacts(old, rec, says.role, st, says.by))
	if err == nil && len(facts) > 0 {
		b.numberLoose(facts, rec.RoleID)
		told, err = b.foretell(ctx, s, facts, forWhat{proof: proofKey, role: says.role.Name, roleID: rec.RoleID, keyID: rec.ID})
	}
	switch {
	case err != nil && mustForward(err):
		return nil, err
	case err != nil:
		b.Logger().Warn("what a kill tells is told later", "key_id", rec.ID, "error", err)
	}
	if told != nil {
		rec.Commits = noteCommit(rec.Commits, told.rec.Commit, keyCommits)
	}
	return told, nil
}
