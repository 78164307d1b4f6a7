// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// rateLimits holds a bucket of tokens per role: all keys of the role share it.
// Each verifying process has its own. They are bounded by cache_size. A role that
// is forgotten starts with a full bucket, so full ones, which lose nothing, are
// forgotten first, and then those that are nearest to full.
type rateLimits struct {
	buckets *lru.Cache[string, *rate.Limiter] // by role id; never full by itself
	clock   clock
	mu      sync.Mutex // held to make and to forget a bucket
	size    int
}

// evictionLook is how many of the buckets used longest ago are looked at for one
// to forget.
const evictionLook = 64

func newRateLimits(c clock) *rateLimits {
	buckets, err := lru.New[string, *rate.Limiter](math.MaxInt32)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &rateLimits{buckets: buckets, clock: c, size: defaultCacheSize}
}

func (r *rateLimits) resize(size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size = max(size, 1)
	for r.buckets.Len() > r.size {
		r.evict()
	}
}

// evict forgets one bucket. Those that still hold somebody back are spared, and
// count as used, so that the next eviction looks elsewhere.
func (r *rateLimits) evict() {
	now := r.clock.Now()
	fullest, most := "", -1.0
	for range min(evictionLook, r.buckets.Len()) {
		id, bucket, ok := r.buckets.GetOldest()
		if !ok {
			return
		}
		filled := bucket.TokensAt(now) / float64(bucket.Burst())
		if filled > most {
			fullest, most = id, filled
		}
		if filled >= 1 {
			break
		}
		r.buckets.Get(id)
	}
	r.buckets.Remove(fullest)
}

// take takes a token of the role, and reports whether there was one.
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
		if !ok && r.buckets.Len() >= r.size {
			r.evict()
		}
		b = rate.NewLimiter(rate.Limit(limit), burst(limit))
		r.buckets.Add(roleID, b)
	}
	return b
}

// burst is one second's worth, at least one request.
func burst(limit float64) int { return int(math.Max(1, math.Min(math.Ceil(limit), math.MaxInt32))) }
