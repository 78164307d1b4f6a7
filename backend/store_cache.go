// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"hash/maphash"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/vault/sdk/logical"
)

// recordCache keeps decoded records by storage path, bounded. What it holds is
// shared and never modified.
//
// A fill that began before a commit or an invalidation of the same path must
// not put the old value back after it. So every path has a generation (shared
// by paths of the same hash, which only makes a fill be discarded needlessly):
// commits and invalidations move it on, and a fill counts only if the
// generation it saw before its Get is still there.
type recordCache[T any] struct {
	entries *lru.Cache[string, *T]
	// inVain remembers, for a moment and apart from what exists, what verification
	// looked for in vain: a flood of that costs no known record its place.
	inVain *lru.Cache[string, vainLook]
	// counts reports whether a record that storage has is to be taken for one; nil:
	// all are.
	counts func(context.Context, logical.Storage, *T) (bool, error)
	// closer reports whether the second of two records ends more than the first, and the
	// first nothing that the second does not. nil: no record does.
	closer func(wrote, found *T) bool
	seed   maphash.Seed
	gens   [1024]generation
	// unsure are the records of which a write had an unknown outcome: nothing is
	// kept of them.
	unsure       unsureSet
	hits, misses atomic.Int64
}

// vainLook is a look that led to a refusal: there was no record, or the record
// was another key's. Both are remembered alike, so that how much storage is asked
// does not tell which ids exist.
type vainLook struct {
	until  time.Time
	absent bool
}

func (l vainLook) counts(now time.Time) bool {
	left := l.until.Sub(now)
	return left > 0 && left <= absentFor
}

// generation orders fills, commits and invalidations of the paths that share
// it.
type generation struct {
	mu sync.Mutex
	n  uint64
}

func (g *generation) load() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// What is remembered of what does not exist: for how long, and how much.
const (
	absentFor = 5 * time.Second
	maxAbsent = 10000
)

func newRecordCache[T any](size int) *recordCache[T] {
	entries, err := lru.New[string, *T](max(size, 1))
	if err != nil {
		panic(err) // only for a size below one
	}
	inVain, err := lru.New[string, vainLook](maxAbsent)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &recordCache[T]{entries: entries, inVain: inVain, seed: maphash.MakeSeed()}
}

func (c *recordCache[T]) gen(path string) *generation {
	return &c.gens[maphash.String(c.seed, path)%uint64(len(c.gens))]
}

// peek returns what is cached, without filling.
func (c *recordCache[T]) peek(path string) (*T, bool) { return c.entries.Get(path) }

// get returns the record, from storage where it is not cached; nil if there is
// none. Absence is not cached here.
func (c *recordCache[T]) get(ctx context.Context, s logical.Storage, path string) (*T, error) {
	if rec, ok := c.entries.Get(path); ok {
		c.hits.Add(1)
		return rec, nil
	}
	c.misses.Add(1)
	gen := c.gen(path)
	seen := gen.load()
	rec, err := c.stored(ctx, s, path)
	if err != nil || rec == nil {
		return nil, err
	}
	if c.counts != nil {
		if ok, err := c.counts(ctx, s, rec); err != nil || !ok {
			return nil, err
		}
	}
	gen.mu.Lock()
	defer gen.mu.Unlock()
	if gen.n == seen && !c.unsure.has(path) {
		c.entries.Add(path, rec)
	}
	return rec, nil
}

// stored is the record as storage has it, or as this node wrote it where an earlier write
// landed over that.
func (c *recordCache[T]) stored(ctx context.Context, s logical.Storage, path string) (*T, error) {
	found, err := getRecord[T](ctx, s, path)
	if err != nil {
		return nil, err
	}
	rec, _, _, err := counting(&c.unsure, path, found, c.closer)
	return rec, err
}

// getOrAbsent is get for verification, which is asked for what does not exist
// as often as somebody likes: for a moment the cache answers for that too.
func (c *recordCache[T]) getOrAbsent(ctx context.Context, s logical.Storage, path string, now time.Time) (*T, error) {
	rec, _, err := c.find(ctx, s, path, now)
	return rec, err
}

// find is getOrAbsent; asked reports whether storage was.
func (c *recordCache[T]) find(ctx context.Context, s logical.Storage, path string, now time.Time) (rec *T, asked bool, err error) {
	if rec, ok := c.entries.Get(path); ok {
		c.hits.Add(1)
		return rec, false, nil
	}
	if look, ok := c.inVain.Get(path); ok && look.absent && look.counts(now) {
		c.hits.Add(1)
		return nil, false, nil
	}
	gen := c.gen(path)
	seen := gen.load()
	rec, err = c.get(ctx, s, path)
	if err != nil || rec != nil {
		return rec, true, err
	}
	gen.mu.Lock()
	defer gen.mu.Unlock()
	if gen.n == seen && !c.unsure.has(path) {
		c.inVain.Add(path, vainLook{until: now.Add(absentFor), absent: true})
	}
	return nil, true, nil
}

// refused notes that the record found was of no use to who asked. Where neither
// this look nor one a moment ago asked storage it is asked now, as it would be for
// a record that does not exist.
func (c *recordCache[T]) refused(ctx context.Context, s logical.Storage, path string, now time.Time, asked bool) error {
	if look, ok := c.inVain.Get(path); ok && look.counts(now) {
		return nil
	}
	if !asked {
		if _, err := s.Get(ctx, path); err != nil {
			return fmt.Errorf("reading %s: %w", family(path), err)
		}
	}
	gen := c.gen(path)
	gen.mu.Lock()
	defer gen.mu.Unlock()
	c.inVain.Add(path, vainLook{until: now.Add(absentFor)})
	return nil
}

// committed replaces the entry by what was just written; a nil record drops it: it
// was removed, or changed elsewhere. It is called under the lock of the record,
// after the write.
func (c *recordCache[T]) committed(path string, rec *T) {
	gen := c.gen(path)
	gen.mu.Lock()
	defer gen.mu.Unlock()
	c.replace(gen, path, rec)
}

// doubted drops the entry: a write had an unknown outcome. wrote is what it was to
// leave, nil if nothing.
func (c *recordCache[T]) doubted(path, roleID string, wrote []byte, now time.Time) {
	gen := c.gen(path)
	gen.mu.Lock()
	defer gen.mu.Unlock()
	c.unsure.add(path, roleID, wrote, now)
	c.replace(gen, path, nil)
}

// reread is told what a read under the lock of the record found, nil if nothing. An
// entry that says something else is dropped, so that what landed late is in no cache
// for longer than until the next one who takes the lock. What was found is not put in:
// whether it counts only the reader of the cache says. was reports whether an outcome
// was unknown until then, and of which role.
func (c *recordCache[T]) reread(path string, found *T, now time.Time) (roleID string, was bool) {
	gen := c.gen(path)
	gen.mu.Lock()
	defer gen.mu.Unlock()
	roleID, was = c.unsure.settle(path, anyOf(found), now)
	have, known := c.entries.Peek(path)
	if !known || !reflect.DeepEqual(have, found) {
		have = nil
	}
	c.replace(gen, path, have)
	return roleID, was
}

// replace makes rec the entry, or drops it. The caller holds gen.
func (c *recordCache[T]) replace(gen *generation, path string, rec *T) {
	gen.n++
	c.inVain.Remove(path)
	if rec == nil || c.unsure.has(path) {
		c.entries.Remove(path)
		return
	}
	c.entries.Add(path, rec)
}

// drop forgets the entry: it changed elsewhere.
func (c *recordCache[T]) drop(path string) { c.committed(path, nil) }

// compared takes out what is not as storage was found to be: nil is absent.
func (c *recordCache[T]) compared(path string, found *T) {
	have, known := c.entries.Peek(path)
	look, looked := c.inVain.Peek(path)
	if known && !reflect.DeepEqual(have, found) || looked && look.absent && found != nil {
		c.drop(path)
	}
}

// purge forgets everything.
func (c *recordCache[T]) purge() {
	for i := range c.gens {
		g := &c.gens[i]
		g.mu.Lock()
		g.n++
		g.mu.Unlock()
	}
	c.entries.Purge()
	c.inVain.Purge()
}

// looks is how often a record was asked for, and was here or not.
func (c *recordCache[T]) looks() (hits, misses int64) { return c.hits.Load(), c.misses.Load() }

func (c *recordCache[T]) resize(size int) { c.entries.Resize(max(size, 1)) }
