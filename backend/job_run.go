// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Bulk jobs share the time that the rest of a tick leaves them, step by step. A
// step does one role, or some keys of one, and stores how far the job has come.
// So each step finds out whether the job was stopped, the end of a tick loses
// nothing, and after a crash one step at most is repeated, which is recognised.

const (
	// jobKept is how long a finished job can be read.
	jobKept = 30 * 24 * time.Hour
	// jobTime is how long a tick begins steps, and jobLast how long after its own
	// beginning: what a step has in hand is ended and stored within the tick's time.
	jobTime = 3 * time.Second
	jobLast = 4 * time.Second
	// jobTurns: of so many steps one is for the jobs that end no keys, however
	// many that do are ready.
	jobTurns = 8
)

// jobWork is what this node knows of jobs from one tick to the next. Only ticks
// change it.
type jobWork struct {
	mu    sync.Mutex // for runs, which those who stop a job read
	runs  map[string]*jobRun
	ended map[string]time.Time // jobs that never run again, and since when
	steps int64
	kills int // steps in a row of jobs that end keys, while others were ready
}

// jobsWaiting reports whether a job may have to be worked on.
func (b *backend) jobsWaiting(ctx context.Context, s logical.Storage) bool {
	ids, err := b.openJobs(ctx, s)
	return err != nil || slices.ContainsFunc(ids, func(id string) bool {
		_, ended := b.jobWork.ended[id]
		return !ended
	})
}

// runJobs works on the bulk jobs until the tick's time for them is over.
func (b *backend) runJobs(ctx context.Context, t *tick) error {
	spent := b.clock.Now().Sub(t.began)
	work, cancel := b.clock.WithTimeout(ctx, tickBudget-jobSaveTime-spent)
	defer cancel()
	begin, cancelBegin := t.begin(work, min(t.share(jobTime), t.share(jobLast)-spent))
	defer cancelBegin()
	runs, err := b.openRuns(begin, t)
	defer cut(runs)
	errs := []error{err}
	if len(runs) > 0 {
		if err := t.fence(ctx); err != nil {
			return err
		}
	}
	for begin.Err() == nil && t.may() {
		r, wait := b.jobWork.turn(runs, b.clock.Now())
		if r == nil {
			if wait > 0 && b.clock.Wait(begin, wait) {
				continue
			}
			break
		}
		if err := r.step(work, begin); err != nil {
			if mustForward(err) {
				return err
			}
			r.out = true
			errs = append(errs, fmt.Errorf("bulk job %s: %w", r.id, err))
		}
	}
	for _, r := range runs {
		if r.dirty {
			if err := r.save(work); err != nil {
				errs = append(errs, fmt.Errorf("bulk job %s: %w", r.id, err))
			}
		}
		r.unlistSpent(work)
	}
	if begin.Err() != nil && ctx.Err() == nil {
		for i := range errs {
			errs[i] = unlessLate(errs[i])
		}
	}
	return errors.Join(errs...)
}

// cut frees what the jobs read of long lists, but for what the next tick needs.
func cut(runs []*jobRun) {
	for _, r := range runs {
		r.roles.cut()
		r.keys.cut()
		r.allRoles = nil
	}
}

// openRuns are the jobs that run, as far as this node can read them. Those that
// ended long ago are removed.
func (b *backend) openRuns(ctx context.Context, t *tick) ([]*jobRun, error) {
	ids, err := b.openJobs(ctx, t.s)
	if err != nil {
		return nil, err
	}
	w := &b.jobWork
	w.keep(ids)
	roles := sync.OnceValues(func() ([]string, error) { return listSorted(ctx, t.s, rolePrefix) })
	var runs []*jobRun
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			break // the next tick reads on
		}
		if ended, over := w.ended[id]; over {
			if t.now.Sub(ended) > jobKept {
				errs = append(errs, deleteRecord(ctx, t.s, jobPath(id)))
				b.jobs.forget()
			}
			continue
		}
		r := w.run(b, id)
		r.s, r.allRoles, r.fresh, r.out, r.ready = t.s, roles, false, false, time.Time{}
		if r.job == nil || r.halted.Load() { // whether it was stopped stands in the record
			if err := r.refresh(ctx); err != nil {
				errs = append(errs, fmt.Errorf("bulk job %s: %w", id, err))
				continue
			}
		}
		if !r.out {
			runs = append(runs, r)
		}
	}
	return runs, errors.Join(errs...)
}

// keep forgets what is known of jobs that are not among these.
func (w *jobWork) keep(ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	for id := range w.ended {
		if !there[id] {
			delete(w.ended, id)
		}
	}
	for id := range w.runs {
		if _, ended := w.ended[id]; ended || !there[id] {
			delete(w.runs, id)
		}
	}
}

// run is this node's work on the job.
func (w *jobWork) run(b *backend, id string) *jobRun {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs == nil {
		w.runs, w.ended = map[string]*jobRun{}, map[string]time.Time{}
	}
	r := w.runs[id]
	if r == nil {
		r = &jobRun{b: b, id: id}
		w.runs[id] = r
	}
	return r
}

// halt lets the job end with what it has in hand. The caller holds jobs.edit.
func (w *jobWork) halt(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[id]; r != nil {
		r.halted.Store(true)
	}
}

// turn is the job whose step is next: the one that waited longest, of those that
// end keys as long as there are any and not forever. Where all wait for their
// pace it says how long; zero if none does.
func (w *jobWork) turn(runs []*jobRun, now time.Time) (*jobRun, time.Duration) {
	var killer, other *jobRun
	var wait time.Duration
	for _, r := range runs {
		switch {
		case r.out || r.halted.Load():
		case r.ready.After(now):
			if d := r.ready.Sub(now); wait == 0 || d < wait {
				wait = d
			}
		case r.job.kills():
			killer = r.sooner(killer)
		default:
			other = r.sooner(other)
		}
	}
	next := killer
	switch {
	case other == nil:
	case killer == nil || w.kills == jobTurns-1:
		next, w.kills = other, 0
	default:
		w.kills++
	}
	if next != nil {
		w.steps++
		next.served = w.steps
	}
	return next, wait
}
