// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"time"
)

// wakeup is how whoever makes work tells the worker, which sleeps until the next
// minute otherwise. What is forgotten here is found then.
type wakeup struct {
	mu    sync.Mutex
	when  time.Time     // the earliest instant wanted; zero: none
	quiet time.Time     // the same, for what is not in the calendar
	rings chan struct{} // a ring is enough, however often it is wanted
}

func newWakeup() *wakeup { return &wakeup{rings: make(chan struct{}, 1)} }

// at wakes the worker then, or at once where that is over.
func (w *wakeup) at(when time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.when.IsZero() || when.Before(w.when) {
		w.when = when
	}
	select {
	case w.rings <- struct{}{}:
	default:
	}
}

// quietly is at for what is not in the calendar, which nobody needs to read then.
func (w *wakeup) quietly(when time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet.IsZero() || when.Before(w.quiet) {
		w.quiet = when
	}
	select {
	case w.rings <- struct{}{}:
	default:
	}
}

// due forgets and reports whether somebody wanted the worker to be awake at now.
func (w *wakeup) due(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.quiet.After(now) {
		w.quiet = time.Time{}
	}
	if w.when.IsZero() || w.when.After(now) {
		return false
	}
	w.when = time.Time{}
	return true
}

// wanted is the earliest instant that somebody wants; zero: none.
func (w *wakeup) wanted() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.when.IsZero() || !w.quiet.IsZero() && w.quiet.Before(w.when) {
		return w.quiet
	}
	return w.when
}

// wakeFor wakes the worker where a commit filed the role under a minute that it has
// come to already: what is filed later it finds by itself.
func (b *backend) wakeFor(rec *roleRecord) {
	if rec == nil || rec.Due.IsZero() {
		return
	}
	if now := b.now(); !rec.Due.After(now) {
		b.wake.at(now)
	}
}
