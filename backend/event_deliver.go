// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/webhook"
)

// Deliveries are made beside the worker's steps, never under a lock of a record, and
// each endpoint has its own: one that hangs holds up nobody but itself. They touch no
// storage: what came of them the next step writes down.

const (
	// flyingAtMost is how many messages are on their way to one endpoint at most.
	flyingAtMost = 4
	// maxStrikes is how often an event fails, while others succeed, until it is given up.
	maxStrikes = 3
	// An endpoint is told to be failing after both of these, and given up after both of
	// those, or after it has answered for goneFor that it is gone.
	failingFor, failingTimes = 5 * time.Minute, 5
	stoppedFor, stoppedTimes = 5 * 24 * time.Hour, 50
	goneFor                  = 24 * time.Hour
	// longestGap is how much of the time between two attempts counts: more is a time in
	// which nobody tried.
	longestGap = 2 * time.Hour
	// maxAnswer is how much of an answer is read. None of it is kept.
	maxAnswer = 64 << 10
	// collectFor is how long what came of deliveries is collected before it is written down.
	collectFor = 300 * time.Millisecond
	// digestShown is how many events of a digest are listed.
	digestShown = 20
)

// shipment is one attempt.
type shipment struct {
	post   *post
	to     *endpointRecord
	form   *rendering
	events []*delivery
	facts  []*fact
	began  time.Time
}

// outcome is what came of an attempt.
type outcome struct {
	verdict webhook.Verdict
	class   string // empty for success
	status  int
	ahead   time.Duration // the receiver's clock
	clocked bool
}

// dispatch sends what can be sent now.
func (b *backend) dispatch() {
	o := &b.outbox
	if o.may == nil || !o.may() {
		return
	}
	cfg := b.configs.last()
	if cfg == nil || cfg.OutboundPaused {
		return
	}
	now := b.clock.Now()
	var out []*shipment
	var next time.Time
	o.mu.Lock()
	for _, p := range o.posts {
		for {
			s, at := p.nextShipment(now)
			if s == nil {
				if !at.IsZero() && (next.IsZero() || at.Before(next)) {
					next = at
				}
				break
			}
			out = append(out, s)
		}
	}
	o.mu.Unlock()
	if !next.IsZero() {
		b.wake.quietly(next)
	}
	for _, s := range out {
		o.spawn(func() { b.ship(s) })
	}
}

// nextShipment is what is to be sent to the endpoint next, nil if that is nothing, and
// when to look again, zero if something else tells. The caller holds mu.
func (p *post) nextShipment(now time.Time) (*shipment, time.Time) {
	e := p.endpoint
	if e == nil || e.Disabled || !p.state.Stopped.IsZero() || !p.loaded || p.form == nil || p.waiting == 0 {
		return nil, time.Time{}
	}
	most := flyingAtMost
	if !p.state.Since.IsZero() {
		most = 1
		if p.state.Next.After(now) && p.state.Next.Sub(now) <= 2*webhook.MaxWait {
			return nil, p.state.Next
		}
	}
	if p.flying >= most {
		return nil, time.Time{}
	}
	var first time.Time
	for _, q := range p.resting {
		if q.next.After(now) {
			if first.IsZero() || q.next.Before(first) {
				first = q.next
			}
			continue
		}
		q.next = time.Time{}
		p.relist(q)
	}
	p.resting = slices.DeleteFunc(p.resting, func(q *queue) bool { return q.next.IsZero() })
	q := p.pick(now)
	if q == nil {
		for _, q := range p.resting {
			if first.IsZero() || q.next.Before(first) {
				first = q.next
			}
		}
		return nil, first
	}
	if at, ok := p.pace.take(now, p.perSecond()); !ok {
		p.relist(q)
		return nil, at
	}
	q.flying = true
	p.flying++
	s := &shipment{post: p, to: e, form: p.form, events: q.events[:1], began: now}
	if q.digest {
		s.events = q.events
	}
	s.events = slices.Clone(s.events)
	for _, d := range s.events {
		f := *d.event()
		s.facts = append(s.facts, &f)
	}
	return s, time.Time{}
}

func (p *post) perSecond() float64 {
	if p.endpoint.Pace > 0 {
		return p.endpoint.Pace
	}
	if p.endpoint.Format == formatTemplate {
		return 1
	}
	return 10
}

// pick takes the queue whose turn it is. While the endpoint fails urgencies take turns,
// so that an event that is to blame is not tried again and again.
func (p *post) pick(now time.Time) *queue {
	shift := 0
	if !p.state.Since.IsZero() {
		shift = p.turn
		p.turn++
	}
	for i := range urgencies {
		urgency := (i + shift) % urgencies
		for len(p.ready[urgency]) > 0 {
			q := p.ready[urgency][0]
			p.ready[urgency] = p.ready[urgency][1:]
			q.listed[urgency] = false
			if q.flying || len(q.events) == 0 || q.next.After(now) {
				continue
			}
			if q.digest {
				if due := q.events[0].head.rec.At.Add(p.endpoint.Digest.Duration()); due.After(now) {
					q.next = due
					p.resting = append(p.resting, q)
					continue
				}
			}
			return q
		}
	}
	return nil
}

// ship makes one attempt.
func (b *backend) ship(s *shipment) {
	came := outcome{class: classInternal}
	_ = b.guarded("a delivery", func() error {
		began := b.clock.Reading()
		came = b.send(b.outbox.flight, s.to, s.form, s.facts)
		b.numbers.deliverySpent.Observe((b.clock.Reading().steady - began.steady).Seconds())
		return nil
	})
	_ = b.guarded("what follows a delivery", func() error {
		b.landed(s, came)
		b.dispatch()
		return nil
	})
}

// classInternal is a delivery that this engine could not make.
const classInternal = "internal"

// send makes one attempt to tell the events, one or a digest.
func (b *backend) send(ctx context.Context, to *endpointRecord, form *rendering, facts []*fact) outcome {
	now := b.clock.Now()
	id := messageName(facts, b.mountTag())
	m, target, err := form.message(id, facts)
	if err != nil {
		b.Logger().Warn("a message could not be made", "endpoint", to.Name, "type", facts[0].Type, "error", err)
		return outcome{class: classInternal}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(m.Body))
	if err != nil {
		return outcome{class: classInternal} // the error may hold the URL
	}
	if err := m.Sign(req.Header, id, now, to.signers(now)...); err != nil {
		return outcome{class: classInternal}
	}
	answer, err := b.courier(req, to.CA)
	if err != nil {
		class := string(egress.ClassOf(err))
		if class == "" {
			class = classGivenUp
		}
		return outcome{class: class}
	}
	came := outcome{
		verdict: webhook.Judge(answer.Status, answer.Header, b.clock.Now()), class: string(answer.Class()), status: answer.Status,
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		came.ahead, came.clocked = date.Sub(now).Truncate(time.Second), true
	}
	return came
}

// classGivenUp is a delivery that ended with the engine: it says nothing of the endpoint.
const classGivenUp = "given_up"

// signers are the secrets that sign now.
func (e *endpointRecord) signers(now time.Time) []webhook.Secret {
	var all []webhook.Secret
	for i, s := range e.Signing {
		if i > 0 && !s.Until.After(now) {
			continue
		}
		if secret, err := webhook.ParseSecret(s.Key); err == nil {
			all = append(all, secret)
		}
	}
	return all
}

// landed notes what came of an attempt.
func (b *backend) landed(s *shipment, came outcome) {
	o, now := &b.outbox, b.clock.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	p := s.post
	p.flying--
	q := s.events[0].queue
	q.flying = false
	switch {
	case came.class == classGivenUp || came.class == string(egress.Paused):
	case came.class == "":
		p.arrived++
		p.succeeded(came, now)
		p.removeAll(s.events)
		for _, d := range s.events {
			o.struckOut(d.head, d.fact, s.to.ID, now)
		}
		p.blame(o, s, now)
	default:
		p.lost++
		p.refused(s, came, now)
		strikes := 0
		for _, d := range s.events {
			p.failed[d] = struct{}{}
			strikes = max(strikes, d.strikes)
		}
		q.next = now.Add(webhook.Backoff(strikes+1, rand.Float64())) //nolint:gosec // spreads retries, decides nothing
		if p.state.Since.IsZero() || p.waiting > len(s.events) {
			// While it fails the endpoint's own schedule counts, not the event's.
			q.next = time.Time{}
		}
	}
	if q.next.IsZero() {
		p.relist(q)
	} else {
		p.resting = append(p.resting, q)
	}
	if len(o.marks) > 0 || p.dirty || p.failing {
		b.wake.quietly(now.Add(collectFor))
	}
}

// succeeded ends an outage.
func (p *post) succeeded(came outcome, now time.Time) {
	st := p.state
	st.LastSuccess, st.LastAttempt, st.LastError, st.LastStatus = now, now, "", came.status
	if came.clocked {
		st.Ahead = came.ahead
	}
	if !st.Since.IsZero() || !st.Stopped.IsZero() {
		p.dirty = true
	}
	st.Since, st.Lasted, st.Attempts, st.Next, st.Gone, st.Told, st.Stopped = time.Time{}, 0, 0, time.Time{}, 0, false, time.Time{}
	p.failing = false
}

// blame counts the failures of other events against these: the endpoint works.
func (p *post) blame(o *outbox, s *shipment, now time.Time) {
	for d := range p.failed {
		if slices.Contains(s.events, d) {
			continue
		}
		delete(p.failed, d)
		if d.strikes++; d.strikes < maxStrikes {
			continue
		}
		p.dropped("failed", 1)
		q := d.queue
		p.remove(d)
		o.struckOut(d.head, d.fact, s.to.ID, now)
		if !q.flying {
			q.next = time.Time{}
			p.resting = slices.DeleteFunc(p.resting, func(r *queue) bool { return r == q })
			p.relist(q)
		}
	}
}

func (p *post) dropped(why string, n int64) {
	if p.state.Dropped == nil {
		p.state.Dropped = map[string]int64{}
	}
	p.state.Dropped[why] += n
	p.dirty = true
}

// refused counts a failure, and decides when the next attempt comes.
func (p *post) refused(s *shipment, came outcome, now time.Time) {
	st := p.state
	gap := min(max(now.Sub(st.LastAttempt), 0), longestGap)
	sameRound := !st.Since.IsZero() && s.began.Before(st.LastAttempt)
	st.LastError, st.LastStatus = came.class, came.status
	if came.clocked {
		st.Ahead = came.ahead
	}
	switch {
	case st.Since.IsZero():
		st.Since, st.Attempts, st.Lasted = now, 1, 0
		p.dirty = true
	case sameRound:
		return // sent before the endpoint was known to fail
	default:
		st.Attempts++
		st.Lasted += gap
		if came.verdict.Outcome == webhook.Gone {
			st.Gone += gap
		} else {
			st.Gone = 0
		}
	}
	st.LastAttempt = now
	st.Next = now.Add(webhook.Next(came.verdict, st.Attempts, rand.Float64())) //nolint:gosec // spreads retries, decides nothing
	switch {
	case st.Lasted >= stoppedFor && st.Attempts >= stoppedTimes, st.Gone >= goneFor:
		st.Stopped, p.dirty = now, true
	case st.Lasted >= failingFor && st.Attempts >= failingTimes && !st.Told:
		p.failing = true
	}
}
