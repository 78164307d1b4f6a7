// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Due lists the records whose counts are to go to storage: those with a use that
// is urgent, those whose oldest use has waited for that long, or oldest read for
// readPatience times as long, and all of them where memory fills up. Those that have
// waited longest come first.
func (c *Counter) Due(now time.Time, wait time.Duration) []string {
	type waiting struct {
		name  string
		since time.Time
	}
	crowded := c.held.Load() > c.limit/2 || c.labels.Load() > c.limit*maxLabelsPerEntry/2
	readers := c.held.Load() > c.limit/readShare/2
	var due []waiting
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for name, g := range sh.open {
			g.mu.Lock()
			long := wait
			switch {
			case g.used:
			case readers:
				long = 0 // they make room for others
			default:
				long *= readPatience
			}
			// A use that lies ahead was counted by a clock that was wrong.
			if age := now.Sub(g.since); crowded || g.urgent || age >= long || age < 0 {
				due = append(due, waiting{name, g.since})
			}
			g.mu.Unlock()
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(due, func(a, b waiting) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.name, b.name))
	})
	names := make([]string, len(due))
	for i := range due {
		names[i] = due[i].name
	}
	return names
}

// Batch is what was counted for one record and taken to be stored. It ends with
// Stored or Failed.
type Batch struct {
	c     *Counter
	name  string
	group *group
}

// Take takes what was counted for the record; nil if there is nothing, or if a
// batch of it is under way.
func (c *Counter) Take(name string) *Batch {
	sh := c.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	g := sh.open[name]
	if g == nil || sh.out[name] != nil {
		return nil
	}
	delete(sh.open, name)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken = true
	if g.rec.entries() == 0 {
		return nil // its first use is about to be counted, elsewhere now
	}
	sh.out[name] = g
	return &Batch{c: c, name: name, group: g}
}

// AddTo adds what the batch holds to the record.
func (b *Batch) AddTo(rec *Record) { rec.Add(&b.group.rec) }

// Stored ends a batch that is in storage.
func (b *Batch) Stored() {
	sh := b.c.shard(b.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.out, b.name)
	b.c.weigh(&b.group.rec, -1)
}

// Failed puts the batch back into memory: it is due as it was. Whether a write
// that failed happened after all is not asked; if so, its counts count twice.
func (b *Batch) Failed() {
	sh := b.c.shard(b.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.out, b.name)
	old, newer := b.group, sh.open[b.name]
	if newer == nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		old.taken = false
		sh.open[b.name] = old
		return
	}
	newer.mu.Lock()
	defer newer.mu.Unlock()
	b.c.weigh(&old.rec, -1)
	b.c.weigh(&newer.rec, -1)
	role := newer.rec.Role
	newer.rec.Add(&old.rec)
	newer.rec.Role = role
	newer.since, newer.urgent, newer.used = old.since, newer.urgent || old.urgent, newer.used || old.used
	b.c.weigh(&newer.rec, 1)
}

// AddTo adds to the record of that name, as it was read from storage, what is
// counted and not stored. No batch of it may be under way.
func (c *Counter) AddTo(rec *Record, name string) {
	sh := c.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if g := sh.open[name]; g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		rec.Add(&g.rec)
	}
}

// Names lists the records of the role for which something is counted or under
// way.
func (c *Counter) Names(roleID string) []string {
	var names []string
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, groups := range []map[string]*group{sh.open, sh.out} {
			for name := range groups {
				if strings.HasPrefix(name, roleID+"/") {
					names = append(names, name)
				}
			}
		}
		sh.mu.Unlock()
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Forget drops what is counted for the record. A batch under way ends as it will.
func (c *Counter) Forget(name string) {
	if b := c.Take(name); b != nil {
		b.Stored()
	}
}
