// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// The records that decide about keys are written here and nowhere else: roles, the
// copies of deleted ones, keys, plaintexts. Each write is told to committed, whatever came of it, before
// the caller goes on. So nothing that has to learn of a commit can be forgotten.
//
// What a transition reads under its lock is read here, too, and told in the same
// way, also when nothing changes then: a write that returned an error may have landed
// since, and nobody but the next one under the lock finds that out.
//
// The storage calls of a commit do not end with the caller's context: underway
// gives them one of their own.

// change is what one write did to a role, to a key or to a plaintext.
type change struct {
	what   changeKind
	role   string // name
	roleID string
	// Of a role: its record before and after. old is nil for a role that was made,
	// and the copy under deleted/ for one that was restored; rec is nil for one
	// that was deleted.
	old, rec *roleRecord
	// Of a key: its record before, where that is known, and after; nil if it was
	// removed. The record of a static role's key alone decides nothing.
	keyID       string
	oldKey, key *keyRecord
	// version is whose plaintext was stored or erased.
	version int
	// moved is where the role lives from now on; nil if that is forgotten.
	moved *movedRecord
	// wrote is the record's encoding; nil if it was removed.
	wrote []byte
	// err is what the write returned.
	err error
	// told is what the outbox holds of it; nil: nobody wants to know, or it is a part
	// of what another change tells.
	told *telling
}

type changeKind int

const (
	roleChange changeKind = iota
	copyChange            // of a deleted role, with the fields of a role's
	keyChange
	plaintextChange
	moveChange
)

// committed is told of every change, under the lock of what changed.
func (b *backend) committed(c change) {
	switch {
	case c.what == copyChange:
		b.tellCopy(c)
	case c.what == roleChange:
		tell(b, b.roles, rolePath(c.role), c, c.rec)
		b.wakeFor(c.rec)
	case c.what == keyChange:
		tell(b, b.keys, keyPath(c.keyID), c, c.key)
	case c.what == moveChange:
		tell(b, b.moves, movedPath(c.roleID), c, c.moved)
	default:
		tell(b, b.secretCache, secretPath(c.roleID, c.version), c, nil) // filled when it is read
	}
	b.decided(c)
	if c.told != nil {
		b.spread(c.told, c.err)
	}
}

// tellCopy notes what came of a write of a copy, which is in no cache.
func (b *backend) tellCopy(c change) {
	switch path := deletedPath(c.roleID); {
	case c.err == nil:
		b.copies.outrun(path, c.wrote)
	case outcomeUnknown(c.err):
		b.copies.add(path, c.roleID, c.wrote, b.clock.Now())
	}
}

func tell[T any](b *backend, cache *recordCache[T], path string, c change, rec *T) {
	switch {
	case c.err == nil:
		cache.unsure.outrun(path, c.wrote)
		cache.committed(path, rec)
	case outcomeUnknown(c.err):
		cache.doubted(path, c.roleID, c.wrote, b.clock.Now())
	default:
		cache.committed(path, nil) // the node that may write knows better what is stored
	}
}

// decision is what a feed of changes tells of one: no secret, and nothing that is
// only kept for the record.
type decision struct {
	roleID string
	keyID  string // of one dynamic key; empty where the role changed
	// closing: something that verified does so no more or not for as long, or what a
	// key may do was narrowed. An unknown outcome always may be. The end that a
	// succession sets for the previous version is none: its grace is for that.
	closing bool
	unknown bool
}

// errLate stands for the error of an earlier write, which is told again once somebody
// has read what is stored.
var errLate = errors.New("an earlier write may have landed")

// decided tells whoever listens what a change comes to for those who hold answers of
// before. It is called after the caches have changed and before the caller goes on.
func (b *backend) decided(c change) {
	unknown := outcomeUnknown(c.err)
	switch {
	case b.listen == nil, c.err != nil && !unknown:
	case c.what == roleChange:
		if closing := unknown || c.closesRole(); closing || c.changesRole() {
			b.listen(decision{roleID: c.roleID, closing: closing, unknown: unknown})
		}
	case c.what == copyChange && (unknown || c.changesCopy()):
		b.listen(decision{roleID: c.roleID, closing: true, unknown: unknown})
	case c.what == keyChange && (unknown || c.decidesKey()) && (isDynamic(c.oldKey) || isDynamic(c.key)):
		b.listen(decision{roleID: c.roleID, keyID: c.keyID, closing: true, unknown: unknown})
	}
}

func isDynamic(key *keyRecord) bool { return key != nil && key.Dynamic }

// closesRole reports whether the change of a role takes something away from its keys.
func (c *change) closesRole() bool {
	if c.old == nil {
		return false
	}
	if c.rec == nil {
		return true
	}
	before, after := &c.old.Policy, &c.rec.Policy
	if after.Disabled && !before.Disabled || sooner(after.Until(), before.Until()) ||
		after.RateLimit > 0 && (before.RateLimit == 0 || after.RateLimit < before.RateLimit) ||
		!slices.Equal(after.AllowedCIDRs, before.AllowedCIDRs) {
		return true
	}
	for _, scope := range before.Scopes {
		if !policy.ScopesCover(after.Scopes, scope) {
			return true
		}
	}
	now := c.rec.Committed
	for i := range c.old.Ring.Versions {
		v := &c.old.Ring.Versions[i]
		was, _ := c.old.Ring.Status(v.N, now)
		is, _ := c.rec.Ring.Status(v.N, now)
		if was.Verifies && !is.Verifies {
			return true
		}
		if next := c.rec.Ring.Get(v.N); next != nil && (sooner(next.Cap, v.Cap) || sooner(next.Expires, v.Expires)) {
			return true
		}
	}
	return false
}

// changesCopy reports whether something was decided about a deleted role. That a copy
// is made, and that it goes, is a part of what the role's own record decides.
func (c *change) changesCopy() bool { return c.old != nil && c.rec != nil && !c.rec.stub() }

// decidesKey reports whether somebody decided about a dynamic key. Issue, renewal and
// the end of its lease are no decisions, but a renewal that brings its end forward is
// one: as a server lets the holder ask for, or a limit makes of it.
func (c *change) decidesKey() bool {
	old, key := c.oldKey, c.key
	if old == nil || key == nil {
		return false
	}
	return old.RevokedAt.IsZero() && !key.RevokedAt.IsZero() || sooner(key.Cap, old.Cap) || sooner(key.Expires, old.Expires)
}

// sooner reports whether end comes before the end that was; zero is none.
func sooner(end, was time.Time) bool {
	return !end.IsZero() && (was.IsZero() || end.Before(was))
}

// lockedShown reads the record of a role for a transition, whose lock the caller
// holds: always from storage, since another node may have written what this one has
// not been told of yet; also where the role was deleted and its record stands at its
// name still, which is in no cache. nil if there is none.
func (b *backend) lockedShown(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	shown, err := getRecord[shownRole](ctx, s, rolePath(name))
	if err == nil {
		closer := func(wrote, found *shownRole) bool { return closerRole(wrote.living(), found.living()) }
		shown, err = redo(ctx, b, s, &b.roles.unsure, rolePath(name), shown, closer)
	}
	if err != nil {
		return nil, err
	}
	var found, live *roleRecord
	if shown != nil {
		found = &shown.roleRecord
	}
	if found != nil && !found.marked() {
		live = found
	}
	id, was := b.roles.reread(rolePath(name), live, b.clock.Now())
	if found != nil && id == "" {
		id = found.ID
	}
	if was && id != "" {
		b.decided(change{what: roleChange, role: name, roleID: id, rec: live, err: errLate})
	}
	return found, nil
}

// lockedKey is lockedShown for the record of a key.
func (b *backend) lockedKey(ctx context.Context, s logical.Storage, id string) (*keyRecord, error) {
	rec, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err == nil {
		rec, err = redo(ctx, b, s, &b.keys.unsure, keyPath(id), rec, closerKey)
	}
	if err != nil {
		return nil, err
	}
	if _, was := b.keys.reread(keyPath(id), rec, b.clock.Now()); was && rec != nil {
		b.decided(change{what: keyChange, role: rec.Role, roleID: rec.RoleID, keyID: id, key: rec, err: errLate})
	}
	return rec, nil
}

// lockedCopy is lockedShown for the copy of a deleted role; nil if there is none.
func (b *backend) lockedCopy(ctx context.Context, s logical.Storage, id string) (*roleRecord, error) {
	rec, err := getRecord[roleRecord](ctx, s, deletedPath(id))
	if err == nil {
		rec, err = redo(ctx, b, s, &b.copies, deletedPath(id), rec, closerRole)
	}
	if err != nil {
		return nil, err
	}
	if _, was := b.copies.settle(deletedPath(id), anyOf(rec), b.clock.Now()); was {
		b.decided(change{what: copyChange, roleID: id, rec: rec, err: errLate})
	}
	return rec, nil
}

// closerRole reports whether the record found ends more than the one that was written.
// What ends keys counts, also where it failed for who asked for it.
func closerRole(wrote, found *roleRecord) bool {
	if wrote != nil && found != nil && wrote.ID != found.ID {
		return false // of a role that was deleted since
	}
	forth, back := change{old: wrote, rec: found}, change{old: found, rec: wrote}
	return forth.closesRole() && !back.closesRole()
}

// closerKey is closerRole for the record of a key.
func closerKey(wrote, found *keyRecord) bool {
	forth, back := change{oldKey: wrote, key: found}, change{oldKey: found, key: wrote}
	return forth.decidesKey() && !back.decidesKey()
}

// redo writes once more what a commit wrote, after an earlier write landed over it,
// unless that ends more. It returns what counts, which the caller's transition begins
// with, whether the write went well or not: a kill does not fail for it. The caller holds
// the lock.
func redo[T any](ctx context.Context, b *backend, s logical.Storage, u *unsureSet, path string, found *T, closer func(wrote, found *T) bool) (*T, error) {
	rec, after, undone, err := counting(u, path, found, closer)
	if err != nil || !undone {
		return rec, err
	}
	b.Logger().Warn("a write that had failed has landed over a later one, which is written again", "record", family(path))
	ctx, done := b.underway(ctx)
	defer done()
	if after == nil {
		err = deleteAt(ctx, s, path)
	} else {
		err = writeAt(ctx, s, path, after)
	}
	if !outcomeUnknown(err) {
		return rec, err
	}
	u.add(path, "", after, b.clock.Now()) // it may land over what the caller writes
	b.Logger().Warn("it is written again later", "record", family(path), "error", err)
	return rec, nil
}

// lateDue reports whether settleLate has something to look at.
func (b *backend) lateDue() bool {
	now := b.clock.Now()
	return len(b.roles.unsure.due(now, 1))+len(b.keys.unsure.due(now, 1))+len(b.copies.due(now, 1)) > 0
}

// settleAtOnce is how many records of a kind one look settles.
const settleAtOnce = 50

// settleLate reads the records whose late writes cannot land any more: nobody may
// have come to them since.
func (b *backend) settleLate(ctx context.Context, s logical.Storage) error {
	now := b.clock.Now()
	for _, path := range b.roles.unsure.due(now, settleAtOnce) {
		name := strings.TrimPrefix(path, rolePrefix)
		unlock := b.lockRole(name)
		_, err := b.lockedShown(ctx, s, name)
		unlock()
		if err != nil {
			return err
		}
		// A look that came before the write landed may have taken away its entry in the
		// calendar.
		b.missed.add(name)
	}
	for _, path := range b.keys.unsure.due(now, settleAtOnce) {
		id := path[strings.LastIndexByte(path, '/')+1:]
		unlock := b.lockKey(id)
		_, err := b.lockedKey(ctx, s, id)
		unlock()
		if err != nil {
			return err
		}
	}
	for _, path := range b.copies.due(now, settleAtOnce) {
		if err := b.settleCopy(ctx, s, strings.TrimPrefix(path, deletedPrefix)); err != nil {
			return err
		}
	}
	for _, path := range b.secretCache.unsure.due(now, settleAtOnce) {
		b.secretCache.reread(path, nil, now)
	}
	for _, path := range b.moves.unsure.due(now, settleAtOnce) {
		b.moves.reread(path, nil, now)
	}
	return nil
}

func (b *backend) settleCopy(ctx context.Context, s logical.Storage, id string) error {
	seen, err := getRecord[roleRecord](ctx, s, deletedPath(id))
	if err != nil {
		return err
	}
	if seen != nil {
		_, unlock, err := b.lockOf(ctx, s, seen.Name, id)
		if err != nil {
			return err
		}
		defer unlock()
	}
	_, err = b.lockedCopy(ctx, s, id)
	return err
}

// commitRole writes the record of a role; data is its encoding, and told what the outbox
// holds of the change.
func (b *backend) commitRole(ctx context.Context, s logical.Storage, old, rec *roleRecord, data []byte, told *telling) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := writeAt(ctx, s, rolePath(rec.Name), data)
	b.committed(change{what: roleChange, role: rec.Name, roleID: rec.ID, old: old, rec: rec, wrote: data, err: err, told: told})
	return err
}

// commitCopy writes the copy of a deleted role; data is its encoding, and old the copy
// of before, nil for one that is made.
func (b *backend) commitCopy(ctx context.Context, s logical.Storage, old, rec *roleRecord, data []byte, told *telling) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := writeAt(ctx, s, deletedPath(rec.ID), data)
	b.committed(change{what: copyChange, role: rec.Name, roleID: rec.ID, old: old, rec: rec, wrote: data, err: err, told: told})
	return err
}

// removeCopy removes the copy of a role that lives, or is gone for good.
func (b *backend) removeCopy(ctx context.Context, s logical.Storage, role, roleID string) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := deleteAt(ctx, s, deletedPath(roleID))
	b.committed(change{what: copyChange, role: role, roleID: roleID, err: err})
	return err
}

// outcomeUnknown reports whether a write that returned err may have happened all the
// same. A node that may not write has not even tried.
func outcomeUnknown(err error) bool { return err != nil && !mustForward(err) }

// commitDeletion removes the record of a role.
func (b *backend) commitDeletion(ctx context.Context, s logical.Storage, old *roleRecord, told *telling) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := deleteAt(ctx, s, rolePath(old.Name))
	b.committed(change{what: roleChange, role: old.Name, roleID: old.ID, old: old, err: err, told: told})
	return err
}

// commitInPlace writes the record of a deleted role at its name, which is a deletion
// to everybody who looks for the role.
func (b *backend) commitInPlace(ctx context.Context, s logical.Storage, old, rec *roleRecord, data []byte, told *telling) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := writeAt(ctx, s, rolePath(rec.Name), data)
	b.committed(change{what: roleChange, role: rec.Name, roleID: rec.ID, old: old, wrote: data, err: err, told: told})
	return err
}

// commitMove writes where a role lives that is about to come back.
func (b *backend) commitMove(ctx context.Context, s logical.Storage, moved *movedRecord) error {
	data, err := json.Marshal(moved)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(movedPrefix), err)
	}
	ctx, done := b.underway(ctx)
	defer done()
	err = writeAt(ctx, s, movedPath(moved.RoleID), data)
	b.committed(change{what: moveChange, role: moved.Name, roleID: moved.RoleID, moved: moved, wrote: data, err: err})
	return err
}

// forgetMove removes where a role lived that is gone for good.
func (b *backend) forgetMove(ctx context.Context, s logical.Storage, role, roleID string) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := deleteAt(ctx, s, movedPath(roleID))
	b.committed(change{what: moveChange, role: role, roleID: roleID, err: err})
	return err
}

// commitKey writes the record of a key.
func (b *backend) commitKey(ctx context.Context, s logical.Storage, old, rec *keyRecord, told *telling) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(keyPrefix), err)
	}
	ctx, done := b.underway(ctx)
	defer done()
	err = writeAt(ctx, s, keyPath(rec.ID), data)
	b.committed(change{
		what: keyChange, role: rec.Role, roleID: rec.RoleID, keyID: rec.ID, oldKey: old, key: rec, wrote: data, err: err,
		told: told,
	})
	return err
}

// removeKey removes the record of a key.
func (b *backend) removeKey(ctx context.Context, s logical.Storage, old *keyRecord) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := deleteAt(ctx, s, keyPath(old.ID))
	b.committed(change{
		what: keyChange, role: old.Role, roleID: old.RoleID, keyID: old.ID, oldKey: old, err: err,
	})
	return err
}

// storePlaintext stores the key of a version.
func (b *backend) storePlaintext(ctx context.Context, s logical.Storage, role *roleRecord, n int, plain string) error {
	data, err := json.Marshal(&secretRecord{Schema: recordSchema, Key: plain})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(secretPrefix), err)
	}
	ctx, done := b.underway(ctx)
	defer done()
	err = writeAt(ctx, s, secretPath(role.ID, n), data)
	b.committed(change{what: plaintextChange, role: role.Name, roleID: role.ID, version: n, wrote: data, err: err})
	return err
}

// erasePlaintext deletes the key of a version of the role with that name and id.
func (b *backend) erasePlaintext(ctx context.Context, s logical.Storage, role, roleID string, n int) error {
	ctx, done := b.underway(ctx)
	defer done()
	err := deleteAt(ctx, s, secretPath(roleID, n))
	b.committed(change{what: plaintextChange, role: role, roleID: roleID, version: n, err: err})
	return err
}
