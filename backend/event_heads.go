// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"maps"
	"slices"
	"sort"
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
	if !o.roomFor(rec) {
		o.leaveOut(rec)
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
		o.mark(h)
	case proven:
		for i := range h.rec.Facts {
			for _, id := range h.rec.Facts[i].To {
				o.queue(id, h, i)
			}
		}
		if !h.left() {
			o.mark(h)
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

// digestQueue is the id of the queue of a digest.
func digestQueue(kind string) string { return "digest of " + kind }

func (p *post) enqueue(d *delivery) {
	id, digest := d.head.rec.RoleID, false
	if p.endpoint != nil && p.endpoint.Digest > 0 && d.kind != tellsReported {
		id, digest = digestQueue(d.kind), true
	}
	q := p.queues[id]
	if q == nil {
		q = &queue{id: id, digest: digest}
		p.queues[id] = q
	}
	d.queue = q
	i := len(q.events)
	if i > 0 && q.events[i-1].seq > d.seq {
		i = sort.Search(i, func(k int) bool { return q.events[k].seq > d.seq })
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

// roomFor reports whether an entry that is not in memory may come there, and makes room
// where somebody waits for it who does not lag. The caller holds mu.
func (o *outbox) roomFor(rec *outboxRecord) bool {
	return len(o.heads) < o.atMost() || o.presses(rec) && o.makeRoom()
}

// leaveOut notes that the entry is in storage only: the walk finds it when those who are
// to be told are ready for it. The caller holds mu.
func (o *outbox) leaveOut(rec *outboxRecord) {
	o.walk.behind = true
	for i := range rec.Facts {
		for _, id := range rec.Facts[i].To {
			if p := o.posts[id]; p != nil {
				p.behind = true
			}
		}
	}
}

// share is how many events may wait for an endpoint in memory although others need the
// room: a little less than its part, so that what nobody lags with always has some.
func (o *outbox) share() int { return o.atMost() / (len(o.posts) + 1) }

// lags reports whether the endpoint fails, or is too slow for what it is to be told.
func (o *outbox) lags(p *post) bool { return !p.state.Since.IsZero() || p.waiting > o.share() }

// presses reports whether somebody waits for the entry who does not lag, or it is urgent.
// The caller holds mu.
func (o *outbox) presses(rec *outboxRecord) bool {
	for i := range rec.Facts {
		f := &rec.Facts[i]
		if len(f.To) > 0 && urgencyOf(f.Type) == urgentAlarm {
			return true
		}
		for _, id := range f.To {
			if p := o.posts[id]; p == nil || !o.lags(p) {
				return true
			}
		}
	}
	return false
}

// makeRoom forgets entries that only wait for endpoints which lag, what is urgent last.
// The caller holds mu.
func (o *outbox) makeRoom() bool {
	if o.packed {
		return false
	}
	for least := urgentNews; least >= urgentAlarm; least-- {
		gone := 0
		for id, h := range o.heads {
			if gone > o.atMost()/20 {
				break
			}
			if h.proof != proven || h.struck || h.urgency() < least || o.awaited(h) {
				continue
			}
			o.leaveOut(h.rec)
			for i := range h.rec.Facts {
				for _, to := range h.rec.Facts[i].To {
					o.posts[to].drop(h, i)
				}
			}
			delete(o.heads, id)
			gone++
		}
		if gone > 0 {
			o.compact()
			return true
		}
	}
	o.packed = true
	return false
}

// urgency is that of the most urgent event that somebody is still to be told.
func (h *head) urgency() int {
	most := urgentNews
	for i := range h.rec.Facts {
		if f := &h.rec.Facts[i]; len(f.To) > 0 {
			most = min(most, urgencyOf(f.Type))
		}
	}
	return most
}

// awaited reports whether the entry waits for an endpoint that does not lag, or is on
// its way to one. The caller holds mu.
func (o *outbox) awaited(h *head) bool {
	for i := range h.rec.Facts {
		for _, id := range h.rec.Facts[i].To {
			p := o.posts[id]
			if p == nil || !o.lags(p) {
				return true
			}
			for _, q := range p.queuesOf(h, i) {
				if q != nil && q.flying {
					return true
				}
			}
		}
	}
	return false
}

// queuesOf are those in which an event may be.
func (p *post) queuesOf(h *head, fact int) []*queue {
	return []*queue{p.queues[h.rec.RoleID], p.queues[digestQueue(h.rec.Facts[fact].Type)]}
}

// drop takes an event out of its queue.
func (p *post) drop(h *head, fact int) {
	for _, q := range p.queuesOf(h, fact) {
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

// compact forgets queues that have lost all their events, of many entries at once: those
// of an endpoint that nothing is sent to would pile up.
func (o *outbox) compact() {
	empty := func(q *queue) bool { return len(q.events) == 0 && !q.flying }
	for _, p := range o.posts {
		for urgency := range urgencies {
			p.ready[urgency] = slices.DeleteFunc(p.ready[urgency], func(q *queue) bool {
				if empty(q) {
					q.listed[urgency] = false
				}
				return empty(q)
			})
		}
		p.resting = slices.DeleteFunc(p.resting, empty)
		maps.DeleteFunc(p.queues, func(_ string, q *queue) bool { return empty(q) })
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

// removeAll is remove for the events of one message.
func (p *post) removeAll(events []*delivery) {
	if len(events) == 1 {
		p.remove(events[0])
		return
	}
	gone := make(map[*delivery]bool, len(events))
	for _, d := range events {
		delete(p.failed, d)
		gone[d] = true
	}
	q := events[0].queue
	before := len(q.events)
	q.events = slices.DeleteFunc(q.events, func(d *delivery) bool { return gone[d] })
	p.waiting -= before - len(q.events)
}

// struckOut notes that the endpoint is done with an event. The caller holds mu.
func (o *outbox) struckOut(h *head, fact int, id string, now time.Time) {
	f := &h.rec.Facts[fact]
	f.To = slices.DeleteFunc(slices.Clone(f.To), func(to string) bool { return to == id })
	if !h.struck {
		h.at = now
	}
	o.mark(h)
}

// mark has the entry written, or deleted, by one of the next steps.
func (o *outbox) mark(h *head) {
	h.struck = true
	if o.marks == nil {
		o.marks = map[*head]bool{}
	}
	o.marks[h] = true
}
