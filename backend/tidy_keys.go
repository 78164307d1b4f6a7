// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// keyShards are the folders of key/, in the order of their names. They are gone
// through by name: a server's List of key/ itself would read every key.
var keyShards = func() []string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	shards := make([]string, 0, len(digits)*len(digits))
	for i := range digits {
		for j := range digits {
			shards = append(shards, digits[i:i+1]+digits[j:j+1])
		}
	}
	return shards
}()

// shardDone comes after every key id of a shard.
const shardDone = "~"

// keys removes the records of keys that never came to be, that are long dead, or
// whose role is gone, with the plaintexts and index entries that hang on them. It
// keeps those that say how a key ended as long as history is kept.
func (r *tidyRun) keys(ctx context.Context) (bool, error) {
	if r.rec.After == "" {
		if err := r.beginForeign(ctx); err != nil {
			return false, err
		}
	}
	for _, shard := range keyShards {
		if r.rec.After >= shard+shardDone {
			continue
		}
		if r.over(ctx) {
			return false, nil
		}
		ids, err := list(ctx, r.s, keyPrefix+shard+"/")
		if err != nil {
			return false, err
		}
		if done, err := r.walk(ctx, ids, r.counted(r.key)); err != nil || !done {
			return false, err
		}
		r.rec.After = shard + shardDone
	}
	return true, r.endForeign(ctx)
}

// keyFate is what a pass does with the record of a key.
type keyFate uint8

const (
	keyStays keyFate = iota
	keyRests         // a tombstone whose role is gone: it stays, and nobody is told of it
	keyGoes
	keyToMark // it stays, and is to say that it was revoked with its generation
)

func (r *tidyRun) key(ctx context.Context, id string) error {
	seen, err := getRecord[keyRecord](ctx, r.s, keyPath(id))
	if err != nil || seen == nil {
		return err
	}
	switch fate, role, err := r.fateOf(ctx, seen); {
	case err != nil || fate == keyRests:
		return err
	case fate == keyStays:
		r.sawKey(seen, role)
		return nil
	}
	_, unlock, err := r.b.lockOf(ctx, r.s, seen.Role, seen.RoleID)
	if err != nil {
		return err
	}
	defer unlock()
	unlockKey := r.b.lockKey(id)
	defer unlockKey()
	rec, err := r.b.lockedKey(ctx, r.s, id)
	if err != nil || rec == nil || rec.Role != seen.Role || rec.RoleID != seen.RoleID {
		return err
	}
	fate, role, err := r.fateOf(ctx, rec)
	if err != nil {
		return err
	}
	switch fate {
	case keyGoes:
		return r.removeKey(ctx, rec, role)
	case keyToMark:
		if err := r.b.commitKey(ctx, r.s, rec, killedWith(rec, role, r.now), nil); err != nil {
			return err
		}
		return deleteRecord(ctx, r.s, issuedPath(rec.RoleID, rec.ID))
	case keyStays:
		r.sawKey(rec, role)
	case keyRests:
	}
	return nil
}

// fateOf judges a key by its role's record, which it returns if it is the one that
// the key belongs to.
func (r *tidyRun) fateOf(ctx context.Context, rec *keyRecord) (keyFate, *roleRecord, error) {
	role, err := r.b.shownOf(ctx, r.s, rec.Role, rec.RoleID)
	if err != nil {
		return keyStays, nil, err
	}
	if role != nil && role.marked() {
		return keyStays, nil, nil // it can be restored
	}
	born := rec.Created
	if rec.Dynamic {
		born = rec.Issued
	}
	if role == nil {
		if !r.old(born) {
			return keyStays, nil, nil
		}
		// A role that can be restored comes back with its keys.
		copied, err := r.s.Get(ctx, deletedPath(rec.RoleID))
		if err != nil {
			return keyStays, nil, fmt.Errorf("reading %s: %w", family(deletedPrefix), err)
		}
		switch {
		case copied != nil:
			return keyStays, nil, nil
		case tombstone(rec) && !r.longAgo(tombstoneOf(rec), archiveKept):
			return keyRests, nil, nil
		}
		return keyGoes, nil, nil
	}
	goes := false
	switch {
	case rec.Dynamic && killedWith(rec, role, r.now) != nil:
		// Its generation will be forgotten before the key may be.
		return keyToMark, role, nil
	case rec.Dynamic && tombstone(rec):
		goes = r.longAgo(keyEndedAt(rec, role, r.now), archiveKept)
	case rec.Dynamic:
		goes = r.longAgo(keyEndedAt(rec, role, r.now), deadKept)
	case role.Ring.ByKeyID(rec.ID) != nil:
	case rec.End != nil:
		goes = r.longAgo(rec.End.At, archiveKept)
	default:
		// No commit points at it: one that does writes it less than an hour before.
		goes = r.old(born)
	}
	if goes {
		return keyGoes, role, nil
	}
	return keyStays, role, nil
}

// tombstoneOf is when the key of a tombstone ended.
func tombstoneOf(rec *keyRecord) time.Time {
	if rec.End != nil {
		return rec.End.At
	}
	return later(rec.RevokedAt, rec.Reported)
}

func (r *tidyRun) longAgo(at time.Time, kept time.Duration) bool {
	return !at.IsZero() && r.now.Sub(at) > kept
}

// keyEndedAt is when a dynamic key ended; zero if it has not.
func keyEndedAt(rec *keyRecord, role *roleRecord, now time.Time) time.Time {
	st := keyStatus(rec, role, now)
	switch {
	case !st.State.Ended():
		return time.Time{}
	case st.Until.IsZero():
		return rec.Expires // its generation is forgotten, so it is over for long
	default:
		return st.Until
	}
}

// removeKey removes what hangs on the key, and then its record, without which
// nothing would lead to the rest. The caller holds the locks of role and key;
// role is nil if it is gone.
func (r *tidyRun) removeKey(ctx context.Context, rec *keyRecord, role *roleRecord) error {
	if rec.Dynamic {
		if err := deleteRecord(ctx, r.s, issuedPath(rec.RoleID, rec.ID)); err != nil {
			return err
		}
	} else if !keepsPlaintext(role, rec.Version) {
		path := secretPath(rec.RoleID, rec.Version)
		entry, err := r.s.Get(ctx, path)
		if err != nil {
			return fmt.Errorf("reading %s: %w", family(path), err)
		}
		if entry != nil {
			if err := r.b.erasePlaintext(ctx, r.s, rec.Role, rec.RoleID, rec.Version); err != nil {
				return err
			}
			r.rec.Counts.Secrets++
		}
	}
	if err := r.b.removeKey(ctx, r.s, rec); err != nil {
		return err
	}
	r.rec.Counts.Keys++
	return nil
}

// archives removes pages of the archive that are too old, of whatever role.
func (r *tidyRun) archives(ctx context.Context) (bool, error) {
	return r.stream(ctx, archivePrefix, func(ctx context.Context, roleID string) error {
		pages, err := archivePages(ctx, r.s, roleID)
		if err != nil {
			return err
		}
		for _, n := range pages {
			page, err := getRecord[archivePage](ctx, r.s, archivePath(roleID, n))
			if err != nil {
				return err
			}
			if page == nil || r.now.Sub(page.Written) <= archiveKept {
				return nil // so are those after it
			}
			if err := r.archivedPage(ctx, page.Role, roleID, n); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *tidyRun) archivedPage(ctx context.Context, role, roleID string, n int) error {
	_, unlock, err := r.b.lockOf(ctx, r.s, role, roleID)
	if err != nil {
		return err
	}
	defer unlock()
	// A page that a failed commit left is written again by the next.
	page, err := getRecord[archivePage](ctx, r.s, archivePath(roleID, n))
	if err != nil || page == nil || r.now.Sub(page.Written) <= archiveKept {
		return err
	}
	return r.remove(ctx, archivePath(roleID, n), &r.rec.Counts.ArchivePages)
}

// usage removes the counts of roles that are gone.
func (r *tidyRun) usage(ctx context.Context) (bool, error) {
	return r.stream(ctx, usagePrefix, func(ctx context.Context, roleID string) error {
		prefix := usagePrefix + roleID + "/"
		names, err := list(ctx, r.s, prefix)
		if err != nil || len(names) == 0 {
			return err
		}
		rec, err := getRecord[usageRecord](ctx, r.s, prefix+names[0])
		if err != nil || rec == nil || rec.Role == "" {
			return err
		}
		home, unlock, err := r.b.lockOf(ctx, r.s, rec.Role, roleID)
		if err != nil {
			return err
		}
		defer unlock()
		role, err := r.b.shownOf(ctx, r.s, home, roleID)
		if err != nil || role != nil {
			return err
		}
		copied, err := r.s.Get(ctx, deletedPath(roleID))
		if err != nil || copied != nil {
			return err
		}
		if err := r.b.dropUsage(ctx, r.s, roleID); err != nil {
			return err
		}
		r.rec.Counts.Usage += int64(len(names))
		return nil
	})
}

// reporters removes what the previous build stored of those who report usage.
func (r *tidyRun) reporters(ctx context.Context) (bool, error) {
	return r.walk(ctx, []string{reportersPath}, func(ctx context.Context, path string) (bool, error) {
		rec, err := getRecord[reportersRecord](ctx, r.s, path)
		if err != nil || rec == nil {
			return true, err
		}
		return true, deleteRecord(ctx, r.s, path)
	})
}

// reports removes reports that wait for an operator although their key is gone.
func (r *tidyRun) reports(ctx context.Context) (bool, error) {
	return r.stream(ctx, deferredPrefix, func(ctx context.Context, id string) error {
		if !keyformat.ValidID(id) {
			return nil
		}
		waiting, err := getRecord[deferredLeak](ctx, r.s, deferredPath(id))
		if err != nil || waiting == nil {
			return err
		}
		home, unlock, err := r.b.lockOf(ctx, r.s, waiting.Role, waiting.RoleID)
		if err != nil {
			return err
		}
		defer unlock()
		key, err := getRecord[keyRecord](ctx, r.s, keyPath(id))
		if err != nil {
			return err
		}
		if key != nil {
			role, _, err := r.b.keeperOf(ctx, r.s, home, key)
			if err != nil || role != nil {
				return err
			}
			// A tombstone, to which nothing more can happen.
		}
		return r.remove(ctx, deferredPath(id), &r.rec.Counts.Problems)
	})
}
