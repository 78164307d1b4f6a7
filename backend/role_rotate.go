// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// defaultGrace is the grace of a rotation for which nobody asked for one: the
// role's, lengthened where readers were told to come back later than it allows.
func (tx *roleTx) defaultGrace() time.Duration {
	g := max(tx.terms.Grace, 2*tx.promised())
	if tx.rec.Type == policy.Dynamic {
		g = max(g, tx.rec.LeaseTTL.Duration(), tx.terms.TTL)
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

// leaseFloor keeps the grace of what supersedes a dynamic role's keys as long as
// the leases that are out, and says so. With force it only says so.
func (tx *roleTx) leaseFloor(grace time.Duration, force bool) time.Duration {
	floor := max(tx.rec.LeaseTTL.Duration(), tx.terms.TTL)
	switch {
	case tx.rec.Type != policy.Dynamic || grace >= floor:
		return grace
	case force:
		tx.warn("grace_period is %s: keys were issued with leases of up to %s, which it cuts off", refusal.Duration(grace), refusal.Duration(floor))
		return grace
	default:
		tx.warn("grace_period is %s instead of %s: keys were issued with leases that long; rotate/%s with force=true, or revoke/%s, cuts them off",
			refusal.Duration(floor), refusal.Duration(grace), tx.rec.Name, tx.rec.Name)
		return floor
	}
}

const (
	// maxGraceDistances: with a longer grace the role would have more live
	// versions than it may.
	maxGraceDistances       = keyring.MaxLive - 1
	maxGraceWithoutRotation = 400 * 24 * time.Hour
)

// graceLimit is the longest grace that somebody may ask for.
func graceLimit(t policy.Terms) time.Duration {
	if t.Shortest > 0 {
		return maxGraceDistances * t.Shortest
	}
	return maxGraceWithoutRotation
}

func graceLimitWhy(t policy.Terms) string {
	if t.Shortest > 0 {
		return "nine times the shortest distance between rotations"
	}
	return "400 days"
}

// warnShortGrace says that readers may hold the previous version longer than it lives.
func (tx *roleTx) warnShortGrace(grace time.Duration, activation time.Time) {
	if tx.rec.Type != policy.Static || tx.rec.Ring.Top(tx.now) == nil {
		return
	}
	told := max(tx.terms.Bound(), tx.promised())
	if activation.After(tx.now.Add(told)) {
		return
	}
	if latest := tx.now.Add(told); grace < told {
		tx.warn("readers of the previous version may come back as late as %s, but it ends at %s", stamp(latest), stamp(activation.Add(grace)))
	}
}

// warnGap says that the current version ends by itself before the one that was
// asked for takes over, and its readers have had their grace. A zero activation
// is that of a held version.
func (tx *roleTx) warnGap(cur *keyring.Version, activation time.Time, grace time.Duration) {
	if cur == nil || cur.Expires.IsZero() || tx.rec.Type != policy.Static {
		return
	}
	switch {
	case activation.IsZero() && tx.terms.Cadence != nil:
		tx.warn("version %d ends by itself at %s, and automatic rotation waits for the promotion: promote before", cur.N, stamp(cur.Expires))
	case activation.After(tx.now) && cur.Expires.Before(activation):
		tx.warn("version %d ends by itself at %s: nobody holds a valid key from then until %s", cur.N, stamp(cur.Expires), stamp(activation))
	case activation.After(tx.now) && cur.Expires.Before(activation.Add(grace)):
		tx.warn("version %d ends by itself at %s, before the end of its grace", cur.N, stamp(cur.Expires))
	}
}

// rotationAnswer describes version n and the one that was current before.
func (tx *roleTx) rotationAnswer(n int, prior *keyring.Version) map[string]any {
	v := tx.rec.Ring.Get(n)
	data := map[string]any{
		"version": v.N, "key_id": v.KeyID, "activates_at": stamp(v.Activate),
		"previous_version": 0, "previous_valid_until": "", "next_rotation": stamp(tx.nextRotation()),
	}
	if prior != nil && prior.N != n {
		st, _ := tx.rec.Ring.Status(prior.N, tx.now)
		data["previous_version"], data["previous_valid_until"] = prior.N, stamp(st.Until)
	}
	return data
}

// ringRefusal turns a refusal of the keyring into the caller's words.
func ringRefusal(err error) error {
	switch {
	case errors.Is(err, keyring.ErrTooManyLive):
		return refusal.New("role", nil, err.Error(), "wait for one to end, revoke one, or repeat with force=true, which ends the oldest grace")
	case errors.Is(err, keyring.ErrPendingExists):
		return refusal.New("stage", nil, err.Error(), "promote it, or rotate without stage, which revokes it")
	case errors.Is(err, keyring.ErrNoPending):
		return refusal.New("promote", nil, err.Error(), "stage one with rotate/<role> stage=true")
	case errors.Is(err, keyring.ErrBadActivation):
		return refusal.New("activate_at", nil, err.Error(), "choose an earlier date")
	case errors.Is(err, keyring.ErrOver):
		return refusal.New("valid_until", nil, err.Error(), "raise valid_until with roles/<role> first")
	case errors.Is(err, keyring.ErrNeedTarget):
		return refusal.New("to_version", nil, err.Error(), "name the version to go back to")
	case errors.Is(err, keyring.ErrNoTarget):
		return refusal.New("to_version", nil, err.Error(), "rotate instead, or name a version that status/<role> lists as previous")
	default:
		return err
	}
}

// requestedGrace is the grace that a caller asks for, within bounds; the role's
// default where it is nil. Whatever asks for a grace passes here; how long one may be
// the plan says.
func (tx *roleTx) requestedGrace(asked *policy.Seconds) (time.Duration, error) {
	if tx.unread != nil {
		return 0, tx.unread
	}
	if asked == nil {
		return tx.defaultGrace(), nil
	}
	limit := graceLimit(tx.terms)
	if *asked < 0 || *asked > policy.Seconds(limit/time.Second) {
		return 0, refusal.New("grace_period", int64(*asked), "is more than "+refusal.Duration(limit)+", "+graceLimitWhy(tx.terms),
			"choose a shorter one")
	}
	tx.kill = tx.kill || *asked == 0 // it ends a version at once
	return asked.Duration(), nil
}
