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
	parted bool // the clocks have parted since
	jumps  int  // how often they have
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
		t.parted = true
		t.jumps++
	}
	if parted > int64(noise) {
		t.base.Add(parted)
	}
	if parted > int64(noise) || parted < -int64(noise) {
		t.drift.Store(wall - mono)
	}
}

// trust ends the time in which nothing is believed, and reports whether it did: not
// where the clocks have parted since they had done so that often.
func (t *timekeeper) trust(jumps int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if jumps != t.jumps {
		return false
	}
	t.suspect.Store(false)
	return true
}

// jumped is how often the clocks have parted.
func (t *timekeeper) jumped() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jumps
}

// server is the time at the server at an elapsed instant.
func (t *timekeeper) server(elapsed int64) int64 {
	return max(elapsed+t.offset.Load(), t.floor.Load())
}

// past is what the time was at the server at an instant that has passed: as far as is
// known now.
func (t *timekeeper) past(elapsed int64) int64 { return elapsed + t.offset.Load() }

// learn takes what the server said its time was between the two elapsed instants. It
// was later than that when the answer came, and earlier when the question left. exact
// is a call that the server answered at once: it forgets what was learnt before, so
// that clocks may drift. other is another process of the engine, whose time may be
// earlier: what has ended here is marked in the keys.
//
// The latest time that is possible is taken: an end is never late for it. jumps is what
// jumped said before the question: what came between says nothing.
func (t *timekeeper) learn(sent, received int64, now time.Time, exact, other bool, jumps int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if jumps != t.jumps {
		return
	}
	lo, hi := now.UnixNano()-received, now.UnixNano()-sent
	other = other || t.parted // what the gap was counted for was no more than a guess
	t.parted = false
	if t.known && !exact && !other {
		lo, hi = max(lo, t.lo), min(hi, t.hi)
	}
	if lo > hi { // another server, or a clock that was set or stands still
		lo, hi = now.UnixNano()-received, now.UnixNano()-sent
	}
	t.lo, t.hi, t.known = lo, hi, true
	switch {
	case other:
		t.offset.Store(hi)
		t.floor.Store(0)
	case exact && t.floor.Load()-(hi+received) > int64(jump):
		// The server's clock stands still or was set back, and this edge ran ahead while
		// it could not ask. Refusals would be wrong until the server is that far.
		t.offset.Store(hi)
		t.floor.Store(0)
	case t.offset.Load() != hi:
		t.floor.Store(t.server(received))
		t.offset.Store(hi)
	}
}

// resume begins with what is known of the server's time from before.
func (t *timekeeper) resume(elapsed, server int64) {
	t.offset.Store(server - elapsed)
	t.floor.Store(server)
}

// vague reports whether the server's time is known so badly that it pays to ask. It is,
// too, while it waits for the server's to come up to what this edge ran ahead to.
func (t *timekeeper) vague(elapsed int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.known || t.hi-t.lo > int64(wellKnown) || t.floor.Load()-(t.hi+elapsed) > int64(jump)
}

// wellKnown is how well the server's time is to be known.
const wellKnown = 100 * time.Millisecond

// wall is the wall clock's time.
func (t *timekeeper) wall() time.Time {
	wall, _ := t.read()
	return time.Unix(0, wall)
}
