// SPDX-License-Identifier: MPL-2.0

// Package feed tells those who wait what was decided: notices with positions, in
// memory only. Whoever was away too long, or comes with a position of another process,
// is told to begin anew.
package feed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Collect is how long a waiter that was woken waits for more, so that a burst of
// decisions costs it one answer.
const Collect = 400 * time.Millisecond

// Notice is one decision. It names a role, or a single key.
type Notice struct {
	RoleID string `json:"role_id,omitempty"`
	KeyID  string `json:"key_id,omitempty"`
	// Position of the decision. Positions grow, by one or more.
	Position uint64 `json:"position"`
	// Closing: something was revoked, deleted, disabled or narrowed, or may have been.
	Closing bool `json:"closing,omitempty"`
	// At is when it was decided.
	At time.Time `json:"-"`
}

// Data is the notice as an answer holds it.
func (n *Notice) Data() map[string]any {
	data := map[string]any{"position": n.Position}
	for name, id := range map[string]string{"role_id": n.RoleID, "key_id": n.KeyID} {
		if id != "" {
			data[name] = id
		}
	}
	if n.Closing {
		data["closing"] = true
	}
	return data
}

// Answer is what a waiter is told.
type Answer struct {
	Notices []Notice
	// Cursor is what to ask with next time.
	Cursor string
	// Reset: something may have been missed.
	Reset bool
	// Oldest is when the first of the decisions was made, of those too that are told by
	// a later one of the same role or key. Zero without any.
	Oldest time.Time
}

// Feed holds the last decisions. Its zero value is not ready; see New.
type Feed struct {
	mu      sync.Mutex
	epoch   string
	size    uint64
	ring    []Notice      // grows to size, and then the oldest gives its place
	last    uint64        // position of the newest notice
	woken   chan struct{} // closed and made anew by each notice
	waiters int
}

// New is a feed of an epoch of its own that remembers so many notices.
func New(size int) *Feed {
	return &Feed{epoch: newEpoch(), size: uint64(max(size, 1)), woken: make(chan struct{})} //nolint:gosec // positive
}

func newEpoch() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// Renew begins a new epoch: something was decided that the feed was not told of.
func (f *Feed) Renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.last = newEpoch(), 0
	f.wake()
}

// wake wakes all who wait. The feed is locked.
func (f *Feed) wake() {
	if f.waiters > 0 {
		close(f.woken)
		f.woken = make(chan struct{})
	}
}

// Publish tells a decision.
func (f *Feed) Publish(n Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	n.Position = f.last
	if place := f.place(f.last); place < len(f.ring) {
		f.ring[place] = n
	} else {
		f.ring = append(f.ring, n)
	}
	f.wake()
}

// place is where the notice of a position is.
func (f *Feed) place(position uint64) int { return int((position - 1) % f.size) } //nolint:gosec // below size

// Cursor is the position of the newest notice, with the epoch.
func (f *Feed) Cursor() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor()
}

func (f *Feed) cursor() string { return f.epoch + "." + strconv.FormatUint(f.last, 10) }

// ParseCursor is the epoch and the position of a cursor.
func ParseCursor(cursor string) (epoch string, position uint64, ok bool) {
	epoch, text, ok := strings.Cut(cursor, ".")
	position, err := strconv.ParseUint(text, 10, 64)
	return epoch, position, ok && err == nil
}

// Waiters is how many wait.
func (f *Feed) Waiters() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiters
}

// Since is what was decided after the cursor. If that is nothing it waits that long
// for something. The error is that of the context.
func (f *Feed) Since(ctx context.Context, cursor string, wait time.Duration) (Answer, error) {
	f.mu.Lock()
	epoch, from, ok := ParseCursor(cursor)
	if !ok || epoch != f.epoch || from > f.last || f.last-from > f.size {
		defer f.mu.Unlock()
		return Answer{Cursor: f.cursor(), Reset: true}, nil
	}
	if from == f.last && wait > 0 {
		woken := f.woken
		f.waiters++
		f.mu.Unlock()
		err := sleep(ctx, wait, woken)
		f.mu.Lock()
		f.waiters--
		if err != nil {
			f.mu.Unlock()
			return Answer{}, err
		}
	}
	defer f.mu.Unlock()
	if f.epoch != epoch || f.last-from > f.size {
		return Answer{Cursor: f.cursor(), Reset: true}, nil
	}
	a := Answer{Notices: f.after(from), Cursor: f.cursor()}
	if f.last > from {
		a.Oldest = f.ring[f.place(from+1)].At
	}
	return a, nil
}

// sleep ends after wait, or Collect after woken was closed.
func sleep(ctx context.Context, wait time.Duration, woken <-chan struct{}) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	began := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case <-woken:
	}
	timer.Reset(min(Collect, wait-time.Since(began)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// after is the notices after a position, the last of each role and of each key. A
// closing one stays closing.
func (f *Feed) after(from uint64) []Notice {
	var notices []Notice
	at := map[string]int{}
	for p := from + 1; p <= f.last; p++ {
		n := f.ring[f.place(p)]
		i, known := at[n.RoleID+"/"+n.KeyID]
		if !known {
			at[n.RoleID+"/"+n.KeyID] = len(notices)
			notices = append(notices, n)
			continue
		}
		n.Closing = n.Closing || notices[i].Closing
		notices[i] = n
	}
	return notices
}
