// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// backlog is what the worker keeps from one step to the next: how far it has read
// the calendar, and which roles wait, judged and in order. Nothing of it decides
// anything, so a restart loses nothing but time. Whoever does a step has it.
//
// Once a minute a pass reads the calendar as the walk of a run does, in as many
// steps as that takes. Between passes only the present minute is read, where
// somebody says that there is something new.
type backlog struct {
	jobs    []dueJob
	known   map[knownEntry]struct{} // the entries of jobs
	pass    time.Time               // the present minute of the last pass
	reading time.Time               // where the pass goes on; zero: it has read everything
	left    time.Time               // earliest minute with an entry that is neither done with nor in jobs
	look    bool                    // the present minute holds something new
	started time.Time               // the first step
	overdue map[string]time.Time    // what was told to be overdue, by role
}

type knownEntry struct {
	minute int64
	name   string
}

func (e dueEntry) known() knownEntry { return knownEntry{e.minute.Unix(), e.name} }

// waits reports whether there is work for another step at once.
func (k *backlog) waits() bool { return len(k.jobs) > 0 || !k.reading.IsZero() || k.look }

// take adds judged entries, and puts all in the order of the work.
func (k *backlog) take(jobs []dueJob) {
	if len(jobs) == 0 {
		return
	}
	if k.known == nil {
		k.known = map[knownEntry]struct{}{}
	}
	for _, job := range jobs {
		k.known[job.known()] = struct{}{}
	}
	k.jobs = append(k.jobs, jobs...)
	slices.SortStableFunc(k.jobs, dueJob.compare)
}

// done takes off the jobs that were acted on.
func (k *backlog) done(acted []bool) {
	kept := k.jobs[:0]
	for i, job := range k.jobs {
		if acted[i] {
			delete(k.known, job.known())
		} else {
			kept = append(kept, job)
		}
	}
	clear(k.jobs[len(kept):])
	k.jobs = kept
	if len(kept) == 0 {
		k.jobs, k.known = nil, nil
	}
}

// leave notes a minute that is not done with.
func (k *backlog) leave(minute time.Time) {
	if !minute.IsZero() && (k.left.IsZero() || minute.Before(k.left)) {
		k.left = minute
	}
}

// walkOn is the walk of one step: it reads some more of the calendar and acts on
// some more of what waits.
func (t *tick) walkOn(ctx context.Context) error {
	k := t.kept
	end := t.now.Truncate(time.Minute) // the minute that is not over yet
	begin, cancel := t.begin(ctx, t.workTime())
	defer cancel()
	from := end
	switch {
	case !k.reading.IsZero() && !k.reading.After(end):
		from = k.reading
	case !end.Equal(k.pass):
		var err error
		if from, err = t.from(ctx, end); err != nil {
			return err // the next step begins like this one
		}
		if err := t.b.compareMark(ctx, t.s, t.now); err != nil {
			return err
		}
		k.left, k.reading, t.full = time.Time{}, from, true
	}
	if !k.reading.IsZero() {
		k.pass = end
	}
	readErr := t.read(begin, from, end)
	workErr := t.workOn(ctx, begin)
	if begin.Err() != nil && ctx.Err() == nil {
		readErr, workErr = unlessEnded(readErr), unlessEnded(workErr)
	}
	k.leave(t.unfinished)
	if workErr != nil && mustForward(workErr) {
		return workErr
	}
	if done := t.doneWith(end); k.reading.IsZero() && !done.Equal(t.b.cursor()) && t.may() {
		workErr = errors.Join(workErr, t.b.advance(ctx, t.s, t.now, done))
	}
	return errors.Join(readErr, workErr)
}

// doneWith is the last minute that a pass until end is done with.
func (t *tick) doneWith(end time.Time) time.Time {
	done := end.Add(-time.Minute)
	before := func(minute time.Time) {
		if !minute.IsZero() && !minute.After(done) {
			done = minute.Add(-time.Minute)
		}
	}
	before(t.kept.left)
	for _, job := range t.kept.jobs {
		before(job.minute)
	}
	return done
}

// read judges what is filed from a minute on, as far as time and the size of the
// backlog allow.
func (t *tick) read(begin context.Context, from, end time.Time) error {
	k := t.kept
	batch := slices.DeleteFunc(t.missed(end), func(e dueEntry) bool {
		_, known := k.known[e.known()]
		return known
	})
	gather := func() {
		k.take(t.judgeAll(begin, batch))
		batch = batch[:0]
	}
	defer func() { gather() }()
	room := cmp.Or(t.backlog, tickBacklog)
	full := func() bool { return len(k.jobs)+len(batch) >= room }
	switch {
	case k.reading.IsZero() && !k.look, full() && !k.look:
		return nil
	case full():
		from = end // what is new is not to wait for the rest
	}
	whole := !k.reading.IsZero() && !from.After(k.reading)
	began := t.b.clock.Now()
	for e, err := range dueEntries(begin, t.s, from, end) {
		if err != nil {
			if whole {
				k.reading = e.minute
			}
			return err
		}
		if _, known := k.known[e.known()]; known {
			continue
		}
		if batch = append(batch, e); len(batch) < cmp.Or(t.batch, tickBatch) {
			continue
		}
		gather()
		if full() && whole || t.b.clock.Now().Sub(began) >= t.share(tickGather) {
			if whole {
				k.reading = e.minute
			}
			return nil
		}
	}
	if k.look = false; whole {
		k.reading = time.Time{}
	}
	return nil
}

// workOn acts on what waits, what is most urgent first, and begins nothing once begin
// is done.
func (t *tick) workOn(ctx, begin context.Context) error {
	k := t.kept
	if len(k.jobs) == 0 || begin.Err() != nil {
		return begin.Err()
	}
	if err := t.fence(ctx); err != nil {
		return err
	}
	jobs, acted := k.jobs, make([]bool, len(k.jobs))
	defer func() { k.done(acted) }()
	t.poolUntil(begin, len(jobs), func(i int) {
		job := jobs[i]
		if begin.Err() != nil || t.refused.Load() || !t.may() || job.mints && !t.mayMint(begin) {
			return
		}
		acted[i] = true
		if err := t.b.guarded("a look at a role", func() error { return t.b.lookAt(ctx, t, job.dueEntry) }); err != nil {
			t.failed(ctx, job, err)
		}
	})
	if t.refused.Load() {
		return logical.ErrReadOnly
	}
	return begin.Err()
}
