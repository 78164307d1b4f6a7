// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"

	"github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxLimiters bounds the roles whose rate is remembered. One that is forgotten
// starts with a full bucket.
const maxLimiters = 20000

// rateLimits holds a bucket of tokens per role: all keys of the role share it.
// Each verifying process has its own.
type rateLimits struct {
	buckets *lru.Cache[string, *rate.Limiter] // by role id
	clock   clock
}

func newRateLimits(c clock) *rateLimits {
	buckets, err := lru.New[string, *rate.Limiter](maxLimiters)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &rateLimits{buckets: buckets, clock: c}
}

// take takes a token of the role; false if there is none.
func (r *rateLimits) take(role *roleRecord) bool {
	limit := role.Policy.RateLimit
	if limit <= 0 {
		return true
	}
	bucket, found := r.buckets.Get(role.ID)
	if !found {
		// Whoever was first has the bucket.
		fresh := rate.NewLimiter(rate.Limit(limit), burst(limit))
		if had, raced, _ := r.buckets.PeekOrAdd(role.ID, fresh); raced {
			bucket = had
		} else {
			bucket = fresh
		}
	}
	// Not the instant of the verification: that one stands still while the
	// clock catches up with what was committed before.
	now := r.clock.Now()
	if bucket.Limit() != rate.Limit(limit) {
		bucket.SetLimitAt(now, rate.Limit(limit))
		bucket.SetBurstAt(now, burst(limit))
	}
	return bucket.AllowN(now, 1)
}

// burst is one second's worth, at least one request.
func burst(limit float64) int { return int(math.Max(1, math.Min(math.Ceil(limit), math.MaxInt32))) }
