// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) restoreLocked(ctx context.Context, s logical.Storage, name, id string, by actor, lim policy.Limits) (*logical.Response, error) {
	copied, err := getRecord[roleRecord](ctx, s, deletedPath(id))
	if err != nil {
		return nil, err
	}
	live, err := getRecord[roleRecord](ctx, s, rolePath(name))
	if err != nil {
		return nil, err
	}
	switch {
	case live != nil && live.ID == id:
		b.retireCopy(ctx, s, copied)
		return restored(&roleNow{rec: live, now: b.now(live.Committed)}, false), nil
	case copied == nil || copied.stub():
		return nil, errGone(id)
	}
	rec := copied.clone()
	rec.Deleted, rec.DeletedBy, rec.PurgeAt, rec.Due = time.Time{}, "", time.Time{}, time.Time{}
	tx, err := b.begin(ctx, s, opening{by: by, lim: lim, old: copied, rec: rec})
	switch {
	case err != nil:
		return nil, err
	case !copied.restorable(tx.now):
		return nil, errGone(id)
	case live != nil:
		return nil, refusal.New("role_id", id, "another role has the name "+refusal.Shown(name)+" now, with role_id "+live.ID, "delete that one first")
	}
	tx.note(historyEntry{Kind: eventRoleRestored})
	if tx.rec.Owed {
		if err := tx.payOwed(); err != nil {
			return nil, err
		}
	}
	if err := tx.commit(); err != nil {
		return nil, err
	}
	b.retireCopy(ctx, s, copied)
	return restored(&tx.roleNow, true), nil
}

// stub reports whether there is nothing in the copy to restore.
func (r *roleRecord) stub() bool { return r.Ring.Last == 0 }

// retireCopy leaves a stub of the copy of a role that lives. Where that fails
// the copy is ignored, and overwritten by the next deletion.
func (b *backend) retireCopy(ctx context.Context, s logical.Storage, copied *roleRecord) {
	if copied == nil || copied.stub() {
		return
	}
	stub := &roleRecord{
		Schema: recordSchema, Name: copied.Name, ID: copied.ID, Type: copied.Type, Created: copied.Created,
		Committed: copied.Committed, Deleted: copied.Deleted, PurgeAt: copied.PurgeAt, Due: copied.Due,
	}
	if err := putRecord(ctx, s, deletedPath(copied.ID), stub); err != nil {
		b.Logger().Warn("the copy of a restored role is removed later", "role", copied.Name, "error", err)
	}
}

func restored(r *roleNow, done bool) *logical.Response {
	current := 0
	if cur := r.rec.Ring.Current(r.now); cur != nil {
		current = cur.N
	}
	return answer(map[string]any{"role": r.rec.Name, "role_id": r.rec.ID, "current_version": current, "restored": done})
}
