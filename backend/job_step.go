// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// maxJobFails is how many failures a job's record holds, the last ones.
const maxJobFails = 100

// jobRun is this node's work on one job.
type jobRun struct {
	b  *backend
	id string

	job   *jobRecord    // as stored, and what was done since; nil before it was read
	limit *rate.Limiter // its pace, over ticks; nil is none
	roles readAhead
	keys  readAhead // of the role in hand
	// renamed are the roles, by role_id, to look at once the list is done with, since
	// they may have come back under other names meanwhile; nil: not listed yet.
	renamed []string
	// spent are keys that are dead and still in the index of their role.
	spent []*keyRecord
	// served is the last step that was this job's.
	served int64
	halted atomic.Bool // somebody stops it

	// Of this tick.
	s        logical.Storage
	allRoles func() ([]string, error)
	ready    time.Time // when its pace lets it go on
	saved    time.Time
	dirty    bool // what was done is not stored
	fresh    bool // its record was read in this tick
	out      bool // it does no more
}

// sooner is the one of the two whose turn is first: who waited longer, then who is
// older.
func (r *jobRun) sooner(other *jobRun) *jobRun {
	if other == nil || r.served < other.served || r.served == other.served && r.job.Created.Before(other.job.Created) {
		return r
	}
	return other
}

// step does the next role, or some keys of it, unless the pace has it wait. What it
// begins to do it begins before begin is done.
func (r *jobRun) step(ctx, begin context.Context) error {
	r.unlistSpent(ctx)
	if !r.fresh {
		if err := r.refresh(ctx); err != nil || r.out {
			return err
		}
	}
	name, err := r.nextRole()
	if err == nil && name == "" {
		name, err = r.nextRenamed(ctx)
	}
	if err != nil {
		return err
	}
	if name == "" {
		if len(r.renamed) > 0 {
			return nil // there are more of them to look at
		}
		r.job.State, r.job.Finished, r.dirty = jobDone, r.b.now(), true
		return r.save(ctx)
	}
	var rec *roleRecord
	err = r.b.guarded("a bulk job", func() (err error) {
		rec, err = r.target(ctx, name)
		return err
	})
	if err == nil && rec == nil {
		return r.pass(ctx)
	}
	keys, inside := r.job.Keys, r.job.Inside != nil
	if err == nil {
		if r.mustWait() {
			return nil
		}
		err = r.b.guarded("a bulk job", func() error { return r.do(ctx, begin, rec) })
	}
	switch {
	case err != nil && (ctx.Err() != nil || mustForward(err)):
		return err // it is tried again
	case err != nil:
		r.fail(name, err)
	case r.job.Inside != nil:
		return r.save(ctx)
	case !r.sweeps():
		r.job.Acted++
	case r.job.Select.IssuedTo == "" || inside || r.job.Keys > keys:
		r.job.Seen++
		r.job.Acted++
	}
	r.saved = time.Time{}
	return r.pass(ctx)
}

// nextRole is the role that is next, empty at the end.
func (r *jobRun) nextRole() (string, error) {
	err := r.roles.fill(rolePrefix, r.job.After, func() ([]string, error) {
		if named := r.job.Select.Roles; len(named) > 0 {
			return slices.Compact(slices.Sorted(slices.Values(named))), nil
		}
		names, err := r.allRoles()
		return beginningWith(names, r.job.Select.Prefix), err
	})
	if err != nil || len(r.roles.names) == 0 {
		return "", err
	}
	return r.roles.names[0], nil
}

// sweeps reports whether the list is done with.
func (r *jobRun) sweeps() bool { return len(r.roles.names) == 0 }

// nextRenamed is the next role that came back since the job was made: under another
// name it may have escaped, in the list or before the place in it. Empty where there is
// none among those that one step looks at. Whoever named roles is told of those that
// were gone.
func (r *jobRun) nextRenamed(ctx context.Context) (string, error) {
	if len(r.job.Select.Roles) > 0 || !r.b.renamesKnown(ctx, r.s) {
		return "", nil
	}
	if r.renamed == nil {
		ids, err := listSorted(ctx, r.s, movedPrefix)
		if err != nil {
			return "", err
		}
		r.renamed = append([]string{}, ids...)
	}
	for n := 0; len(r.renamed) > 0 && n < jobKeys; n++ {
		id := r.renamed[0]
		var moved *movedRecord
		err := r.again(ctx, func() (err error) {
			moved, err = getRecord[movedRecord](ctx, r.s, movedPath(id))
			return err
		})
		switch {
		case err != nil && (ctx.Err() != nil || mustForward(err)):
			return "", err
		case err != nil:
			r.fail(id, err)
		case moved != nil && !moved.gone() && !moved.At.Before(r.job.Created) && strings.HasPrefix(moved.Name, r.job.Select.Prefix):
			return moved.Name, nil
		}
		r.renamed = r.renamed[1:]
	}
	return "", nil
}

// fail notes that the job's action failed for a role.
func (r *jobRun) fail(role string, err error) {
	r.job.Failed++
	r.job.Failures = append(slices.Clone(r.job.Failures), jobFail{Role: role, Error: shorten(err.Error(), maxReason)})
	if n := len(r.job.Failures) - maxJobFails; n > 0 {
		r.job.Failures = r.job.Failures[n:]
	}
}

// pass is done with the role that was next.
func (r *jobRun) pass(ctx context.Context) error {
	if r.job.Inside, r.dirty = nil, true; r.sweeps() {
		r.renamed = r.renamed[1:]
	} else {
		r.job.After = r.roles.names[0]
		r.job.Seen++
		r.roles.next()
	}
	if r.b.clock.Now().Sub(r.saved) < jobSaveEvery {
		return nil
	}
	return r.save(ctx)
}

// mustWait takes a token of the job's pace; where there is none it notes when the
// next one comes.
func (r *jobRun) mustWait() bool {
	if r.limit == nil {
		return false
	}
	now := r.b.clock.Now()
	token := r.limit.ReserveN(now, 1)
	wait := token.DelayFrom(now)
	if wait > 0 {
		token.CancelAt(now)
		r.ready = now.Add(wait)
	}
	return wait > 0
}

// target is the role if the job means it, nil if it does not.
func (r *jobRun) target(ctx context.Context, name string) (*roleRecord, error) {
	var rec *roleRecord
	err := r.again(ctx, func() (err error) {
		rec, err = r.b.roles.get(ctx, r.s, rolePath(name))
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case rec == nil && len(r.job.Select.Roles) > 0:
		return nil, noRole(name)
	case rec == nil || !r.job.Select.matches(rec), r.sweeps() && rec.answered(r.job.Action, r.job.actID()):
		return nil, nil
	}
	return rec, nil
}

// again makes a call once more where it failed of itself: whether it happened is
// not known, it may have been a hiccup, and what was done is recognised.
func (*jobRun) again(ctx context.Context, call func() error) error {
	err := call()
	if failedOfItself(err) && ctx.Err() == nil {
		err = call()
	}
	return err
}

// failedOfItself reports whether the error is neither the caller's mistake nor an
// absence, nor for another node to deal with.
func failedOfItself(err error) bool {
	return err != nil && refusal.In(err) == nil && !isAbsent(err) && !mustForward(err)
}

// do does the job's action to one role, as far as that goes in one step.
func (r *jobRun) do(ctx, begin context.Context, rec *roleRecord) error {
	if to := r.job.Select.IssuedTo; to != "" {
		return r.revokeIssued(ctx, begin, rec, to)
	}
	return r.again(ctx, func() error { return r.act(ctx, rec.Name) })
}

// act carries the action out as the job's owner. A repetition after a crash is
// recognised by the job's id.
func (r *jobRun) act(ctx context.Context, name string) error {
	job := r.job
	by := actor{
		cause: causeRequest, entityID: job.EntityID, display: job.Display, caller: job.actID(),
		requestID: job.actID(), reason: job.Reason, code: job.Code, bulk: true,
	}
	_, err := r.b.mutate(ctx, r.s, name, by, func(tx *roleTx) (bool, error) {
		if first, err := tx.findReplay(job.Action, by.requestID, ""); err != nil || first != nil {
			return false, err
		}
		if !job.Select.matches(tx.rec) {
			return false, nil
		}
		if changed, err := tx.bulkAction(job); err != nil || !changed {
			return false, err
		}
		return true, tx.keepReplay(job.Action, by.requestID, "", answer(map[string]any{}))
	})
	return err
}

// bulkAction does what the job asks for to the role; false where that is so
// already.
func (tx *roleTx) bulkAction(job *jobRecord) (bool, error) {
	switch job.Action {
	case bulkRotate:
		grace, err := tx.requestedGrace(job.Grace)
		if err != nil {
			return false, err
		}
		_, err = tx.succeed(succession{grace: tx.leaseFloor(grace, false)})
		return true, ringRefusal(err)
	case bulkRevoke:
		_, err := tx.revokeVersions(killing{all: true, replace: job.Replace})
		return true, err
	default:
		p := tx.rec.Policy
		disable := job.Action == bulkDisable
		if p.Disabled == disable {
			return false, nil
		}
		p.Disabled = disable
		tx.note(historyEntry{Kind: eventRoleUpdated, Fields: map[string]fieldChange{"disabled": {Old: !disable, New: disable}}})
		return true, tx.setPolicy(p)
	}
}
