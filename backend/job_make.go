// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	// maxJobs is how many jobs are kept: beyond it those that ended make room, the
	// oldest first. So many that end no keys may run.
	maxJobs = 100
	// maxAllJobs bounds what jobs that end keys, which are not refused for
	// bookkeeping, can come to.
	maxAllJobs = 1000
	// roomAtOnce is how many jobs that ended one new job removes at most.
	roomAtOnce = 100
	// maxUnknownShown is how many names of roles that do not exist a refusal lists.
	maxUnknownShown = 10
)

// makeJob writes a new job, or returns the one that the same request made before:
// then first is false.
func (b *backend) makeJob(ctx context.Context, s logical.Storage, job *jobRecord, params []string) (made *jobRecord, first bool, err error) {
	unknown := b.unknownRoles(ctx, s, job.Select.Roles)
	b.jobs.edit.Lock()
	defer b.jobs.edit.Unlock()
	ids, err := list(ctx, s, jobPrefix)
	if failedOfItself(err) && ctx.Err() == nil {
		ids, err = list(ctx, s, jobPrefix)
	}
	switch {
	case err != nil && (!job.kills() || mustForward(err) || ctx.Err() != nil):
		return nil, false, err
	case err != nil:
		b.Logger().Warn("a bulk job is made although the others cannot be listed", "error", err)
	}
	others, err := b.otherJobs(ctx, s, ids, job)
	if err != nil {
		return nil, false, err
	}
	if before, err := sameJob(others, job, params); err != nil {
		return nil, false, err
	} else if before != nil {
		b.jobs.forget() // it may be new to this node
		b.wake.at(b.now())
		return before, false, nil
	}
	// Not before: meanwhile the roles of a job that was made may be gone.
	if unknown != nil {
		return nil, false, unknown
	}
	if err := b.roomFor(ctx, s, job, len(ids), others); err != nil {
		return nil, false, err
	}
	if job.ID, err = newUUID(b.rand); err != nil {
		return nil, false, err
	}
	job.Created = b.now()
	err = putRecord(ctx, s, jobPath(job.ID), job)
	b.jobs.forget() // before the worker is woken: by the old list it would go back to sleep
	if err != nil {
		if outcomeUnknown(err) {
			b.jobs.unsure.add(jobPrefix, "", nil, b.clock.Now()) // once it lands it is worked on
		}
		return nil, false, err
	}
	b.wake.at(job.Created)
	return job, true, nil
}

// otherJobs are the jobs that can be read. Where one cannot, because a newer build
// wrote it or storage failed, a job that kills is made all the same.
func (b *backend) otherJobs(ctx context.Context, s logical.Storage, ids []string, job *jobRecord) ([]*jobRecord, error) {
	others := make([]*jobRecord, 0, len(ids))
	for _, id := range ids {
		other, err := getRecord[jobRecord](ctx, s, jobPath(id))
		if failedOfItself(err) && ctx.Err() == nil {
			other, err = getRecord[jobRecord](ctx, s, jobPath(id))
		}
		switch {
		case err != nil && (mustForward(err) || ctx.Err() != nil || job.RequestID != "" && !job.kills()):
			return nil, err
		case err != nil:
			b.Logger().Warn("a bulk job is made although another cannot be read", "job", id, "error", err)
		case other != nil:
			others = append(others, other)
		}
	}
	return others, nil
}

// sameJob is the job that the same request made before, nil if there is none. It
// refuses a request id that was used for another.
func sameJob(others []*jobRecord, job *jobRecord, params []string) (*jobRecord, error) {
	if job.RequestID == "" {
		return nil, nil
	}
	for _, other := range others {
		if other.RequestID != job.RequestID || other.Caller != job.Caller {
			continue
		}
		if !slices.Contains(params, other.Params) {
			return nil, refusal.New("request_id", job.RequestID, "was used at "+stamp(other.Created)+" with other parameters",
				"repeat those, or use a new id")
		}
		return other, nil
	}
	return nil, nil
}

// roomFor makes room for one more job beside those that are there: jobs that ended
// go, the oldest first. What cannot be removed refuses nothing.
func (b *backend) roomFor(ctx context.Context, s logical.Storage, job *jobRecord, kept int, others []*jobRecord) error {
	running := 0
	var ended []*jobRecord
	for _, other := range others {
		switch {
		case other.State != jobRunning:
			ended = append(ended, other)
		case !other.kills():
			running++
		}
	}
	if running >= maxJobs && !job.kills() {
		return refusal.New("bulk", nil, fmt.Sprintf("%d jobs that end no keys are running", running), "wait for one to end, or delete one, which stops it")
	}
	slices.SortFunc(ended, func(x, y *jobRecord) int { return x.Finished.Compare(y.Finished) })
	for _, old := range ended[:min(len(ended), max(0, kept+1-maxJobs), roomAtOnce)] {
		if err := deleteRecord(ctx, s, jobPath(old.ID)); err != nil {
			if mustForward(err) {
				return err
			}
			b.Logger().Warn("a bulk job that ended is kept longer", "job", old.ID, "error", err)
			continue
		}
		kept--
	}
	if kept >= maxAllJobs {
		return refusal.New("bulk", nil, fmt.Sprintf("there are %d jobs", kept), "delete some: what they did stays done")
	}
	return nil
}

// unknownRoles refuses names of roles that do not exist. A role that cannot be
// read exists: what comes of it stands among the job's failures.
func (b *backend) unknownRoles(ctx context.Context, s logical.Storage, names []string) error {
	var unknown []string
	for _, name := range names {
		rec, err := b.roles.get(ctx, s, rolePath(name))
		if rec == nil && err == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	more := ""
	if n := len(unknown) - maxUnknownShown; n > 0 {
		unknown, more = unknown[:maxUnknownShown], fmt.Sprintf(" and %d more", n)
	}
	return refusal.New("roles", nil, "no such roles: "+strings.Join(unknown, ", ")+more, "correct the names, or leave them out")
}

// endJob stops a job that runs, and forgets one that has ended.
func (b *backend) endJob(ctx context.Context, s logical.Storage, id string) error {
	b.jobs.edit.Lock()
	defer b.jobs.edit.Unlock()
	// At once, whatever storage does: only the role in hand is still ended with.
	b.jobWork.halt(id)
	job, err := getRecord[jobRecord](ctx, s, jobPath(id))
	if err != nil || job == nil {
		return err
	}
	if job.State != jobRunning {
		defer b.jobs.forget()
		return deleteRecord(ctx, s, jobPath(id))
	}
	job.State, job.Finished = jobStopped, b.now()
	job.fit()
	return putRecord(ctx, s, jobPath(id), job)
}
