// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The worker does, step by step, the work of the periodic call between periodic calls.
// A goroutine only loops over step. What keeps it from acting where it must not:
//
//   - the mandate, which every periodic call renews: a server that has stopped calling
//     has handed the mount on, or sleeps;
//   - the server's word about this node and mount (writeSafe), asked at each step;
//   - the server's storage: a step that acts begins with a write of its own, and where
//     that is refused nothing else is tried;
//   - the end of the engine: from then on nothing is begun.
//
// A step makes no calls but to storage. Calls elsewhere take a time of their own: they
// belong beside the loop, and what came of them into a step.

const (
	// mandateTime is how long a periodic call lets the worker act.
	mandateTime = asserted
	// handTime is how long the end of the engine waits for what is in hand.
	handTime = 500 * time.Millisecond
	// longestRest is how long the worker rests at most after steps that failed.
	longestRest = time.Minute
)

type worker struct {
	loops bool // a goroutine runs the steps; tests call step themselves

	quit   context.Context //nolint:containedctx // it outlives every call
	cancel context.CancelFunc
	hand   context.Context //nolint:containedctx // what is in hand ends by it, a little later
	drop   context.CancelFunc

	mu      sync.Mutex
	storage logical.Storage // of the mount, as the last call that renewed the mandate had it
	renewed reading         // when that was; zero: never
	running bool            // the goroutine
	ended   bool            // the engine is being unloaded
	busy    int             // steps under way
	idle    chan struct{}   // closed when the last of them has ended, once the end has begun

	// Of whoever does a step.
	kept     backlog
	told     time.Time // when a failure was logged
	together int       // how many roles are looked at at once; zero: as many as a tick does
}

func newWorker() *worker {
	w := &worker{idle: make(chan struct{})}
	w.quit, w.cancel = context.WithCancel(context.Background())
	w.hand, w.drop = context.WithCancel(context.Background())
	return w
}

func (w *worker) mountStorage() logical.Storage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.storage
}

// entrust gives the worker its mandate anew, starts it where it does not run, and
// reports whether it runs.
func (b *backend) entrust(s logical.Storage) bool {
	w := b.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	w.storage, w.renewed = s, b.reading()
	if w.loops && !w.running && !w.ended {
		w.running = true
		go b.loop()
	}
	return w.running
}

// mandated reports whether the mandate holds. The time since it was given counts by
// the clock on the wall and by the one that nobody sets, whichever says more: the
// second stands still while the node sleeps.
func (b *backend) mandated() bool {
	w := b.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.ended && w.lasts(b.reading(), mandateTime)
}

// lasts reports whether the mandate was given less than d ago. The caller holds mu.
func (w *worker) lasts(now reading, d time.Duration) bool {
	wall, steady := w.renewed.upTo(now)
	return !w.renewed.wall.IsZero() && max(wall, steady) < d
}

// lingers reports whether the mandate holds, or did as long ago as a step may take to
// end what it has in hand.
func (b *backend) lingers() bool {
	w := b.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lasts(b.reading(), mandateTime+tickBudget)
}

// mandatedStorage is the mount's storage for what nobody asked for. It refuses writes
// once the mandate is over: a node may sleep anywhere, also in the middle of a role. What
// is left half done then is left as by a crash.
func (b *backend) mandatedStorage(s logical.Storage) logical.Storage {
	return fencedStorage{s, func() error {
		if b.lingers() {
			return nil
		}
		return errNoMandate
	}}
}

// mayWork reports whether the engine may write without being asked to. The periodic
// call, which gives the mandate, asks writeSafe alone.
func (b *backend) mayWork() bool { return b.mandated() && b.writeSafe() }

// enter begins a step, unless the engine is being unloaded.
func (b *backend) enter() bool {
	w := b.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.busy++
	return true
}

// leave ends a step.
func (b *backend) leave() {
	w := b.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy--; w.ended && w.busy == 0 {
		close(w.idle)
	}
}

// stop ends the worker: nothing more is begun, and what is in hand gets a moment.
func (b *backend) stop(ctx context.Context) {
	w := b.worker
	w.mu.Lock()
	if !w.ended && w.busy == 0 {
		close(w.idle)
	}
	w.ended = true
	w.mu.Unlock()
	w.cancel()
	wait, cancel := b.clock.WithTimeout(ctx, handTime)
	defer cancel()
	select {
	case <-w.idle:
	case <-wait.Done():
		b.Logger().Warn("the engine ends with background work in hand: whoever comes next finds it and goes on")
	}
	// Commits do not end with their caller, and not with the worker.
	if !b.commits.Wait(wait) {
		b.Logger().Warn("the engine ends while storage has not answered a write: whoever comes next reads what came of it")
	}
	w.drop()
	b.commits.Ground()
}

// loop is the worker's goroutine. It ends with the mandate, with the first refusal of
// storage, and with the engine; a periodic call starts it anew.
func (b *backend) loop() {
	w := b.worker
	rest := partRest
	for {
		began := b.reading()
		var next time.Time
		err := b.guarded("a step of the worker", func() (err error) {
			next, err = b.step(began.wall, stepBudget)
			return err
		})
		switch {
		case err != nil && mustForward(err):
			if w.leaveOff(began) {
				return
			}
			next = b.clock.Now().Add(rest)
		case err != nil:
			b.Logger().Error("a step of the worker failed", "error", err, "next", rest)
			next = b.clock.Now().Add(rest)
			rest = min(2*rest, longestRest)
		default:
			rest = partRest
		}
		b.sleep(next, err == nil)
	}
}

// leaveOff ends the goroutine, and reports whether it did: not where a periodic call
// came since the step began, which takes the worker for running.
func (w *worker) leaveOff(began reading) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = !w.ended && w.renewed.steady > began.steady
	return !w.running
}

// sleep waits until next, or until it is woken, which counts where the last step went
// well.
func (b *backend) sleep(next time.Time, wakes bool) {
	quit := b.worker.quit
	for quit.Err() == nil {
		if at := b.wake.wanted(); wakes && !at.IsZero() && at.Before(next) {
			next = at
		}
		d := next.Sub(b.clock.Now())
		if d <= 0 {
			return
		}
		ctx, cancel := context.WithCancel(quit)
		over := make(chan struct{})
		go func() {
			defer close(over)
			select {
			case <-b.wake.rings:
				cancel()
			case <-ctx.Done():
			}
		}()
		b.clock.Wait(ctx, d)
		cancel()
		<-over
	}
}
