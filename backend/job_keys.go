// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// jobKeys is how many keys of a role a step looks at.
const jobKeys = 100

// revokeIssued kills the live keys of a dynamic role that were issued to an entity
// or display name: as many as a step does. Where there are more, the job has a place
// inside the role. A key that cannot be killed stops no other.
func (r *jobRun) revokeIssued(ctx, begin context.Context, role *roleRecord, to string) error {
	place := jobPlace{RoleID: role.ID}
	if p := r.job.Inside; p != nil && p.RoleID == role.ID {
		place = *p
	}
	prefix := issuedPrefix + role.ID + "/"
	err := r.again(ctx, func() error {
		return r.keys.fill(prefix, place.After, func() ([]string, error) { return listSorted(ctx, r.s, prefix) })
	})
	if err != nil {
		return err
	}
	start := r.b.clock.Now()
	for n := 0; len(r.keys.names) > 0; n++ {
		if n > 0 && (n == jobKeys || begin.Err() != nil || r.halted.Load() || r.b.clock.Now().Sub(start) >= jobSaveEvery) {
			break
		}
		id := r.keys.names[0]
		killed, err := r.revokeKey(ctx, id, role.ID, to)
		if err != nil && (ctx.Err() != nil || mustForward(err)) {
			return err
		}
		if killed {
			r.job.Keys++
			place.Killed++
		}
		if err != nil {
			place.Failed++
			place.Error = shorten(err.Error(), maxReason)
		}
		place.After = id
		inside := place
		r.job.Inside, r.dirty = &inside, true
		r.keys.next()
	}
	switch {
	case len(r.keys.names) > 0 || !r.keys.whole:
		r.job.Inside = &place
		return nil
	}
	if err := r.tellIssued(ctx, role, place.Killed); err != nil {
		return err
	}
	switch {
	case place.Failed > 0:
		return fmt.Errorf("%d keys could not be revoked, the last one: %s", place.Failed, place.Error)
	}
	r.job.Inside = nil
	return nil
}

// tellIssued tells of all keys of a role that the job has killed in one event.
func (r *jobRun) tellIssued(ctx context.Context, role *roleRecord, killed int) error {
	if killed == 0 || !r.b.heard(tellsRevoked, role.Name) {
		return nil
	}
	f := factAbout(role, tellsRevoked, r.b.now(role.Committed), map[string]any{
		"keys": killed, "version": 0, "key_id": "", "reason_code": string(cmp.Or(r.job.Code, keyring.Unspecified)),
	})
	f.by(teller{cause: causeRequest, entityID: r.job.EntityID, display: r.job.Display, reason: r.job.Reason})
	return r.again(ctx, func() error { return r.b.tellAlone(ctx, r.s, f) })
}

// killedBefore reports whether the job has killed the key in a step that a crash has
// cut off from its count: it is still in the index.
func (r *jobRun) killedBefore(rec *keyRecord) bool {
	return !rec.RevokedAt.IsZero() && !rec.RevokedAt.Before(r.job.Created.Truncate(time.Second)) &&
		rec.Revoked == whyRevoked(causeRequest, r.job.Reason) && rec.Code == cmp.Or(r.job.Code, keyring.Unspecified)
}

// unlistSpent takes the dead keys out of the index that are counted and told: so no
// crash between a kill and that makes them be forgotten.
func (r *jobRun) unlistSpent(ctx context.Context) {
	if r.dirty {
		return
	}
	for _, rec := range r.spent {
		r.b.unlist(ctx, r.s, rec)
	}
	r.spent = nil
}

// revokeKey kills a key if it is the role's and was issued so; killed is whether it
// was good before.
func (r *jobRun) revokeKey(ctx context.Context, id, roleID, to string) (killed bool, err error) {
	err = r.again(ctx, func() error {
		rec, err := r.b.endKey(ctx, r.s, id, nil, func(rec *keyRecord) (bool, error) {
			if rec == nil || rec.RoleID != roleID || (rec.EntityID != to && rec.Display != to) {
				return false, nil
			}
			// The second time it may be the first that has killed it.
			killed = killed || rec.RevokedAt.IsZero() && r.b.now().Before(rec.Expires) || r.killedBefore(rec)
			return true, nil
		}, causeRequest, r.job.Reason, cmp.Or(r.job.Code, keyring.Unspecified))
		if err == nil && rec.dead() {
			r.spent = append(r.spent, rec)
		}
		return err
	})
	return killed && err == nil, err
}
