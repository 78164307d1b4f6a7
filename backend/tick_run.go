// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/time/rate"
)

const (
	// tickBudget is how long one run of the periodic function works. A call in
	// progress holds up a reload of the plugin.
	tickBudget = 5 * time.Second
	// tickWork is how long it begins to work on roles: what was begun is ended
	// within the budget, and the cursor stored.
	tickWork = 4500 * time.Millisecond
	// tickOverlap is how many minutes before the cursor each tick looks at
	// again, for entries that a slow or failed-over writer filed late.
	tickOverlap = 15
	// walkByDay is from how far behind on the calendar is read day by day.
	walkByDay = time.Hour
	// tickBatch bounds how many roles are judged before the first is acted on.
	tickBatch   = 4096
	tickWorkers = 8
)

// dueEntry is one entry of the calendar.
type dueEntry struct {
	minute time.Time
	name   string // of a role, or deletedMark and the id of a deleted one
}

// tick is one run of the periodic function.
type tick struct {
	b      *backend
	s      logical.Storage
	now    time.Time
	config *configRecord
	lim    limits
	pace   *rate.Limiter

	mu         sync.Mutex
	unfinished time.Time // earliest minute that still holds an entry that is due

	refused atomic.Bool // storage refused to be written: the run is over
}

// periodic is called about once a minute on every node that has the mount.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.writeSafe() {
		// The time that the writing node has seen counts here too.
		return b.loadMark(ctx, req.Storage)
	}
	if !b.tickMu.TryLock() {
		return nil // the run before is still at work
	}
	defer b.tickMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tickBudget)
	defer cancel()
	err := b.runTick(ctx, req.Storage)
	if err != nil && ctx.Err() != nil {
		// Out of time: the next run goes on where this one stopped.
		return nil
	}
	return quietly(err)
}

func (b *backend) runTick(ctx context.Context, s logical.Storage) error {
	if err := b.loadMark(ctx, s); err != nil {
		return err
	}
	cfg, err := b.config(ctx, s)
	if err != nil {
		return err
	}
	lim, err := b.limits(ctx, s)
	if err != nil {
		return err
	}
	t := &tick{b: b, s: s, now: b.now(), config: cfg, lim: lim, pace: b.pace(cfg)}
	walkErr := t.walk(ctx)
	if walkErr != nil && mustForward(walkErr) {
		return walkErr
	}
	upkeepErr := b.upkeep(ctx, t)
	return errors.Join(walkErr, upkeepErr)
}

// walk does what is due, minute by minute, oldest first, and moves the cursor
// over the minutes that are done with.
func (t *tick) walk(ctx context.Context) error {
	end := t.now.Truncate(time.Minute) // the minute that is not over yet
	cursor := t.b.cursor()
	if cursor.IsZero() || cursor.Sub(t.now) > maxClockLead {
		cursor = end.Add(-time.Minute)
	}
	from := cursor.Add(-(tickOverlap - 1) * time.Minute)
	if from.After(end) {
		from = end
	}
	begin, cancel := context.WithTimeout(ctx, tickWork)
	defer cancel()
	var batch []dueEntry
	flush := func() error {
		err := t.work(ctx, begin, batch)
		batch = batch[:0]
		return err
	}
	walkErr := t.entries(begin, from, end, func(e dueEntry) error {
		if batch = append(batch, e); len(batch) < tickBatch {
			return nil
		}
		return flush()
	})
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

// unlessLate is err but for the end of a tick's time: the next one goes on.
func unlessLate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// entries calls fn for every entry of the minutes from to end, in order.
func (t *tick) entries(ctx context.Context, from, end time.Time, fn func(dueEntry) error) error {
	minute := func(m time.Time) error {
		shards, err := list(ctx, t.s, minutePrefix(m))
		if err != nil {
			return err
		}
		for _, shard := range shards {
			names, err := list(ctx, t.s, minutePrefix(m)+shard)
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := fn(dueEntry{minute: m, name: name}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for m := from; !m.After(end); {
		if err := ctx.Err(); err != nil {
			t.leave(m)
			return err
		}
		if end.Sub(m) < walkByDay {
			if err := minute(m); err != nil {
				t.leave(m)
				return err
			}
			m = m.Add(time.Minute)
			continue
		}
		day := m.Truncate(24 * time.Hour)
		names, err := list(ctx, t.s, dayPrefix(day))
		if err != nil {
			t.leave(m)
			return err
		}
		for _, name := range names {
			at, err := time.Parse(dayFormat+"1504", day.Format(dayFormat)+strings.TrimSuffix(name, "/"))
			if err != nil || at.Before(m) || at.After(end) {
				continue
			}
			if err := minute(at); err != nil {
				t.leave(at)
				return err
			}
		}
		m = day.Add(24 * time.Hour)
	}
	return nil
}

// leave notes that the minute is not done with.
func (t *tick) leave(minute time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unfinished.IsZero() || minute.Before(t.unfinished) {
		t.unfinished = minute
	}
}

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
	rec, err := t.b.roles.get(ctx, t.s, rolePath(e.name))
	if err != nil || rec == nil {
		return job
	}
	terms, err := rec.Policy.terms(rec.ID, rec.Type, t.lim)
	if err != nil {
		return job
	}
	now := t.b.now(rec.Committed)
	if end := rec.Ring.NextEnd(now); !end.IsZero() && !end.After(now) {
		job.urgency, job.at = urgentEnd, end
	}
	if stage := stageAt(rec, terms, now); !t.config.RotationPaused && !stage.IsZero() && !stage.After(now) {
		job.mints = true
		if job.urgency != urgentEnd {
			job.urgency, job.at = urgentStaging, stage
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

// mayMint waits for the pace of rotations, within the tick's time.
func (t *tick) mayMint(ctx context.Context) bool { return t.b.paced(ctx, t.pace) }

// paced waits until the limiter, nil for none, lets one more action happen;
// false if that is not before ctx is done.
func (b *backend) paced(ctx context.Context, limiter *rate.Limiter) bool {
	if limiter == nil {
		return true
	}
	for {
		now := b.clock.Now()
		r := limiter.ReserveN(now, 1)
		wait := r.DelayFrom(now)
		if wait == 0 {
			return true
		}
		r.CancelAt(now)
		if !b.clock.Wait(ctx, wait) {
			return false
		}
	}
}

// pace is the limiter of automatic rotations; nil is no limit.
func (b *backend) pace(cfg *configRecord) *rate.Limiter {
	limit := cfg.maxRotations()
	if limit <= 0 {
		return nil
	}
	b.paceMu.Lock()
	defer b.paceMu.Unlock()
	if b.limiter == nil || b.limiter.Limit() != rate.Limit(limit) {
		b.limiter = rate.NewLimiter(rate.Limit(limit), limit)
	}
	return b.limiter
}

// failed moves the entry of a role whose look failed out of the way, later and
// later, and keeps the error readable. Where even that can not be written, the
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
		if stage := stageAt(tx.rec, tx.terms, tx.now); !stage.IsZero() && !stage.After(tx.now) {
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
