// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// walk reads what is due, minute by minute, does what is most urgent of it first,
// and moves the cursor over the minutes that are done with.
func (t *tick) walk(ctx context.Context) error {
	end := t.now.Truncate(time.Minute) // the minute that is not over yet
	from, err := t.from(ctx, end)
	if err != nil {
		return err // the next run begins like this one
	}
	begin, cancel := t.begin(ctx, t.workTime())
	defer cancel()
	batch := t.missed(end)
	var jobs []dueJob
	began := t.b.clock.Now()
	gather := func() {
		jobs = append(jobs, t.judgeAll(begin, batch)...)
		batch = batch[:0]
	}
	flush := func() error {
		gather()
		err := t.work(ctx, begin, jobs)
		jobs, began = jobs[:0], t.b.clock.Now()
		return err
	}
	var walkErr error
	for e, err := range dueEntries(begin, t.s, from, end) {
		if err == nil {
			if batch = append(batch, e); len(batch) < cmp.Or(t.batch, tickBatch) {
				continue
			}
			if gather(); len(jobs) < cmp.Or(t.backlog, tickBacklog) && t.b.clock.Now().Sub(began) < tickGather {
				continue
			}
			err = flush()
		}
		if err != nil {
			t.leave(e.minute)
			walkErr = err
			break
		}
	}
	workErr := flush()
	if begin.Err() != nil && ctx.Err() == nil {
		walkErr, workErr = unlessLate(walkErr), unlessLate(workErr)
	}
	done := end.Add(-time.Minute)
	if u := t.unfinished; !u.IsZero() && !u.After(done) {
		done = u.Add(-time.Minute)
	}
	return errors.Join(walkErr, workErr, t.b.advance(ctx, t.s, t.now, done))
}

// from is the first minute that a pass over the calendar until end reads.
func (t *tick) from(ctx context.Context, end time.Time) (time.Time, error) {
	cursor := t.b.cursor()
	if cursor.IsZero() || cursor.Sub(t.now) > maxClockLead {
		cursor = end.Add(-time.Minute)
		if err := t.retryAll(ctx); err != nil {
			return time.Time{}, err
		}
	}
	from := cursor.Add(-(tickOverlap - 1) * time.Minute)
	if from.After(end) {
		from = end
	}
	return from, nil
}

// missed are the roles that somebody found to be missing in the calendar, as
// entries of the minute that is not over.
func (t *tick) missed(end time.Time) []dueEntry {
	var entries []dueEntry
	for _, name := range t.b.missed.take() {
		// One that fails has its entry where it is tried again.
		if _, waiting := t.b.problems.waiting(name, t.now); !waiting {
			entries = append(entries, dueEntry{minute: end, name: name, missed: true})
		}
	}
	return entries
}

// retryAll names every role that fails to this walk: after a clock that was wrong
// the calendar may hold them days ahead.
func (t *tick) retryAll(ctx context.Context) error {
	names, err := list(ctx, t.s, problemPrefix)
	for _, name := range names {
		t.b.missed.add(name)
	}
	return err
}

// unlessLate is err but for the end of a tick's time: the next one goes on.
func unlessLate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// unlessEnded is err but for the end of a step's time, whatever ended it.
func unlessEnded(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return unlessLate(err)
}

// leave notes that the minute is not done with.
func (t *tick) leave(minute time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unfinished.IsZero() || minute.Before(t.unfinished) {
		t.unfinished = minute
	}
}
