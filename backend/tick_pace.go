// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"golang.org/x/time/rate"
)

// mayMint waits for the pace of rotations, within the tick's time.
func (t *tick) mayMint(ctx context.Context) bool { return t.b.paced(ctx, t.pace) }

// paced waits until the limiter, nil for none, lets one more action happen;
// false if that is not before ctx is done.
func (b *backend) paced(ctx context.Context, limiter *rate.Limiter) bool {
	if limiter == nil {
		return true
	}
	for {
		now := b.clock.Now()
		r := limiter.ReserveN(now, 1)
		wait := r.DelayFrom(now)
		if wait == 0 {
			return true
		}
		r.CancelAt(now)
		if !b.clock.Wait(ctx, wait) {
			return false
		}
	}
}

// pace is the limiter of automatic rotations; nil is no limit.
func (b *backend) pace(cfg *configRecord) *rate.Limiter {
	limit := cfg.maxRotations()
	if limit <= 0 {
		return nil
	}
	b.paceMu.Lock()
	defer b.paceMu.Unlock()
	if b.limiter == nil || b.limiter.Limit() != rate.Limit(limit) {
		b.limiter = rate.NewLimiter(rate.Limit(limit), limit)
	}
	return b.limiter
}
