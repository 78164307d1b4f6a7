// SPDX-License-Identifier: MPL-2.0

package client

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// moment is a reading of two clocks. The wall's may be set, the monotonic one stands
// still while the machine is suspended.
type moment struct{ wall, mono int64 }

var started = time.Now()

// systemClock are the machine's clocks.
func systemClock() (wall, mono int64) {
	now := time.Now()
	return now.UnixNano(), int64(now.Sub(started))
}

func (m moment) add(d time.Duration) moment {
	return moment{m.wall + int64(d), m.mono + int64(d)}
}

// until is the time left until m, as the clock says that is further ahead. No deadline is
// far away.
func (m moment) until(now moment) time.Duration {
	if m == (moment{}) {
		return 1<<63 - 1
	}
	return time.Duration(min(m.wall-now.wall, m.mono-now.mono))
}

// passed reports whether one of the clocks says that m is over.
func (m moment) passed(now moment) bool { return m.until(now) <= 0 }

// earlier is the one that comes first; the zero moment never comes.
func earlier(a, b moment) moment {
	switch {
	case a == (moment{}):
		return b
	case b == (moment{}) || a.mono < b.mono:
		return a
	default:
		return b
	}
}

// jitter spreads what many consumers do. It follows from the consumer's name and from
// when it was started: so a simulation can be repeated.
type jitter struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func newJitter(name string, wall int64) *jitter {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))                                         // a hash.Hash never fails
	return &jitter{rand: rand.New(rand.NewPCG(h.Sum64(), uint64(wall)))} //nolint:gosec // spreads load
}

// firstPause is the pause after a first failure.
const firstPause = time.Second

// below is a random duration that is shorter than d.
func (j *jitter) below(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Duration(j.rand.Int64N(int64(d)))
}

// backoff is the pause after so many failures in a row: a second, then twice as long
// each time.
func (j *jitter) backoff(failures int, longest time.Duration) time.Duration {
	pause := min(firstPause<<min(max(failures-1, 0), 20), longest)
	return pause - j.below(pause/4)
}
