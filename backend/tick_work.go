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
	at      time.Time // what is oldest goes first
	mints   bool
}

// The order of work within a tick.
const (
	urgentEnd = iota
	urgentRotation
	urgentStaging
	urgentNothing
)

// work acts on a batch of entries in a bounded pool, and begins nothing once begin
// is done. One bad role never stops the others.
func (t *tick) work(ctx, begin context.Context, batch []dueEntry) error {
	if len(batch) == 0 {
		return nil
	}
	jobs := make([]dueJob, len(batch))
	t.pool(len(batch), func(i int) { jobs[i] = t.judge(ctx, batch[i]) })
	slices.SortStableFunc(jobs, func(a, b dueJob) int {
		return cmp.Or(cmp.Compare(a.urgency, b.urgency), a.at.Compare(b.at))
	})
	t.pool(len(jobs), func(i int) {
		job := jobs[i]
		if begin.Err() != nil || t.refused.Load() {
			t.leave(job.minute)
			return
		}
		if job.mints && !t.mayMint(begin) {
			t.leave(job.minute)
			return
		}
		if err := t.b.lookAt(ctx, t, job.dueEntry); err != nil {
			t.failed(ctx, job, err)
		}
	})
	return begin.Err()
}

func (t *tick) pool(n int, fn func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(tickWorkers, n) {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// judge says how urgent an entry is. It only orders the work: what is done is
// decided again under the lock.
func (t *tick) judge(ctx context.Context, e dueEntry) dueJob {
	job := dueJob{dueEntry: e, urgency: urgentNothing, at: e.minute}
	if strings.HasPrefix(e.name, deletedMark) {
		return job
	}
	r, err := t.b.look(ctx, t.s, e.name)
	if err != nil || r == nil {
		return job
	}
	rec, now := r.rec, r.now
	if end := rec.Ring.NextEnd(now); !end.IsZero() && !end.After(now) {
		job.urgency, job.at = urgentEnd, end
	}
	if !t.config.RotationPaused && r.stageDue() {
		job.mints = true
		if job.urgency != urgentEnd {
			job.urgency, job.at = urgentStaging, r.stageAt()
			if !rec.Next.After(now) {
				job.urgency = urgentRotation
				// Whose key ends first is served first.
				if cur := rec.Ring.Top(now); cur != nil && !cur.Expires.IsZero() {
					job.at = cur.Expires
				}
			}
		}
	}
	return job
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
	t.b.storeProblem(ctx, t.s, job.name, retry)
	if err := t.refile(ctx, job.dueEntry, retry.Next); err != nil {
		t.leave(job.minute)
	}
}

// refile moves an entry to a later minute without touching the role. The caller
// holds the role's lock.
func (t *tick) refile(ctx context.Context, e dueEntry, at time.Time) error {
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
			b.clearProblem(ctx, t.s, e.name)
		}
		return err
	}
	unlock := b.lockRole(e.name)
	defer unlock()
	if retry, waiting := b.problems.waiting(e.name, t.now); waiting {
		return t.refile(ctx, e, retry)
	}
	paused := false
	var now, filed time.Time
	var seq int64
	rec, err := b.mutateLocked(ctx, t.s, e.name, actor{cause: causePeriodic}, t.lim, func(tx *roleTx) error {
		now, filed, seq = tx.now, tx.old.Due, tx.old.Seq
		acted, err := tx.upkeep(t.config)
		if err != nil || acted > 0 {
			return err
		}
		if tx.stageDue() {
			paused = true // by the mount: upkeep would have acted
			return errUnchanged
		}
		if look := tx.nextLook(); tx.rec.Due.Equal(b.fileAt(look)) || (look.IsZero() && tx.rec.Due.IsZero()) {
			return errUnchanged // filed right already
		}
		return nil
	})
	switch {
	case isAbsent(err):
		b.unfile(ctx, t.s, e.minute, e.name)
		b.clearProblem(ctx, t.s, e.name)
		return nil
	case err != nil:
		return err
	}
	b.clearProblem(ctx, t.s, e.name)
	switch {
	case paused:
		return t.refile(ctx, e, now.Add(pausedRetry))
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
