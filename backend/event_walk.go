// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
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
	after  string   // in the next minute: what was read last
	done   bool
	ended  time.Time
	behind bool // memory was too small
}

// walkAgain is how long after a walk that had to leave something out another one begins
// in any case: what is too old goes.
const walkAgain = 24 * time.Hour

// swept reports whether all of the outbox was read since the last endpoint was deleted,
// and what it had of that one is gone: without endpoints nobody would look again.
func (b *backend) swept() bool {
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.walk.done || o.walk.behind {
		return false
	}
	for _, p := range o.posts {
		if p.endpoint == nil {
			return false // deleted, and found in an entry since
		}
	}
	for h := range o.marks {
		if !h.left() {
			return false
		}
	}
	return true
}

// sweepStates deletes the states of endpoints that are not there any more.
func (b *backend) sweepStates(ctx context.Context, w *tending, rec *endpointsRecord) error {
	ids, err := list(ctx, w.s, endpointsPrefix)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if slices.ContainsFunc(rec.Endpoints, func(e *endpointRecord) bool { return e.ID == id }) {
			continue
		}
		if err := deleteRecord(ctx, w.s, endpointPath(id)); err != nil {
			return err
		}
	}
	return nil
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
			more, err := b.readOutbox(ctx, begin, w, outboxPrefix+k.day+minute, &k.after)
			if err != nil {
				o.keepWalk(k)
				return err
			}
			if more {
				break // out of time: the next step goes on
			}
			k.left, k.after = k.left[:len(k.left)-1], ""
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
	o.compact()
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
		if p.behind && p.state.Since.IsZero() && p.waiting <= o.share()/2 {
			p.behind, found = false, true
		}
	}
	return found
}

// readOutbox takes in the entries of one minute that come after that one; more where time
// was over before.
func (b *backend) readOutbox(ctx, begin context.Context, w *tending, prefix string, after *string) (more bool, err error) {
	shards, err := list(ctx, w.s, prefix)
	if err != nil {
		return false, err
	}
	slices.Sort(shards)
	for _, shard := range shards {
		if !strings.HasSuffix(shard, "/") || *after != "" && shard < *after && !strings.HasPrefix(*after, shard) {
			continue
		}
		ids, err := list(ctx, w.s, prefix+shard)
		if err != nil {
			return false, err
		}
		slices.Sort(ids)
		for _, id := range ids {
			if shard+id <= *after {
				continue
			}
			if timeOver(begin) {
				return true, nil
			}
			if err := b.takeIn(ctx, w, prefix+shard, id); err != nil {
				return false, err
			}
			*after = shard + id
		}
	}
	return false, nil
}

// takeIn reads one entry, unless it is known. One that cannot be understood holds up
// nothing: it stays where it is.
func (b *backend) takeIn(ctx context.Context, w *tending, prefix, id string) error {
	o := &b.outbox
	o.mu.Lock()
	known := o.heads[id] != nil
	o.mu.Unlock()
	if known {
		return nil
	}
	rec, err := getRecord[outboxRecord](ctx, w.s, prefix+id)
	switch {
	case errors.Is(err, errSchema):
		return nil // a newer build's
	case errors.Is(err, errDecoding):
		b.Logger().Error("an entry of the outbox cannot be read and is left out", "error", err)
		return nil
	case err != nil:
		return err
	case rec == nil || rec.Commit != id: // told meanwhile, or not of this engine
		return nil
	}
	old := b.clock.Now().Sub(rec.At) >= outboxKept
	o.mu.Lock()
	room := o.roomFor(rec)
	if !room && !old {
		o.leaveOut(rec)
	}
	o.mu.Unlock()
	if !room && !old {
		return nil
	}
	p, err := b.prove(ctx, w.s, rec)
	if err != nil {
		if mustForward(err) {
			return err
		}
		p = unproven // it is looked at again
	}
	if !room {
		return b.giveUp(ctx, w, prefix+id, rec, p)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.add(prefix+id, rec, p)
	return nil
}

// giveUp deletes an entry that is too old and has no room in memory.
func (b *backend) giveUp(ctx context.Context, w *tending, path string, rec *outboxRecord, p proof) error {
	if err := w.fence(); err != nil {
		return err
	}
	if err := deleteRecord(ctx, w.s, path); err != nil || p != proven {
		return err
	}
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range rec.Facts {
		for _, id := range rec.Facts[i].To {
			if e := o.posts[id]; e != nil && e.endpoint != nil {
				e.dropped("expired", 1)
			}
		}
	}
	return nil
}
