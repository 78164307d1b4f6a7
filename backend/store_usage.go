// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// unsureFlushes are groups whose write returned an error: whether it happened is
// seen when the record is read the next time.
type unsureFlushes struct {
	mu     sync.Mutex
	byPath map[string]unsureFlush
}

type unsureFlush struct {
	mark  string
	group *usageGroup
}

func (u *unsureFlushes) get(path string) (unsureFlush, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, ok := u.byPath[path]
	return f, ok
}

func (u *unsureFlushes) set(path string, f *unsureFlush) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f == nil {
		delete(u.byPath, path)
		return
	}
	if u.byPath == nil {
		u.byPath = map[string]unsureFlush{}
	}
	u.byPath[path] = *f
}

func (u *unsureFlushes) paths() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return sortedKeys(u.byPath)
}

// dueGroups lists the paths to flush, those whose oldest use waits longest
// first.
func (u *usage) dueGroups(now time.Time, all bool) []string {
	type waiting struct {
		path  string
		since time.Time
	}
	crowded := u.entries.Load() > maxUsageEntries/2
	var due []waiting
	for _, path := range u.unsure.paths() {
		due = append(due, waiting{path: path})
	}
	for i := range u.shards {
		sh := &u.shards[i]
		sh.mu.Lock()
		for path, g := range sh.groups {
			g.mu.Lock()
			age := now.Sub(g.since)
			if all || crowded || g.urgent || age >= usageInterval || age < 0 {
				due = append(due, waiting{path, g.since})
			}
			g.mu.Unlock()
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(due, func(a, b waiting) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.path, b.path))
	})
	paths := make([]string, len(due))
	for i := range due {
		paths[i] = due[i].path
	}
	return slices.Compact(paths)
}

// flushRest brings what is left to storage before the engine is unloaded.
func (b *backend) flushRest(ctx context.Context) {
	s := b.usage.storage.Load()
	if s == nil || !b.writeSafe() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastFlush)
	defer cancel()
	for _, path := range b.usage.dueGroups(b.now(), true) {
		if err := b.flushGroup(ctx, *s, path); err != nil {
			if mustForward(err) {
				return // nor could it have counted
			}
			b.Logger().Warn("uses counted since the last flush are lost", "error", err)
			return
		}
	}
}

// flushGroup adds what was counted to the record at the path. What reporters
// were told is stored before what they reported: a crash between the two loses
// counts and never counts them twice.
func (b *backend) flushGroup(ctx context.Context, s logical.Storage, path string) error {
	lock := locksutil.LockForKey(b.usage.storeLocks, path)
	lock.Lock()
	defer lock.Unlock()
	rec, err := getRecord[usageRecord](ctx, s, path)
	if err != nil {
		return err
	}
	if rec == nil {
		rec = &usageRecord{}
	}
	unsure, isUnsure := b.usage.unsure.get(path)
	if isUnsure && rec.Flush == unsure.mark {
		b.usage.flushed(unsure.group)
		isUnsure = false
	}
	mark := make([]byte, 12)
	if _, err := io.ReadFull(b.rand, mark); err != nil {
		return fmt.Errorf("reading randomness: %w", err)
	}
	g, edit := b.usage.takeReported(path)
	if g == nil {
		g = &usageGroup{path: path, taken: true, entries: map[usageID]*usageEntry{}}
	}
	if isUnsure {
		g.absorb(unsure.group)
	}
	if len(g.entries) == 0 && len(g.ended) == 0 {
		return nil
	}
	rec.Schema, rec.Flush = recordSchema, hex.EncodeToString(mark)
	rec.merge(g)
	rec.trim(b.now())
	// Until the write has succeeded readers find the counts here.
	b.usage.unsure.set(path, &unsureFlush{mark: rec.Flush, group: g})
	if g.reported {
		if err := b.storeReporters(ctx, s, edit); err != nil {
			return err
		}
	}
	if err := putRecord(ctx, s, path, rec); err != nil {
		return err
	}
	b.usage.flushed(g)
	return nil
}

// flushed lets go of a group that storage holds, or that nobody wants any more.
func (u *usage) flushed(g *usageGroup) {
	u.unsure.set(g.path, nil)
	u.entries.Add(-g.held)
}

// usageAt is what is stored at the path and counted since.
func (b *backend) usageAt(ctx context.Context, s logical.Storage, path string) (*usageRecord, error) {
	lock := locksutil.LockForKey(b.usage.storeLocks, path)
	lock.RLock()
	defer lock.RUnlock()
	rec, err := getRecord[usageRecord](ctx, s, path)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		rec = &usageRecord{}
	}
	if f, ok := b.usage.unsure.get(path); ok && f.mark != rec.Flush {
		rec.merge(f.group)
	}
	sh := b.usage.shard(path)
	sh.mu.Lock()
	g := sh.groups[path]
	sh.mu.Unlock()
	if g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		rec.merge(g) // taken meanwhile it can not be: that needs the lock
	}
	return rec, nil
}

// dropUsage forgets the counts of a role that is gone for good.
func (b *backend) dropUsage(ctx context.Context, s logical.Storage, roleID string) error {
	prefix := usagePrefix + roleID + "/"
	for i := range b.usage.shards {
		sh := &b.usage.shards[i]
		sh.mu.Lock()
		var mine []string
		for path := range sh.groups {
			if strings.HasPrefix(path, prefix) {
				mine = append(mine, path)
			}
		}
		sh.mu.Unlock()
		for _, path := range mine {
			if g := b.usage.take(path); g != nil {
				b.usage.flushed(g)
			}
		}
	}
	names, err := list(ctx, s, prefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if f, ok := b.usage.unsure.get(prefix + name); ok {
			b.usage.flushed(f.group)
		}
		if err := deleteRecord(ctx, s, prefix+name); err != nil {
			return err
		}
	}
	return nil
}

// usageOf is what is known of the use of the role's keys, by version.
func (b *backend) usageOf(ctx context.Context, s logical.Storage, rec *roleRecord) (*roleUsage, error) {
	stored, err := b.usageAt(ctx, s, usagePath(rec.ID, usageID{}))
	if err != nil {
		return nil, err
	}
	u := &roleUsage{Versions: make(map[int]versionUsage, len(stored.Versions)), Ended: stored.Ended}
	for n, v := range stored.Versions {
		u.Versions[n] = v.usage()
	}
	return u, nil
}

// keyUsage is what is known of the use of one key: of a version, for a static
// role.
func (b *backend) keyUsage(ctx context.Context, s logical.Storage, key *keyRecord) (versionUsage, error) {
	id := usageID{version: key.Version}
	if key.Dynamic {
		id.keyID = key.ID
	}
	stored, err := b.usageAt(ctx, s, usagePath(key.RoleID, id))
	if err != nil {
		return versionUsage{}, err
	}
	v := stored.Versions[id.version]
	if key.Dynamic {
		v = stored.Keys[id.keyID]
	}
	if v == nil {
		return versionUsage{}, nil
	}
	return v.usage(), nil
}

// lastUse is when a key of that version of the role was last accepted, as far
// as this server saw it, or was told where the mount trusts that; zero if never.
func (b *backend) lastUse(ctx context.Context, s logical.Storage, rec *roleRecord, n int) (time.Time, error) {
	u, err := b.usageOf(ctx, s, rec)
	if err != nil {
		return time.Time{}, err
	}
	cfg, err := b.config(ctx, s)
	if err != nil {
		return time.Time{}, err
	}
	last := u.Versions[n].Seen.Used
	if cfg.TrustReportedUsage {
		last = max(last, u.Versions[n].Reported.Used)
	}
	return unixTime(last), nil
}

// usagePath is the record that the version's, or the dynamic key's, counts go
// to.
func usagePath(roleID string, id usageID) string {
	if id.keyID == "" {
		return usagePrefix + roleID + "/versions"
	}
	return usagePrefix + roleID + "/keys-" + hex.EncodeToString([]byte(id.keyID[:1]))
}

const (
	// usageInterval is how often counts go to storage that nothing waits for.
	usageInterval = 15 * time.Minute
	// usageBudget is how many records one tick writes.
	usageBudget = 2000
	// lastFlush is how long the unloading of the engine waits for the rest.
	lastFlush = 2 * time.Second
)
