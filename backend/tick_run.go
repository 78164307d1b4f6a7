// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
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
	// progress holds up a reload of the plugin. A step of the worker begins nothing
	// after its own budget, but what it has in hand has this long to end.
	tickBudget = 5 * time.Second
	// Shares of tickBudget; of a smaller budget they are as much smaller.
	//
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

// tick is one run of the periodic function, or one step of the worker.
type tick struct {
	b      *backend
	s      logical.Storage
	now    time.Time
	began  time.Time     // by the clock
	budget time.Duration // how long it begins work; zero is tickBudget
	shared bool          // with bulk jobs
	config *configRecord
	lim    policy.Limits
	pace   *rate.Limiter
	kept   *backlog // what the worker's steps keep; nil where each run reads all anew
	full   bool     // a pass over the calendar began with it, or there is no worker
	// Zero: as the constants say.
	batch, backlog, workers int

	mu         sync.Mutex
	unfinished time.Time // earliest minute that still holds an entry that is due
	walked     bool      // the walk went well
	marked     bool      // the mark was written before the first act
	markErr    error

	refused atomic.Bool // storage refused to be written: the run is over
}

// periodic is called about once a minute on every node that has the mount. It renews
// the worker's mandate, starts it where it does not run, and does one step itself.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.writeSafe() {
		// The time that the writing node has seen counts here too.
		return b.loadMark(ctx, req.Storage)
	}
	running := b.entrust(req.Storage)
	if !b.enter() {
		return nil // the engine is being unloaded
	}
	defer b.leave()
	if !b.tickMu.TryLock() {
		return nil // the step before is still at work
	}
	defer b.tickMu.Unlock()
	t := &tick{b: b, s: b.mandatedStorage(req.Storage), budget: tickBudget}
	if running {
		t.budget, t.kept = stepBudget, &b.worker.kept
		t.kept.look = true // the net under who forgets to wake the worker
	}
	ctx, cancel := b.clock.WithTimeout(ctx, tickBudget)
	defer cancel()
	err := b.runTick(ctx, t)
	b.stepped(ctx, t, err)
	if err != nil && ctx.Err() != nil {
		// Out of time: the next run goes on where this one stopped.
		return nil
	}
	return quietly(err)
}

func (b *backend) runTick(ctx context.Context, t *tick) error {
	t.began = b.clock.Now()
	if err := b.loadMark(ctx, t.s); err != nil {
		return err
	}
	cfg, err := b.config(ctx, t.s)
	if err != nil {
		return err
	}
	if t.lim, err = b.limits(ctx, t.s); err != nil {
		return err
	}
	t.now, t.config, t.pace, t.full = b.now(), cfg, b.pace(cfg), t.kept == nil
	jobsErr := b.guarded("a look for bulk jobs", func() error {
		t.shared = b.jobsWaiting(ctx, t.s)
		return nil
	})
	walk := t.walk
	if t.kept != nil {
		walk = t.walkOn
	}
	walkErr := b.guarded("the walk over the calendar", func() error { return walk(ctx) })
	if walkErr != nil && mustForward(walkErr) {
		return walkErr
	}
	t.walked = walkErr == nil
	restErr := b.afterWalk(ctx, t)
	return errors.Join(jobsErr, walkErr, restErr)
}

// share is that much of tickBudget, of the budget of this run.
func (t *tick) share(d time.Duration) time.Duration {
	return time.Duration(d.Milliseconds()) * cmp.Or(t.budget, tickBudget) / time.Duration(tickBudget.Milliseconds())
}

// workTime is how long the tick begins to work on roles.
func (t *tick) workTime() time.Duration {
	if t.shared {
		return t.share(workShared)
	}
	return t.share(tickWork)
}

// restTime is how long one part of the rest begins to work.
func (t *tick) restTime() time.Duration {
	if t.shared {
		return t.share(restShared)
	}
	return t.share(tickBudget)
}

// begin is done after d, and when the engine is to be unloaded: then nothing more is
// begun. What is in hand ends by ctx.
func (t *tick) begin(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	begin, cancel := t.b.clock.WithTimeout(ctx, d)
	forget := context.AfterFunc(t.b.worker.quit, cancel)
	return begin, func() {
		forget()
		cancel()
	}
}

// may reports whether the tick may begin one more act: the mandate, which the
// periodic call renews, may end in the middle of a step, on a node that slept.
func (t *tick) may() bool { return t.kept == nil || t.b.mandated() }

// fence is what a step of the worker begins to act with: its own write of the mark.
// Storage that is another node's by now refuses it, and then nothing is done.
func (t *tick) fence(ctx context.Context) error {
	if t.kept == nil {
		return nil
	}
	if !t.may() {
		return errNoMandate
	}
	if !t.marked {
		t.marked, t.markErr = true, t.b.remark(ctx, t.s, t.now)
	}
	return t.markErr
}

// settleWrites looks at what earlier writes left unsure.
func (b *backend) settleWrites(ctx context.Context, t *tick) error {
	b.begun.expire(b.clock.Now())
	if b.lateDue() { // it may write
		if err := t.fence(ctx); err != nil {
			return err
		}
	}
	return b.settleLate(ctx, t.s)
}

// afterWalk is the rest of a tick: what is not filed in the calendar. Jobs come last,
// and what is before them leaves them some time: so neither starves the other.
// Counts go to storage once a minute.
func (b *backend) afterWalk(ctx context.Context, t *tick) error {
	rest := []func(context.Context, *tick) error{b.settleWrites, b.flushUsage, b.tellOutside, b.tidySlowly, b.runJobs}
	if !t.full {
		rest = rest[2:]
	}
	var errs []error
	for _, fn := range rest {
		errs = append(errs, b.guarded("work after the walk", func() error { return fn(ctx, t) }))
	}
	return errors.Join(errs...)
}
