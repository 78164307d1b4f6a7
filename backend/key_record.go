// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// mutateKey changes the record of a dynamic key under the key's lock, with one
// Put. fn gets a copy, nil if there is none; errUnchanged from it, like any
// other error, leaves the record as it was, and only the latter is returned.
func (b *backend) mutateKey(ctx context.Context, s logical.Storage, id string, fn func(*keyRecord) error) (*keyRecord, error) {
	unlock := b.lockKey(id)
	defer unlock()
	path := keyPath(id)
	stored, err := getRecord[keyRecord](ctx, s, path)
	if err != nil {
		return nil, err
	}
	var rec *keyRecord
	if stored != nil {
		c := *stored
		rec = &c
	}
	switch err := fn(rec); {
	case errors.Is(err, errUnchanged):
		return stored, nil
	case err != nil:
		return nil, err
	}
	if err := putRecord(ctx, s, path, rec); err != nil {
		b.keys.drop(path)
		return nil, err
	}
	b.keys.committed(path, rec)
	return rec, nil
}

// keyStatus is the state of a presented key at now: what its own record and the
// role's record say together. Both have to call it good.
func keyStatus(rec *keyRecord, role *roleRecord, now time.Time) keyring.Status {
	if rec.End != nil {
		return keyring.Status{State: rec.End.State, Reason: rec.End.Reason, Until: rec.End.At, Planned: rec.End.Reason == keyring.GraceEnded}
	}
	st, known := role.Ring.Status(rec.Version, now)
	if !known {
		// The role forgot the version, so it ended long ago.
		st = keyring.Status{State: keyring.Retired, Reason: keyring.Superseded}
	}
	if !rec.Dynamic {
		return st
	}
	switch {
	case !rec.RevokedAt.IsZero():
		return keyring.Status{State: keyring.Revoked, Until: rec.RevokedAt}
	case st.State == keyring.Retired && !st.Until.IsZero() && !rec.Expires.After(st.Until):
		// It had expired before its generation retired: how a key ended does not
		// change afterwards.
		return keyring.Status{State: keyring.Expired, Until: rec.Expires}
	case st.State.Ended():
		return st
	case rec.ExpiredSeen || !now.Before(rec.Expires):
		return keyring.Status{State: keyring.Expired, Until: rec.Expires}
	case !rec.Cap.IsZero() && !now.Before(rec.Cap):
		return keyring.Status{State: keyring.Retired, Reason: keyring.GraceEnded, Until: rec.Cap}
	}
	for _, end := range []time.Time{rec.Expires, rec.Cap} {
		if !end.IsZero() && (st.Until.IsZero() || end.Before(st.Until)) {
			st.Until, st.Planned = end, false
		}
	}
	return st
}
