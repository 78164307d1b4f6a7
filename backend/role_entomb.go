// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// A key that ended must not come back, not by an import either. Of a key whose
// role is gone its record is all that is left, so before a role's copy goes, the
// records of its keys say how they ended. Such a record is a tombstone: tidy keeps
// it as long as history is kept. Keys that were good when their role was deleted
// have none and can be imported again.

// entombAtOnce is how many keys of a dynamic role one look at most deals with.
const entombAtOnce = 500

// entomb writes into the records of the role's keys how they ended.
func (tx *roleTx) entomb() (done bool, err error) {
	if tx.rec.Type == policy.Dynamic {
		return tx.entombIssued()
	}
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		if v.KeyID == "" {
			continue
		}
		if err := tx.entombVersion(v); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (tx *roleTx) entombVersion(v *keyring.Version) error {
	st, _ := tx.rec.Ring.Status(v.N, tx.now)
	var end keyEnd
	switch {
	case st.State.Ended():
		end = endOf(v)
	case !v.Reported.IsZero():
		end = keyEnd{State: keyring.Retired, Reason: keyring.Superseded, At: tx.rec.Deleted}
	default:
		return nil
	}
	unlock := tx.b.lockKey(v.KeyID)
	defer unlock()
	stored, err := tx.b.lockedKey(tx.ctx, tx.s, v.KeyID)
	if err != nil || stored == nil || stored.RoleID != tx.rec.ID || stored.End != nil {
		return err
	}
	tomb := *stored
	tomb.End, tomb.Reported, tomb.Code = &end, v.Reported, v.Code
	return tx.b.commitKey(tx.ctx, tx.s, stored, &tomb, nil)
}

// entombIssued does the same for the keys of a dynamic role whose generation was
// revoked: what else ended one stands in its own record. The index shrinks as far
// as it was gone through, so that the next look begins where this one stopped.
func (tx *roleTx) entombIssued() (done bool, err error) {
	if !tx.revokedGeneration() {
		return true, nil
	}
	ids, err := list(tx.ctx, tx.s, issuedPrefix+tx.rec.ID+"/")
	if err != nil {
		return false, err
	}
	for _, id := range ids[:min(len(ids), entombAtOnce)] {
		if err := tx.entombKey(id); err != nil {
			return false, err
		}
	}
	return len(ids) <= entombAtOnce, nil
}

func (tx *roleTx) revokedGeneration() bool {
	for i := range tx.rec.Ring.Versions {
		if !tx.rec.Ring.Versions[i].RevokedAt.IsZero() {
			return true
		}
	}
	return false
}

func (tx *roleTx) entombKey(id string) error {
	unlock := tx.b.lockKey(id)
	defer unlock()
	stored, err := tx.b.lockedKey(tx.ctx, tx.s, id)
	if err != nil {
		return err
	}
	if stored != nil && stored.RoleID == tx.rec.ID {
		if tomb := killedWith(stored, tx.rec, tx.now); tomb != nil {
			if err := tx.b.commitKey(tx.ctx, tx.s, stored, tomb, nil); err != nil {
				return err
			}
		}
	}
	return deleteRecord(tx.ctx, tx.s, issuedPath(tx.rec.ID, id))
}

// killedWith is the record of a dynamic key that ended because its generation was
// revoked, with that written into it; nil if it did not, or says so already.
func killedWith(key *keyRecord, role *roleRecord, now time.Time) *keyRecord {
	if !key.Dynamic || key.End != nil || !key.RevokedAt.IsZero() {
		return nil
	}
	st := keyStatus(key, role, now)
	if st.State != keyring.Revoked {
		return nil
	}
	c := *key
	c.RevokedAt, c.Revoked, c.Code = st.Until, "its generation was revoked", st.Reason
	return &c
}

// tombstone reports whether the key's record itself says that the key ended and must
// not come back: what a lease that ran out or was given back says is kept for a while
// only. Those are the usual ends, of every leased key there ever was.
func tombstone(key *keyRecord) bool {
	killed := !key.RevokedAt.IsZero() && key.Revoked != causeLease
	return key.End != nil || key.Dynamic && (killed || !key.Reported.IsZero())
}

// ending is how the key ended for good, in words, and its last state, as far as its
// record and its role's record say, the copy where the role is deleted; role may be
// nil. The text is empty where it has not ended. A key that was reported has, once
// its role is deleted.
func ending(key *keyRecord, role *roleRecord, now time.Time) (how string, st keyring.Status) {
	reported := key.Reported
	switch {
	case key.End != nil:
		st.State, st.Until = key.End.State, key.End.At
	case role != nil && !role.stub():
		st = keyStatus(key, role, now)
		if v := role.Ring.Get(key.Version); v != nil && !key.Dynamic {
			reported = v.Reported
		}
	case !key.RevokedAt.IsZero():
		st.State, st.Until = keyring.Revoked, key.RevokedAt
	case key.Dynamic && (key.ExpiredSeen || !now.Before(key.Expires)):
		st.State, st.Until = keyring.Expired, key.Expires
	}
	seen := "reported as found in the open at " + stamp(reported)
	switch st.State {
	case keyring.Revoked:
		how = "was revoked at " + stamp(st.Until)
	case keyring.Expired:
		how = "expired at " + stamp(st.Until)
	case keyring.Retired:
		how = "was retired at " + stamp(st.Until)
	default:
		if reported.IsZero() || role != nil && role.Deleted.IsZero() {
			return "", st
		}
		return "was " + seen, st
	}
	if !reported.IsZero() {
		how += ", and was " + seen
	}
	return how, st
}
