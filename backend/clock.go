// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// clock is the one source of time of the engine.
type clock interface {
	Now() time.Time
	// Reading is a look at both clocks at one moment.
	Reading() reading
	// Wait blocks for d, or until ctx is done: then it returns false. A clock
	// that cannot wait returns false at once.
	Wait(ctx context.Context, d time.Duration) bool
	// WithTimeout is a context that is done when d has passed by this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// reading is what the clock on the wall shows and what the one shows that nobody sets,
// since some moment of this process. The second stands still while the machine sleeps,
// and the first does not. What passes between two looks at one of them must not seem to
// be missing in the other, so both are read at once.
type reading struct {
	wall   time.Time
	steady time.Duration
}

func (b *backend) reading() reading { return b.clock.Reading() }

// upTo is how much time passed until then, by each of the clocks.
func (r reading) upTo(then reading) (wall, steady time.Duration) {
	return then.wall.Sub(r.wall), then.steady - r.steady
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now().UTC() } //nolint:forbidigo // the one place

var started = time.Now() //nolint:forbidigo // with its monotonic reading

func (systemClock) Reading() reading {
	now := time.Now() //nolint:forbidigo // with its monotonic reading, which UTC strips
	return reading{now.UTC(), now.Sub(started)}
}

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

func (systemClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// maxClockLead is how far ahead of the clock a persisted instant may be and
// still count. One that is further ahead was written by a wrong clock.
const maxClockLead = 10 * time.Minute

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

// stamp is a time as answers show it; a zero one is empty.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return keyring.Stamp(t)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
