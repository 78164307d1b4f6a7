// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// problems removes from the index the roles that are gone, and those that have
// not failed for longer than any retry waits: another node saw them heal.
func (r *tidyRun) problems(ctx context.Context) (bool, error) {
	return r.stream(ctx, problemPrefix, func(ctx context.Context, name string) error {
		unlock := r.b.lockRole(name)
		defer unlock()
		id, deleted := strings.CutPrefix(name, deletedMark)
		role, err := r.b.storedRole(ctx, r.s, name)
		if deleted {
			role, err = getRecord[roleRecord](ctx, r.s, deletedPath(id))
		}
		if err != nil {
			return err
		}
		p, err := getRecord[problem](ctx, r.s, problemPath(name))
		if err != nil || p == nil {
			return err
		}
		_, known := r.b.problems.get(name)
		if role != nil && (known || p.lately(r.now)) {
			return nil
		}
		r.b.problems.clear(name)
		return r.remove(ctx, problemPath(name), &r.rec.Counts.Problems)
	})
}

// attention removes from the index what needs nobody's attention any more.
func (r *tidyRun) attention(ctx context.Context) (bool, error) {
	return r.stream(ctx, attentionPrefix, func(ctx context.Context, name string) error {
		unlock := r.b.lockRole(name)
		defer unlock()
		role, err := r.b.storedRole(ctx, r.s, name)
		if err != nil {
			return err
		}
		if role != nil {
			look, err := r.b.lookOf(role, r.tick.lim)
			// attended: commits rely on the entry as long as the record says so.
			if err != nil || attended(role) || r.b.notable(look) {
				return err
			}
		}
		return r.remove(ctx, attentionPath(name), &r.rec.Counts.Problems)
	})
}

// notable reports whether the role belongs into the index of problems, for a reason
// that may have come without a commit.
func (b *backend) notable(r *roleNow) bool {
	return wantsAttention(r.rec, r.now) || b.overdue(r) != nil || b.clockProblem(r.rec.Committed) != ""
}

// deletedRoles purges what the calendar has missed, removes copies of roles that
// live, and files again what the calendar lacks.
func (r *tidyRun) deletedRoles(ctx context.Context) (bool, error) {
	return r.stream(ctx, deletedPrefix, func(ctx context.Context, id string) error {
		seen, err := getRecord[roleRecord](ctx, r.s, deletedPath(id))
		if err != nil || seen == nil {
			return err
		}
		r.sawRole(seen)
		if r.b.clockProblem(seen.Deleted) != "" {
			return r.rebase(ctx, seen)
		}
		if !r.old(seen.Deleted) {
			return nil
		}
		name := deletedMark + id
		live, err := r.b.storedOf(ctx, r.s, seen.Name, id)
		if err != nil {
			return err
		}
		if live != nil || r.old(seen.PurgeAt) {
			// It takes the lock and reads both again.
			if err := r.b.purgeDeleted(ctx, r.tick, dueEntry{minute: seen.Due, name: name}, id); err != nil {
				return err
			}
			left, err := getRecord[roleRecord](ctx, r.s, deletedPath(id))
			if err == nil && left == nil {
				r.rec.Counts.DeletedRoles++
			}
			return err
		}
		_, unlock, err := r.b.lockOf(ctx, r.s, seen.Name, id)
		if err != nil {
			return err
		}
		defer unlock()
		copied, err := r.b.lockedCopy(ctx, r.s, id)
		if err != nil || copied == nil {
			return err
		}
		return r.refile(ctx, name, copied.Due, copied.PurgeAt)
	})
}

// rebase has the time of a deleted role begin now: a clock that was wrong deleted it,
// and what is left of it would stay for as long as that was ahead.
func (r *tidyRun) rebase(ctx context.Context, seen *roleRecord) error {
	_, unlock, err := r.b.lockOf(ctx, r.s, seen.Name, seen.ID)
	if err != nil {
		return err
	}
	defer unlock()
	copied, err := r.b.lockedCopy(ctx, r.s, seen.ID)
	if err != nil || copied == nil || r.b.clockProblem(copied.Deleted) == "" {
		return err
	}
	next := *copied
	next.Deleted = r.now
	next.PurgeAt = r.now.Add(copied.PurgeAt.Sub(copied.Deleted))
	next.Due = r.b.fileAt(next.PurgeAt)
	data, err := next.encode()
	if err != nil {
		return err
	}
	if err := r.b.commitCopy(ctx, r.s, copied, &next, data, nil); err != nil {
		return err
	}
	return r.fileOnce(ctx, duePath(next.Due, deletedMark+next.ID))
}

// refile writes the entry of a role where the calendar lacks it: at due, where
// the role's record says it is, or where the ticks still come by. An entry too
// many is one look too many; the look files the role properly.
func (r *tidyRun) refile(ctx context.Context, name string, due, look time.Time) error {
	if filed, err := r.filed(ctx, name, due); filed || err != nil {
		return err
	}
	if due.IsZero() || look.Before(due) {
		due = look
	}
	return r.fileOnce(ctx, duePath(r.b.fileAt(due), name))
}

// fileOnce writes an entry of the calendar or of an index that is not there.
func (r *tidyRun) fileOnce(ctx context.Context, path string) error {
	entry, err := r.s.Get(ctx, path)
	if err != nil || entry != nil {
		return err
	}
	if err := putBytes(ctx, r.s, path, dueValue); err != nil {
		return err
	}
	r.rec.Counts.Refiled++
	return nil
}

// filed reports whether there is an entry at that minute and a tick will come by.
func (r *tidyRun) filed(ctx context.Context, name string, due time.Time) (bool, error) {
	if due.IsZero() || due.Before(r.b.walked()) {
		return false, nil
	}
	entry, err := r.s.Get(ctx, duePath(due, name))
	return entry != nil, err
}

// strays removes entries of the calendar from minutes that no tick looks at any
// more. Where one is what its role relies on, it is filed anew.
func (r *tidyRun) strays(ctx context.Context) (bool, error) {
	end := r.b.walked()
	if end.IsZero() {
		return true, nil
	}
	end = end.Add(-tidyAge)
	var days []string
	for day := end.Add(-strayReach).Truncate(24 * time.Hour); day.Before(end); day = day.Add(24 * time.Hour) {
		days = append(days, day.Format(dayFormat))
	}
	return r.walk(ctx, days, func(ctx context.Context, name string) (bool, error) {
		day, err := time.Parse(dayFormat, name)
		if err != nil {
			return true, err
		}
		last := day.Add(24*time.Hour - time.Minute)
		if last.After(end) {
			last = end
		}
		for e, err := range dueEntries(ctx, r.s, day, last) {
			if err != nil {
				return true, err
			}
			if r.over(ctx) {
				return false, nil // what is done of the day is gone from it
			}
			if err := r.stray(ctx, e); err != nil {
				return true, err
			}
		}
		return true, nil
	})
}

func (r *tidyRun) stray(ctx context.Context, e dueEntry) error {
	read := func() (*roleRecord, error) { return r.b.storedRole(ctx, r.s, e.name) }
	unlock := func() {}
	if id, deleted := strings.CutPrefix(e.name, deletedMark); deleted {
		read = func() (*roleRecord, error) { return getRecord[roleRecord](ctx, r.s, deletedPath(id)) }
		seen, err := read()
		if err != nil {
			return err
		}
		if seen != nil {
			if _, unlock, err = r.b.lockOf(ctx, r.s, seen.Name, id); err != nil {
				return err
			}
		}
	} else {
		unlock = r.b.lockRole(e.name)
	}
	defer unlock()
	rec, err := read()
	if err != nil {
		return err
	}
	if rec != nil && rec.Due.Equal(e.minute) {
		if err := r.fileOnce(ctx, duePath(r.b.fileAt(e.minute), e.name)); err != nil {
			return err
		}
	}
	return r.remove(ctx, duePath(e.minute, e.name), &r.rec.Counts.Entries)
}

// roles checks that the calendar and the index of problems have every role that
// they have to.
func (r *tidyRun) roles(ctx context.Context) (bool, error) {
	done, err := r.stream(ctx, rolePrefix, func(ctx context.Context, name string) error {
		rec, err := getRecord[shownRole](ctx, r.s, rolePath(name))
		if err != nil || rec == nil {
			return err
		}
		ghost, err := r.left(ctx, &rec.roleRecord)
		switch {
		case err != nil || ghost:
			return err
		case rec.marked():
			return r.unmoved(ctx, name)
		default:
			return r.role(ctx, &rec.roleRecord)
		}
	})
	if err != nil || !done {
		return false, err
	}
	return true, r.endPrefixes(ctx)
}

func (r *tidyRun) role(ctx context.Context, rec *roleRecord) error {
	r.sawRole(rec)
	if wrong, err := r.misfiled(ctx, rec); err != nil || !wrong {
		return err
	}
	unlock := r.b.lockRole(rec.Name)
	defer unlock()
	rec, err := r.b.storedRole(ctx, r.s, rec.Name)
	if err != nil || rec == nil {
		return err
	}
	return r.fileRole(ctx, rec)
}

// unmoved moves the record of a role that was deleted, if that is what stands at the
// name.
func (r *tidyRun) unmoved(ctx context.Context, name string) error {
	unlock := r.b.lockRole(name)
	defer unlock()
	rec, err := r.b.moveUnmoved(ctx, r.s, name)
	if err == nil && rec != nil {
		r.sawRole(rec)
	}
	return err
}

// left reports whether the record is no role: a write that landed late left it, and
// the role lives under another name, or is gone. Once it is old it is removed.
func (r *tidyRun) left(ctx context.Context, seen *roleRecord) (bool, error) {
	ok, err := r.b.standing(ctx, r.s, seen)
	if err != nil || ok {
		return false, err
	}
	unlock := r.b.lockRole(seen.Name)
	defer unlock()
	shown, err := getRecord[shownRole](ctx, r.s, rolePath(seen.Name))
	if err != nil || shown == nil || !r.old(shown.Committed) {
		return true, err
	}
	// Under the lock no restoration to this name is half done.
	rec := &shown.roleRecord
	if ok, err := r.b.standing(ctx, r.s, rec); err != nil || ok {
		return true, err
	}
	if err := r.b.commitDeletion(ctx, r.s, rec, nil); err != nil {
		return true, err
	}
	r.rec.Counts.DeletedRoles++
	return true, nil
}

// moves removes what is known of the names of roles that are gone.
func (r *tidyRun) moves(ctx context.Context) (bool, error) {
	return r.stream(ctx, movedPrefix, func(ctx context.Context, id string) error {
		seen, err := getRecord[movedRecord](ctx, r.s, movedPath(id))
		if err != nil || seen == nil || r.rec.Started.Sub(seen.At) <= tidyAge {
			return err // what late writes left at earlier names this pass may have passed over
		}
		home, unlock, err := r.b.lockOf(ctx, r.s, seen.Name, id)
		if err != nil {
			return err
		}
		defer unlock()
		role, err := r.b.shownOf(ctx, r.s, home, id)
		if err != nil || role != nil {
			return err
		}
		copied, err := r.s.Get(ctx, deletedPath(id))
		if err != nil {
			return fmt.Errorf("reading %s: %w", family(deletedPrefix), err)
		}
		if copied != nil {
			return nil // it goes with the copy
		}
		if err := r.b.forgetMove(ctx, r.s, home, id); err != nil {
			return err
		}
		r.rec.Counts.DeletedRoles++
		return nil
	})
}

// misfiled reports whether the calendar or the index of problems may lack the role.
func (r *tidyRun) misfiled(ctx context.Context, rec *roleRecord) (bool, error) {
	role, err := r.b.lookOf(rec, r.tick.lim)
	if err != nil {
		return false, err
	}
	if r.b.notable(role) {
		return true, nil
	}
	look := role.nextLook()
	if look.IsZero() {
		return false, nil
	}
	if r.b.fileAt(look).Before(rec.Due) {
		return true, nil
	}
	filed, err := r.filed(ctx, rec.Name, rec.Due)
	return !filed, err
}

// fileRole puts the role where it is missing. The caller holds its lock.
func (r *tidyRun) fileRole(ctx context.Context, rec *roleRecord) error {
	role, err := r.b.lookOf(rec, r.tick.lim)
	if err != nil {
		return err
	}
	if r.b.notable(role) {
		if err := r.fileOnce(ctx, attentionPath(rec.Name)); err != nil {
			return err
		}
	}
	look := role.nextLook()
	if look.IsZero() {
		return nil
	}
	// A role that waits because the mount is paused or because it fails has its
	// entry elsewhere than its record says.
	if r.tick.config.RotationPaused && role.stageDue() {
		return nil
	}
	p, err := r.b.problemOf(ctx, r.s, rec.Name)
	if err != nil || (p != nil && p.lately(r.now)) {
		return err
	}
	due := rec.Due
	if r.b.fileAt(look).Before(due) {
		due = time.Time{}
	}
	return r.refile(ctx, rec.Name, due, look)
}
