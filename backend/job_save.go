// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
)

const (
	// jobSaveEvery is how long a job works at most before it stores how far it
	// has come, also where it finds nothing to do.
	jobSaveEvery = time.Second
	// jobSaveTime is how long that may take. It is time beyond the tick's, whose
	// end must not lose what was done in it.
	jobSaveTime = 500 * time.Millisecond
)

// refresh reads the job's record, which may have been stopped or removed.
func (r *jobRun) refresh(ctx context.Context) error {
	r.b.jobs.edit.Lock()
	defer r.b.jobs.edit.Unlock()
	var job *jobRecord
	err := r.again(ctx, func() (err error) {
		job, err = getRecord[jobRecord](ctx, r.s, jobPath(r.id))
		return err
	})
	if err != nil {
		return err
	}
	r.halted.Store(false)
	if job == nil {
		r.out = true
		r.b.jobs.forget()
		return nil
	}
	if r.job == nil || !r.job.at(job) {
		r.roles, r.keys, r.renamed = readAhead{}, readAhead{}, nil
	}
	if repeated, err := r.repeats(ctx, job); err != nil || repeated {
		r.out = true
		return err
	}
	if r.limit == nil && job.Pace > 0 {
		r.limit = rate.NewLimiter(rate.Limit(job.Pace), job.Pace)
	}
	r.take(job)
	r.fresh = true
	return nil
}

// repeats reports whether the job, which has not begun, is the same request as another
// one, and removes it then: the answer to the first was lost, the request was repeated,
// and both were stored in the end. The caller holds jobs.edit.
func (r *jobRun) repeats(ctx context.Context, job *jobRecord) (bool, error) {
	if job.RequestID == "" || job.State != jobRunning || !job.at(&jobRecord{}) {
		return false, nil
	}
	ids, err := r.b.openJobs(ctx, r.s)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		other, err := getRecord[jobRecord](ctx, r.s, jobPath(id))
		switch {
		case errors.Is(err, errSchema), err == nil && other == nil:
			continue
		case err != nil:
			return false, err
		}
		if id == job.ID || other.RequestID != job.RequestID || other.Caller != job.Caller ||
			other.State == jobRunning && other.at(&jobRecord{}) && cmp.Or(other.Created.Compare(job.Created), cmp.Compare(id, job.ID)) < 0 {
			continue // the other one goes
		}
		r.b.Logger().Warn("a bulk job is removed: its request was repeated, and made another one", "job", job.ID, "other", id)
		defer r.b.jobs.forget()
		return true, deleteRecord(ctx, r.s, jobPath(job.ID))
	}
	return false, nil
}

// take takes the record over as it is stored.
func (r *jobRun) take(job *jobRecord) {
	r.job, r.dirty, r.saved = job, false, r.b.clock.Now()
	if job.State != jobRunning {
		r.out = true
		r.b.jobWork.ended[r.id] = job.Finished
	}
}

// save stores how far the job has come, however little time the tick has left. That
// it was stopped meanwhile stays so.
func (r *jobRun) save(ctx context.Context) error {
	r.b.jobs.edit.Lock()
	defer r.b.jobs.edit.Unlock()
	ctx, cancel := r.b.clock.WithTimeout(context.WithoutCancel(ctx), jobSaveTime)
	defer cancel()
	var stored *jobRecord
	err := r.again(ctx, func() (err error) {
		stored, err = getRecord[jobRecord](ctx, r.s, jobPath(r.id))
		return err
	})
	if err == nil && stored == nil {
		r.out = true // it was forgotten
		r.job, r.dirty = nil, false
		return nil
	}
	if err == nil {
		job := *r.job
		if stored.State != jobRunning {
			job.State, job.Finished = stored.State, stored.Finished
		}
		job.fit()
		if err = r.again(ctx, func() error { return putRecord(ctx, r.s, jobPath(r.id), &job) }); err == nil {
			r.take(&job)
			return nil
		}
	}
	// What is stored counts: it is done again from there, and finds what it had killed.
	r.job, r.dirty, r.spent = nil, false, nil
	return err
}
