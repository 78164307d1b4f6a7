// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// A version that nobody has come for while the previous one is about to end is an
// outage to come. Uses are counted wherever they are judged; that a version was
// read is counted where it is handed out, which for a role that reveals once is a
// commit of the node that writes, and else may be any node that serves reads.

// handOut is plaintext, counted.
func (b *backend) handOut(ctx context.Context, req *logical.Request, r *roleNow, n int) (string, *roleRecord, error) {
	plain, rec, err := b.plaintext(ctx, req, r, n)
	if err == nil && rec != nil && b.mayWrite(b.clock.Now()) {
		b.usage.counter.Read(usage.ID{RoleID: rec.ID, Version: n}, rec.Name, b.now(rec.Committed))
	}
	return plain, rec, err
}

// claimLead is how long before the end of the previous version, at most, it is a
// problem that nobody has come for the current one.
const claimLead = 7 * 24 * time.Hour

// claim is that the current version is to be read or used before the previous one
// ends.
type claim struct {
	cur, prev *keyring.Version
	until     time.Time // the end of the previous version
	at        time.Time // from when it is a problem that nobody has
}

// claim is false where there is nothing to come for, or nobody knows whether
// somebody has: where reads may be served by nodes that count none, unless the
// mount's config says otherwise. Whoever reads as told has come when half of the
// grace is over.
func (r *roleNow) claim() (claim, bool) {
	if r.rec.Type != policy.Static || r.terms.Reveal != policy.RevealOnce && !r.countsReads {
		return claim{}, false
	}
	c := claim{cur: r.rec.Ring.Current(r.now), prev: r.rec.Ring.PreviousOf(r.now)}
	if c.cur == nil || c.prev == nil || !c.cur.Revealed.IsZero() {
		return claim{}, false
	}
	st, _ := r.rec.Ring.Status(c.prev.N, r.now)
	if st.Until.IsZero() {
		return claim{}, false
	}
	c.until = st.Until
	c.at = c.until.Add(-min(c.until.Sub(c.cur.CurrentSince())/2, claimLead))
	return c, true
}

// made reports whether somebody has read or used the current version.
func (c claim) made(use *usage.Record) bool {
	u := use.Of(usage.ID{Version: c.cur.N})
	return u.Reads.Count > 0 || !u.LastAccepted().IsZero()
}

// claimLook is when the periodic function looks whether the current version was
// read or used; false where it has done so.
func (r *roleNow) claimLook() (time.Time, bool) {
	c, ok := r.claim()
	return c.at, ok && !c.cur.LookedFor
}

// lookForClaim is that look. What it finds is kept: the index of problems follows
// from the record.
func (tx *roleTx) lookForClaim() (int, error) {
	c, ok := tx.claim()
	if !ok || c.cur.LookedFor || c.at.After(tx.now) {
		return 0, nil
	}
	use, err := tx.b.usageOf(tx.ctx, tx.s, tx.rec)
	if err != nil {
		return 0, err
	}
	c.cur.LookedFor = true
	if !c.made(use) {
		c.cur.Unclaimed = tx.now
	}
	return 1, nil
}

// unclaimed says that nobody has come for the current version; nil if that is no
// problem.
func (r *roleNow) unclaimed(use *usage.Record) []trouble {
	c, ok := r.claim()
	if !ok || c.at.After(r.now) || c.made(use) {
		return nil
	}
	text := fmt.Sprintf("nobody has read or used version %d, current since %s, and version %d ends at %s: hand it out (creds/%s), or take it back (rollback/%s)",
		c.cur.N, keyring.Stamp(c.cur.CurrentSince()), c.prev.N, keyring.Stamp(c.until), r.rec.Name, r.rec.Name)
	return []trouble{{kind: troubleUnclaimed, since: c.at, text: text}}
}

// unclaimedAt reports whether the record says that nobody had come for the current
// version when that was looked for.
func unclaimedAt(rec *roleRecord, now time.Time) bool {
	cur := rec.Ring.Current(now)
	return cur != nil && !cur.Unclaimed.IsZero() && cur.Revealed.IsZero() && rec.Ring.PreviousOf(now) != nil
}
