// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// statusOf is the key's state at now; false if the role knows no such key.
func statusOf(key *keyRecord, role *roleRecord, now time.Time) (keyring.Status, bool) {
	if role == nil || role.ID != key.RoleID || !role.Deleted.IsZero() {
		return keyring.Status{}, false
	}
	return stateIn(key, role, now)
}

// stateIn is the key's state by what role says, deleted or not; false if it
// knows no such key.
func stateIn(key *keyRecord, role *roleRecord, now time.Time) (keyring.Status, bool) {
	if !key.Dynamic && key.End == nil {
		// A key whose commit never happened may carry the number of a version
		// that was made after it.
		if v := role.Ring.Get(key.Version); v == nil || v.KeyID != key.ID {
			return keyring.Status{}, false
		}
	}
	return keyStatus(key, role, now), true
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
		return keyring.Status{State: keyring.Revoked, Reason: rec.Code, Until: rec.RevokedAt}
	case (st.State == keyring.Retired || st.State == keyring.Expired) && !st.Until.IsZero() && !rec.Expires.After(st.Until):
		// It had expired before its generation ended: how a key ended does not
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

// reasonOf is the reason of a state as answers show it. What was revoked before
// there were reason codes has none.
func reasonOf(st keyring.Status) string {
	if st.State == keyring.Revoked {
		return string(cmp.Or(st.Reason, keyring.Unspecified))
	}
	return string(st.Reason)
}

// noCurrent says why a role has no current key and what makes a new one.
func noCurrent(rec *roleRecord, now time.Time) error {
	if rec.Ring.Over(now) {
		return refusal.New("role", rec.Name, "has no current key: the role ended at "+keyring.Stamp(rec.Ring.Until)+", its valid_until",
			"if it is to go on, raise valid_until and make a new key with rotate/"+rec.Name)
	}
	top := rec.Ring.Top(now)
	if top == nil {
		return refusal.New("role", rec.Name, "has no current key yet", "promote the pending version with promote/"+rec.Name)
	}
	st, _ := rec.Ring.Status(top.N, now)
	return refusal.New("role", rec.Name,
		fmt.Sprintf("has no current key: version %d is %s since %s", top.N, st.State, keyring.Stamp(st.Until)),
		"rotate/"+rec.Name+" makes a new one")
}
