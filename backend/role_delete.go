// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// A deleted role is a full copy of its record under deleted/<role_id>, with the
// record at role/<name> gone. The record decides: while there is one with that
// role_id the role lives, whatever deleted/ holds; the copy may then be older
// than what happened since and is never read from. Deleting the record is the
// commit of a deletion, writing it that of a restoration. In the copy, Due is
// where the calendar holds the purge. After a restoration a stub without
// versions stands in the copy's place until then, so that a repeated request
// finds the role.

// deleteRole ends the role's keys at once and hides the role.
func (b *backend) deleteRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if !validName(name) {
		return nil, nil
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	path := rolePath(name)
	old, err := getRecord[roleRecord](ctx, req.Storage, path)
	if err != nil {
		return nil, err
	}
	if old == nil {
		b.roles.drop(path)
		return nil, nil
	}
	if old.Policy.DeletionProtection {
		return nil, refuse("deletion_protection", true, "role "+shown(name)+" is protected", "set it to false first")
	}
	by := requester(req)
	tx := &roleTx{b: b, ctx: ctx, s: req.Storage, now: b.now(old.Committed), by: by, old: old, rec: old.clone()}
	tx.record(tx.rec.Ring.Settle(tx.now), actor{cause: causePeriodic})
	tx.note(historyEntry{Kind: eventRoleDeleted})
	tx.rec.Deleted, tx.rec.DeletedBy, tx.rec.Committed = tx.now, by.display, tx.now
	tx.rec.PurgeAt = tx.now.Add(cfg.deleteRecovery())
	tx.rec.Seq++

	recoverable := cfg.deleteRecovery() > 0
	if recoverable {
		err = tx.keepCopy()
	} else {
		err = tx.dropCopy()
	}
	if err != nil {
		return nil, err
	}
	if err := deleteRecord(ctx, req.Storage, path); err != nil {
		b.roles.drop(path)
		return nil, err
	}
	b.roles.drop(path)

	// From here on the role is deleted; what fails is left to tidy.
	if !old.Due.IsZero() {
		b.unfile(ctx, req.Storage, old.Due, name)
	}
	b.clearProblem(ctx, req.Storage, name)
	until := ""
	if recoverable {
		until = stamp(tx.rec.PurgeAt)
	} else if err := b.deleteSecrets(ctx, req.Storage, old.ID); err != nil {
		b.Logger().Warn("plaintexts of a deleted role are left for tidy", "role", name, "error", err)
	}
	return answer(map[string]any{"role_id": old.ID, "restorable_until": until}), nil
}

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

// purgeDeleted looks at one deleted role whose entry in the calendar has come up
// and removes it for good when its time is over. Its keys have been refused
// since the deletion; their records are left to tidy.
func (b *backend) purgeDeleted(ctx context.Context, t *tick, e dueEntry, id string) error {
	path := deletedPath(id)
	seen, err := getRecord[roleRecord](ctx, t.s, path)
	if err != nil {
		return err
	}
	if seen == nil {
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	unlock := b.lockRole(seen.Name)
	defer unlock()
	copied, err := getRecord[roleRecord](ctx, t.s, path)
	if err != nil {
		return err
	}
	if copied == nil {
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	live, err := getRecord[roleRecord](ctx, t.s, rolePath(copied.Name))
	if err != nil {
		return err
	}
	if live != nil && live.ID == id {
		// A deletion that never came to its commit, or a restoration that did.
		if err := deleteRecord(ctx, t.s, path); err != nil {
			return err
		}
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	now := b.now(copied.Committed)
	if now.Before(copied.PurgeAt) {
		return t.refile(ctx, e, copied.PurgeAt)
	}
	tx := &roleTx{b: b, ctx: ctx, s: t.s, now: now, rec: copied.clone()}
	if err := tx.archive(0); err != nil {
		return err
	}
	if err := b.deleteSecrets(ctx, t.s, id); err != nil {
		return err
	}
	if err := deleteRecord(ctx, t.s, path); err != nil {
		return err
	}
	b.unfile(ctx, t.s, e.minute, e.name)
	return nil
}

// errGone says why a deleted role can not be restored.
func errGone(id string) error {
	return &absence{what: fmt.Sprintf("no deleted role has the role_id %s, or it was deleted longer ago than the mount's delete_recovery", shown(id))}
}

// restorable: the deleted role can still be brought back at now.
func (r *roleRecord) restorable(now time.Time) bool { return now.Before(r.PurgeAt) }
