// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

const (
	// tickBudget is how long one run of the periodic function works. A call in
	// progress holds up a reload of the plugin.
	tickBudget = 5 * time.Second
	// tickWork is how long it begins to work on roles: what was begun is ended
	// within the budget, and the cursor stored.
	tickWork = 4500 * time.Millisecond
	// workShared is tickWork where there are bulk jobs, and restShared how long
	// it begins to write counts then, and tidies.
	workShared = 2 * time.Second
	restShared = 500 * time.Millisecond
	// tickBatch is how many entries are judged at a time.
	tickBatch = 4096
	// tickBacklog and tickGather bound how many roles are judged, and for how long,
	// before the first is acted on. What is most urgent among them goes first.
	tickBacklog = 16 * tickBatch
	tickGather  = 500 * time.Millisecond
	tickWorkers = 8
)

// tick is one run of the periodic function.
type tick struct {
	b      *backend
	s      logical.Storage
	now    time.Time
	began  time.Time // by the clock
	shared bool      // with bulk jobs
	config *configRecord
	lim    policy.Limits
	pace   *rate.Limiter
	// Zero: as the constants say.
	batch, backlog, workers int

	mu         sync.Mutex
	unfinished time.Time // earliest minute that still holds an entry that is due

	refused atomic.Bool // storage refused to be written: the run is over
}

// periodic is called about once a minute on every node that has the mount.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.writeSafe() {
		// The time that the writing node has seen counts here too.
		return b.loadMark(ctx, req.Storage)
	}
	if !b.tickMu.TryLock() {
		return nil // the run before is still at work
	}
	defer b.tickMu.Unlock()
	ctx, cancel := b.clock.WithTimeout(ctx, tickBudget)
	defer cancel()
	err := b.runTick(ctx, req.Storage)
	if err != nil && ctx.Err() != nil {
		// Out of time: the next run goes on where this one stopped.
		return nil
	}
	return quietly(err)
}

func (b *backend) runTick(ctx context.Context, s logical.Storage) error {
	began := b.clock.Now()
	if err := b.loadMark(ctx, s); err != nil {
		return err
	}
	cfg, err := b.config(ctx, s)
	if err != nil {
		return err
	}
	lim, err := b.limits(ctx, s)
	if err != nil {
		return err
	}
	t := &tick{b: b, s: s, now: b.now(), began: began, config: cfg, lim: lim, pace: b.pace(cfg)}
	jobsErr := b.guarded("a look for bulk jobs", func() error {
		t.shared = b.jobsWaiting(ctx, s)
		return nil
	})
	walkErr := b.guarded("the walk over the calendar", func() error { return t.walk(ctx) })
	if walkErr != nil && mustForward(walkErr) {
		return walkErr
	}
	restErr := b.afterWalk(ctx, t)
	return errors.Join(jobsErr, walkErr, restErr)
}

// workTime is how long the tick begins to work on roles.
func (t *tick) workTime() time.Duration {
	if t.shared {
		return workShared
	}
	return tickWork
}

// restTime is how long one part of the rest begins to work.
func (t *tick) restTime() time.Duration {
	if t.shared {
		return restShared
	}
	return tickBudget
}

// settleWrites looks at what earlier writes left unsure.
func (b *backend) settleWrites(ctx context.Context, t *tick) error { return b.settleLate(ctx, t.s) }

// afterWalk is the rest of a tick: what is not filed in the calendar. Jobs come last,
// and what is before them leaves them some time: so neither starves the other.
func (b *backend) afterWalk(ctx context.Context, t *tick) error {
	var errs []error
	for _, fn := range []func(context.Context, *tick) error{b.settleWrites, b.flushUsage, b.tidySlowly, b.runJobs} {
		errs = append(errs, b.guarded("work after the walk", func() error { return fn(ctx, t) }))
	}
	return errors.Join(errs...)
}
