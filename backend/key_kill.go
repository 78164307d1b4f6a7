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
	rec, err := b.mutateKey(ctx, s, id, says, func(rec *keyRecord) (bool, error) {
		if yes, err := meant(rec); err != nil || !yes {
			return false, err
		}
		now := b.now()
		if rec == nil || !rec.RevokedAt.IsZero() || rec.ExpiredSeen {
			return false, nil
		}
		if !now.Before(rec.Expires) {
			rec.ExpiredSeen = true // no clock that goes back revives it
			return true, nil
		}
		rec.RevokedAt, rec.Revoked, rec.Code = now, cause, code
		if reason != "" {
			rec.Revoked = cause + ": " + reason
		}
		return true, nil
	})
	if err != nil || rec == nil || rec.RevokedAt.IsZero() && !rec.ExpiredSeen {
		return rec, err
	}
	// The index lists live keys: dead ones, whose records are kept for long, would
	// make each page of it dearer. Where this fails the entry goes with the record.
	ctx, done := b.underway(ctx)
	defer done()
	if err := deleteRecord(ctx, s, issuedPath(rec.RoleID, id)); err != nil {
		b.Logger().Debug("a dead key is still in the index of its role", "key_id", id, "error", err)
	}
	return rec, nil
}
