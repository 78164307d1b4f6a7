// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// jump is how far the wall clock may part from the monotonic one before nothing is
	// believed until the server was asked: the machine was suspended, or somebody set
	// its clock.
	jump = 2 * time.Second
	// noise is what the two clocks may differ by without a meaning.
	noise = 10 * time.Millisecond
)

// timekeeper tells how much time has passed, and what time it is at the server. All
// instants are nanoseconds.
//
// Elapsed time is the larger of what the monotonic and what the wall clock say: the
// one stands still while a machine sleeps, the other can be set.
type timekeeper struct {
	read func() (wall, mono int64)

	base    atomic.Int64 // elapsed = mono + base
	drift   atomic.Int64 // wall - mono, as last taken into account
	offset  atomic.Int64 // server = elapsed + offset
	floor   atomic.Int64 // the server's time never goes back
	suspect atomic.Bool

	mu     sync.Mutex
	lo, hi int64 // what the offset lies between
	known  bool
}

func newTimekeeper(read func() (wall, mono int64)) *timekeeper {
	if read == nil {
		start := time.Now()
		read = func() (int64, int64) {
			now := time.Now()
			return now.UnixNano(), int64(now.Sub(start))
		}
	}
	t := &timekeeper{read: read}
	wall, mono := read()
	t.drift.Store(wall - mono)
	t.offset.Store(wall - mono) // until the server has said more
	return t
}

// elapsed is the time that has passed since the start; false while the clocks have
// parted and the server was not asked since.
func (t *timekeeper) elapsed() (int64, bool) {
	wall, mono := t.read()
	if parted := wall - mono - t.drift.Load(); parted > int64(noise) || parted < -int64(noise) {
		t.part(wall, mono)
	}
	return mono + t.base.Load(), !t.suspect.Load()
}

// part takes into account that the clocks have parted. What the wall clock gained is
// time that has passed; what it lost is not.
func (t *timekeeper) part(wall, mono int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parted := wall - mono - t.drift.Load()
	if parted > int64(jump) || parted < -int64(jump) {
		t.suspect.Store(true)
	}
	if parted > int64(noise) {
		t.base.Add(parted)
	}
	if parted > int64(noise) || parted < -int64(noise) {
		t.drift.Store(wall - mono)
	}
}

// trust ends the time in which nothing is believed.
func (t *timekeeper) trust() { t.suspect.Store(false) }

// server is the time at the server at an elapsed instant.
func (t *timekeeper) server(elapsed int64) int64 {
	return max(elapsed+t.offset.Load(), t.floor.Load())
}

// learn takes what the server said its time was between the two elapsed instants. It
// was later than that when the answer came, and earlier when the question left. exact
// is a call that the server answered at once: it forgets what was learnt before, so
// that clocks may drift.
//
// The latest time that is possible is taken: an end is never late for it.
func (t *timekeeper) learn(sent, received int64, now time.Time, exact bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lo, hi := now.UnixNano()-received, now.UnixNano()-sent
	if t.known && !exact {
		lo, hi = max(lo, t.lo), min(hi, t.hi)
	}
	if lo > hi { // another server, or a clock that was set
		lo, hi = now.UnixNano()-received, now.UnixNano()-sent
	}
	t.lo, t.hi, t.known = lo, hi, true
	if t.offset.Load() != hi {
		t.floor.Store(t.server(received))
		t.offset.Store(hi)
	}
}

// resume begins with what is known of the server's time from before.
func (t *timekeeper) resume(elapsed, server int64) {
	t.offset.Store(server - elapsed)
	t.floor.Store(server)
}

// wall is the wall clock's time.
func (t *timekeeper) wall() time.Time {
	wall, _ := t.read()
	return time.Unix(0, wall)
}
