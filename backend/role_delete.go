// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// A deleted role is a full copy of its record under deleted/<role_id>, with the
// record at role/<name> gone. The record decides: while there is one with that
// role_id the role lives, whatever deleted/ holds; the copy may then be older
// than what happened since and is never read from. Deleting the record is the
// commit of a deletion, writing it that of a restoration. In the copy, Due is
// where the calendar holds the purge. After a restoration a stub without
// versions stands in the copy's place until then, so that a repeated request
// finds the role.

// keepCopy writes what a restoration needs, and when it is to be purged.
func (tx *roleTx) keepCopy() error {
	tx.rec.Due = tx.b.fileAt(tx.rec.PurgeAt)
	data, err := tx.encode()
	if err != nil {
		return err
	}
	if _, err := getRecord[roleRecord](tx.ctx, tx.s, deletedPath(tx.rec.ID)); err != nil {
		return err // what a newer build left there is not overwritten
	}
	// The copy comes before its calendar entry: a look that finds an entry
	// without a copy removes the entry.
	if err := putBytes(tx.ctx, tx.s, deletedPath(tx.rec.ID), data); err != nil {
		return err
	}
	return putBytes(tx.ctx, tx.s, duePath(tx.rec.Due, deletedMark+tx.rec.ID), dueValue)
}

// dropCopy makes sure that nothing can be restored, and that the history
// outlives the role.
func (tx *roleTx) dropCopy() error {
	if err := deleteRecord(tx.ctx, tx.s, deletedPath(tx.rec.ID)); err != nil {
		return err
	}
	return tx.archive(0)
}

// deleteSecrets erases the plaintexts of a role that is gone.
func (b *backend) deleteSecrets(ctx context.Context, s logical.Storage, roleID string) error {
	prefix := secretPrefix + roleID + "/"
	versions, err := list(ctx, s, prefix)
	if err != nil {
		return err
	}
	for _, v := range versions {
		err := deleteRecord(ctx, s, prefix+v)
		b.secretCache.drop(prefix + v)
		if err != nil {
			return err
		}
	}
	return nil
}

// errGone says why a deleted role can not be restored.
func errGone(id string) error {
	return &absence{what: fmt.Sprintf("no deleted role has the role_id %s, or it was deleted longer ago than the mount's delete_recovery", refusal.Shown(id))}
}

// restorable: the deleted role can still be brought back at now.
func (r *roleRecord) restorable(now time.Time) bool { return now.Before(r.PurgeAt) }
