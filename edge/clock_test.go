// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"testing"
	"time"
)

// twoClocks are a wall clock and a monotonic one that the test sets.
type twoClocks struct{ wall, mono int64 }

func (c *twoClocks) read() (wall, mono int64) { return c.wall, c.mono }

func (c *twoClocks) pass(d time.Duration) { c.wall += int64(d); c.mono += int64(d) }

func newClocks() (*twoClocks, *timekeeper) {
	c := &twoClocks{wall: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), mono: 5}
	return c, newTimekeeper(c.read)
}

func TestElapsed(t *testing.T) {
	c, k := newClocks()
	check := func(name string, want time.Duration, sure bool) {
		t.Helper()
		if got, s := k.elapsed(); got != int64(want)+5 || s != sure {
			t.Errorf("%s: %v, %t; want %v, %t", name, time.Duration(got-5), s, want, sure)
		}
	}
	c.pass(time.Second)
	check("both pass", time.Second, true)
	c.wall += int64(9 * time.Millisecond)
	check("noise", time.Second, true)
	c.wall += int64(time.Second)
	check("the wall clock gains", 2*time.Second+9*time.Millisecond, true)
	c.wall -= int64(2 * time.Second)
	check("the wall clock loses", 2*time.Second+9*time.Millisecond, true)
	c.wall += int64(time.Hour)
	check("the machine slept", time.Hour+2*time.Second+9*time.Millisecond, false)
	c.pass(time.Second)
	check("still nobody was asked", time.Hour+3*time.Second+9*time.Millisecond, false)
	if k.jumped() != 1 {
		t.Errorf("%d jumps", k.jumped())
	}
	if k.trust(0) {
		t.Error("a question from before the clocks parted counts")
	}
	check("asked before", time.Hour+3*time.Second+9*time.Millisecond, false)
	if !k.trust(1) {
		t.Error("a question from after it does not")
	}
	check("asked", time.Hour+3*time.Second+9*time.Millisecond, true)
	c.wall -= int64(time.Hour)
	check("set back: no time comes back", time.Hour+3*time.Second+9*time.Millisecond, false)
}

func TestServerTime(t *testing.T) {
	c, k := newClocks()
	start, _ := k.elapsed()
	server := time.Unix(0, c.wall).Add(time.Minute) // a minute ahead of this machine
	if !k.vague(start) {
		t.Error("nobody has said what time it is")
	}
	near := func(name string, want time.Time, by time.Duration) {
		t.Helper()
		now, _ := k.elapsed()
		if got := time.Unix(0, k.server(now)); got.Sub(want) < 0 || got.Sub(want) > by {
			t.Errorf("%s: %v off by %v", name, got, got.Sub(want))
		}
	}
	ask := func(there, back time.Duration, exact, other bool) {
		sent, _ := k.elapsed()
		jumps := k.jumped()
		c.pass(there)
		said := server.Add(time.Duration(c.mono - start))
		c.pass(back)
		received, _ := k.elapsed()
		k.learn(sent, received, said, exact, other, jumps)
	}
	there := func() time.Time { return server.Add(time.Duration(c.mono - start)) }

	ask(time.Second, time.Second, false, false)
	near("bounded from both sides", there(), time.Second)
	if now, _ := k.elapsed(); !k.vague(now) {
		t.Error("a second is vague")
	}
	ask(2*time.Second, 10*time.Millisecond, false, false)
	ask(10*time.Millisecond, 2*time.Second, false, false)
	c.pass(time.Second) // it stood still for that long: it never goes back
	near("from one side each", there(), 10*time.Millisecond)
	if now, _ := k.elapsed(); k.vague(now) {
		t.Error("10 ms are enough")
	}

	// Exact calls forget what was learnt, so that clocks may drift.
	server = server.Add(-500 * time.Millisecond)
	floor, _ := k.elapsed()
	before := k.server(floor)
	ask(20*time.Millisecond, 20*time.Millisecond, true, false)
	now, _ := k.elapsed()
	if k.server(now) < before {
		t.Errorf("the server's time went back by %v", time.Duration(before-k.server(now)))
	}
	c.pass(time.Second)
	near("drifted", there(), 40*time.Millisecond)

	// One that was set back, or stands still, is believed when it answers at once: this
	// edge ran ahead. What has ended meanwhile is marked in the keys.
	server = server.Add(-20 * time.Second)
	ask(20*time.Millisecond, 2*time.Second, false, false)
	if now, _ := k.elapsed(); time.Unix(0, k.server(now)).Sub(there()) < 15*time.Second {
		t.Error("the time went back without an exact answer")
	}
	ask(20*time.Millisecond, 20*time.Millisecond, false, false)
	if now, _ := k.elapsed(); !k.vague(now) {
		t.Error("it is well known by how much this edge ran ahead, and nobody asks")
	}
	ask(20*time.Millisecond, 20*time.Millisecond, true, false)
	near("set back", there(), 40*time.Millisecond)

	// Another process of the engine may be earlier.
	server = server.Add(-time.Hour)
	ask(20*time.Millisecond, 20*time.Millisecond, false, true)
	near("another process", there(), 40*time.Millisecond)

	// What a jump came between says nothing.
	sent, _ := k.elapsed()
	jumps := k.jumped()
	c.wall += int64(time.Hour)
	received, _ := k.elapsed()
	offset := k.offset.Load()
	k.learn(sent, received, there().Add(-2*time.Hour), true, false, jumps)
	if k.offset.Load() != offset {
		t.Error("an answer that a jump came between was believed")
	}
	// After it even a server that is earlier is believed: the gap was a guess.
	k.trust(1)
	ask(time.Millisecond, time.Millisecond, true, false)
	near("after a jump", there(), 3*time.Millisecond)
}
