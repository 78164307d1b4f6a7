// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A deletion ends keys, so it does not wait for the copy that a restoration needs:
// where that cannot be written the record stays at its name, marked as deleted. Whoever
// reads a role finds none there (getRecord hides it); until the record is moved to
// where the copy belongs, it is what the copy would be. Where both are there the one
// with the higher Seq counts, as a write may land late. The next step moves it, tidy
// does, and whoever needs the name or the role before.
//
// The mark alone would not keep an older build from taking the role for a living one:
// markedSchema does.

// unmovedAt is the record of a deleted role that still stands at its name; nil if there
// is none.
func (b *backend) unmovedAt(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := getRecord[shownRole](ctx, s, rolePath(name))
	if err != nil || rec == nil || !rec.marked() {
		return nil, err
	}
	if ok, err := b.standing(ctx, s, &rec.roleRecord); err != nil || !ok {
		return nil, err // it was restored since, and this landed late
	}
	return &rec.roleRecord, nil
}

// outdates reports whether the copy of a role is newer than the record that stands at
// its name: a write that landed late left that there. The copy may be nil.
func (r *roleRecord) outdates(rec *roleRecord) bool {
	return r != nil && !r.stub() && r.Seq > rec.Seq
}

// findAtMost is how many records findUnmoved reads.
const findAtMost = 200

// findUnmoved is the name at which the record of the deleted role with that id stands,
// where another node deleted it; empty if it is not found. The calendar leads to it.
func (b *backend) findUnmoved(ctx context.Context, s logical.Storage, id string) (string, error) {
	if name := b.unmoved.nameOf(id); name != "" {
		return name, nil
	}
	now := b.now()
	from := now
	if c := b.cursor(); !c.IsZero() && c.Before(from) {
		from = later(c, now.Add(-walkByDay))
	}
	left := findAtMost
	for e, err := range dueEntries(ctx, s, from.Add(-tickOverlap*time.Minute), now.Add(time.Minute)) {
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(e.name, deletedMark) {
			continue
		}
		if left--; left < 0 {
			break
		}
		rec, err := getRecord[shownRole](ctx, s, rolePath(e.name))
		if err != nil && !errors.Is(err, errSchema) {
			return "", err
		}
		if rec != nil && rec.marked() && rec.ID == id {
			return e.name, nil
		}
	}
	return "", nil
}

// endInPlace is the deletion of a role whose copy cannot be written: its record is
// marked, and moved later.
func (tx *roleTx) endInPlace() error {
	name := tx.rec.Name
	tx.rec.Due = tx.old.Due
	if minute := tx.b.fileAt(tx.now); !minute.Equal(tx.rec.Due) {
		if err := putBytes(tx.ctx, tx.s, duePath(minute, name), dueValue); err == nil {
			tx.rec.Due = minute
		}
	}
	tx.rec.Schema = markedSchema
	data, err := tx.encode()
	if err != nil {
		return err
	}
	if err := tx.b.commitInPlace(tx.ctx, tx.s, tx.old, tx.rec, data, tx.told); err != nil {
		return err
	}
	tx.b.unmoved.add(tx.rec.ID, name)
	tx.b.missed.add(name)
	tx.b.wake.at(tx.now)
	if !tx.old.Due.IsZero() && !tx.old.Due.Equal(tx.rec.Due) {
		tx.b.unfile(tx.ctx, tx.s, tx.old.Due, name)
	}
	return nil
}

// liveAt is the role of that name, after a deleted one that still stood there was moved
// away; nil if there is none. The caller holds the role's lock.
func (b *backend) liveAt(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := getRecord[shownRole](ctx, s, rolePath(name))
	switch {
	case err != nil || rec == nil:
		return nil, err
	case !rec.marked():
		return b.storedRole(ctx, s, name)
	}
	_, err = b.moveUnmoved(ctx, s, name)
	return nil, err
}

// moveUnmoved moves the record of a deleted role that stands at that name to where it
// belongs, and returns it; nil if there is none. The caller holds the role's lock.
func (b *backend) moveUnmoved(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := b.unmovedAt(ctx, s, name)
	if err != nil || rec == nil {
		return nil, err
	}
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	tx := b.begin(ctx, s, opening{by: actor{cause: causePeriodic}, lim: lim, old: rec})
	copied, err := b.lockedCopy(ctx, s, rec.ID)
	if err != nil {
		return nil, err
	}
	if !copied.outdates(rec) {
		copied = tx.rec
		copied.Schema, copied.Committed = recordSchema, tx.now
		copied.Seq++
		if err := tx.keepCopy(); err != nil {
			return nil, err
		}
	}
	if err := b.commitDeletion(ctx, s, rec, nil); err != nil {
		return nil, err
	}
	b.unmoved.moved(rec.ID)
	if !rec.Due.IsZero() {
		b.unfile(ctx, s, rec.Due, name)
	}
	return copied, nil
}
