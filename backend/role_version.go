// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// newVersion prepares the next version of the role: for a static role a key is
// minted, whose records the commit writes.
func (tx *roleTx) newVersion(grace time.Duration) (keyring.Mint, error) {
	m := keyring.Mint{Prefix: tx.terms.Prefix, Grace: grace}
	if tx.rec.Type == policy.Dynamic {
		return m, nil
	}
	d, err := tx.b.digests(tx.ctx, tx.s)
	if err != nil {
		return m, err
	}
	key, rec, err := tx.b.mintKey(d, tx.terms.Prefix)
	if err != nil {
		return m, err
	}
	rec.Role, rec.RoleID, rec.Version = tx.rec.Name, tx.rec.ID, tx.rec.Ring.Last+1
	tx.minted = append(tx.minted, mintedKey{version: rec.Version, record: rec, plain: key.Reveal()})
	m.KeyID, m.TTL, m.Plain = rec.ID, tx.terms.Ttl, true
	return m, nil
}

// rotated is what follows from any new version. Longer leases than the policy now
// gives may be out under a version that is handed out until the new one is
// activated, or again after a rollback: until they are over they count.
func (tx *roleTx) rotated() {
	tx.rec.Owed = false
	if tx.rec.Type == policy.Dynamic && !tx.now.Before(tx.rec.LeaseUntil) {
		tx.rec.LeaseTTL = policy.Seconds(tx.terms.Ttl / time.Second)
	}
}

// defaultGrace is the grace of a rotation for which nobody asked for one: the
// role's, lengthened where readers were told to come back later than it allows.
func (tx *roleTx) defaultGrace() time.Duration {
	g := max(tx.terms.Grace, 2*tx.promised())
	if tx.rec.Type == policy.Dynamic {
		g = max(g, tx.rec.LeaseTTL.Duration(), tx.terms.Ttl)
	}
	return g
}

// promised is the longest ttl that some reader may still be waiting out beyond
// the policy in force.
func (tx *roleTx) promised() time.Duration {
	if tx.now.Before(tx.rec.Promise.Until) {
		return tx.rec.Promise.TTL.Duration()
	}
	return 0
}

// rebase starts the plan of automatic rotations anew from an activation.
func (tx *roleTx) rebase(from time.Time) {
	tx.rec.Next = time.Time{}
	if tx.terms.Cadence != nil {
		tx.plan(tx.terms.Cadence.First(from, tx.terms.Jitter))
	}
}
