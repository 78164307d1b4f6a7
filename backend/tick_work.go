// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// dueJob is an entry that was judged from what the cache or storage holds,
// before the lock is taken.
type dueJob struct {
	dueEntry
	urgency int       // lower is sooner
	ends    time.Time // when the role's key ends by itself, or did; zero: never
	at      time.Time // when it was to be done
	mints   bool
}

// The order of work within a tick: ends and leak actions, activations, staging,
// upkeep.
const (
	urgentEnd = iota
	urgentActivation
	urgentStaging
	urgentNothing
)

// compare orders the work: within an urgency the role whose key ends first comes
// first, and roles whose keys do not end come last, by the plan.
func (j dueJob) compare(other dueJob) int {
	return cmp.Or(cmp.Compare(j.urgency, other.urgency), compareEnds(j.ends, other.ends), j.at.Compare(other.at))
}

// compareEnds orders ends, none after any.
func compareEnds(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	default:
		return a.Compare(b)
	}
}

// judgeAll judges entries, as many at a time as there are workers.
func (t *tick) judgeAll(ctx context.Context, entries []dueEntry) []dueJob {
	jobs := make([]dueJob, len(entries))
	t.pool(len(entries), func(i int) {
		jobs[i] = dueJob{dueEntry: entries[i], urgency: urgentNothing, at: entries[i].minute} // where that panics
		jobs[i] = t.judge(ctx, entries[i])
	})
	return jobs
}

// work acts on what was judged, what is most urgent first, in a bounded pool, and
// begins nothing once begin is done. One bad role never stops the others.
func (t *tick) work(ctx, begin context.Context, jobs []dueJob) error {
	if len(jobs) == 0 {
		return nil
	}
	slices.SortStableFunc(jobs, dueJob.compare)
	if err := t.fence(ctx); err != nil {
		for _, job := range jobs {
			t.leave(job.minute)
		}
		return err
	}
	t.pool(len(jobs), func(i int) {
		job := jobs[i]
		if begin.Err() != nil || t.refused.Load() || job.mints && !t.mayMint(begin) {
			if t.leave(job.minute); job.missed {
				t.b.missed.add(job.name)
			}
			return
		}
		if err := t.b.guarded("a look at a role", func() error { return t.b.lookAt(ctx, t, job.dueEntry) }); err != nil {
			t.failed(ctx, job, err)
		}
	})
	return begin.Err()
}

// pool calls fn for each number below n, from several goroutines. A panic of one
// call ends that call.
func (t *tick) pool(n int, fn func(int)) { t.poolUntil(context.Background(), n, fn) }

// poolUntil is pool, and calls nothing more once ctx is done.
func (t *tick) poolUntil(ctx context.Context, n int, fn func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(cmp.Or(t.workers, tickWorkers), n) {
		wg.Go(func() {
			for i := range next {
				_ = t.b.guarded("one of many", func() error { // and told
					fn(i)
					return nil
				})
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
}

// judge says how urgent an entry is. It only orders the work: what is done is
// decided again under the lock.
func (t *tick) judge(ctx context.Context, e dueEntry) dueJob {
	job := dueJob{urgency: urgentNothing, at: e.minute}
	if !strings.HasPrefix(e.name, deletedMark) {
		if r, err := t.b.look(ctx, t.s, e.name); err == nil && r != nil {
			job = dueOf(r, t.config.RotationPaused)
		}
	}
	if job.dueEntry = e; job.at.IsZero() {
		job.at = e.minute
	}
	return job
}

// dueOf is what is most urgent about the role. A role that gets a version is as
// urgent as that, whatever else the same look does: what has ended has, for
// everybody but a clock that goes back, and the pace is for the keys that end next.
func dueOf(r *roleNow, mountPaused bool) dueJob {
	job := dueJob{urgency: urgentNothing, ends: keyEnds(r)}
	end, ended := endDue(r)
	top := r.rec.Ring.Top(r.now)
	switch {
	case r.rec.Owed:
		job.urgency, job.at = urgentEnd, r.rec.Committed
	case !mountPaused && r.stageDue():
		job.mints, job.urgency, job.at = true, urgentStaging, r.next()
		if !job.at.After(r.now) {
			job.urgency = urgentActivation
		}
	case ended:
		job.urgency, job.ends, job.at = urgentEnd, end, end
	case top != nil && !top.Activated:
		job.urgency, job.at = urgentActivation, top.Activate
	}
	return job
}

// keyEnds is when the key that is handed out ends by itself, or ended where none is
// handed out; zero if it does not end.
func keyEnds(r *roleNow) time.Time {
	top := r.rec.Ring.Top(r.now)
	if top == nil {
		return time.Time{}
	}
	if st, _ := r.rec.Ring.Status(top.N, r.now); st.State.Ended() {
		return st.Until
	}
	return hardEnd(top)
}

// endDue is the first end of a version that waits for a look: to be recorded, to be
// put off, or for the plaintext to be erased.
func endDue(r *roleNow) (first time.Time, due bool) {
	note := func(end time.Time) {
		if !due || end.Before(first) {
			first, due = end, true
		}
	}
	for i := range r.rec.Ring.Versions {
		v := &r.rec.Ring.Versions[i]
		st, _ := r.rec.Ring.Status(v.N, r.now)
		erase := v.EraseAt(st)
		if st.State.Ended() && !endMarked(v) || !erase.IsZero() && !erase.After(r.now) {
			note(st.Until)
		}
	}
	for _, e := range r.extensions() {
		if !e.at.After(r.now) {
			note(e.until)
		}
	}
	return first, due
}

// failed moves the entry of a role whose look failed out of the way, later and
// later, and keeps the error readable. Where even that cannot be written, the
// minute stays unfinished.
func (t *tick) failed(ctx context.Context, job dueJob, err error) {
	if mustForward(err) || ctx.Err() != nil {
		if mustForward(err) {
			t.refused.Store(true)
		}
		t.leave(job.minute)
		return
	}
	unlock := t.b.lockRole(job.name)
	defer unlock()
	retry := t.b.problems.failed(job.name, err, t.now)
	t.b.Logger().Error("looking at a role failed; its key stays as it is", "role", job.name, "error", err,
		"attempt", retry.Attempts, "next_attempt", retry.Next)
	retry = t.b.tellFailure(ctx, t, job, retry)
	t.b.storeProblem(ctx, t.s, job.name, retry)
	if err := t.putOff(ctx, job.dueEntry, retry.Next); err != nil {
		t.leave(job.minute)
	}
}

// putOff moves an entry to a later minute without touching the role. The caller
// holds the role's lock.
func (t *tick) putOff(ctx context.Context, e dueEntry, at time.Time) error {
	minute := t.b.fileAt(at)
	if minute.Equal(e.minute) {
		if end := t.now.Truncate(time.Minute); e.minute.Before(end) {
			t.leave(e.minute)
		}
		return nil
	}
	if err := putBytes(ctx, t.s, duePath(minute, e.name), dueValue); err != nil {
		return err
	}
	t.b.unfile(ctx, t.s, e.minute, e.name)
	return nil
}

// pausedRetry is when a role is looked at again whose rotation is due while the
// mount's rotation is paused.
const pausedRetry = 10 * time.Minute

// lookAt does what is due for the role of one calendar entry and moves or
// removes the entry.
func (b *backend) lookAt(ctx context.Context, t *tick, e dueEntry) error {
	if id, ok := strings.CutPrefix(e.name, deletedMark); ok {
		err := b.purgeDeleted(ctx, t, e, id)
		if err == nil {
			b.clearProblem(ctx, t.s, e.name, nil)
		}
		return err
	}
	unlock := b.lockRole(e.name)
	defer unlock()
	if retry, waiting := b.problems.waiting(e.name, t.now); waiting {
		return t.putOff(ctx, e, retry)
	}
	var again time.Duration // the role waits that long, without a commit
	var now, filed time.Time
	var seq int64
	rec, err := b.mutateLocked(ctx, t.s, e.name, actor{cause: causePeriodic}, t.lim, func(tx *roleTx) (bool, error) {
		now, filed, seq = tx.now, tx.old.Due, tx.old.Seq
		if tx.unread != nil {
			return false, tx.unread
		}
		acted, err := tx.upkeep(t.config)
		if err != nil || acted > 0 {
			return true, err
		}
		if tx.stageDue() {
			again = pausedRetry // by the mount: upkeep would have acted
			return false, nil
		}
		look := tx.nextLook()
		switch {
		case look.IsZero() && tx.rec.Due.IsZero(), !look.IsZero() && tx.rec.Due.Equal(b.fileAt(look)):
			if look.After(tx.now) && look.Sub(tx.now) < time.Minute {
				b.wake.at(look) // later in the minute that has come
			}
			return false, nil // filed right already
		case !look.IsZero() && !look.After(tx.now):
			again = time.Minute // it waits for something that no commit brings
			return false, nil
		}
		return true, nil
	})
	switch {
	case isAbsent(err):
		if _, err := b.moveUnmoved(ctx, t.s, e.name); err != nil {
			return err
		}
		b.unfile(ctx, t.s, e.minute, e.name)
		b.clearProblem(ctx, t.s, e.name, nil)
		return nil
	case err != nil:
		return err
	}
	b.clearProblem(ctx, t.s, e.name, func(was *problem) { b.tellRecovered(ctx, t, rec, was) })
	switch {
	case again > 0:
		return t.putOff(ctx, e, now.Add(again))
	case !rec.Due.Equal(e.minute) && rec.Seq != seq && filed.Equal(e.minute):
		// The commit removed the entry.
	case !rec.Due.Equal(e.minute):
		b.unfile(ctx, t.s, e.minute, e.name)
	case e.minute.Before(t.now.Truncate(time.Minute)):
		// Filed under a minute that is over, with nothing to do: the cursor
		// stays until there is.
		t.leave(e.minute)
	}
	return nil
}
