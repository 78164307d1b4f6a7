// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"time"
)

// What this node has not committed itself it reads from storage: once, after it began to
// be the one that writes, and again where memory was too small. It goes by name, the
// newest first: what is news still is.

// outboxWalk is how far that has come.
type outboxWalk struct {
	begun  bool
	days   []string // still to be read, the next one last
	day    string   // the one that is being read
	left   []string // its minutes, the next one last
	done   bool
	ended  time.Time
	behind bool // memory was too small
}

// walkAgain is how long after a walk that had to leave something out another one begins
// in any case: what is too old goes.
const walkAgain = 24 * time.Hour

// swept reports whether all of the outbox was read since the last endpoint was deleted.
func (b *backend) swept() bool {
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.walk.done && !o.walk.behind
}

// walkOutbox reads some more of the outbox.
func (b *backend) walkOutbox(ctx, begin context.Context, w *tending) error {
	o, now := &b.outbox, b.clock.Now()
	foreign := b.outboxForeign.Swap(false)
	o.mu.Lock()
	if foreign {
		o.forget()
	}
	k := o.walk
	if k.done && k.behind && (len(o.heads) <= o.atMost()/2 || now.Sub(k.ended) >= walkAgain || o.recovered()) {
		k = outboxWalk{}
	}
	o.walk = k
	o.mu.Unlock()
	if k.done {
		return nil
	}
	if !k.begun {
		days, err := list(ctx, w.s, outboxPrefix)
		if err != nil {
			return err
		}
		slices.Sort(days)
		k.begun, k.days = true, days
	}
	for begin.Err() == nil {
		if len(k.left) > 0 {
			minute := k.left[len(k.left)-1]
			more, err := b.readOutbox(ctx, begin, w, outboxPrefix+k.day+minute)
			if err != nil {
				o.keepWalk(k)
				return err
			}
			if more {
				break // out of time: once more
			}
			k.left = k.left[:len(k.left)-1]
			continue
		}
		if len(k.days) == 0 {
			k.done, k.ended = true, now
			break
		}
		k.day = k.days[len(k.days)-1]
		minutes, err := list(ctx, w.s, outboxPrefix+k.day)
		if err != nil {
			o.keepWalk(k)
			return err
		}
		k.days = k.days[:len(k.days)-1]
		slices.Sort(minutes)
		k.left = minutes
	}
	if !k.done {
		b.wake.quietly(now)
	}
	o.keepWalk(k)
	return nil
}

// forget drops what another node may have dealt with meanwhile, but for what is on its
// way, and has storage read anew. The caller holds mu.
func (o *outbox) forget() {
	o.walk = outboxWalk{}
	flying := map[*head]bool{}
	for _, p := range o.posts {
		for id, q := range p.queues {
			if q.flying {
				for _, d := range q.events {
					flying[d.head] = true
				}
				continue
			}
			p.waiting -= len(q.events)
			for _, d := range q.events {
				delete(p.failed, d)
			}
			q.events = nil
			delete(p.queues, id)
		}
	}
	for id, h := range o.heads {
		if !flying[h] && h.proof == proven {
			delete(o.heads, id)
		}
	}
}

// keepWalk notes how far it has come, unless it is to begin anew.
func (o *outbox) keepWalk(k outboxWalk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k.behind = k.behind || o.walk.behind
	o.walk = k
}

// recovered reports whether an endpoint works again whose entries had to be left out. It
// forgets that. The caller holds mu.
func (o *outbox) recovered() bool {
	found := false
	for _, p := range o.posts {
		if p.behind && p.state.Since.IsZero() && p.waiting <= o.atMost()/10 {
			p.behind, found = false, true
		}
	}
	return found
}

// readOutbox takes in the entries of one minute; more where time was over before.
func (b *backend) readOutbox(ctx, begin context.Context, w *tending, prefix string) (more bool, err error) {
	shards, err := list(ctx, w.s, prefix)
	if err != nil {
		return false, err
	}
	o, now := &b.outbox, b.clock.Now()
	for _, shard := range shards {
		if !strings.HasSuffix(shard, "/") {
			continue
		}
		ids, err := list(ctx, w.s, prefix+shard)
		if err != nil {
			return false, err
		}
		for _, id := range ids {
			if timeOver(begin) {
				return true, nil
			}
			o.mu.Lock()
			known := o.heads[id] != nil
			full := len(o.heads) >= o.atMost() && !o.makeRoom()
			if full {
				o.walk.behind = true
			}
			o.mu.Unlock()
			if known {
				continue
			}
			path := prefix + shard + id
			rec, err := getRecord[outboxRecord](ctx, w.s, path)
			if err != nil {
				return false, err
			}
			if rec == nil || full && now.Sub(rec.At) < outboxKept {
				continue
			}
			if rec.Commit != id {
				continue // not of this engine
			}
			p, err := b.prove(ctx, w.s, rec)
			if err != nil {
				return false, err
			}
			o.mu.Lock()
			o.add(path, rec, p)
			o.mu.Unlock()
		}
	}
	return false, nil
}
