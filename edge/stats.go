// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"sync"
	"time"
)

// Stats are for metrics: how far a verdict may be behind the server now, and the
// bounds that hold.
type Stats struct {
	// Held is how many keys are held. Dirty is how many of them a decision or a reset
	// has made dirty: each is verified anew at its next use, unless the background comes
	// first.
	Held, Dirty int
	// Live: decisions arrive. A decision counts a second after its answer, and
	// FeedWindow after it where a connection died without a trace.
	Live       bool
	FeedWindow time.Duration
	// Unconfirmed is how long ago the server was last known to have told everything,
	// be it to the edge that wrote the state file; negative if it has told nothing. Held
	// keys are accepted without it for MaxStaleness.
	Unconfirmed, MaxStaleness time.Duration
	// Delays tell how late decisions were heard of.
	Delays Delays
	// FirstSights is how many keys that are not held could be asked about at once now,
	// whoever presents them; Busy is how many requests with such a key were answered
	// with ErrBusy.
	FirstSights float64
	Busy        uint64
	// Uses counts what is to be reported and was not taken by the engine yet: a key with
	// a client label is one. What has been accepted under the edge's own label counts
	// from its report on. Unreported is how long ago the engine had taken all; a live
	// edge reports every five minutes.
	Uses       int
	Unreported time.Duration
}

// DelayBounds are those of Delays.
var DelayBounds = [...]time.Duration{
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
}

// Delays are how long decisions took from the engine to this edge, where they count at
// once: of each answer of the feed that of its oldest decision.
type Delays struct {
	Count uint64
	Sum   time.Duration
	// Within is how many took no longer than each of DelayBounds.
	Within [len(DelayBounds)]uint64
}

// delays are Delays that are being measured.
type delays struct {
	mu sync.Mutex
	Delays
}

func (d *delays) observe(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Count++
	d.Sum += took
	for i, bound := range DelayBounds {
		if took <= bound {
			d.Within[i]++
		}
	}
}

func (d *delays) now() Delays {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Delays
}

// heard measures how late the decisions of an answer are: how old they were when the
// server answered, and how long ago that was. It cannot be longer than the call took.
func (v *Verifier) heard(a *changes, sent, received int64) {
	if a.Oldest.IsZero() {
		return // none, or an engine that does not say
	}
	way := min(max(v.clock.server(received)-a.Now.UnixNano(), 0), received-sent)
	v.delays.observe(max(a.Now.Sub(a.Oldest), 0) + time.Duration(way))
}

// Stats tells how the edge is. It looks at every key where some may be dirty.
func (v *Verifier) Stats() Stats {
	now, _ := v.clock.elapsed()
	s := Stats{
		Held: int(v.keys.size.Load()), Dirty: v.dirty(), FeedWindow: time.Duration(v.window.Load()), Unconfirmed: -1, MaxStaleness: time.Duration(v.stale.Load()),
		Delays: v.delays.now(), FirstSights: v.limits.total.TokensAt(time.Unix(0, now)), Busy: v.limits.busy.Load(),
		Uses: v.usage.waiting(), Unreported: time.Duration(now - v.usage.reported.Load()),
	}
	confirmed := v.confirmed.Load()
	s.Live = confirmed != notConfirmed && now-confirmed <= int64(s.FeedWindow)
	if confirmed = max(confirmed, v.loaded); confirmed != notConfirmed {
		s.Unconfirmed = time.Duration(now - confirmed)
	}
	return s
}

// dirty is how many keys are.
func (v *Verifier) dirty() (n int) {
	stirred := v.asks.stirred.Load() // before the look: it may overlook what becomes dirty meanwhile
	if stirred == v.asks.clean.Load() {
		return 0
	}
	reset := v.reset.Load()
	v.keys.all(func(_ digest, h *held) {
		if h.dirty(reset) {
			n++
		}
	})
	if n == 0 {
		v.asks.clean.Store(stirred)
	}
	return n
}
