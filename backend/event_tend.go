// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

const (
	// strikeAfter is how long after the first endpoint was told that is written down,
	// where others are not told yet.
	strikeAfter = 30 * time.Second
	// proveEvery is how often an entry is looked at whose commit is not known to have
	// happened.
	proveEvery = 10 * time.Second
	// stateEvery is how often the state of an endpoint is stored at most.
	stateEvery = time.Minute
	// tendAtOnce is how many entries one step writes or deletes at most.
	tendAtOnce = 2000
)

// tending is what a step lends to the outbox.
type tending struct {
	s     logical.Storage
	fence func() error
	may   func() bool
	pool  func(n int, fn func(int))
}

// tends reports whether there is anything of the outbox to see to: without endpoints
// there is not.
func (b *backend) tends() bool {
	rec := b.endpoints.last()
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	return rec != nil && (len(rec.Endpoints) > 0 || rec.Sweep) || len(o.heads)+len(o.posts)+len(o.late) > 0
}

// tendOutbox is the outbox's part of a step: what came of deliveries is written down,
// what is in storage and not in memory is read, and what can be sent goes out.
func (b *backend) tendOutbox(ctx, begin context.Context, w *tending) error {
	if !b.tends() {
		return nil
	}
	rec, err := b.endpoints.get(ctx, w.s)
	if errors.Is(err, errSchema) {
		return nil // a newer build sees to it
	}
	if err != nil {
		return err
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	b.outbox.unpack()
	note(b.knowEndpoints(ctx, w, rec))
	note(b.tellLate(ctx, w))
	note(b.tellEndedUses(ctx, w))
	note(b.proveHeads(ctx, begin, w))
	note(b.walkOutbox(ctx, begin, w))
	b.dispatch() // what is written down can wait
	note(b.strike(ctx, begin, w))
	note(b.tellFailing(ctx, w))
	note(b.storeStates(ctx, w))
	if rec.Sweep && b.swept() {
		if err := w.fence(); err != nil {
			return err
		}
		if err := b.sweepStates(ctx, w, rec); err != nil {
			return err
		}
		_, err := b.endpoints.change(ctx, w.s, func(stored *endpointsRecord) (*endpointsRecord, error) {
			next := *stored
			next.Sweep = false
			return &next, nil
		})
		note(err)
	}
	for _, err := range errs {
		if mustForward(err) {
			return err
		}
	}
	return errors.Join(errs...)
}

// unpack has room looked for again: deliveries have come to something since.
func (o *outbox) unpack() {
	o.mu.Lock()
	o.packed = false
	o.mu.Unlock()
}

// knowEndpoints keeps the deliveries in step with the endpoints' configuration.
func (b *backend) knowEndpoints(ctx context.Context, w *tending, rec *endpointsRecord) error {
	o := &b.outbox
	var failed error
	for _, e := range rec.Endpoints {
		o.mu.Lock()
		p := o.post(e.ID)
		loaded := p.loaded
		o.mu.Unlock()
		if loaded {
			continue
		}
		// One that cannot be understood decides nothing: the outage, if there is one, begins anew.
		st, err := getRecord[endpointState](ctx, w.s, endpointPath(e.ID))
		if err != nil && !errors.Is(err, errSchema) && !errors.Is(err, errDecoding) {
			failed = err // the others go on
			continue
		}
		o.mu.Lock()
		if st != nil && !p.loaded {
			p.state = st
		}
		p.loaded = true
		o.mu.Unlock()
	}
	now := b.clock.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	known := map[string]*endpointRecord{}
	for _, e := range rec.Endpoints {
		known[e.ID] = e
		o.posts[e.ID].configure(e, b.eventSource())
	}
	for id, p := range o.posts {
		if known[id] == nil {
			o.forgetPost(id, p, now)
		}
	}
	return failed
}

// configure takes over what an operator wrote of the endpoint.
func (p *post) configure(e *endpointRecord, source string) {
	if p.endpoint != nil && p.endpoint.Revised.Equal(e.Revised) {
		p.endpoint = e
		return
	}
	if !e.Disabled && e.Revised.After(p.state.Stopped) && !p.state.Stopped.IsZero() {
		p.revive() // whoever writes it wants it to be tried
	}
	joins := p.endpoint == nil || (p.endpoint.Digest > 0) != (e.Digest > 0)
	p.endpoint = e
	p.form, _ = newRendering(e, source) // it was read when it was written
	if !joins {
		return
	}
	var all []*delivery
	for _, q := range p.queues {
		if !q.flying {
			all = append(all, q.events...)
			q.events = nil
		}
	}
	for _, d := range all {
		p.enqueue(d)
	}
}

// revive has the endpoint tried again at once.
func (p *post) revive() {
	st := p.state
	st.Since, st.Lasted, st.Attempts, st.Next, st.Gone, st.Told, st.Stopped = time.Time{}, 0, 0, time.Time{}, 0, false, time.Time{}
	p.dirty = true
}

// letOut has endpoints tried at once that nothing let leave so far: the mount's config has
// changed.
func (b *backend) letOut() {
	o := &b.outbox
	o.mu.Lock()
	for _, p := range o.posts {
		if st := p.state; !st.Since.IsZero() && (st.LastError == string(egress.Forbidden) || st.LastError == string(egress.Proxy)) {
			st.Next = time.Time{}
		}
	}
	o.mu.Unlock()
	b.wakeOutbox()
}

// forgetPost strikes out an endpoint that was deleted. The caller holds mu.
func (o *outbox) forgetPost(id string, p *post, now time.Time) {
	for _, q := range p.queues {
		for _, d := range q.events {
			o.struckOut(d.head, d.fact, id, now)
		}
	}
	delete(o.posts, id)
}

// tellLate stores what the outbox could not take with a kill.
func (b *backend) tellLate(ctx context.Context, w *tending) error {
	o := &b.outbox
	o.mu.Lock()
	late := o.late
	o.late = nil
	o.mu.Unlock()
	for i, t := range late {
		err := w.fence()
		if err == nil {
			err = b.store(ctx, w.s, t)
		}
		o.mu.Lock()
		if err != nil {
			o.late = append(o.late, late[i:]...)
			o.mu.Unlock()
			return err
		}
		o.add(t.path, t.rec, proven)
		o.mu.Unlock()
	}
	return nil
}

// proveHeads looks at the entries whose commits are not known to have happened.
func (b *backend) proveHeads(ctx, begin context.Context, w *tending) error {
	o, now := &b.outbox, b.clock.Now()
	o.mu.Lock()
	if o.unsure == 0 || now.Before(o.proved.Add(proveEvery)) && !now.Before(o.proved) {
		o.mu.Unlock()
		return nil
	}
	o.proved = now
	var unsure []*head
	for _, h := range o.heads {
		if h.proof == unproven {
			unsure = append(unsure, h)
		}
	}
	o.mu.Unlock()
	var failed error
	for _, h := range unsure {
		if timeOver(begin) {
			break
		}
		p, err := b.prove(ctx, w.s, h.rec)
		if err != nil {
			if failed = err; mustForward(err) {
				break
			}
		}
		if p == unproven {
			b.wake.quietly(now.Add(proveEvery))
			continue
		}
		o.mu.Lock()
		o.settle(h, p)
		o.unsure--
		o.mu.Unlock()
	}
	return failed
}

// strike writes down who was told, and deletes what all know.
func (b *backend) strike(ctx, begin context.Context, w *tending) error {
	type act struct {
		h    *head
		rec  *outboxRecord // nil: nobody is left
		left int
	}
	o, now := &b.outbox, b.clock.Now()
	o.mu.Lock()
	if now.Sub(o.expired) >= time.Minute || now.Before(o.expired) {
		o.expired = now
		o.expire(now)
	}
	var acts []act
	later, more := false, false
	// Where memory gets short nothing waits to be written down: what is, may go.
	crowded := len(o.heads) > o.atMost()*3/4
	for h := range o.marks {
		switch {
		case o.heads[h.rec.Commit] != h:
			delete(o.marks, h) // it is not in memory any more
		case !h.left() && now.Before(h.rec.marksUntil()):
			if !h.kept {
				rec := *h.rec
				rec.Facts = nil
				acts = append(acts, act{h: h, rec: &rec})
			}
		case !h.left():
			acts = append(acts, act{h: h})
		case crowded || now.Sub(h.at) >= strikeAfter:
			rec := *h.rec
			rec.Facts = slices.DeleteFunc(slices.Clone(h.rec.Facts), func(f fact) bool { return len(f.To) == 0 })
			acts = append(acts, act{h: h, rec: &rec, left: len(rec.Facts)})
		default:
			later = true
		}
		if len(acts) >= tendAtOnce {
			more = true
			break
		}
	}
	o.mu.Unlock()
	switch {
	case more:
		b.wake.quietly(now)
	case later:
		b.wake.quietly(now.Add(strikeAfter))
	}
	if len(acts) == 0 {
		return nil
	}
	if err := w.fence(); err != nil {
		return err
	}
	var mu sync.Mutex
	var failed error
	w.pool(len(acts), func(i int) {
		a := acts[i]
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop || begin.Err() != nil || !w.may() {
			return
		}
		var err error
		if a.rec == nil {
			err = deleteRecord(ctx, w.s, a.h.path)
		} else {
			err = putRecord(ctx, w.s, a.h.path, a.rec)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case err != nil:
			mu.Lock()
			failed = err
			mu.Unlock()
		case a.rec == nil:
			if a.h.proof == unproven {
				o.unsure--
			}
			delete(o.heads, a.h.rec.Commit)
			delete(o.marks, a.h)
		case a.rec.Mark && len(a.rec.Facts) == 0:
			a.h.kept = true // until its day is over
			delete(o.marks, a.h)
		default:
			a.h.at = now
			if a.h.struck = countTo(a.h.rec.Facts) != countTo(a.rec.Facts); !a.h.struck {
				delete(o.marks, a.h)
			}
		}
	})
	if failed != nil || begin.Err() != nil {
		b.wake.quietly(now.Add(time.Second))
	}
	return failed
}

func countTo(facts []fact) int {
	n := 0
	for i := range facts {
		n += len(facts[i].To)
	}
	return n
}

// expire gives up what is too old. The caller holds mu.
func (o *outbox) expire(now time.Time) {
	old := false
	for _, h := range o.heads {
		if h.kept && !now.Before(h.rec.marksUntil()) {
			o.mark(h)
		}
		if now.Sub(h.rec.At) < outboxKept {
			continue
		}
		for i := range h.rec.Facts {
			for _, id := range h.rec.Facts[i].To {
				if p := o.posts[id]; p != nil && p.endpoint != nil {
					p.drop(h, i)
					p.dropped("expired", 1)
				}
			}
			h.rec.Facts[i].To = nil
		}
		old = true
		o.mark(h)
	}
	if old {
		o.compact()
	}
}

// tellFailing tells the other endpoints of those that fail.
func (b *backend) tellFailing(ctx context.Context, w *tending) error {
	o, now := &b.outbox, b.clock.Now()
	type failing struct {
		p *post
		f fact
	}
	var all []failing
	o.mu.Lock()
	for _, p := range o.posts {
		if !p.failing || p.endpoint == nil {
			continue
		}
		all = append(all, failing{p, fact{
			Type: tellsEndpoint, At: now, not: p.endpoint.ID,
			Data: map[string]any{
				"endpoint": p.endpoint.Name, "since": stamp(p.state.Since), "attempts": p.state.Attempts, "error": p.state.LastError, "cause": byClock,
			},
		}})
	}
	o.mu.Unlock()
	for _, f := range all {
		if err := w.fence(); err != nil {
			return err
		}
		if err := b.tellAlone(ctx, w.s, f.f); err != nil {
			return err
		}
		o.mu.Lock()
		f.p.state.Told, f.p.failing, f.p.dirty = true, false, true
		o.mu.Unlock()
		b.Logger().Warn("an endpoint of events fails", "endpoint", f.p.endpoint.Name, "class", f.f.Data["error"])
	}
	return nil
}

// storeStates stores how deliveries go, where that changed.
func (b *backend) storeStates(ctx context.Context, w *tending) error {
	o, now := &b.outbox, b.clock.Now()
	var due []*post
	var states []endpointState
	o.mu.Lock()
	for _, p := range o.posts {
		if !p.dirty || p.endpoint == nil || !p.loaded {
			continue
		}
		if at := p.stored.Add(stateEvery); at.After(now) && !p.stored.After(now) {
			b.wake.quietly(at)
			continue
		}
		st := *p.state
		st.Dropped = map[string]int64{}
		for why, n := range p.state.Dropped {
			st.Dropped[why] = n
		}
		due, states = append(due, p), append(states, st)
		p.dirty, p.stored = false, now
	}
	o.mu.Unlock()
	for i, p := range due {
		err := w.fence()
		if err == nil {
			err = putRecord(ctx, w.s, endpointPath(p.state.ID), &states[i])
		}
		if err != nil {
			o.mu.Lock()
			p.dirty = true
			o.mu.Unlock()
			return err
		}
	}
	return nil
}

// eventSource names this engine in CloudEvents.
func (b *backend) eventSource() string { return "urn:uuid:" + b.mountID }
