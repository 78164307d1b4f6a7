// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// errNoMandate: the worker may not act now. It ends a step as a refusal of storage does.
var errNoMandate = fmt.Errorf("the worker has no mandate: %w", logical.ErrReadOnly)

const (
	// stepBudget is how long a step begins work.
	stepBudget = time.Second
	// partRest is how long the worker rests where a part of a step failed, and the
	// first rest after one that failed altogether.
	partRest = time.Second
	// tidyRest is how long a pass of tidy that somebody asked for rests between slices.
	tidyRest = time.Second
)

// step does what is due at now, begins nothing after the budget, and says when the next
// step is wanted. Where a part fails, the others go on, and it is told here.
func (b *backend) step(now time.Time, budget time.Duration) (next time.Time, err error) {
	begun := b.takeOff(b.worker.hand) // before it is counted in: the end of the engine grounds it
	if !b.enter() {
		return next, errNoMandate
	}
	defer b.leave()
	b.tickMu.Lock()
	defer b.tickMu.Unlock()
	if !b.mayWork() {
		return next, errNoMandate
	}
	w := b.worker
	ctx, cancel := b.clock.WithTimeout(begun, tickBudget)
	defer cancel()
	if b.wake.due(now) {
		w.kept.look = true
	}
	t := &tick{b: b, s: b.mandatedStorage(w.mountStorage()), budget: budget, kept: &w.kept, workers: w.together}
	err = b.guarded("a step of the worker", func() error { return b.runTick(ctx, t) })
	b.stepped(ctx, t, err)
	next = b.nextStep(ctx, t.s, now)
	switch {
	case err == nil || mustForward(err):
		return next, err
	case ctx.Err() != nil:
		return next, nil // out of time: the next step goes on
	case !t.walked:
		return next, err
	}
	if now.Sub(w.told) >= time.Minute || now.Before(w.told) {
		w.told = now
		b.Logger().Error("a part of the background work failed", "error", err)
	}
	return later(next, b.clock.Now().Add(partRest)), nil
}

// nextStep is when a step is wanted after the one of now.
func (b *backend) nextStep(ctx context.Context, s logical.Storage, now time.Time) time.Time {
	waits := b.worker.kept.waits()
	_ = b.guarded("a look for bulk jobs", func() error { // where it panics, the next minute will do
		waits = waits || b.jobsWaiting(ctx, s)
		return nil
	})
	if waits {
		return now
	}
	next := now.Truncate(time.Minute).Add(time.Minute)
	if b.tidyWaits() {
		next = now.Add(tidyRest)
	}
	if at := b.wake.wanted(); !at.IsZero() && at.Before(next) {
		next = later(at, now)
	}
	return next
}

// tidyWaits reports whether a pass of tidy that somebody asked for is to go on.
func (b *backend) tidyWaits() bool {
	if !b.tidy.mu.TryLock() {
		return false // somebody does it
	}
	defer b.tidy.mu.Unlock()
	return b.tidy.byHand
}
