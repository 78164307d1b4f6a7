// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// What a record keeps at most.
const (
	maxUsageVersions = 40
	maxUsageKeys     = 5000
	endedUseKept     = 14 * 24 * time.Hour
)

// usageRecord is the counts of a role's versions, or of some of its keys.
type usageRecord struct {
	Schema int `json:"schema"`
	// Role is the name of the role, by which tidy finds out that it is gone.
	Role string `json:"role,omitempty"`
	// Flush marks the last write, so that one whose outcome was unknown is not
	// counted twice.
	Flush    string                  `json:"flush"`
	Versions map[int]*usageStored    `json:"versions,omitempty"`
	Keys     map[string]*usageStored `json:"keys,omitempty"`
	Ended    map[int64]int64         `json:"ended,omitempty"` // uses of ended keys by hour (Unix)
}

func (r *usageRecord) schema() int { return r.Schema }

// usageStored is what this server saw, and apart from it what was reported.
type usageStored struct {
	Seen     *usageTally `json:"s,omitempty"`
	Reported *usageTally `json:"p,omitempty"`
}

// usageTally is counts as stored. Times are Unix seconds.
type usageTally struct {
	Accepted int64                  `json:"a,omitempty"`
	Refused  map[string]int64       `json:"r,omitempty"` // by code
	First    int64                  `json:"f,omitempty"`
	Last     int64                  `json:"l,omitempty"`
	Used     int64                  `json:"u,omitempty"` // last accepted use
	Clients  map[string]*usageTally `json:"c,omitempty"`
}

func (t *usageTally) add(c *counts) {
	t.Accepted += c.accepted
	for code, n := range c.refused {
		if n > 0 {
			if t.Refused == nil {
				t.Refused = map[string]int64{}
			}
			t.Refused[codeNames[code]] += n
		}
	}
	if c.last > 0 {
		if t.First == 0 || c.first < t.First {
			t.First = c.first
		}
		t.Last = max(t.Last, c.last)
	}
	t.Used = max(t.Used, c.used)
}

// with adds what was counted; the receiver may be nil.
func (t *usageTally) with(c *tallied) *usageTally {
	if c.last == 0 {
		return t
	}
	if t == nil {
		t = &usageTally{}
	}
	t.add(&c.counts)
	for _, label := range sortedKeys(c.clients) {
		to := label
		if _, known := t.Clients[label]; !known && len(t.Clients) >= maxClients {
			to = otherClient
		}
		if t.Clients == nil {
			t.Clients = map[string]*usageTally{}
		}
		if t.Clients[to] == nil {
			t.Clients[to] = &usageTally{}
		}
		t.Clients[to].add(c.clients[label])
	}
	return t
}

// merge adds a group to the record.
func (r *usageRecord) merge(g *usageGroup) {
	if g.role != "" {
		r.Role = g.role
	}
	for id, e := range g.entries {
		var stored *usageStored
		if id.keyID != "" {
			stored = slot(&r.Keys, id.keyID)
		} else {
			stored = slot(&r.Versions, id.version)
		}
		stored.Seen, stored.Reported = stored.Seen.with(&e.seen), stored.Reported.with(&e.reported)
	}
	for hour, n := range g.ended {
		if r.Ended == nil {
			r.Ended = map[int64]int64{}
		}
		r.Ended[hour] += n
	}
}

func slot[K comparable](m *map[K]*usageStored, k K) *usageStored {
	if *m == nil {
		*m = map[K]*usageStored{}
	}
	if (*m)[k] == nil {
		(*m)[k] = &usageStored{}
	}
	return (*m)[k]
}

func (s *usageStored) last() int64 {
	var last int64
	for _, t := range []*usageTally{s.Seen, s.Reported} {
		if t != nil {
			last = max(last, t.Last)
		}
	}
	return last
}

// trim keeps the record small: the newest versions, the keys used last, the
// last days.
func (r *usageRecord) trim(now time.Time) {
	if n := len(r.Versions) - maxUsageVersions; n > 0 {
		for _, v := range slices.Sorted(maps.Keys(r.Versions))[:n] {
			delete(r.Versions, v)
		}
	}
	if n := len(r.Keys) - maxUsageKeys; n > 0 {
		ids := slices.SortedFunc(maps.Keys(r.Keys), func(a, b string) int {
			return cmp.Or(cmp.Compare(r.Keys[a].last(), r.Keys[b].last()), strings.Compare(a, b))
		})
		for _, id := range ids[:n] {
			delete(r.Keys, id)
		}
	}
	oldest := now.Add(-endedUseKept).Unix()
	maps.DeleteFunc(r.Ended, func(hour, _ int64) bool { return hour < oldest })
}
