// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxEntries bounds the versions and keys that are counted between two
	// flushes. Beyond it new ones are not counted until the next.
	MaxEntries = 50000
	// maxLabelsPerEntry bounds the labels: on average so many for an entry. Beyond
	// it new ones are OtherLabel until the next flush.
	maxLabelsPerEntry = 4
	// readShare is the part of the entries, one in so many, that reads may open: a
	// fleet of readers must leave no use uncounted, on which graces depend.
	readShare = 4
	// readPatience is how many times longer than uses reads wait for storage.
	readPatience = 4
)

const shardCount = 64

// Counter counts uses in memory. Its methods may be called concurrently.
type Counter struct {
	limit  int64
	shards [shardCount]shard
	held   atomic.Int64 // entries that are not in storage yet
	labels atomic.Int64 // of these
	missed atomic.Int64
}

// shard has a part of the records, by name.
type shard struct {
	mu   sync.Mutex
	open map[string]*group // counts go here
	out  map[string]*group // taken, with an outcome yet to come
}

// group is what was counted for one record. Once it was taken for a flush, uses
// go to a new one.
type group struct {
	mu     sync.Mutex
	taken  bool
	rec    Record
	since  time.Time // of the oldest use or read in it
	urgent bool
	used   bool // there is more in it than reads
}

// NewCounter returns a counter that has counted nothing.
func NewCounter() *Counter { return newCounter(MaxEntries) }

func newCounter(limit int64) *Counter {
	c := &Counter{limit: limit}
	for i := range c.shards {
		c.shards[i].open, c.shards[i].out = map[string]*group{}, map[string]*group{}
	}
	return c
}

// Slot remembers where the uses of one version or key are counted, so that
// counting the next needs no search. The zero value is ready for use. It belongs
// to one ID.
type Slot struct{ place atomic.Pointer[place] }

type place struct {
	group *group
	use   *Use
}

// lock returns the place with its group locked; nil if it is not there any more.
func (s *Slot) lock() (*group, *Use) {
	p := s.place.Load()
	if p == nil {
		return nil, nil
	}
	p.group.mu.Lock()
	if p.group.taken {
		p.group.mu.Unlock()
		return nil, nil
	}
	return p.group, p.use
}

// Hit is a use that this server judged.
type Hit struct {
	Refused string // the code that refused it; empty if it was accepted
	At      time.Time
	Client  string // label; empty for none
	Ended   bool   // the key had ended
	Urgent  bool   // storage is to know of it soon
}

// Saw counts a use. role is the role's name.
func (c *Counter) Saw(slot *Slot, id ID, role string, hit *Hit) {
	g, u := slot.lock()
	if g == nil {
		if g, u = c.lock(slot, id, role, hit.At, c.limit); g == nil {
			c.missed.Add(1)
			return
		}
	}
	at := hit.At.Unix()
	u.Seen.hit(hit.Refused, at)
	if hit.Client != "" {
		c.client(&u.Seen, hit.Client).hit(hit.Refused, at)
	}
	if hit.Ended {
		g.rec.addEnded(at, 1)
	}
	g.used, g.urgent = true, g.urgent || hit.Urgent
	g.mu.Unlock()
}

// Read counts that a version was handed out. Where very much is counted already
// it is left out. role is the role's name.
func (c *Counter) Read(id ID, role string, at time.Time) {
	g, u := c.lock(&Slot{}, id, role, at, c.limit/readShare)
	if g == nil {
		return
	}
	u.Reads.add(Reads{Count: 1, First: at.Unix(), Last: at.Unix()})
	g.mu.Unlock()
}

// Report is what somebody else counted for a version or a key.
type Report struct {
	Accepted    int64
	Refused     Refusals
	First, Last time.Time
	Client      string // label; empty for none
	Urgent      bool   // storage is to know of it soon
	Trusted     bool   // who reports may extend graces
}

// Told counts what was reported. role is the role's name.
func (c *Counter) Told(id ID, role string, rep *Report, now time.Time) {
	t := Tally{Accepted: rep.Accepted, Refused: rep.Refused, First: rep.First.Unix(), Last: rep.Last.Unix()}
	if t.Accepted > 0 {
		t.Used = t.Last
	}
	g, u := c.lock(&Slot{}, id, role, now, c.limit)
	if g == nil {
		c.missed.Add(1)
		return
	}
	u.Reported.add(&t)
	if rep.Trusted {
		u.Trusted = max(u.Trusted, t.Used)
	}
	if rep.Client != "" {
		c.client(&u.Reported, rep.Client).add(&t)
	}
	g.used, g.urgent = true, g.urgent || rep.Urgent
	g.mu.Unlock()
}

// client returns the tally of the label within one that is not stored yet.
func (c *Counter) client(t *Tally, label string) *Tally {
	if found := t.Clients[label]; found != nil {
		return found
	}
	if c.labels.Load() >= c.limit*maxLabelsPerEntry {
		label = OtherLabel
	}
	before := len(t.Clients)
	found := t.client(label)
	c.labels.Add(int64(len(t.Clients) - before))
	return found
}

// weigh adds to what is held, or with a sign of -1 takes from it, what the record
// has.
func (c *Counter) weigh(rec *Record, sign int64) {
	c.held.Add(sign * rec.entries())
	c.labels.Add(sign * rec.labels())
}

// Missed returns how many uses and reports were not counted since the last call,
// because there were too many entries.
func (c *Counter) Missed() int64 { return c.missed.Swap(0) }

// lock returns the open group and the entry of the id, with the group locked;
// nil where a new one is needed and limit are held already.
func (c *Counter) lock(slot *Slot, id ID, role string, now time.Time, limit int64) (*group, *Use) {
	name := id.RecordName()
	for {
		g := c.group(name, now, limit)
		if g == nil {
			return nil, nil
		}
		g.mu.Lock()
		if g.taken {
			g.mu.Unlock()
			continue
		}
		u := g.rec.find(id)
		if u == nil {
			if c.held.Load() >= limit {
				g.mu.Unlock()
				return nil, nil
			}
			u = g.rec.findOrAdd(id)
			c.held.Add(1)
		}
		g.rec.Role = role
		slot.place.Store(&place{group: g, use: u})
		return g, u
	}
}

// group returns the open group of the record; nil if there is none and limit are
// held already.
func (c *Counter) group(name string, now time.Time, limit int64) *group {
	sh := c.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	g := sh.open[name]
	if g == nil && c.held.Load() < limit {
		g = &group{since: now}
		sh.open[name] = g
	}
	return g
}

func (c *Counter) shard(name string) *shard {
	var h uint32 = 2166136261 // FNV-1a
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return &c.shards[h%shardCount]
}
