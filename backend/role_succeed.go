// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// succession says what successor is wanted.
type succession struct {
	// grace is how long the version that it supersedes stays valid after its activation.
	grace time.Duration
	// at is its activation; one that is not later than now is at once.
	at time.Time
	// held: it has no activation, and waits to be promoted.
	held bool
	// planned: the automatic rotation makes it, for the activation that was planned,
	// and its plan goes on from there. Every other successor starts the plan anew
	// from its own activation.
	planned bool
	// force makes room where too many versions live.
	force bool
	// adopt is the key that it is, where none is to be minted.
	adopt *adopted
	// apart: the records of its key are written at once, not by the commit. Where
	// that fails there is no successor, and the commit goes on without it.
	apart bool
}

// succeed makes the next version of the role, whatever asks for it. Where it
// fails the transition is as it was before.
func (tx *roleTx) succeed(how succession) (made *keyring.Version, err error) {
	defer func() { tx.tried(how, made, err) }()
	if tx.rec.Owed && tx.rec.Ring.Current(tx.now) == nil && how.adopt == nil && (how.held || how.at.After(tx.now)) {
		// What is owed comes first: nobody waits for the one that comes later.
		v, err := tx.succeed(succession{grace: tx.defaultGrace(), force: true})
		if err != nil {
			return nil, err
		}
		tx.warn("version %d is current at once: it was still to come after a kill", v.N)
	}
	m, key, err := tx.mint(how)
	if err != nil {
		return nil, err
	}
	if how.apart && key != nil {
		if err := tx.writeKey(key); err != nil {
			tx.begun(key)
			return nil, err
		}
		key.written = true
	}
	transition := tx.rec.Ring.Rotate
	if how.held {
		transition = tx.rec.Ring.Stage
	}
	events, err := transition(tx.now, m, how.force)
	if err != nil {
		return nil, err
	}
	if key != nil {
		tx.minted = append(tx.minted, *key)
	}
	tx.record(events, tx.by)
	tx.rec.Owed = tx.rec.Owed && !tx.covered()
	// Longer leases than the policy now gives may be out under a version that is
	// handed out until the new one is activated, or again after a rollback: until
	// they are over they count.
	if tx.rec.Type == policy.Dynamic && !tx.now.Before(tx.rec.LeaseUntil) {
		tx.rec.LeaseTTL = policy.Seconds(tx.terms.TTL / time.Second)
	}
	return tx.rec.Ring.Get(tx.rec.Ring.Last), nil
}

// mint prepares the successor and, for a static role, its key, whose records are
// to be written.
func (tx *roleTx) mint(how succession) (keyring.Mint, *mintedKey, error) {
	m := keyring.Mint{Grace: how.grace, Activate: how.at, Held: how.held, Auto: how.planned}
	switch {
	case how.adopt != nil:
		a := how.adopt
		a.record.Role, a.record.RoleID, a.record.Version = tx.rec.Name, tx.rec.ID, max(tx.rec.Ring.Last+1, a.version)
		m.KeyID, m.Prefix, m.Plain, m.Number, m.Strength, m.Foreign = a.record.ID, a.prefix, a.plain != "", a.version, a.strength, a.foreign
		if !a.expires.IsZero() {
			m.TTL = a.expires.Sub(tx.now)
		}
		return m, &mintedKey{version: a.record.Version, record: a.record, plain: a.plain, adopt: a}, nil
	case tx.rec.Type == policy.Dynamic:
		m.Prefix = tx.terms.Prefix
		return m, nil, nil
	}
	d, err := tx.b.digests(tx.ctx, tx.s)
	if err != nil {
		return m, nil, err
	}
	key, rec, err := tx.b.mintVersion(d, tx.terms.Prefix, tx.rec.ID, tx.rec.Ring.Last+1)
	if err != nil {
		return m, nil, err
	}
	rec.Role, rec.RoleID, rec.Version = tx.rec.Name, tx.rec.ID, tx.rec.Ring.Last+1
	m.KeyID, m.Prefix, m.TTL, m.Plain = rec.ID, tx.terms.Prefix, tx.terms.TTL, true
	return m, &mintedKey{version: rec.Version, record: rec, plain: key.Reveal()}, nil
}
