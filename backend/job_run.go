// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	// jobKept is how long a finished job can be read.
	jobKept     = 30 * 24 * time.Hour
	maxJobFails = 100
	// jobBatch is how many names a job takes up between two writes of its
	// record. After a crash so many actions are repeated at most; they answer as
	// the first time.
	jobBatch = 100
)

// runJobs works on the bulk jobs within the tick's time, those that end keys
// first.
func (b *backend) runJobs(ctx context.Context, t *tick) error {
	ids, err := b.openJobs(ctx, t.s)
	if err != nil || len(ids) == 0 {
		return err
	}
	var jobs []*jobRecord
	var errs []error
	for _, id := range ids {
		job, err := getRecord[jobRecord](ctx, t.s, jobPath(id))
		switch {
		case err != nil:
			errs = append(errs, err)
		case job == nil:
		case job.State == jobRunning:
			jobs = append(jobs, job)
		case t.now.Sub(job.Finished) > jobKept:
			errs = append(errs, deleteRecord(ctx, t.s, jobPath(id)))
			b.jobs.forget()
		}
	}
	slices.SortStableFunc(jobs, func(x, y *jobRecord) int {
		if x.kills() != y.kills() {
			if x.kills() {
				return -1
			}
			return 1
		}
		return x.Created.Compare(y.Created)
	})
	for _, job := range jobs {
		if ctx.Err() != nil {
			break
		}
		if err := b.runJob(ctx, t, job.ID); err != nil {
			errs = append(errs, fmt.Errorf("bulk job %s: %w", job.ID, err))
		}
	}
	return errors.Join(errs...)
}

// runJob takes up the next roles of a job, until its time is over or it is.
func (b *backend) runJob(ctx context.Context, t *tick, id string) error {
	first, err := getRecord[jobRecord](ctx, t.s, jobPath(id))
	if err != nil || first == nil || first.State != jobRunning {
		return err
	}
	names := slices.Clone(first.Select.Roles)
	if len(names) == 0 {
		if names, err = list(ctx, t.s, rolePrefix); err != nil {
			return err
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	from, found := slices.BinarySearch(names, first.After)
	if found {
		from++
	}
	names = names[from:]
	limit := newPacer(b, first.Pace)
	for ctx.Err() == nil {
		chunk := names[:min(jobBatch, len(names))]
		done := jobProgress{}
		for _, name := range chunk {
			if ctx.Err() != nil {
				break
			}
			if !b.jobOne(ctx, t, first, name, limit, &done) {
				break
			}
			done.after, done.seen = name, done.seen+1
		}
		names = names[done.seen:]
		over := len(names) == 0
		more, err := b.saveJob(ctx, t, id, done, over)
		if err != nil || !more || done.seen < len(chunk) {
			return err
		}
	}
	return nil
}

// jobProgress is what a job did since its record was written.
type jobProgress struct {
	after                     string
	seen, acted, keys, failed int
	failures                  []jobFail
}

// saveJob writes how far the job has come, unless it was stopped meanwhile; more
// is whether it goes on.
func (b *backend) saveJob(ctx context.Context, t *tick, id string, done jobProgress, over bool) (more bool, err error) {
	b.jobs.edit.Lock()
	defer b.jobs.edit.Unlock()
	job, err := getRecord[jobRecord](ctx, t.s, jobPath(id))
	if err != nil || job == nil {
		return false, err
	}
	if done.after != "" {
		job.After = done.after
	}
	job.Seen += done.seen
	job.Acted += done.acted
	job.Keys += done.keys
	job.Failed += done.failed
	job.Failures = append(job.Failures, done.failures...)
	if n := len(job.Failures) - maxJobFails; n > 0 {
		job.Failures = job.Failures[n:]
	}
	if over && job.State == jobRunning {
		job.State, job.Finished = jobDone, t.now
	}
	if err := putRecord(ctx, t.s, jobPath(id), job); err != nil {
		return false, err
	}
	return job.State == jobRunning, nil
}

// jobOne does the job's action to one role if the job means it; false means that
// it is to be tried again with the next tick.
func (b *backend) jobOne(ctx context.Context, t *tick, job *jobRecord, name string, limit *pacer, done *jobProgress) bool {
	rec, err := b.jobTarget(ctx, t, job, name)
	if err == nil && rec == nil {
		return true
	}
	if err == nil {
		if !limit.wait(ctx) {
			return false
		}
		err = b.jobRole(ctx, t, job, rec, done)
		if failedOfItself(err) && ctx.Err() == nil {
			// Whether it happened is not known, and it may have been a hiccup: what
			// was done is recognised.
			err = b.jobRole(ctx, t, job, rec, done)
		}
	}
	switch {
	case err == nil:
		done.acted++
	case ctx.Err() != nil || mustForward(err):
		return false
	default:
		done.failed++
		done.failures = append(done.failures, jobFail{Role: name, Error: shorten(err.Error(), maxReason)})
	}
	return true
}

// jobTarget is the role if the job means it, nil if it does not.
func (b *backend) jobTarget(ctx context.Context, t *tick, job *jobRecord, name string) (*roleRecord, error) {
	rec, err := b.roles.get(ctx, t.s, rolePath(name))
	if failedOfItself(err) && ctx.Err() == nil {
		rec, err = b.roles.get(ctx, t.s, rolePath(name))
	}
	switch {
	case err != nil:
		return nil, err
	case rec == nil && len(job.Select.Roles) > 0:
		return nil, noRole(name)
	case rec == nil || !job.Select.matches(rec):
		return nil, nil
	}
	return rec, nil
}

func (b *backend) jobRole(ctx context.Context, t *tick, job *jobRecord, rec *roleRecord, done *jobProgress) error {
	if job.Select.IssuedTo == "" {
		return b.jobAction(ctx, t, job, rec.Name)
	}
	n, err := b.revokeIssuedTo(ctx, t.s, rec, job.Select.IssuedTo, job.Reason)
	done.keys += n
	return err
}

// failedOfItself: the error is neither the caller's mistake nor an absence, nor
// for another node to deal with.
func failedOfItself(err error) bool {
	return err != nil && refusal.In(err) == nil && !isAbsent(err) && !mustForward(err)
}

// jobAction carries the action out as the job's owner. A repetition after a
// crash is recognised by the job's id.
func (b *backend) jobAction(ctx context.Context, t *tick, job *jobRecord, name string) error {
	by := actor{
		cause: causeRequest, entityID: job.EntityID, display: job.Display, caller: "bulk:" + job.ID,
		requestID: "bulk:" + job.ID, reason: job.Reason,
	}
	_, err := b.mutate(ctx, t.s, name, by, func(tx *roleTx) error {
		if first, err := tx.findReplay(job.Action, by.requestID, ""); err != nil || first != nil {
			return errors.Join(err, errUnchanged)
		}
		if !job.Select.matches(tx.rec) {
			return errUnchanged
		}
		if err := tx.bulkAction(job); err != nil {
			return err
		}
		return tx.keepReplay(job.Action, by.requestID, "", answer(map[string]any{}))
	})
	return err
}

func (tx *roleTx) bulkAction(job *jobRecord) error {
	switch job.Action {
	case bulkRotate:
		grace, err := tx.requestedGrace(job.Grace)
		if err != nil {
			return err
		}
		_, err = tx.succeed(succession{grace: tx.leaseFloor(grace, false)})
		return ringRefusal(err)
	case bulkRevoke:
		_, err := tx.revokeVersions(tx.live(), job.Replace)
		return err
	default:
		p := tx.rec.Policy
		disable := job.Action == bulkDisable
		if p.Disabled == disable {
			return errUnchanged
		}
		p.Disabled = disable
		tx.note(historyEntry{Kind: eventRoleUpdated, Fields: map[string]fieldChange{"disabled": {Old: !disable, New: disable}}})
		return tx.setPolicy(p)
	}
}

// revokeIssuedTo kills the live keys of a dynamic role that were issued to an
// entity or display name.
func (b *backend) revokeIssuedTo(ctx context.Context, s logical.Storage, role *roleRecord, to, reason string) (int, error) {
	ids, err := list(ctx, s, issuedPrefix+role.ID+"/")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		killed := false
		_, err := b.killKey(ctx, s, id, func(rec *keyRecord) error {
			if rec == nil || rec.RoleID != role.ID || (rec.EntityID != to && rec.Display != to) {
				return errUnchanged
			}
			killed = rec.RevokedAt.IsZero() && b.now().Before(rec.Expires)
			return nil
		}, causeRequest, reason)
		if err != nil {
			return n, err
		}
		if killed {
			n++
		}
	}
	return n, nil
}
