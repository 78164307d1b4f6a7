// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"
)

// clock is the one source of time of the engine.
type clock interface {
	Now() time.Time
	// Wait blocks for d, or until ctx is done: then it returns false. A clock
	// that can not wait returns false at once.
	Wait(ctx context.Context, d time.Duration) bool
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now().UTC() } //nolint:forbidigo // the one place

func (systemClock) Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// maxClockLead is how far ahead of the clock a persisted instant may be and
// still count. One that is further ahead was written by a wrong clock.
const maxClockLead = 10 * time.Minute

// now is the instant of an operation: the latest of the node's clock, the
// mount's high-water mark and what else is given (a record's last commit), as
// far as these are plausible.
func (b *backend) now(seen ...time.Time) time.Time {
	clock := b.clock.Now()
	now := b.nowAt(clock, time.Time{})
	for _, t := range seen {
		now = plausible(now, clock, t)
	}
	return now.UTC().Round(0)
}

// nowAt is now, for whoever has looked at the clock.
func (b *backend) nowAt(clock, seen time.Time) time.Time {
	return plausible(plausible(clock, clock, b.highWater()), clock, seen).UTC().Round(0)
}

// plausible is the later of now and t, unless t is too far ahead of the clock.
func plausible(now, clock, t time.Time) time.Time {
	if t.After(now) && t.Sub(clock) <= maxClockLead {
		return t
	}
	return now
}

// clockProblem says, for operators, that t was written by a clock far ahead of
// this node's; empty if it was not.
func (b *backend) clockProblem(t time.Time) string {
	clock := b.clock.Now()
	if t.Sub(clock) <= maxClockLead {
		return ""
	}
	return "written at " + t.UTC().Format(time.RFC3339) + ", which is " + t.Sub(clock).Truncate(time.Second).String() +
		" ahead of this node's clock: a clock was wrong, this node's counts"
}
