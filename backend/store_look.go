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
	// unread is why the plan of the role cannot be read; nil if it can. The terms are
	// those of a role without one then.
	unread error
	// countsReads: by the mount's config the reads of every role are counted.
	countsReads bool
	hears       hearing
}

// hearing is what is to be told of roles before it happens, by the mount's config and
// endpoints.
type hearing struct {
	ending  bool             // some endpoint wants to know of ends of versions in use
	notices []policy.Seconds // how long before the end of its key a role is told
	paused  bool             // nothing is rotated by itself
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

// lookToRead is look for who reads keys, or the policy itself: what does not depend on
// the plan of the role is told also where that cannot be read.
func (b *backend) lookToRead(ctx context.Context, s logical.Storage, name string) (*roleNow, error) {
	r, err := b.look(ctx, s, name)
	if r != nil {
		err = nil
	}
	return r, err
}

// lookOf is look for a record in hand. The error is that the plan cannot be read,
// which r knows, too.
func (b *backend) lookOf(rec *roleRecord, lim policy.Limits) (r *roleNow, err error) {
	r = &roleNow{rec: rec, now: b.now(rec.Committed), countsReads: b.countsReads(), hears: b.hearing(rec.Name)}
	if r.terms, err = rec.under(&rec.Policy, lim); err != nil {
		r.unread = fmt.Errorf("role %s: %w", rec.Name, err)
	}
	return r, r.unread
}

// under is what a policy comes to for the role.
func (r *roleRecord) under(p *policy.Policy, lim policy.Limits) (policy.Terms, error) {
	return p.Effective(r.ID, r.Type, lim)
}
