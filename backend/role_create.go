// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// makeRole makes a role in one commit: with that policy, and what first does.
func (b *backend) makeRole(ctx context.Context, s logical.Storage, name, typ string, p *policy.Policy, by actor, first func(*roleTx) error) (*roleTx, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	id, err := newUUID(b.rand)
	if err != nil {
		return nil, err
	}
	if err := policy.Check(nil, p, id, typ, lim); err != nil {
		return nil, err
	}
	if _, err := b.ensureDigest(ctx, s); err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	stored, err := b.liveAt(ctx, s, name)
	switch {
	case err != nil:
		return nil, err
	case stored != nil:
		return nil, refusal.New("name", name, "was created by somebody else this moment", "repeat the request to update the role")
	}
	tx := b.begin(ctx, s, opening{by: by, lim: lim, rec: &roleRecord{Name: name, ID: id, Type: typ, Policy: *p}})
	tx.rec.Created = tx.now.Truncate(time.Second)
	if err := tx.setPolicy(*p); err != nil {
		return nil, err
	}
	tx.note(historyEntry{Kind: eventRoleCreated})
	if err := first(tx); err != nil {
		return nil, err
	}
	return tx, tx.commit()
}

// firstVersion makes the first version of a role that is being made.
func (tx *roleTx) firstVersion() error {
	if _, err := tx.succeed(succession{grace: tx.defaultGrace()}); err != nil {
		return fmt.Errorf("making the first version: %w", err)
	}
	return nil
}
