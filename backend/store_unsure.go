// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// A write that returned an error may land, also many seconds later. Until that is
// settled a record is unsure: whoever asks for it reads storage, and no cache keeps
// what that says. It is settled by a read under the record's lock that finds what
// was to be written, or that comes so late that nothing lands any more.
//
// Where a later write came through meanwhile, the earlier one may land over it. Then what
// counts is the later one, which is remembered for as long, and is written again by the
// next one under the lock.

const (
	// lateFor is how long after its error a write may still land: well above what a
	// commit may take, and what servers keep a call waiting.
	lateFor = 5 * time.Minute
	// maxUnsure bounds how many records of a kind are told apart. Beyond, all of the
	// kind are unsure until lateFor has passed.
	maxUnsure = 4096
)

// lateWrite is what may still land on a record.
type lateWrite struct {
	wrote  [sha256.Size]byte // digest of what was to be written; zero: it was to be deleted
	roleID string
	// more: other writes have failed, or one has succeeded, since the first: which
	// one is the last to land cannot be told.
	more  bool
	until time.Time
	// What failed since the last write that succeeded, and what failed before that:
	// where the latter is found it has landed over after, which was written, nil if
	// that was a deletion.
	failed, stale [][sha256.Size]byte
	outrun        bool
	after         []byte
}

// unsureSet holds the records of one kind that are unsure, by path. The zero value
// is ready.
type unsureSet struct {
	mu    sync.Mutex
	paths map[string]*lateWrite
	all   time.Time // until when every record is
	kept  int       // bytes, of after
}

// maxKept bounds what is kept of writes that earlier ones may still undo, and
// maxFailed how many of those are told apart.
const (
	maxKept   = 16 << 20
	maxFailed = 16
)

// add notes a write that returned an error at now.
func (u *unsureSet) add(path, roleID string, wrote []byte, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	until, sum := now.Add(lateFor), sumOf(wrote)
	if w := u.paths[path]; w != nil {
		w.more, w.until = w.more || w.wrote != sum, later(w.until, until)
		if len(w.failed) < maxFailed {
			w.failed = append(w.failed, sum)
		}
		return
	}
	if len(u.paths) >= maxUnsure {
		u.all = later(u.all, until)
		return
	}
	if u.paths == nil {
		u.paths = map[string]*lateWrite{}
	}
	u.paths[path] = &lateWrite{wrote: sum, roleID: roleID, until: until, failed: [][sha256.Size]byte{sum}}
}

// overwritten notes that a write came through although an earlier one may still land.
func (u *unsureSet) overwritten(path string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.paths[path]; w != nil {
		w.more = true
	}
}

// outrun is overwritten, and remembers what was written, nil if that was a deletion.
func (u *unsureSet) outrun(path string, wrote []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.paths[path]
	if w == nil {
		return
	}
	w.more = true
	u.kept += len(wrote) - len(w.after)
	if w.outrun, w.after = u.kept <= maxKept, wrote; !w.outrun {
		u.kept -= len(wrote)
		w.after = nil
	}
	if w.stale = append(w.stale, w.failed...); len(w.stale) > maxFailed {
		w.stale = w.stale[len(w.stale)-maxFailed:]
	}
	w.failed = nil
}

// undone reports whether what was found, nil if nothing, is an earlier write that failed
// and has landed over a later one that did not, and what that one wrote.
func (u *unsureSet) undone(path string, found any) (after []byte, yes bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.paths[path]
	if w == nil || !w.outrun {
		return nil, false
	}
	sum, err := sumOfRecord(found)
	return w.after, err == nil && sum != sumOf(w.after) && slices.Contains(w.stale, sum)
}

// counting is what counts where found is stored, nil if nothing is: what a commit wrote,
// where an earlier write has landed over that and does not end more. Then undone is true,
// and after what is to be stored; nil: nothing.
func counting[T any](u *unsureSet, path string, found *T, closer func(wrote, found *T) bool) (rec *T, after []byte, undone bool, err error) {
	if after, undone = u.undone(path, anyOf(found)); !undone {
		return found, nil, false, nil
	}
	var wrote *T
	if after != nil {
		if wrote, err = decoded[T](path, after); err != nil {
			return nil, nil, false, err
		}
	}
	if closer != nil && closer(wrote, found) {
		return found, nil, false, nil
	}
	return wrote, after, true, nil
}

// anyOf is nil where there is no record.
func anyOf[T any](rec *T) any {
	if rec == nil {
		return nil
	}
	return rec
}

// has reports whether the record is unsure.
func (u *unsureSet) has(path string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.paths[path] != nil || !u.all.IsZero()
}

// settle is told of a read under the record's lock that found rec, nil if nothing.
// was reports whether the record was unsure, and of which role then.
func (u *unsureSet) settle(path string, rec any, now time.Time) (roleID string, was bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was = !u.all.IsZero()
	if was && over(now, u.all) {
		u.all = time.Time{}
	}
	w := u.paths[path]
	if w == nil {
		return "", was
	}
	if over(now, w.until) || !w.more && w.landed(rec) {
		u.kept -= len(w.after)
		delete(u.paths, path)
	}
	return w.roleID, true
}

// over reports whether until has passed; one that is further ahead than any was
// made by a clock that was wrong.
func over(now, until time.Time) bool {
	left := until.Sub(now)
	return left <= 0 || left > lateFor+maxClockLead
}

// landed reports whether what was found is what was written.
func (w *lateWrite) landed(found any) bool {
	sum, err := sumOfRecord(found)
	return err == nil && w.wrote == sum
}

// sumOfRecord is sumOf for a record as it was read; nil if there is none.
func sumOfRecord(found any) ([sha256.Size]byte, error) {
	if found == nil {
		return sumOf(nil), nil
	}
	data, err := json.Marshal(found)
	return sumOf(data), err
}

func sumOf(data []byte) [sha256.Size]byte {
	if data == nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(data)
}

// due are records that may be settled by a look at now, at most most of them.
func (u *unsureSet) due(now time.Time, most int) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.all.IsZero() && over(now, u.all) {
		u.all = time.Time{}
	}
	var paths []string
	for path, w := range u.paths {
		if len(paths) < most && over(now, w.until) {
			paths = append(paths, path)
		}
	}
	return paths
}
