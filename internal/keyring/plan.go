// SPDX-License-Identifier: MPL-2.0

package keyring

import (
	"hash/fnv"
	"time"
)

// MinLead is the least time between the staging of a version and its
// activation, wherever the distance between activations allows it. It is
// several runs of a periodic function that comes once a minute, so that one
// late run does not make an activation late.
const MinLead = 3 * time.Minute

// Overdue is the ttl handed out while an activation is overdue: the new
// version comes with one of the next runs of the periodic function.
const Overdue = 60 * time.Second

// Lead is how long before its activation a version is staged: ahead, at most
// half the distance between activations, at least MinLead where that half
// allows it.
func Lead(ahead, distance time.Duration) time.Duration {
	return min(max(ahead, MinLead), distance/2)
}

// Jitter is the fixed part of spread that shifts the plan of the role with that
// id: at least zero and less than spread.
func Jitter(roleID string, spread time.Duration) time.Duration {
	if spread <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(roleID)) // a hash.Hash never fails
	return (time.Duration(mix(h.Sum64())%uint64(spread)) / time.Second) * time.Second
}

// mix spreads the low entropy of FNV over all bits (finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// NextPeriod is the activation after one that was planned at planned and
// happened at at. The phase is kept; what was missed is not made up for, and a
// slot nearer than half a period is left out, so that no version is superseded
// right after it came.
func NextPeriod(planned, at time.Time, period time.Duration) time.Time {
	if !at.After(planned) {
		return planned.Add(period)
	}
	missed := at.Sub(planned) / period
	next := planned.Add((missed + 1) * period)
	if next.Sub(at) < period/2 {
		next = next.Add(period)
	}
	return next
}

// Handout is what the answer of a read is computed from.
type Handout struct {
	// NextActivation is the next planned one; zero if there is none.
	NextActivation time.Time
	// Ends is the end of the version handed out that is not the grace of a
	// rotation; zero: none known.
	Ends time.Time
	// Refresh is the role's upper bound, Grace the shortest grace that the
	// version handed out may be given.
	Refresh, Grace time.Duration
}

// TTL is how long the reader of a current version may wait before reading
// again: whole seconds, at least one.
func (h Handout) TTL(now time.Time) time.Duration {
	ttl := h.Refresh
	if h.Grace > 0 {
		ttl = min(ttl, h.Grace/2)
	}
	if !h.NextActivation.IsZero() {
		if h.NextActivation.After(now) {
			ttl = min(ttl, h.NextActivation.Sub(now))
		} else {
			ttl = min(ttl, Overdue)
		}
	}
	if !h.Ends.IsZero() {
		ttl = min(ttl, h.Ends.Sub(now))
	}
	return max(ttl.Truncate(time.Second), time.Second)
}
