// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A role that was deleted may come back under another name. Its role_id stays, and
// the records of its keys, its leases and its counts go on naming it as it was
// called when they were written: moved/<role_id> says what it is called now.
// Whoever comes from one of them to the role goes through roleOf, storedOf or
// lockOf.
//
// moved/ decides between records of one role, of which a write that lands late may
// leave more than one: the role is the record that moved/ names. One that was
// written by a restoration carries that restoration's mark and counts only while
// moved/ holds the same mark; one without a mark counts while moved/ names its
// place, or nothing.
//
// In a mount that never saw a rename nobody asks moved/: the record of tidy says
// whether there was one. There it also keeps older builds' tidy, which would take a
// renamed role's keys for left behind, from removing anything.

// movedRecord is where the role with that id lives, or is about to.
type movedRecord struct {
	Schema int    `json:"schema"`
	RoleID string `json:"role_id"`
	Name   string `json:"name"`
	// Mark is the restoration's, by which its commit is told from others.
	Mark string    `json:"mark"`
	At   time.Time `json:"at"`
}

func (r *movedRecord) schema() int { return r.Schema }

// nowhere is what moved/ calls a role that is gone for good: no role is called so.
const nowhere = deletedMark

func (r *movedRecord) gone() bool { return r.Name == nowhere }

// renameSchema is the layout of the record of tidy once roles were renamed, and the
// newest that this build reads. Older builds refuse it before they remove anything.
const renameSchema = 2

// renameState is what the record of tidy says of renames.
type renameState struct{ some bool }

// readRenames reads whether the mount saw a rename. A record that cannot be read
// may say so.
func readRenames(ctx context.Context, s logical.Storage) (*renameState, error) {
	entry, err := s.Get(ctx, tidyPath)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", family(tidyPath), err)
	case entry == nil:
		return &renameState{}, nil
	}
	head := tidyHead{Schema: renameSchema}
	_ = json.Unmarshal(entry.Value, &head) // see above
	return &renameState{some: head.Schema >= renameSchema}, nil
}

// renamesKnown reports whether a role of the mount may have been renamed. Where that
// cannot be found out moved/ is asked.
func (b *backend) renamesKnown(ctx context.Context, s logical.Storage) bool {
	st, err := b.renames.get(ctx, s)
	return err != nil || st.some
}

// noteRename makes the record of tidy say that roles were renamed. It comes before
// the first record under moved/.
func (b *backend) noteRename(ctx context.Context, s logical.Storage) error {
	b.tidyWrites.Lock()
	defer b.tidyWrites.Unlock()
	entry, err := s.Get(ctx, tidyPath)
	if err != nil {
		return fmt.Errorf("reading %s: %w", family(tidyPath), err)
	}
	rec := map[string]json.RawMessage{}
	if entry != nil {
		var head tidyHead
		if err := json.Unmarshal(entry.Value, &head); err != nil {
			return fmt.Errorf("decoding %s: %w", family(tidyPath), err)
		}
		if head.Schema >= renameSchema {
			return nil
		}
		// What the pass under way has noted stays, whatever it is.
		if err := json.Unmarshal(entry.Value, &rec); err != nil {
			return fmt.Errorf("decoding %s: %w", family(tidyPath), err)
		}
	}
	rec["schema"] = json.RawMessage(strconv.Itoa(renameSchema))
	defer b.renames.forget()
	return putRecord(ctx, s, tidyPath, rec)
}

// tidyHead is what every layout of the record of tidy begins with.
type tidyHead struct {
	Schema int `json:"schema"`
}

// storeTidy writes how far tidy has come, which made makes in the layout that the
// mount needs.
func (b *backend) storeTidy(ctx context.Context, s logical.Storage, made func(schema int) any) error {
	b.tidyWrites.Lock()
	defer b.tidyWrites.Unlock()
	st, err := b.renames.fill(ctx, s) // another instance may have renamed one
	if err != nil {
		return err
	}
	schema := recordSchema
	if st.some {
		schema = renameSchema
	}
	return putRecord(ctx, s, tidyPath, made(schema))
}

// storedMove is where the role with that id lives, from storage; nil where its keys
// know.
func (b *backend) storedMove(ctx context.Context, s logical.Storage, id string) (*movedRecord, error) {
	if !b.renamesKnown(ctx, s) {
		return nil, nil
	}
	return getRecord[movedRecord](ctx, s, movedPath(id))
}

// stands reports whether the record is the role with its id, as far as moved/ says.
func (r *roleRecord) stands(moved *movedRecord) bool {
	switch {
	case moved == nil:
		return r.Moved == nil
	case moved.Name != r.Name:
		return false
	default:
		// An older build drops the mark.
		return r.Moved == nil || r.Moved.Mark == moved.Mark
	}
}

// standing reports whether the record, which storage has at its name, is a role. It
// is what the cache of roles takes records by.
func (b *backend) standing(ctx context.Context, s logical.Storage, rec *roleRecord) (bool, error) {
	if rec.Moved == nil && !b.renamesKnown(ctx, s) {
		return true, nil
	}
	moved, err := getRecord[movedRecord](ctx, s, movedPath(rec.ID))
	if err != nil {
		return false, err
	}
	return rec.stands(moved), nil
}

// storedRole is the role with that name, from storage; nil if there is none.
func (b *backend) storedRole(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := b.roles.stored(ctx, s, rolePath(name))
	if err != nil || rec == nil {
		return nil, err
	}
	ok, err := b.standing(ctx, s, rec)
	if err != nil || !ok {
		return nil, err
	}
	return rec, nil
}

// heldRole is storedRole for a transition, under the role's lock. Where moved/
// cannot be read a record without a mark counts: a kill does not wait for it.
func (b *backend) heldRole(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := b.heldShown(ctx, s, name)
	if err != nil || rec == nil || rec.marked() {
		return nil, err
	}
	return rec, nil
}

// heldShown is heldRole also where the role was deleted and its record stands at its
// name still.
func (b *backend) heldShown(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	rec, err := b.lockedShown(ctx, s, name)
	if err != nil || rec == nil {
		return nil, err
	}
	ok, err := b.standing(ctx, s, rec)
	switch {
	case err != nil && (rec.Moved != nil || mustForward(err)):
		return nil, err
	case err == nil && !ok:
		return nil, nil
	}
	return rec, nil
}

// roleOf is the role that a key belongs to, whose record or lease calls it by that
// name: the one with that id, whatever it is called now; nil if there is none. It is
// to be asked only once the key's secret has matched.
func (b *backend) roleOf(ctx context.Context, s logical.Storage, name, id string, clock time.Time) (*roleRecord, error) {
	return b.roleAt(ctx, s, rolePath(name), name, id, clock)
}

// roleAt is roleOf; path is where the record was seen last.
func (b *backend) roleAt(ctx context.Context, s logical.Storage, path, name, id string, clock time.Time) (*roleRecord, error) {
	rec, err := b.roles.getOrAbsent(ctx, s, path, clock)
	if err != nil || rec != nil && rec.ID == id {
		return rec, err
	}
	moved, err := b.move(ctx, s, id, clock)
	if err != nil {
		return nil, err
	}
	if moved != nil {
		name = moved.Name
	}
	if now := rolePath(name); now != path {
		rec, err = b.roles.getOrAbsent(ctx, s, now, clock)
	}
	if err != nil || rec == nil || rec.ID != id {
		return nil, err
	}
	return rec, nil
}

// move is where the role with that id lives; nil where its keys know.
func (b *backend) move(ctx context.Context, s logical.Storage, id string, clock time.Time) (*movedRecord, error) {
	if !b.renamesKnown(ctx, s) {
		return nil, nil
	}
	return b.moves.getOrAbsent(ctx, s, movedPath(id), clock)
}

// storedOf is roleOf from storage.
func (b *backend) storedOf(ctx context.Context, s logical.Storage, name, id string) (*roleRecord, error) {
	rec, err := b.shownOf(ctx, s, name, id)
	if err != nil || rec == nil || rec.marked() {
		return nil, err
	}
	return rec, nil
}

// shownOf is storedOf also where the role was deleted and its record stands at its name
// still.
func (b *backend) shownOf(ctx context.Context, s logical.Storage, name, id string) (*roleRecord, error) {
	moved, err := b.storedMove(ctx, s, id)
	if err != nil {
		return nil, err
	}
	if moved != nil {
		name = moved.Name
	}
	rec, err := getRecord[shownRole](ctx, s, rolePath(name))
	if err != nil || rec == nil || rec.ID != id || !rec.stands(moved) {
		return nil, err
	}
	return &rec.roleRecord, nil
}

// homeOf is the name under whose lock the role with that id is: what moved/ calls
// it, or else the name that is known.
func (b *backend) homeOf(ctx context.Context, s logical.Storage, name, id string) (string, error) {
	moved, err := b.storedMove(ctx, s, id)
	if err != nil || moved == nil {
		return name, err
	}
	return moved.Name, nil
}

// homeTries is how often somebody may rename the role just then.
const homeTries = 8

var errMoving = errors.New("the role is being renamed again and again")

// lockOf locks the role with that id, which was called by that name once, and
// returns what it is called now. Whoever renames it holds that lock, too.
func (b *backend) lockOf(ctx context.Context, s logical.Storage, name, id string) (home string, unlock func(), err error) {
	for range homeTries {
		if home, err = b.homeOf(ctx, s, name, id); err != nil {
			return "", nil, err
		}
		unlock = b.lockRole(home)
		again, err := b.homeOf(ctx, s, name, id)
		if err == nil && again == home {
			return home, unlock, nil
		}
		unlock()
		if err != nil {
			return "", nil, err
		}
	}
	return "", nil, errMoving
}
