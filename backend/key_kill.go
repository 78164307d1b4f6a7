// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// killKey marks the key of a dynamic role as revoked, in one Put, and returns
// its record. says is whose decision is told. meant says whether what was found, nil if nothing was, is the key to
// kill, or refuses it. A key that is dead already stays as it is.
func (b *backend) killKey(ctx context.Context, s logical.Storage, id string, says *keyTeller, meant func(*keyRecord) (bool, error), cause, reason string, code keyring.Reason) (*keyRecord, error) {
	rec, err := b.endKey(ctx, s, id, says, meant, cause, reason, code)
	if err == nil && rec.dead() {
		b.unlist(ctx, s, rec)
	}
	return rec, err
}

// endKey is killKey, and leaves the key in the index of its role.
func (b *backend) endKey(ctx context.Context, s logical.Storage, id string, says *keyTeller, meant func(*keyRecord) (bool, error), cause, reason string, code keyring.Reason) (*keyRecord, error) {
	return b.mutateKey(ctx, s, id, says, func(rec *keyRecord) (bool, error) {
		if yes, err := meant(rec); err != nil || !yes {
			return false, err
		}
		now := b.now()
		if rec == nil || rec.dead() {
			return false, nil
		}
		if !now.Before(rec.Expires) {
			rec.ExpiredSeen = true // no clock that goes back revives it
			return true, nil
		}
		rec.RevokedAt, rec.Revoked, rec.Code = now, whyRevoked(cause, reason), code
		return true, nil
	})
}

// whyRevoked is what a key's record says of why it was revoked.
func whyRevoked(cause, reason string) string {
	if reason == "" {
		return cause
	}
	return cause + ": " + reason
}

// dead reports whether a key has a mark that ended it.
func (r *keyRecord) dead() bool { return r != nil && (!r.RevokedAt.IsZero() || r.ExpiredSeen) }

// unlist takes a dead key out of the index of its role, which lists live ones: dead
// ones, whose records are kept for long, would make each page of it dearer. Where this
// fails the entry goes with the record.
func (b *backend) unlist(ctx context.Context, s logical.Storage, rec *keyRecord) {
	ctx, done := b.underway(ctx)
	defer done()
	if err := deleteRecord(ctx, s, issuedPath(rec.RoleID, rec.ID)); err != nil {
		b.Logger().Debug("a dead key is still in the index of its role", "key_id", rec.ID, "error", err)
	}
}
