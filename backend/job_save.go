// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
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
		r.roles, r.keys = readAhead{}, readAhead{}
	}
	if r.limit == nil && job.Pace > 0 {
		r.limit = rate.NewLimiter(rate.Limit(job.Pace), job.Pace)
	}
	r.take(job)
	r.fresh = true
	return nil
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
	// What is stored counts: it is done again from there.
	r.job, r.dirty = nil, false
	return err
}
