// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// issuedEntry is the index of a dynamic role's keys. It only points: what holds
// for a key is in its own record.
var issuedValue = []byte(`{"schema":1}`)

// issueRequest is what a caller asks of the key that is issued to it.
type issueRequest struct {
	entityID, display string
	scopes            []string // nil: all of the role's
	ttl               *policy.Seconds
	label             string
}

// issue makes a key of its own for the caller. The key's record is the commit.
func (b *backend) issue(ctx context.Context, s logical.Storage, want *issueRequest, r *roleNow) (*logical.Response, error) {
	role, t, now := r.rec, r.terms, r.now
	gen := role.Ring.Current(now)
	if gen == nil {
		return nil, noCurrent(role, now)
	}
	rec, err := want.record(role, t)
	if err != nil {
		return nil, err
	}
	digests, err := b.ensureDigest(ctx, s)
	if err != nil {
		return nil, err
	}
	key, minted, err := b.mintKey(digests, t.Prefix)
	if err != nil {
		return nil, err
	}
	rec.Schema, rec.ID, rec.Digest = minted.Schema, minted.ID, minted.Digest
	rec.Role, rec.RoleID, rec.Version, rec.Issued = role.Name, role.ID, gen.N, now

	ttl := t.TTL
	if rec.TTL > 0 {
		ttl = rec.TTL.Duration()
	}
	st, _ := role.Ring.Status(gen.N, now)
	lease, err := b.lease(rec, t, st, 0, ttl, now)
	if err != nil {
		return nil, err
	}
	rec.Expires = lease.ends
	// The key's record first: whatever hangs on a key is found through it. One
	// that the index lacks, because the second write failed, was handed to nobody.
	ctx, done := b.underway(ctx)
	defer done()
	if err := b.commitKey(ctx, s, nil, rec, nil); err != nil {
		return nil, err
	}
	if err := putBytes(ctx, s, issuedPath(role.ID, rec.ID), issuedValue); err != nil {
		return nil, err
	}

	resp := b.Secret(secretType).Response(map[string]any{
		"api_key": key.Reveal(), "key_id": rec.ID, "version": rec.Version, "scopes": keyScopes(role, rec), "role": role.Name,
	}, map[string]any{"key_id": rec.ID, "role": role.Name, "role_id": role.ID})
	resp.Secret.TTL, resp.Secret.MaxTTL = lease.ttl, lease.maxTTL
	resp.Secret.Renewable = lease.maxTTL > lease.ttl
	return resp, nil
}

// record is the key that is asked for, without what makes it one. It refuses
// more than the role gives.
func (r *issueRequest) record(role *roleRecord, t policy.Terms) (*keyRecord, error) {
	rec := &keyRecord{
		Dynamic: true, EntityID: r.entityID, Display: r.display, Label: r.label, Scopes: r.scopes, Narrowed: r.scopes != nil,
	}
	for _, scope := range r.scopes {
		if !policy.ScopesCover(role.Policy.Scopes, scope) {
			return nil, refusal.New("scopes", scope, "is not covered by the role's scopes", "ask for a part of what the role allows")
		}
	}
	if r.ttl != nil {
		rec.TTL = *r.ttl
		if most := policy.InSeconds(t.TTL); rec.TTL <= 0 || int64(rec.TTL) > most {
			return nil, refusal.New("ttl", rec.TTL, "must be from 1s to "+refusal.Duration(t.TTL)+", the role's ttl", "ask for less, or leave it out")
		}
	}
	return rec, nil
}

// keyScopes is what a dynamic key may do now.
func keyScopes(role *roleRecord, rec *keyRecord) []string {
	if !rec.Narrowed {
		return orEmpty(role.Policy.Scopes)
	}
	return policy.IntersectScopes(role.Policy.Scopes, rec.Scopes)
}
