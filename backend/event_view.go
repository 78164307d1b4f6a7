// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/webhook"
)

// postView is how deliveries to an endpoint go, as far as this node knows.
type postView struct {
	state           endpointState
	waiting, flying int
	oldest          time.Time
	more            bool
	arrived, lost   int64
}

func (b *backend) postView(ctx context.Context, s logical.Storage, e *endpointRecord) (postView, error) {
	o := &b.outbox
	o.mu.Lock()
	if p := o.posts[e.ID]; p != nil && p.loaded {
		defer o.mu.Unlock()
		v := postView{state: *p.state, waiting: p.waiting, flying: p.flying, arrived: p.arrived, lost: p.lost, more: p.behind || o.walk.begun && !o.walk.done || o.walk.behind}
		v.state.Dropped = maps.Clone(p.state.Dropped)
		for _, q := range p.queues {
			for _, d := range q.events {
				if at := d.head.rec.At; v.oldest.IsZero() || at.Before(v.oldest) {
					v.oldest = at
				}
			}
		}
		return v, nil
	}
	o.mu.Unlock()
	st, err := getRecord[endpointState](ctx, s, endpointPath(e.ID))
	if err != nil && !errors.Is(err, errSchema) {
		return postView{}, err
	}
	if st == nil {
		st = &endpointState{}
	}
	return postView{state: *st}, nil
}

// tested notes what came of a test: a success ends an outage, a failure counts for
// nothing.
func (b *backend) tested(id string, came outcome) {
	o := &b.outbox
	o.mu.Lock()
	p := o.posts[id]
	if p != nil {
		switch {
		case came.class == "":
			p.succeeded(came, b.clock.Now())
		default:
			p.state.LastError, p.state.LastStatus = came.class, came.status
		}
	}
	o.mu.Unlock()
	if came.verdict.Outcome == webhook.Delivered {
		b.wakeOutbox()
	}
}

// sweepOutbox has the worker look for entries that name an endpoint which was deleted.
func (b *backend) sweepOutbox() {
	o := &b.outbox
	o.mu.Lock()
	o.walk = outboxWalk{}
	o.mu.Unlock()
	b.wakeOutbox()
}
