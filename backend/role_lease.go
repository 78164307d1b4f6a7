// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// The grace of a dynamic role's rotation is as long as the leases that are out. How
// long these are the role's record says. Whoever grants a longer one writes it there
// first: a host grants a renewal what it asks for, beyond the role's ttl.

// noteLease has the role's record know of leases of that ttl before one is granted.
// It writes where the record knows only of shorter ones, or of none that may still
// be out then.
func (b *backend) noteLease(ctx context.Context, s logical.Storage, r *roleNow, ttl time.Duration) error {
	if !unknownLease(r, ttl) {
		return nil
	}
	_, err := b.mutate(ctx, s, r.rec.Name, actor{cause: causePeriodic}, func(tx *roleTx) (bool, error) {
		if tx.rec.ID != r.rec.ID || !unknownLease(&tx.roleNow, ttl) {
			return false, nil
		}
		tx.rec.LeaseTTL = max(tx.rec.LeaseTTL, policy.Seconds((ttl+time.Second-1)/time.Second))
		if ttl > tx.terms.TTL {
			// Twice as long, so that not every renewal has to write.
			tx.rec.LeaseUntil = later(tx.rec.LeaseUntil, tx.now.Add(2*ttl))
		}
		return true, nil
	})
	return err
}

// unknownLease reports whether the role's record has to be told of a lease of that
// ttl. The role's own ttl is known as long as it is in force, from the first commit on:
// the mount may raise it without one, and lower it again.
func unknownLease(r *roleNow, ttl time.Duration) bool {
	switch {
	case ttl > r.rec.LeaseTTL.Duration():
		return true
	case ttl > r.terms.TTL:
		return r.now.Add(ttl).After(r.rec.LeaseUntil)
	default:
		return ttl > r.rec.ttlSeen()
	}
}

// ttlSeen is the role's ttl as of the last commit: leases of that ttl may be out. An
// older build notes none, but what it was at most.
func (r *roleRecord) ttlSeen() time.Duration { return cmp.Or(r.TTLSeen, r.LeaseTTL).Duration() }

// noteFallenTTL has the record know of leases that are longer than the role's ttl is
// now: whoever lowers the mount's ttl tells nobody.
func (tx *roleTx) noteFallenTTL() {
	if seen := tx.rec.ttlSeen(); tx.rec.Type == policy.Dynamic && seen > tx.terms.TTL {
		tx.rec.LeaseTTL = max(tx.rec.LeaseTTL, policy.Seconds(seen/time.Second))
		tx.rec.LeaseUntil = later(tx.rec.LeaseUntil, tx.now.Add(seen))
	}
}

// noteRenewal is noteLease for a renewal, which may ask for more than the role's ttl.
// What the renewal will be refused for it leaves to that.
func (b *backend) noteRenewal(ctx context.Context, req *logical.Request) error {
	id, name, roleID := leaseData(req)
	if !keyformat.ValidID(id) {
		return nil
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return err
	}
	rec, err := b.roleOf(ctx, req.Storage, name, roleID, b.clock.Now())
	if err != nil || rec == nil {
		return err
	}
	r, _ := b.lookOf(rec, lim) // a lease needs no plan
	if !unknownLease(r, max(req.Secret.Increment, r.terms.TTL)) {
		return nil
	}
	key, err := getRecord[keyRecord](ctx, req.Storage, keyPath(id))
	if err != nil || key == nil || key.RoleID != roleID || !keyStatus(key, r.rec, r.now).Verifies {
		return err
	}
	gen, _ := r.rec.Ring.Status(key.Version, r.now)
	lease, err := b.lease(key, r.terms, gen, req.Secret.Increment, r.terms.TTL, r.now)
	if err != nil {
		return nil //nolint:nilerr // the renewal is refused, in these words
	}
	return b.noteLease(ctx, req.Storage, r, lease.ttl)
}
