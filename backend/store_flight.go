// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"time"
)

// commitWithin is how long the storage calls of one commit may take. They do not
// end with the caller: who hangs up must not leave a write half way.
const commitWithin = 30 * time.Second

// inFlight counts the commits that have begun and not ended. The zero value is
// ready.
type inFlight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n comes to nothing; nil while nobody waits
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

// underway is the context of a commit that begins: with the caller's values, and a
// bound of its own. done is to be called at its end.
func (b *backend) underway(ctx context.Context) (commit context.Context, done func()) {
	b.commits.Begin()
	commit, cancel := b.clock.WithTimeout(context.WithoutCancel(ctx), commitWithin)
	return commit, func() {
		cancel()
		b.commits.End()
	}
}
