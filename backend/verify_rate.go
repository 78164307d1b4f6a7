// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
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
	mu      sync.Mutex // held to make a bucket
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
	bucket := r.bucket(role.ID, limit)
	// Not the instant of the verification: that one stands still while the
	// clock catches up with what was committed before.
	return bucket.AllowN(r.clock.Now(), 1)
}

// bucket is the role's. A new limit begins with a full one.
func (r *rateLimits) bucket(roleID string, limit float64) *rate.Limiter {
	if b, ok := r.buckets.Get(roleID); ok && b.Limit() == rate.Limit(limit) {
		return b
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.buckets.Get(roleID)
	if !ok || b.Limit() != rate.Limit(limit) {
		b = rate.NewLimiter(rate.Limit(limit), burst(limit))
		r.buckets.Add(roleID, b)
	}
	return b
}

// burst is one second's worth, at least one request.
func burst(limit float64) int { return int(math.Max(1, math.Min(math.Ceil(limit), math.MaxInt32))) }
