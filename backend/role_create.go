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

// newRole begins the creation of a role, whose lock it holds until unlock.
func (b *backend) newRole(ctx context.Context, s logical.Storage, name, typ string, p *policy.Policy, by actor) (tx *roleTx, unlock func(), err error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	id, err := newUUID(b.rand)
	if err != nil {
		return nil, nil, err
	}
	if err := policy.Check(nil, p, id, typ, lim); err != nil {
		return nil, nil, err
	}
	if _, err := b.ensureDigest(ctx, s); err != nil {
		return nil, nil, err
	}
	unlock = b.lockRole(name)
	stored, err := getRecord[roleRecord](ctx, s, rolePath(name))
	if err == nil && stored != nil {
		err = refusal.New("name", name, "was created by somebody else this moment", "repeat the request to update the role")
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	now := b.now()
	return &roleTx{
		b: b, ctx: ctx, s: s, now: now, by: by, lim: lim,
		rec: &roleRecord{Schema: recordSchema, Name: name, ID: id, Type: typ, Created: now.Truncate(time.Second)},
	}, unlock, nil
}

// found gives a role that is being created its policy and first version.
func (tx *roleTx) found(p policy.Policy) error {
	if err := tx.setPolicy(p); err != nil {
		return err
	}
	tx.note(historyEntry{Kind: eventRoleCreated})
	m, err := tx.newVersion(tx.defaultGrace())
	if err != nil {
		return err
	}
	events, err := tx.rec.Ring.Rotate(tx.now, m, true)
	if err != nil {
		return fmt.Errorf("making the first version: %w", err)
	}
	tx.record(events, tx.by)
	tx.rotated()
	return nil
}
