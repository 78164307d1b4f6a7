// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
)

// What ends a key ends it whether its role lives or was deleted: a deleted role
// can be restored, and comes back without what was killed meanwhile. Of a deleted
// role the copy that would be restored is changed, under the lock of its name.

// mutateKept runs fn on the role with that id, which was called by that name once, as
// mutate does, while it is deleted on its copy: then tx.hidden says so. Absence means
// that neither is there.
func (b *backend) mutateKept(ctx context.Context, s logical.Storage, name, id string, by actor, fn func(*roleTx) (bool, error)) (*roleRecord, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	home, unlock, err := b.lockOf(ctx, s, name, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec, err := b.keptLocked(ctx, s, home, id)
	switch {
	case err != nil:
		return nil, err
	case rec == nil:
		return nil, noRole(name)
	}
	tx := b.begin(ctx, s, opening{by: by, lim: lim, old: rec.roleRecord})
	tx.hidden, tx.unmoved = rec.hidden, rec.unmoved
	return tx.run(fn)
}

// kept is the role with that id, or its copy while it is deleted; nil if neither is
// there.
func (b *backend) kept(ctx context.Context, s logical.Storage, name, id string) (*roleRecord, error) {
	// Under the lock, since a restoration between the two looks would hide it.
	home, unlock, err := b.lockOf(ctx, s, name, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec, err := b.keptLocked(ctx, s, home, id)
	if err != nil || rec == nil {
		return nil, err
	}
	return rec.roleRecord, nil
}

// keptRole is a role's record and where it stands.
type keptRole struct {
	*roleRecord

	hidden  bool // the role is deleted
	unmoved bool // and its record stands at its name still
}

// keptLocked is kept for who holds the lock of home, which is what the role is called
// now.
func (b *backend) keptLocked(ctx context.Context, s logical.Storage, home, id string) (*keptRole, error) {
	at, err := b.heldShown(ctx, s, home)
	if err != nil {
		return nil, err
	}
	found := at != nil && at.ID == id
	if found && !at.marked() {
		return &keptRole{roleRecord: at}, nil
	}
	copied, err := b.lockedCopy(ctx, s, id)
	switch {
	case err != nil:
		return nil, err
	case found && !copied.outdates(at):
		return &keptRole{roleRecord: at, hidden: true, unmoved: true}, nil
	case copied == nil || copied.stub():
		return nil, nil
	}
	return &keptRole{roleRecord: copied, hidden: true}, nil
}

// commitCopy writes a transition of a deleted role. The calendar, the index of
// problems and the caches know nothing of the role: what they need to know, its
// restoration tells them.
func (tx *roleTx) commitCopy() error {
	if tx.unmoved {
		tx.rec.Schema = markedSchema
	}
	data, err := tx.encode()
	if err != nil {
		return err
	}
	commit := tx.b.commitCopy
	if tx.unmoved {
		commit = tx.b.commitInPlace
	}
	if err := commit(tx.ctx, tx.s, tx.old, tx.rec, data, tx.told); err != nil {
		return err
	}
	tx.eraseKilled()
	return nil
}

// renewCopy keeps the copy that a deletion left which failed and may still land in step
// with the role: if it lands, the copy is what a restoration brings back, and must know
// what was killed since.
func (tx *roleTx) renewCopy() error {
	if tx.old == nil || !tx.b.roles.unsure.has(rolePath(tx.rec.Name)) {
		return nil
	}
	copied, err := tx.b.lockedCopy(tx.ctx, tx.s, tx.rec.ID)
	if err != nil || copied == nil || copied.stub() || copied.Name != tx.rec.Name {
		return err
	}
	next := *tx.rec
	next.Deleted, next.DeletedBy, next.DeletedCode = copied.Deleted, copied.DeletedBy, copied.DeletedCode
	next.PurgeAt, next.Due = copied.PurgeAt, copied.Due
	data, err := next.encode()
	if err != nil {
		return err
	}
	return tx.b.commitCopy(tx.ctx, tx.s, copied, &next, data, nil)
}

// owe leaves the replacement of the current version to the periodic function, of a
// deleted role to its restoration. The pending version dies as it does where there
// is a replacement: whoever read the one may have read the other.
func (tx *roleTx) owe() {
	tx.rec.Owed = true
	tx.record(tx.rec.Ring.DropPending(tx.now), tx.by)
}
