// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

const (
	secretType = "api_key"
	maxLabel   = 128
)

func (b *backend) secrets() []*framework.Secret {
	return []*framework.Secret{{
		Type: secretType,
		Fields: map[string]*framework.FieldSchema{
			"api_key": {Type: framework.TypeString, Description: "The key."},
			"key_id":  {Type: framework.TypeString, Description: "The key's public id."},
		},
		Renew:  b.renew,
		Revoke: b.revokeLease,
	}}
}

// issuedEntry is the index of a dynamic role's keys. It only points: what holds
// for a key is in its own record.
var issuedValue = []byte(`{"schema":1}`)

// issue makes a key of its own for the caller. The key's record is the commit.
func (b *backend) issue(ctx context.Context, req *logical.Request, d *framework.FieldData, role *roleRecord, lim limits) (*logical.Response, error) {
	t, err := role.Policy.terms(role.ID, role.Type, lim)
	if err != nil {
		return nil, err
	}
	now := b.now(role.Committed)
	gen := role.Ring.Current(now)
	if gen == nil {
		return nil, noCurrent(role, now)
	}
	rec, err := b.wanted(req, d, role, t)
	if err != nil {
		return nil, err
	}
	digests, err := b.ensureDigest(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	key, minted, err := b.mintKey(digests, t.prefix)
	if err != nil {
		return nil, err
	}
	rec.Schema, rec.ID, rec.Digest = minted.Schema, minted.ID, minted.Digest
	rec.Role, rec.RoleID, rec.Version, rec.Issued = role.Name, role.ID, gen.N, now

	ttl := t.ttl
	if rec.TTL > 0 {
		ttl = rec.TTL.duration()
	}
	st, _ := role.Ring.Status(gen.N, now)
	lease, err := b.lease(rec, t, st, 0, ttl, now)
	if err != nil {
		return nil, err
	}
	rec.Expires = lease.ends
	// The key's record first: whatever hangs on a key is found through it. One
	// that the index lacks, because the second write failed, was handed to nobody.
	path := keyPath(rec.ID)
	if err := putRecord(ctx, req.Storage, path, rec); err != nil {
		b.keys.drop(path)
		return nil, err
	}
	b.keys.committed(path, rec)
	if err := putBytes(ctx, req.Storage, issuedPath(role.ID, rec.ID), issuedValue); err != nil {
		return nil, err
	}

	resp := b.Secret(secretType).Response(map[string]any{
		"api_key": key.Reveal(), "key_id": rec.ID, "version": rec.Version, "scopes": keyScopes(role, rec), "role": role.Name,
	}, map[string]any{"key_id": rec.ID, "role": role.Name, "role_id": role.ID})
	resp.Secret.TTL, resp.Secret.MaxTTL = lease.ttl, lease.maxTTL
	resp.Secret.Renewable = lease.maxTTL > lease.ttl
	return resp, nil
}

// wanted reads what the caller asks of the key, refusing more than the role gives.
func (b *backend) wanted(req *logical.Request, d *framework.FieldData, role *roleRecord, t terms) (*keyRecord, error) {
	rec := &keyRecord{Dynamic: true, EntityID: req.EntityID, Display: keyformat.Redact(req.DisplayName)}
	if v, ok := d.GetOk("scopes"); ok {
		rec.Scopes, rec.Narrowed = v.([]string), true
		for _, s := range rec.Scopes {
			if !anyCovers(role.Policy.Scopes, s) {
				return nil, refuse("scopes", s, "is not covered by the role's scopes", "ask for a part of what the role allows")
			}
		}
		if len(rec.Scopes) > maxScopes {
			return nil, refuse("scopes", len(rec.Scopes), fmt.Sprintf("more than %d", maxScopes), "ask for fewer")
		}
	}
	if v, ok := d.GetOk("ttl"); ok {
		rec.TTL = seconds(v.(int))
		if rec.TTL <= 0 || rec.TTL.duration() > t.ttl {
			return nil, refuse("ttl", v, fmt.Sprintf("must be from 1 to %d seconds, the role's ttl", int64(t.ttl/time.Second)), "ask for less, or leave it out")
		}
	}
	if v, ok := d.GetOk("label"); ok {
		rec.Label = keyformat.Redact(v.(string))
		if len(rec.Label) > maxLabel {
			return nil, refuse("label", len(rec.Label), fmt.Sprintf("has more than %d bytes", maxLabel), "shorten it")
		}
	}
	return rec, nil
}

// keyScopes is what a dynamic key may do now.
func keyScopes(role *roleRecord, rec *keyRecord) []string {
	if !rec.Narrowed {
		return orEmpty(role.Policy.Scopes)
	}
	return intersectScopes(role.Policy.Scopes, rec.Scopes)
}

// leaseTerms is what a host is told about a lease, and when the key ends by it.
type leaseTerms struct {
	ttl, maxTTL time.Duration
	ends        time.Time
}

// lease computes the lease of a key by the host's own rule. MaxTTL is the only
// bound that a host respects at every renewal, so it says how far this key can
// come: the role's max_ttl, or the deadline of its generation if that is
// earlier.
func (b *backend) lease(rec *keyRecord, t terms, gen keyring.Status, increment, ttl time.Duration, now time.Time) (leaseTerms, error) {
	reach := rec.Issued.Add(t.maxTTL)
	for _, end := range []time.Time{gen.Until, rec.Cap} {
		if !end.IsZero() && end.Before(reach) {
			reach = end
		}
	}
	l := leaseTerms{maxTTL: reach.Sub(rec.Issued).Truncate(time.Second)}
	if l.maxTTL < time.Second || reach.Sub(now) < time.Second {
		return leaseTerms{}, refuse("role", rec.Role, "keys of this generation end at "+keyring.Stamp(reach), "ask for a new key")
	}
	if increment > 0 {
		ttl = increment
	}
	_, mountMax := b.leaseTTLs()
	l.ttl = hostTTL(ttl, l.maxTTL, mountMax, rec.Issued, now)
	if l.ttl <= 0 {
		return leaseTerms{}, refuse("role", rec.Role, "the lease is as long as the mount allows", "ask for a new key")
	}
	l.ends = now.Add(l.ttl)
	return l, nil
}

// hostTTL is what a server makes of a lease: what is asked for, in whole
// seconds, but no further than the lesser of the lease's and the mount's maximum
// after the issue. Servers compute it after the answer, from their own clock;
// the key ends by this.
func hostTTL(asked, leaseMax, mountMax time.Duration, issued, now time.Time) time.Duration {
	limit := leaseMax
	if mountMax > 0 {
		limit = min(limit, mountMax)
	}
	left := issued.Add(limit.Truncate(time.Second)).Sub(now)
	return min(asked, left).Truncate(time.Second)
}

// renew extends the lease of a live key, and the key with it.
func (b *backend) renew(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	resp, err := b.renewKey(ctx, req)
	if err != nil {
		return respond(err)
	}
	return resp, nil
}

func (b *backend) renewKey(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	id, roleName, roleID := leaseData(req)
	dead := func(why string) error {
		return refuse("lease", nil, "the key "+shown(id)+" "+why, "ask for a new key")
	}
	if !keyformat.ValidID(id) {
		return nil, dead("is not known")
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	role, err := getRecord[roleRecord](ctx, req.Storage, rolePath(roleName))
	if err != nil {
		return nil, err
	}
	if role == nil || role.ID != roleID {
		return nil, dead("belongs to a role that is gone")
	}
	t, err := role.Policy.terms(role.ID, role.Type, lim)
	if err != nil {
		return nil, err
	}
	var lease leaseTerms
	_, err = b.mutateKey(ctx, req.Storage, id, func(rec *keyRecord) error {
		if rec == nil || rec.RoleID != roleID {
			return dead("is not known any more")
		}
		now := b.now(role.Committed)
		if st := keyStatus(rec, role, now); !st.Verifies {
			return dead(fmt.Sprintf("is %s since %s", st.State, stamp(st.Until)))
		}
		gen, _ := role.Ring.Status(rec.Version, now)
		ttl := t.ttl
		if rec.TTL > 0 {
			ttl = rec.TTL.duration()
		}
		var err error
		if lease, err = b.lease(rec, t, gen, req.Secret.Increment, ttl, now); err != nil {
			return err
		}
		rec.Expires = lease.ends
		return nil
	})
	if err != nil {
		return nil, err
	}
	secret := *req.Secret
	secret.TTL, secret.MaxTTL = lease.ttl, lease.maxTTL
	return &logical.Response{Secret: &secret}, nil
}

// revokeLease ends a key because its lease ended. It may come twice, late, or
// after the role is gone, and succeeds then too.
func (b *backend) revokeLease(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	id, _, roleID := leaseData(req)
	if !keyformat.ValidID(id) {
		return nil, nil
	}
	_, err := b.killKey(ctx, req.Storage, id, func(rec *keyRecord) error {
		if rec == nil || rec.RoleID != roleID {
			return errUnchanged
		}
		return nil
	}, causeLease, "")
	if err != nil {
		return respond(err)
	}
	// The index lists live keys: dead ones would make each page of it dearer.
	// Where this fails the entry goes together with the key's record.
	if err := deleteRecord(ctx, req.Storage, issuedPath(roleID, id)); err != nil {
		b.Logger().Debug("a dead key is still in the index of its role", "key_id", id, "error", err)
	}
	return nil, nil
}

// leaseData is what issue stored with the lease.
func leaseData(req *logical.Request) (keyID, role, roleID string) {
	get := func(name string) string {
		s, _ := req.Secret.InternalData[name].(string)
		return s
	}
	return get("key_id"), get("role"), get("role_id")
}
