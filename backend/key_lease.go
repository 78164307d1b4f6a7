// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	secretType = "api_key"
	maxLabel   = 128 // characters
)

// leaseSpan is what a host is told about a lease, and when the key ends by it.
type leaseSpan struct {
	ttl, maxTTL time.Duration
	ends        time.Time
}

// lease computes the lease of a key by the host's own rule. MaxTTL is the only
// bound that a host respects at every renewal, so it says how far this key can
// come: the role's max_ttl, or the deadline of its generation if that is
// earlier.
func (b *backend) lease(rec *keyRecord, t policy.Terms, gen keyring.Status, increment, ttl time.Duration, now time.Time) (leaseSpan, error) {
	reach := rec.Issued.Add(t.MaxTTL)
	for _, end := range []time.Time{gen.Until, rec.Cap} {
		if !end.IsZero() && end.Before(reach) {
			reach = end
		}
	}
	l := leaseSpan{maxTTL: reach.Sub(rec.Issued).Truncate(time.Second)}
	if l.maxTTL < time.Second || reach.Sub(now) < time.Second {
		return leaseSpan{}, refusal.New("role", rec.Role, "keys of this generation end at "+keyring.Stamp(reach), "ask for a new key")
	}
	if increment > 0 {
		ttl = increment
	}
	_, mountMax := b.leaseTTLs()
	l.ttl = hostTTL(ttl, l.maxTTL, mountMax, rec.Issued, now)
	if l.ttl <= 0 {
		return leaseSpan{}, refusal.New("role", rec.Role, "the lease is as long as the mount allows", "ask for a new key")
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

func (b *backend) renewKey(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	id, roleName, roleID := leaseData(req)
	dead := func(why string) error {
		return refusal.New("lease", nil, "the key "+refusal.Shown(id)+" "+why, "ask for a new key")
	}
	if !keyformat.ValidID(id) {
		return nil, dead("is not known")
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	role, err := b.storedOf(ctx, req.Storage, roleName, roleID)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return nil, dead("belongs to a role that is gone")
	}
	r, _ := b.lookOf(role, lim) // a lease needs no plan
	t := r.terms
	var lease leaseSpan
	_, err = b.mutateKey(ctx, req.Storage, id, nil, func(rec *keyRecord) (bool, error) {
		if rec == nil || rec.RoleID != roleID {
			return false, dead("is not known any more")
		}
		now := b.now(role.Committed)
		if st := keyStatus(rec, role, now); !st.Verifies {
			return false, dead(fmt.Sprintf("is %s since %s", st.State, stamp(st.Until)))
		}
		gen, _ := role.Ring.Status(rec.Version, now)
		ttl := t.TTL
		if rec.TTL > 0 {
			ttl = min(ttl, rec.TTL.Duration()) // the role's may be shorter by now
		}
		var err error
		if lease, err = b.lease(rec, t, gen, req.Secret.Increment, ttl, now); err != nil {
			return false, err
		}
		rec.Expires = lease.ends
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	secret := *req.Secret
	secret.TTL, secret.MaxTTL = lease.ttl, lease.maxTTL
	return &logical.Response{Secret: &secret}, nil
}

// leaseData is what issue stored with the lease: the role may be called otherwise now.
func leaseData(req *logical.Request) (keyID, role, roleID string) {
	get := func(name string) string {
		s, _ := req.Secret.InternalData[name].(string)
		return s
	}
	return get("key_id"), get("role"), get("role_id")
}
