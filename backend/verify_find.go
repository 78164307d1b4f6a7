// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// verifyOne answers one question. It never writes.
func (b *backend) verifyOne(ctx context.Context, s logical.Storage, q *question) (verdict, error) {
	if q.fresh && !b.answersAlone() {
		return verdict{}, logical.ErrReadOnly // this node's storage may be behind
	}
	began := b.clock.Reading()
	v, err := b.verdictOf(ctx, s, q, began.wall)
	if err != nil {
		return verdict{}, err
	}
	b.tally(q, &v, b.clock.Reading().steady-began.steady)
	// Whoever issued or imported the key may be ahead of this node: the server
	// asks there. This node may not have heard of the mount's first import either.
	if (v.code == codeNotFound || v.code == codeMalformed && keyformat.Presentable(q.key)) && !b.answersAlone() {
		return verdict{}, logical.ErrReadOnly
	}
	return v, nil
}

func (b *backend) verdictOf(ctx context.Context, s logical.Storage, q *question, clock time.Time) (verdict, error) {
	refused := func(c code) (verdict, error) {
		v := verdict{code: c, now: b.now()}
		if !q.byID {
			v.hint = keyformat.Hint(q.key)
		}
		return v, nil
	}
	key, last, c, err := b.askedKey(ctx, s, q, clock)
	if err != nil {
		return verdict{}, err
	}
	if key == nil {
		return refused(c)
	}
	var path string
	if last != nil && last.key == key {
		path = last.role.path
	} else {
		path = rolePath(key.Role)
	}
	role, err := b.roleFor(ctx, s, q, path, key, clock)
	if err != nil {
		return verdict{}, err
	}
	if role == nil || q.role != "" && role.Name != q.role {
		return refused(codeNotFound)
	}
	var view *keyView
	if q.fresh {
		view = newKeyView(key, newRoleView(role)) // the caches keep those of their own records
	} else {
		view = b.views.of(key, role, last)
	}
	v := verdict{now: b.nowAt(clock, role.Committed)}
	b.notice(role, v.now)
	if q.timeline > 0 {
		return futureVerdict(v, view, q), nil
	}
	v.code, v.status = judge(key, role, view.scopes, view.role.cidrs, q, v.now)
	switch {
	case v.code == codeNotFound:
		return v, nil
	case q.byID:
		v.code = codeState
	case v.code == codeValid && !b.rates.take(role):
		v.code = codeRate
	}
	v.known = view
	mayWrite := b.mayWrite(clock)
	v.cache = cacheSeconds(v.code, v.status, role, v.now, mayWrite)
	if mayWrite && v.code != codeState {
		b.countUse(&v, q.client)
	}
	return v, nil
}

// knownKey is askedKey for those who do not go on to judge the key.
func (b *backend) knownKey(ctx context.Context, s logical.Storage, q *question) (*keyRecord, code, error) {
	key, _, c, err := b.askedKey(ctx, s, q, b.clock.Now())
	return key, c, err
}

// askedKey finds the key record that the question is about: nil, and the code,
// unless the secret matches and the key belongs to the role asked for. An
// unknown id, a wrong secret and a wrong role cost the same storage calls and
// the same HMAC computations. The view is the last one of that key id, if there
// is one, current or not.
func (b *backend) askedKey(ctx context.Context, s logical.Storage, q *question, clock time.Time) (*keyRecord, *keyView, code, error) {
	if q.byID {
		key, last, _, err := b.lookUp(ctx, s, q, q.keyID, clock)
		if err != nil || key == nil || key.RoleID != q.roleID {
			return nil, nil, codeNotFound, err
		}
		if ok, err := b.mayBeOf(ctx, s, q, key, clock); err != nil || !ok {
			return nil, nil, codeNotFound, err
		}
		return key, last, codeValid, nil
	}
	parsed, err := keyformat.Parse(q.key)
	if err != nil {
		key, c, err := b.askedForeign(ctx, s, q, clock)
		if key == nil || q.fresh {
			return key, nil, c, err
		}
		return key, b.views.find(key.ID), c, nil
	}
	d, err := b.digestsFor(ctx, s, q)
	if errors.Is(err, errNoDigest) {
		return nil, nil, codeNotFound, nil // and so there are no keys
	}
	if err != nil {
		return nil, nil, codeNotFound, err
	}
	// What is asked for once is asked for now: what follows must not cost more where
	// the key is found.
	b.renamesKnown(ctx, s)
	key, last, asked, err := b.lookUp(ctx, s, q, parsed.ID(), clock)
	if err != nil {
		return nil, nil, codeNotFound, err
	}
	known := b.matches(key, d, keyformat.Sum(q.key))
	if known {
		if known, err = b.mayBeOf(ctx, s, q, key, clock); err != nil {
			return nil, nil, codeNotFound, err
		}
	}
	if !known {
		if key != nil && !q.fresh {
			err = b.keys.refused(ctx, s, keyPath(key.ID), clock, asked)
		}
		return nil, nil, codeNotFound, err
	}
	return key, last, codeValid, nil
}

// lookUp is the record with that key id, nil if there is none, and the last view
// of it, which spares the making of the path; asked reports whether storage was.
func (b *backend) lookUp(ctx context.Context, s logical.Storage, q *question, id string, clock time.Time) (key *keyRecord, last *keyView, asked bool, err error) {
	if q.fresh {
		key, asked, err = b.keyAt(ctx, s, q, keyPath(id), clock)
		return key, nil, asked, err
	}
	last = b.views.find(id)
	var path string
	if last != nil {
		path = last.path
	} else {
		path = keyPath(id)
	}
	key, asked, err = b.keys.find(ctx, s, path, clock)
	return key, last, asked, err
}

// matches reports whether the record is that of the key with that sum. It
// computes one HMAC, also where there is no record.
func (b *backend) matches(key *keyRecord, d *digestRecord, sum [32]byte) bool {
	stored, n := "", d.Current
	if key != nil {
		stored = key.Digest
		if k, err := keyformat.DigestVersion(stored); err == nil && d.secret(k) != nil {
			n = k
		}
	}
	b.hmacs.Add(1)
	return d.secret(n).Equal(stored, sum) && key != nil
}

// mayBeOf reports whether the key, whose secret has matched, may be one of the role
// that is asked for: it was made there, or its role is called so now.
func (b *backend) mayBeOf(ctx context.Context, s logical.Storage, q *question, key *keyRecord, clock time.Time) (bool, error) {
	if q.role == "" || key.Role == q.role {
		return true, nil
	}
	moved, err := b.moveFor(ctx, s, q, key.RoleID, clock)
	return moved != nil && moved.Name == q.role, err
}

// askedForeign looks for an imported key that has not this engine's form.
// Without any in the mount it costs nothing.
func (b *backend) askedForeign(ctx context.Context, s logical.Storage, q *question, clock time.Time) (*keyRecord, code, error) {
	imported, err := b.formsFor(ctx, s, q)
	if err != nil || !imported.mayBe(q.key) {
		return nil, codeMalformed, err
	}
	d, err := b.digestsFor(ctx, s, q)
	if errors.Is(err, errNoDigest) {
		return nil, codeMalformed, nil
	}
	if err != nil {
		return nil, codeMalformed, err
	}
	b.renamesKnown(ctx, s) // as in askedKey
	sum := keyformat.Sum(q.key)
	var found *keyRecord
	askedFound := false
	for _, n := range imported.Numbers {
		secret := d.secret(n)
		if secret == nil {
			continue
		}
		b.hmacs.Add(1)
		key, asked, err := b.keyAt(ctx, s, q, keyPath(secret.ImportedID(sum)), clock)
		if err != nil {
			return nil, codeNotFound, err
		}
		if key == nil || found != nil {
			continue
		}
		found, askedFound = key, asked
		if q.role == "" {
			break // where the role matters, the others cost what an unknown key does
		}
	}
	known := b.matches(found, d, sum)
	if known {
		if known, err = b.mayBeOf(ctx, s, q, found, clock); err != nil {
			return nil, codeNotFound, err
		}
	}
	if !known {
		if found != nil && !q.fresh {
			err = b.keys.refused(ctx, s, keyPath(found.ID), clock, askedFound)
		}
		return nil, codeNotFound, err
	}
	return found, codeValid, nil
}

// admits reports whether the role lets that address in. Where a role says who
// may come, no address is nobody.
func admits(role *roleRecord, cidrs []netip.Prefix, remote string) bool {
	if len(role.Policy.AllowedCIDRs) == 0 {
		return true
	}
	addr, ok := policy.ParseRemote(remote)
	if !ok {
		return false
	}
	for _, p := range cidrs {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
