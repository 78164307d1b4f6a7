// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"slices"
	"time"
)

// maxHeads is how many entries of the outbox a node has in memory at most. What it has
// not is found by the next walk.
const maxHeads = 10_000

// head is one entry of the outbox in memory.
type head struct {
	path  string
	rec   *outboxRecord // To of its facts shrinks; whoever reads it holds outbox.mu
	proof proof
	// struck: somebody was told since the entry was written, for the first time at.
	struck bool
	at     time.Time
	kept   bool // it is written that all were told; the entry stays as a mark
}

// left reports whether somebody is still to be told.
func (h *head) left() bool {
	return slices.ContainsFunc(h.rec.Facts, func(f fact) bool { return len(f.To) > 0 })
}

// post is the deliveries to one endpoint, in memory.
type post struct {
	endpoint *endpointRecord // nil: not known, or deleted
	state    *endpointState
	loaded   bool // the stored state was looked for
	form     *rendering
	queues   map[string]*queue // of a role, by its id; of a digest, by type
	// ready are the queues with something to send, by urgency; lazily: one may be there
	// that has nothing any more. resting wait for their time.
	ready   [urgencies][]*queue
	resting []*queue
	waiting int // events
	flying  int // messages
	turn    int // counts probes
	// How many messages this node has delivered, and how many attempts have failed.
	arrived, lost int64
	// failed are events of which it is not known yet whose failure it was: theirs, or the
	// endpoint's.
	failed map[*delivery]struct{}
	pace   bucket
	// failing: the other endpoints are to be told. dirty: the state is to be stored.
	failing, dirty bool
	stored         time.Time
	// behind: the outbox may hold entries for it that are not in memory.
	behind bool
}

// queue is what one endpoint is to be told about one role, in order.
type queue struct {
	id     string
	events []*delivery
	digest bool
	flying bool
	listed [urgencies]bool
	next   time.Time // not before
}

// delivery is one event for one endpoint.
type delivery struct {
	head  *head
	fact  int // its place there
	queue *queue
	seq   int64
	kind  string
	// strikes is how often it failed while others succeeded.
	strikes int
}

func (d *delivery) event() *fact { return &d.head.rec.Facts[d.fact] }

// bucket is a pace.
type bucket struct {
	tokens float64
	at     time.Time
}

// take reports whether one more may go at now, and else when.
func (k *bucket) take(now time.Time, perSecond float64) (time.Time, bool) {
	most := max(1, perSecond)
	if k.at.IsZero() || now.Before(k.at) {
		k.tokens, k.at = most, now
	}
	k.tokens = min(most, k.tokens+now.Sub(k.at).Seconds()*perSecond)
	k.at = now
	if k.tokens >= 1-1e-9 {
		k.tokens--
		return time.Time{}, true
	}
	return now.Add(time.Duration((1 - k.tokens) / perSecond * float64(time.Second))), false
}

func (o *outbox) atMost() int { return cmp.Or(o.most, maxHeads) }

// add takes an entry in, whose commit has that proof. The caller holds mu.
func (o *outbox) add(path string, rec *outboxRecord, p proof) {
	if o.heads == nil {
		o.heads = map[string]*head{}
	}
	if h := o.heads[rec.Commit]; h != nil {
		if h.proof == unproven && p != unproven {
			o.unsure--
			o.settle(h, p)
		}
		return
	}
	if len(o.heads) >= o.atMost() && !o.makeRoom() {
		o.walk.behind = true
		return
	}
	h := &head{path: path, rec: rec, proof: unproven}
	o.heads[rec.Commit] = h
	if p == unproven {
		o.unsure++
	}
	o.settle(h, p)
}

// settle is told whether the commit of an entry happened. The caller holds mu.
func (o *outbox) settle(h *head, p proof) {
	switch p {
	case unproven:
		return
	case void:
		for i := range h.rec.Facts {
			h.rec.Facts[i].To = nil
		}
		h.struck, o.acted = true, true
	case proven:
		for i := range h.rec.Facts {
			for _, id := range h.rec.Facts[i].To {
				o.queue(id, h, i)
			}
		}
		if !h.left() {
			h.struck, o.acted = true, true
		}
	}
	h.proof = p
}

// queue puts an event into the queue of its role at an endpoint. The caller holds mu.
func (o *outbox) queue(id string, h *head, fact int) {
	f := &h.rec.Facts[fact]
	p := o.post(id)
	p.enqueue(&delivery{head: h, fact: fact, seq: f.Seq, kind: f.Type})
	p.waiting++
}

func (p *post) enqueue(d *delivery) {
	id, digest := d.head.rec.RoleID, false
	if p.endpoint != nil && p.endpoint.Digest > 0 && d.kind != tellsReported {
		id, digest = "digest of "+d.kind, true
	}
	q := p.queues[id]
	if q == nil {
		q = &queue{id: id, digest: digest}
		p.queues[id] = q
	}
	d.queue = q
	i := len(q.events)
	for i > 0 && q.events[i-1].seq > d.seq {
		i--
	}
	if i == 0 && q.flying && len(q.events) > 0 {
		i = 1 // what is under way stays first
	}
	q.events = slices.Insert(q.events, i, d)
	if !q.flying {
		p.list(q, urgencyOf(d.kind))
	}
}

// list has the queue wait for its turn.
func (p *post) list(q *queue, urgency int) {
	if !q.listed[urgency] {
		q.listed[urgency] = true
		p.ready[urgency] = append(p.ready[urgency], q)
	}
}

// relist is list by what the queue holds.
func (p *post) relist(q *queue) {
	if len(q.events) == 0 {
		if p.queues[q.id] == q {
			delete(p.queues, q.id)
		}
		return
	}
	urgency := urgentNews
	for _, d := range q.events[:min(len(q.events), 64)] {
		urgency = min(urgency, urgencyOf(d.kind))
	}
	p.list(q, urgency)
}

// post is the deliveries to the endpoint with that id. The caller holds mu.
func (o *outbox) post(id string) *post {
	if o.posts == nil {
		o.posts = map[string]*post{}
	}
	p := o.posts[id]
	if p == nil {
		p = &post{
			queues: map[string]*queue{}, failed: map[*delivery]struct{}{},
			state: &endpointState{Schema: recordSchema, ID: id},
		}
		o.posts[id] = p
	}
	return p
}

// makeRoom forgets entries that only wait for endpoints which fail: the walk finds them
// when those are back. The caller holds mu.
func (o *outbox) makeRoom() bool {
	gone := 0
	for id, h := range o.heads {
		if gone > o.atMost()/20 {
			break
		}
		if h.proof != proven || h.struck || o.awaited(h) {
			continue
		}
		for i := range h.rec.Facts {
			for _, to := range h.rec.Facts[i].To {
				o.posts[to].behind = true
				o.posts[to].drop(h, i)
			}
		}
		delete(o.heads, id)
		gone++
	}
	if gone > 0 {
		o.walk.behind = true
	}
	return gone > 0
}

// awaited reports whether the entry waits for an endpoint that does not fail, or is on
// its way to one. The caller holds mu.
func (o *outbox) awaited(h *head) bool {
	for i := range h.rec.Facts {
		for _, id := range h.rec.Facts[i].To {
			p := o.posts[id]
			if p == nil || p.state.Since.IsZero() || p.flying > 0 {
				return true
			}
		}
	}
	return false
}

// drop takes an event out of its queue.
func (p *post) drop(h *head, fact int) {
	for _, q := range []*queue{p.queues[h.rec.RoleID], p.queues["digest of "+h.rec.Facts[fact].Type]} {
		if q == nil {
			continue
		}
		for _, d := range q.events {
			if d.head == h && d.fact == fact {
				p.remove(d)
				return
			}
		}
	}
}

// remove takes an event out of its queue: it was told, or given up.
func (p *post) remove(d *delivery) {
	delete(p.failed, d)
	q := d.queue
	if i := slices.Index(q.events, d); i >= 0 {
		q.events = slices.Delete(q.events, i, i+1)
		p.waiting--
	}
}

// struckOut notes that the endpoint is done with an event. The caller holds mu.
func (o *outbox) struckOut(h *head, fact int, id string, now time.Time) {
	f := &h.rec.Facts[fact]
	f.To = slices.DeleteFunc(slices.Clone(f.To), func(to string) bool { return to == id })
	if !h.struck {
		h.struck, h.at = true, now
	}
	o.acted = true
}
