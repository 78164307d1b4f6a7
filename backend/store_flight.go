// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"time"
)

// commitWithin is how long the storage calls of one commit may take. They do not
// end with the caller: who hangs up must not leave a write half way.
const commitWithin = 30 * time.Second

// inFlight counts the commits that have begun and not ended. The zero value is
// ready.
type inFlight struct {
	mu       sync.Mutex
	n        int
	idle     chan struct{} // closed when n comes to nothing; nil while nobody waits
	grounded int           // how often
}

// Ground lets none that has begun begin another write.
func (f *inFlight) Ground() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grounded++
}

func (f *inFlight) groundings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grounded
}

// Begin counts a commit in.
func (f *inFlight) Begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
}

// End counts a commit out.
func (f *inFlight) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// Wait blocks until no commit is under way, or until ctx is done: then it returns
// false.
func (f *inFlight) Wait(ctx context.Context) bool {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return true
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return false
	}
}

// flight is a request, or a commit, under way.
type flight struct {
	b      *backend
	began  reading
	before int // how often commits were grounded
	commit bool
}

type flightKey struct{}

// errGrounded: what was not written yet is not written any more. Whoever writes to this
// storage now may have gone on meanwhile.
var errGrounded = errors.New("the engine was unloaded, or the node slept, before this was written")

// airborne fails where the request or commit that ctx is of may write no more: the
// engine was unloaded, or the clock on the wall ran ahead of the one that stands still
// while a node sleeps, so that no time-out could tell.
func airborne(ctx context.Context) error {
	f, ok := ctx.Value(flightKey{}).(*flight)
	if !ok {
		return nil
	}
	if wall, steady := f.began.upTo(f.b.reading()); f.b.commits.groundings() > f.before || wall-steady > commitWithin {
		return errGrounded
	}
	return nil
}

// takeOff is the context of a request that begins.
func (b *backend) takeOff(ctx context.Context) context.Context {
	return context.WithValue(ctx, flightKey{}, &flight{b: b, began: b.reading(), before: b.commits.groundings()})
}

// underway is the context of a commit that begins: with the caller's values, and a
// bound of its own, which what belongs to the commit shares. done is to be called at
// its end.
func (b *backend) underway(ctx context.Context) (commit context.Context, done func()) {
	b.commits.Begin()
	f := flight{b: b, began: b.reading(), before: b.commits.groundings(), commit: true}
	if of, ok := ctx.Value(flightKey{}).(*flight); ok {
		if of.commit {
			return ctx, b.commits.End
		}
		f.began, f.before = of.began, of.before
	}
	commit, cancel := b.clock.WithTimeout(context.WithValue(context.WithoutCancel(ctx), flightKey{}, &f), commitWithin)
	return commit, func() {
		cancel()
		b.commits.End()
	}
}
