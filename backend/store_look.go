// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// roleNow is a role at one instant: its record, what its policy comes to, and the
// now of the operation that looks at it.
type roleNow struct {
	rec   *roleRecord // shared
	terms policy.Terms
	now   time.Time
	// countsReads: by the mount's config the reads of every role are counted.
	countsReads bool
}

// look is the role with that name as it is now, from the cache where that has it;
// nil if there is none.
func (b *backend) look(ctx context.Context, s logical.Storage, name string) (*roleNow, error) {
	if !validName(name) {
		return nil, nil
	}
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	rec, err := b.roles.get(ctx, s, rolePath(name))
	if err != nil || rec == nil {
		return nil, err
	}
	r, err := b.lookOf(rec, lim)
	b.notice(rec, r.now)
	return r, err
}

// lookOf is look for a record in hand. Where its policy cannot be read, record and
// now are still there.
func (b *backend) lookOf(rec *roleRecord, lim policy.Limits) (*roleNow, error) {
	r := &roleNow{rec: rec, now: b.now(rec.Committed), countsReads: b.countsReads()}
	var err error
	if r.terms, err = rec.under(&rec.Policy, lim); err != nil {
		return r, fmt.Errorf("role %s: %w", rec.Name, err)
	}
	return r, nil
}

// under is what a policy comes to for the role.
func (r *roleRecord) under(p *policy.Policy, lim policy.Limits) (policy.Terms, error) {
	return p.Effective(r.ID, r.Type, lim)
}
