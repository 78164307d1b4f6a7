// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// A deleted role is a full copy of its record under deleted/<role_id>, with the
// record at role/<name> gone (where the copy cannot be written it is marked as
// deleted instead: role_unmoved.go). The record decides: while there is one with that
// role_id the role lives, whatever deleted/ holds; the copy may then be older
// than what happened since and is never read from. Deleting the record is the
// commit of a deletion, writing it that of a restoration. In the copy, Due is
// where the calendar holds the purge. After a restoration a stub without
// versions stands in the copy's place until then, so that a repeated request
// finds the role.

// endRole ends the role's keys at once and hides the role. It returns its last
// transition; nil if there is no such role.
func (b *backend) endRole(ctx context.Context, s logical.Storage, name string, by actor) (*roleTx, error) {
	cfg, err := b.configOrLast(ctx, s)
	if err != nil {
		return nil, err
	}
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	old, err := b.heldRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		if _, err := b.moveUnmoved(ctx, s, name); err != nil {
			b.Logger().Warn("a deleted role is moved later", "role", name, "error", err)
		}
		return nil, nil
	}
	return b.endLocked(ctx, s, old, by, cfg, lim)
}

// endLocked is endRole for a record in hand, by who holds the role's lock.
func (b *backend) endLocked(ctx context.Context, s logical.Storage, old *roleRecord, by actor, cfg *configRecord, lim policy.Limits) (*roleTx, error) {
	name := old.Name
	if old.Policy.DeletionProtection {
		return nil, refusal.New("deletion_protection", true, "role "+refusal.Shown(name)+" is protected", "set it to false first")
	}
	tx := b.begin(ctx, s, opening{by: by, lim: lim, old: old})
	tx.note(historyEntry{Kind: eventRoleDeleted})
	tx.rec.Deleted, tx.rec.DeletedBy, tx.rec.DeletedCode, tx.rec.Committed = tx.now, by.display, by.code, tx.now
	tx.rec.PurgeAt = tx.now.Add(cfg.deleteRecovery())
	tx.rec.Seq++

	ctx, done := b.underway(ctx)
	defer done()
	tx.ctx = ctx
	// Nothing that is not part of ending the keys may stop it.
	tx.kill = true
	if err := tx.foretell(true); err != nil {
		return nil, err
	}
	defer func() {
		if tx.told != nil {
			b.toldVoid(tx.told) // unless the deletion came to its commit
		}
	}()
	switch err := tx.keepCopy(); {
	case err == nil:
	case mustForward(err):
		return nil, err
	default:
		b.Logger().Warn("a role is deleted although its copy could not be written", "role", name, "error", err)
		why := "the server's log has the reason"
		if errors.Is(err, errSchema) {
			why = "what stands there was " + newerRecord
		}
		tx.warn("the role is deleted, but its record could not be put where restore/<role_id> finds it: the worker tries again; %s", why)
		return tx, tx.endInPlace()
	}
	if err := b.commitDeletion(ctx, s, old, tx.told); err != nil {
		return nil, err
	}

	// From here on the role is deleted; what fails is left to the purge or to tidy.
	if !old.Due.IsZero() {
		b.unfile(ctx, s, old.Due, name)
	}
	b.clearProblem(ctx, s, name, nil)
	if !tx.rec.restorable(tx.now) {
		if done, err := tx.purge(); err != nil {
			b.Logger().Warn("what is left of a deleted role is removed later", "role", name, "error", err)
		} else if done {
			b.unfile(ctx, s, tx.rec.Due, deletedMark+tx.rec.ID)
		}
	}
	return tx, nil
}

// keepCopy writes what a restoration needs, or where there can be none the purge,
// and when it is to be purged.
func (tx *roleTx) keepCopy() error {
	tx.rec.Due = tx.b.fileAt(tx.rec.PurgeAt)
	data, err := tx.encode()
	if err != nil {
		return err
	}
	if _, err := tx.b.lockedCopy(tx.ctx, tx.s, tx.rec.ID); err != nil {
		return err // what a newer build left there is not overwritten
	}
	// The copy comes before its calendar entry: a look that finds an entry
	// without a copy removes the entry.
	if err := tx.b.commitCopy(tx.ctx, tx.s, nil, tx.rec, data, nil); err != nil {
		return err
	}
	// Tidy finds a copy that the calendar lacks.
	return tx.optional(putBytes(tx.ctx, tx.s, duePath(tx.rec.Due, deletedMark+tx.rec.ID), dueValue))
}

// purge removes for good what is left of a deleted role that cannot be restored
// any more, its copy last: what fails is done again as long as there is the copy.
// History stays, and how those keys ended that must not come back. done is false
// where there is more to do than one look does. The caller holds the role's lock.
func (tx *roleTx) purge() (done bool, err error) {
	if err := tx.b.deleteSecrets(tx.ctx, tx.s, tx.rec.Name, tx.rec.ID); err != nil {
		return false, err
	}
	if done, err := tx.entomb(); err != nil || !done {
		return false, err
	}
	if err := tx.archive(0); err != nil {
		return false, err
	}
	if err := tx.archiveCommits(0); err != nil {
		return false, err
	}
	tx.b.forgetUsage(tx.rec.ID)
	if err := tx.livesNowhere(); err != nil {
		return false, err
	}
	return true, tx.b.removeCopy(tx.ctx, tx.s, tx.rec.Name, tx.rec.ID)
}

// livesNowhere has moved/, where it knows the role, say that it is gone: a record of it
// that a late write left at an earlier name would be the role again if moved/ said
// nothing. Tidy removes those, and then this.
func (tx *roleTx) livesNowhere() error {
	moved, err := tx.b.storedMove(tx.ctx, tx.s, tx.rec.ID)
	if err != nil || moved == nil || moved.gone() {
		return err
	}
	mark, err := newUUID(tx.b.rand)
	if err != nil {
		return err
	}
	return tx.b.commitMove(tx.ctx, tx.s, &movedRecord{Schema: recordSchema, RoleID: tx.rec.ID, Name: nowhere, Mark: mark, At: tx.now})
}

// deleteSecrets erases the plaintexts of a role that is gone.
func (b *backend) deleteSecrets(ctx context.Context, s logical.Storage, role, roleID string) error {
	versions, err := list(ctx, s, secretPrefix+roleID+"/")
	if err != nil {
		return err
	}
	for _, v := range versions {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("a plaintext of no version: %w", err)
		}
		if err := b.erasePlaintext(ctx, s, role, roleID, n); err != nil {
			return err
		}
	}
	return nil
}

// errGone says why a deleted role cannot be restored.
func errGone(id string) error {
	return &absence{what: fmt.Sprintf("no deleted role has the role_id %s, or it was deleted longer ago than the mount's delete_recovery", refusal.Shown(id))}
}

// restorable reports whether the deleted role can still be brought back at now.
func (r *roleRecord) restorable(now time.Time) bool { return now.Before(r.PurgeAt) }
