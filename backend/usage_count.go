// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// Verification never writes: uses are counted here, in memory, and the periodic
// function brings them to storage. What was not flushed is lost in a crash.
// Nodes that may not write count nothing.

const (
	// maxUsageEntries bounds what is counted between two flushes. Beyond it new
	// keys are not counted until the next; the server's log says so.
	maxUsageEntries = 50000
	// maxClients is how many labels a version's uses are told apart by.
	maxClients  = 64
	otherClient = "other"

	usageShards = 64
)

// counts is how often something was used. Times are Unix seconds.
type counts struct {
	accepted    int64
	refused     [codeCount]int64
	first, last int64
	used        int64 // last accepted use
}

// hit counts one use.
func (c *counts) hit(verdict code, at int64) {
	if verdict == codeValid {
		c.accepted++
		c.used = max(c.used, at)
	} else {
		c.refused[verdict]++
	}
	c.span(at, at)
}

func (c *counts) span(first, last int64) {
	if c.first == 0 || first < c.first {
		c.first = first
	}
	c.last = max(c.last, last)
}

func (c *counts) add(o *counts) {
	c.accepted += o.accepted
	for i, n := range o.refused {
		c.refused[i] += n
	}
	c.used = max(c.used, o.used)
	if o.last > 0 {
		c.span(o.first, o.last)
	}
}

// usageID names what is counted within one record: a version, or a key of a
// dynamic role.
type usageID struct {
	version int
	keyID   string
}

// usageEntry is what was counted for it since the last flush.
type usageEntry struct {
	seen, reported tallied
}

// tallied is counts, in all and by label.
type tallied struct {
	counts
	clients map[string]*counts
}

// client returns the counts of a label; nil for none.
func (t *tallied) client(label string) *counts {
	if label == "" {
		return nil
	}
	c := t.clients[label]
	if c != nil {
		return c
	}
	if len(t.clients) >= maxClients {
		label = otherClient
		if c = t.clients[label]; c != nil {
			return c
		}
	}
	if t.clients == nil {
		t.clients = map[string]*counts{}
	}
	c = &counts{}
	t.clients[label] = c
	return c
}

// usageGroup is everything not flushed yet of one record in storage. Once it
// was taken for a flush, uses go to a new one.
type usageGroup struct {
	path string
	role string // its name

	mu       sync.Mutex
	taken    bool
	entries  map[usageID]*usageEntry
	ended    map[int64]int64 // uses of ended keys, by hour
	since    time.Time       // of the oldest use in it
	urgent   bool            // a previous version was used
	reported bool            // holds reported counts
	held     int64           // how many of usage.entries are its
}

// usage is the counting of one mount in one process.
type usage struct {
	shards  [usageShards]usageShard
	entries atomic.Int64 // counted and not in storage yet
	dropped atomic.Int64
	// storeLocks order what is read and written of one record.
	storeLocks []*locksutil.LockEntry
	unsure     unsureFlushes
	reports    reporters
	storage    atomic.Pointer[logical.Storage] // for the last flush
}

type usageShard struct {
	mu     sync.Mutex
	groups map[string]*usageGroup // by path
}

func newUsage() *usage {
	u := &usage{storeLocks: locksutil.CreateLocks()}
	for i := range u.shards {
		u.shards[i].groups = map[string]*usageGroup{}
	}
	return u
}

func (u *usage) shard(path string) *usageShard {
	var h uint32 = 2166136261
	for i := range len(path) {
		h = (h ^ uint32(path[i])) * 16777619
	}
	return &u.shards[h%usageShards]
}

// group returns the open group of the path.
func (u *usage) group(path string) *usageGroup {
	sh := u.shard(path)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	g := sh.groups[path]
	if g == nil {
		g = &usageGroup{path: path, entries: map[usageID]*usageEntry{}}
		sh.groups[path] = g
	}
	return g
}

// take closes the group of the path and returns it; nil if there is none. From
// then on it belongs to the caller.
func (u *usage) take(path string) *usageGroup {
	sh := u.shard(path)
	sh.mu.Lock()
	g := sh.groups[path]
	delete(sh.groups, path)
	sh.mu.Unlock()
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken = true
	return g
}

// useHandle is where the uses of one key are counted: kept with the key's view,
// so that counting needs no search.
type useHandle struct {
	group *usageGroup
	entry *usageEntry
}

// count calls fn with the open group and entry of id, under the group's lock;
// not where too much is counted already.
func (u *usage) count(slot *atomic.Pointer[useHandle], key *keyRecord, id usageID, now time.Time, fn func(*usageGroup, *usageEntry)) {
	if slot != nil {
		if h := slot.Load(); h != nil {
			h.group.mu.Lock()
			if !h.group.taken {
				fn(h.group, h.entry)
				h.group.mu.Unlock()
				return
			}
			h.group.mu.Unlock()
		}
	}
	path := usagePath(key.RoleID, id)
	for {
		g := u.group(path)
		g.mu.Lock()
		if g.taken {
			g.mu.Unlock()
			continue
		}
		e := g.entries[id]
		if e == nil {
			if u.entries.Load() >= maxUsageEntries {
				g.mu.Unlock()
				u.dropped.Add(1)
				return
			}
			e = &usageEntry{}
			g.entries[id] = e
			g.held++
			u.entries.Add(1)
		}
		if g.since.IsZero() {
			g.since = now
		}
		g.role = key.Role
		fn(g, e)
		g.mu.Unlock()
		if slot != nil {
			slot.Store(&useHandle{group: g, entry: e})
		}
		return
	}
}

func unixTime(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// absorb adds another closed group to this one.
func (g *usageGroup) absorb(o *usageGroup) {
	g.held += o.held
	if g.role == "" {
		g.role = o.role
	}
	g.reported = g.reported || o.reported
	for id, e := range o.entries {
		mine := g.entries[id]
		if mine == nil {
			g.entries[id] = e
			continue
		}
		mine.seen.absorb(&e.seen)
		mine.reported.absorb(&e.reported)
	}
	for hour, n := range o.ended {
		if g.ended == nil {
			g.ended = map[int64]int64{}
		}
		g.ended[hour] += n
	}
}

func (t *tallied) absorb(o *tallied) {
	t.add(&o.counts)
	for _, label := range sortedKeys(o.clients) {
		t.client(label).add(o.clients[label])
	}
}
