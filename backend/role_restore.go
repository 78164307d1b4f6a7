// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// A restoration writes the record of a deleted role again, under the name that it
// had or under another one: then it is a rename. From the first rename in a mount on
// each writes moved/<role_id> before, with a mark that its record carries, too
// (store_moved.go). A crash between the two leaves the role deleted; its copy goes
// after the commit.

// restoration is what is asked for, and by whom.
type restoration struct {
	id   string
	name string // empty: the one that the role had
	// force: a role that has the name goes, if its keys were never used.
	force bool
	by    actor
}

// restored is what came of it.
type restored struct {
	*roleNow

	done     bool   // false if the role lived already
	from     string // what it was called before, where that was otherwise
	replaced string // the role_id of the role that had to go
}

// restoreRole brings a deleted role back.
func (b *backend) restoreRole(ctx context.Context, s logical.Storage, want *restoration) (*restored, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	cfg, err := b.config(ctx, s)
	if err != nil {
		return nil, err
	}
	for range homeTries {
		seen, err := b.namesOf(ctx, s, want)
		if err != nil {
			return nil, err
		}
		unlock := b.lockRoles(seen...)
		names, err := b.namesOf(ctx, s, want)
		if err == nil && slices.Equal(names, seen) {
			defer unlock()
			r := &restorer{b: b, ctx: ctx, s: s, restoration: want, lim: lim, config: cfg}
			return r.run(names)
		}
		unlock()
		if err != nil {
			return nil, err
		}
	}
	return nil, errMoving
}

// namesOf are the names that the role has, had, and is to have: their locks are what
// a restoration needs. What they are is known for sure under those locks only.
func (b *backend) namesOf(ctx context.Context, s logical.Storage, want *restoration) ([]string, error) {
	copied, err := getRecord[roleRecord](ctx, s, deletedPath(want.id))
	if err != nil {
		return nil, err
	}
	moved, err := b.storedMove(ctx, s, want.id)
	if err != nil {
		return nil, err
	}
	var names []string
	if copied != nil {
		names = append(names, copied.Name)
	}
	if moved != nil {
		names = append(names, moved.Name)
	}
	if len(names) == 0 {
		name, err := b.findUnmoved(ctx, s, want.id)
		if err != nil {
			return nil, err
		}
		if name != "" {
			names = append(names, name)
		}
	}
	if want.name != "" {
		names = append(names, want.name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// restorer is a restoration under its locks.
type restorer struct {
	*restoration

	b      *backend
	ctx    context.Context //nolint:containedctx // it lives no longer than its call
	s      logical.Storage
	lim    policy.Limits
	config *configRecord

	copied *roleRecord
	moved  *movedRecord
}

func (r *restorer) run(names []string) (*restored, error) {
	for _, name := range names {
		// A deleted role that stands there still goes to where its copy belongs.
		if _, err := r.b.liveAt(r.ctx, r.s, name); err != nil {
			return nil, err
		}
	}
	var err error
	if r.copied, err = r.b.lockedCopy(r.ctx, r.s, r.id); err != nil {
		return nil, err
	}
	if r.moved, err = r.b.storedMove(r.ctx, r.s, r.id); err != nil {
		return nil, err
	}
	at := map[string]*roleRecord{}
	for _, name := range names {
		rec, err := r.b.lockedShown(r.ctx, r.s, name)
		if err != nil {
			return nil, err
		}
		at[name] = rec
		if rec != nil && rec.ID == r.id && rec.stands(r.moved) {
			return r.lives(rec)
		}
	}
	if r.copied == nil || r.copied.stub() {
		return nil, errGone(r.id)
	}
	return r.restore(at[cmp.Or(r.name, r.copied.Name)])
}

// lives is the answer where the role is there already.
func (r *restorer) lives(rec *roleRecord) (*restored, error) {
	if r.name != "" && r.name != rec.Name {
		return nil, refusal.New("name", r.name, "the role with that role_id lives, and is called "+refusal.Shown(rec.Name),
			"only a deleted role can be renamed: delete "+refusal.Shown(rec.Name)+" first, then repeat this")
	}
	r.retireCopy(rec.Name)
	return &restored{roleNow: &roleNow{rec: rec, now: r.b.now(rec.Committed)}}, nil
}

// restore writes the role; there is what storage has at the name.
func (r *restorer) restore(there *roleRecord) (*restored, error) {
	name := cmp.Or(r.name, r.copied.Name)
	rec := r.copied.clone()
	rec.Deleted, rec.DeletedBy, rec.DeletedCode, rec.PurgeAt, rec.Due = time.Time{}, "", "", time.Time{}, time.Time{}
	tx := r.b.begin(r.ctx, r.s, opening{by: r.by, lim: r.lim, old: r.copied, rec: rec})
	switch {
	case tx.unread != nil:
		return nil, tx.unread
	case !r.copied.restorable(tx.now):
		return nil, errGone(r.id)
	}
	tx.back = true
	out := &restored{roleNow: &tx.roleNow, done: true}
	tx.note(historyEntry{Kind: eventRoleRestored})
	if name != r.copied.Name {
		out.from = r.copied.Name
		tx.note(historyEntry{Kind: eventRoleRenamed, Fields: map[string]fieldChange{"name": {Old: out.from, New: name}}})
		tx.rec.Name = name
	}
	if tx.rec.Owed {
		if err := tx.payOwed(); err != nil {
			return nil, err
		}
	}
	// Nothing was written so far, and nothing is refused once something was: from here on
	// it does not end with the caller either.
	caller := r.ctx
	ctx, done := r.b.underway(caller)
	r.ctx, tx.ctx = ctx, ctx
	defer func() {
		r.ctx, tx.ctx = caller, caller
		done()
	}()
	holder, err := r.holderOf(there)
	if err != nil {
		return nil, err
	}
	if holder != nil {
		if err := r.makeWay(holder); err != nil {
			return nil, err
		}
		out.replaced = holder.ID
	}
	if out.from != "" || r.moved != nil || r.b.renamesKnown(r.ctx, r.s) {
		if err := r.announce(tx, there, out.from); err != nil {
			return nil, err
		}
	}
	if err := tx.commit(); err != nil {
		return nil, err
	}
	r.retireCopy(name)
	return out, nil
}

// holderOf is the role that has the name, nil if there is none: what storage has
// there may be no role.
func (r *restorer) holderOf(there *roleRecord) (*roleRecord, error) {
	if there == nil || there.ID == r.id {
		return nil, nil
	}
	ok, err := r.b.standing(r.ctx, r.s, there)
	if err != nil || !ok {
		return nil, err
	}
	return there, r.mayGo(there)
}

// mayGo refuses to let the role go that has the name, unless it was asked for and
// nobody can miss it.
func (r *restorer) mayGo(holder *roleRecord) error {
	taken := func(why, todo string) error {
		field, value := "name", r.name
		if r.name == "" {
			field, value = "role_id", r.id
		}
		return refusal.New(field, value, "another role has the name "+refusal.Shown(holder.Name)+" now, with role_id "+holder.ID+why, todo)
	}
	if !r.force {
		return taken("", "delete that one first, give another name, or, if its keys were never used, repeat this with force=true")
	}
	if r.config.deleteRecovery() <= 0 {
		return taken(", and could not be brought back, since the mount's delete_recovery is 0", "set delete_recovery, or delete that role first")
	}
	why, err := r.b.taken(r.ctx, r.s, holder)
	if err != nil || why == "" {
		return err
	}
	return taken(", and "+why, "move its consumers to another role and delete it, or give another name")
}

// taken says in words why somebody may hold a key of the role; empty if nobody can be
// seen to.
func (b *backend) taken(ctx context.Context, s logical.Storage, rec *roleRecord) (string, error) {
	for i := range rec.Ring.Versions {
		switch v := &rec.Ring.Versions[i]; {
		case v.Strength != "":
			return fmt.Sprintf("its version %d was imported", v.N), nil
		case !v.Revealed.IsZero():
			return fmt.Sprintf("its version %d was handed out at %s", v.N, stamp(v.Revealed)), nil
		}
	}
	use, err := b.usageOf(ctx, s, rec)
	if err != nil {
		return "", err
	}
	for _, u := range use.Versions {
		if last := u.LastUse(); !last.IsZero() {
			return "its keys were used, last at " + stamp(last), nil
		}
	}
	ids, err := list(ctx, s, issuedPrefix+rec.ID+"/")
	if err != nil || len(ids) == 0 {
		return "", err
	}
	return fmt.Sprintf("%d of its keys are out", len(ids)), nil
}

// makeWay deletes the role that has the name. It can be restored.
func (r *restorer) makeWay(holder *roleRecord) error {
	by := r.by
	by.reason = "made way for the role with role_id " + r.id
	if r.by.reason != "" {
		by.reason = shorten(by.reason+": "+r.by.reason, maxReason)
	}
	if _, err := r.b.endLocked(r.ctx, r.s, holder, by, r.config, r.lim); err != nil {
		return err
	}
	// It is to be restorable: its record must not stand where the other one comes.
	_, err := r.b.liveAt(r.ctx, r.s, holder.Name)
	return err
}

// announce writes where the role is about to live, and marks its record so. from is
// what it was called, where that was otherwise.
func (r *restorer) announce(tx *roleTx, there *roleRecord, from string) error {
	mark, err := newUUID(r.b.rand)
	if err != nil {
		return err
	}
	if err := r.b.noteRename(r.ctx, r.s); err != nil {
		return err
	}
	if there != nil && there.ID == r.id {
		// Left by a write that landed late, it might count once moved/ names its place.
		if err := r.b.commitDeletion(r.ctx, r.s, there, nil); err != nil {
			return err
		}
	}
	next := move{Mark: mark}
	if before := tx.rec.Moved; before != nil {
		next.From, next.At = before.From, before.At
	}
	if from != "" {
		next.From, next.At = from, tx.now
	}
	tx.rec.Moved = &next
	moved := &movedRecord{Schema: recordSchema, RoleID: r.id, Name: tx.rec.Name, Mark: mark, At: tx.now}
	if err := r.b.commitMove(r.ctx, r.s, moved); err != nil {
		return err
	}
	if from == "" || r.copied.Due.IsZero() {
		return nil
	}
	// An older build does not know moved/: it would purge the role by this entry.
	return deleteRecord(r.ctx, r.s, duePath(r.copied.Due, deletedMark+r.id))
}

// retireCopy leaves a stub of the copy of a role that lives, so that a repeated
// request finds it. Of a renamed role moved/ tells, and nothing is left. Where that
// fails the copy is ignored, and overwritten by the next deletion.
func (r *restorer) retireCopy(name string) {
	if r.copied == nil || r.copied.stub() || r.b.roles.unsure.has(rolePath(name)) {
		return // where the deletion may still land, the copy is what is left then
	}
	if err := r.leaveStub(name); err != nil {
		r.b.Logger().Warn("the copy of a restored role is removed later", "role", name, "error", err)
	}
}

func (r *restorer) leaveStub(name string) error {
	if r.copied.Name != name {
		return r.b.removeCopy(r.ctx, r.s, name, r.id)
	}
	stub := &roleRecord{
		Schema: recordSchema, Name: name, ID: r.id, Type: r.copied.Type, Created: r.copied.Created,
		Committed: r.copied.Committed, Deleted: r.copied.Deleted, PurgeAt: r.copied.PurgeAt, Due: r.copied.Due,
	}
	data, err := stub.encode()
	if err != nil {
		return err
	}
	return r.b.commitCopy(r.ctx, r.s, r.copied, stub, data, nil)
}
