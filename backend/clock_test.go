// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// fakeClock stands still until it is told to move. One that waits moves when
// somebody waits for it, or for the storage that it is given to (slowStorage).
// What ends by the clock ends when its time has come by it, not sooner and not
// later, however long the test takes.
type fakeClock struct {
	mu    sync.Mutex
	t     time.Time
	slept time.Duration // so much less has passed by the clock that nobody sets
	waits bool
	// leaps: time passes by leaps while others are at work, so that no time-out of
	// theirs has a meaning.
	leaps bool
}

func newFakeClock() *fakeClock {
	return &fakeClock{t: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
}

// newWaitingClock is a clock that time passes by when somebody waits.
func newWaitingClock() *fakeClock {
	c := newFakeClock()
	c.waits = true
	return c
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) Reading() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return reading{c.t, c.t.Sub(time.Unix(0, 0)) - c.slept}
}

// sleep lets the clock on the wall alone go on by d, as on a machine that is suspended.
// With less than nothing it is set back.
func (c *fakeClock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t, c.slept = c.t.Add(d), c.slept+d
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *fakeClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func (c *fakeClock) Wait(ctx context.Context, d time.Duration) bool {
	if !c.waits || ctx.Err() != nil {
		return false
	}
	c.mu.Lock()
	until := c.t.Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(until) {
		until = end
	}
	if until.After(c.t) {
		c.t = until
	}
	c.mu.Unlock()
	return ctx.Err() == nil
}

func (c *fakeClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancel(ctx)
	if c.leaps {
		return inner, cancel
	}
	end := c.Now().Add(d)
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(end) {
		end = sooner
	}
	return &timedContext{Context: inner, parent: ctx, clock: c, end: end}, cancel
}

// timedContext is done when its time has come by the clock.
type timedContext struct {
	context.Context

	parent context.Context //nolint:containedctx // a child asks it
	clock  *fakeClock
	end    time.Time
}

func (c *timedContext) Deadline() (time.Time, bool) { return c.end, true }

func (c *timedContext) Err() error {
	if err := c.parent.Err(); err != nil {
		return err
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !c.clock.Now().Before(c.end) {
		return context.DeadlineExceeded
	}
	return nil
}

// TestFakeClockEndsContexts: by its own time alone, those of a parent too.
func TestFakeClockEndsContexts(t *testing.T) {
	c := newWaitingClock()
	outer, cancel := c.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	inner, cancelInner := c.WithTimeout(outer, 2*time.Second)
	longer, cancelLonger := c.WithTimeout(outer, time.Hour)
	free, cancelFree := c.WithTimeout(context.WithoutCancel(inner), time.Hour)
	defer cancelLonger()
	defer cancelFree()
	start := c.Now()
	if !c.Wait(inner, time.Second) || inner.Err() != nil {
		t.Fatal("ended early")
	}
	if c.Wait(inner, time.Hour) || c.Now().Sub(start) != 2*time.Second || !errors.Is(inner.Err(), context.DeadlineExceeded) {
		t.Fatal("waited for too long", c.Now().Sub(start), inner.Err())
	}
	if longer.Err() != nil || free.Err() != nil {
		t.Fatal("ended with one that has less time")
	}
	if c.Wait(longer, time.Hour) || c.Now().Sub(start) != 5*time.Second || longer.Err() == nil || free.Err() != nil {
		t.Fatal("outlived its parent", c.Now().Sub(start))
	}
	cancelInner()
	if cancelFree(); !errors.Is(free.Err(), context.Canceled) {
		t.Fatal(free.Err())
	}
	if newFakeClock().Wait(t.Context(), time.Second) {
		t.Fatal("a clock that stands still waited")
	}
}
