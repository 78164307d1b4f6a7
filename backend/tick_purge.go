// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"
)

// purgeDeleted looks at one deleted role whose entry in the calendar has come up
// and removes it for good when its time is over. Its keys have been refused
// since the deletion; their records are left to tidy, the tombstones among them
// for as long as history is kept.
func (b *backend) purgeDeleted(ctx context.Context, t *tick, e dueEntry, id string) error {
	seen, err := getRecord[roleRecord](ctx, t.s, deletedPath(id))
	if err != nil {
		return err
	}
	if seen == nil {
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	home, unlock, err := b.lockOf(ctx, t.s, seen.Name, id)
	if err != nil {
		return err
	}
	defer unlock()
	live, err := b.liveAt(ctx, t.s, home)
	if err != nil {
		return err
	}
	copied, err := b.lockedCopy(ctx, t.s, id)
	if err != nil {
		return err
	}
	if copied == nil {
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	if live != nil && live.ID == id {
		if b.roles.unsure.has(rolePath(live.Name)) {
			return t.putOff(ctx, e, t.now.Add(lateFor)) // the deletion may still land
		}
		// A deletion that never came to its commit, or a restoration that did.
		if err := b.removeCopy(ctx, t.s, copied.Name, id); err != nil {
			return err
		}
		b.unfile(ctx, t.s, e.minute, e.name)
		return nil
	}
	tx := b.begin(ctx, t.s, opening{lim: t.lim, old: copied})
	if copied.restorable(tx.now) {
		return t.putOff(ctx, e, copied.PurgeAt)
	}
	done, err := tx.purge()
	switch {
	case err != nil:
		return err
	case !done:
		return t.putOff(ctx, e, tx.now.Add(time.Minute))
	}
	b.unfile(ctx, t.s, e.minute, e.name)
	return nil
}
