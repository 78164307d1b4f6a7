// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"cmp"
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Defaults of a role.
const (
	defaultPrefix          = "ak"
	defaultRotationPeriod  = 90 * 24 * time.Hour
	defaultGrace           = 24 * time.Hour
	defaultRefreshInterval = 5 * time.Minute
	defaultDynamicTTL      = time.Hour

	// DefaultLeakGrace is how long a reported key lives on under LeakRotate.
	DefaultLeakGrace = time.Hour
)

// The values of reveal, the default first.
const (
	RevealAlways = "always" // everybody who may read the role gets the key
	RevealOnce   = "once"   // the first read of a version gets it and erases it
)

// The values of on_leak: what the report of a key does, the default first.
const (
	LeakRevoke = "revoke" // replaced, and killed at once
	LeakRotate = "rotate" // replaced; the old one lives for leak_grace_period
	LeakAlert  = "alert"  // recorded, no more
)

// Limits is what the mount and its config say about a role.
type Limits struct {
	// Leases gives the mount's default and maximum lease TTL. It may be a call
	// to the server, so it is made for dynamic roles only. 0: the server names none.
	Leases func() (defaultTTL, maxTTL time.Duration)
	// StageAhead is how long before its activation the next version is made.
	StageAhead time.Duration
}

// Terms are a role's policy with every default filled in, as the engine follows
// it.
type Terms struct {
	TTL        time.Duration // of a key, 0 is forever (static); of a lease (dynamic)
	MaxTTL     time.Duration // how far renewals reach, 0 is without end (dynamic)
	Cadence    Cadence       // nil without automatic rotation
	AutoPaused bool          // automatic rotation is off for now
	Longest    time.Duration // between two activations; 0 without Cadence
	Shortest   time.Duration // between two activations; 0 without Cadence
	Jitter     time.Duration // the role's own, fixed part of rotation_jitter
	Window     time.Duration // how long after its time a rotation may still come; 0 is forever
	Until      time.Time     // the end of the role; zero is none
	Lead       time.Duration // how long before its activation a version is staged
	Grace      time.Duration // of a rotation that names none
	MaxGrace   time.Duration // to which a grace in use is extended, ≥ Grace
	Refresh    time.Duration // refresh_interval
	LeakGrace  time.Duration // of a key that was reported, under LeakRotate
	Prefix     string        // of the keys made from now on
	Reveal     string        // RevealAlways or RevealOnce
	OnLeak     string        // LeakRevoke, LeakRotate or LeakAlert

	period time.Duration // as answered: 0 with a schedule
}

// Effective fills in the defaults. A policy that passed Check fails only where
// its schedule can be read no more: another build took it, or knew its time zone.
// Then the terms lack the cadence, and what follows from it, and are good for
// whoever needs none.
func (p *Policy) Effective(roleID, typ string, lim Limits) (Terms, error) {
	t := Terms{
		Prefix: cmp.Or(p.Prefix, defaultPrefix), Reveal: cmp.Or(p.Reveal, RevealAlways), OnLeak: cmp.Or(p.OnLeak, LeakRevoke),
		Jitter:  keyring.Jitter(roleID, p.RotationJitter.Duration()),
		Refresh: OrDefault(p.RefreshInterval, defaultRefreshInterval), LeakGrace: OrDefault(p.LeakGracePeriod, DefaultLeakGrace),
		AutoPaused: p.RotationPaused,
	}
	unread := t.rotation(p, typ)
	var err error
	if t.Until, err = instantOf(p.ValidUntil); err != nil {
		return Terms{}, fmt.Errorf("valid_until: %w", err)
	}
	t.Lead = keyring.Lead(lim.StageAhead, t.Shortest)
	grace := defaultGrace
	if t.Shortest > 0 {
		grace = min(grace, (t.Shortest / 2).Truncate(time.Second))
	}
	t.Grace = OrDefault(p.GracePeriod, grace)
	t.MaxGrace = max(OrDefault(p.MaxGracePeriod, t.Grace), t.Grace)
	if typ == Dynamic {
		t.lease(p, lim)
		return t, unread
	}
	t.TTL = OrDefault(p.TTL, 0)
	if t.TTL > 0 && t.Cadence != nil {
		// A stage_ahead that was raised after the ttl was checked must not let
		// a version expire before its successor has taken over.
		t.Lead = min(t.Lead, max(0, t.TTL-t.Longest-p.RotationJitter.Duration()-t.MaxGrace))
	}
	return t, unread
}

func (t *Terms) rotation(p *Policy, typ string) error {
	if p.RotationSchedule != "" {
		c, err := parseSchedule(p.RotationSchedule)
		if err != nil {
			return err
		}
		t.Cadence, t.Longest, t.Shortest = c, c.longest, c.shortest
		t.Window = p.RotationWindow.Duration()
		return nil
	}
	period := time.Duration(0)
	if typ == Static {
		period = defaultRotationPeriod
	}
	if t.period = OrDefault(p.RotationPeriod, period); t.period > 0 {
		t.Cadence, t.Longest, t.Shortest = periodCadence(t.period), t.period, t.period
	}
	return nil
}

// lease keeps to what the mount allows now, which may be less than when the
// policy was written.
func (t *Terms) lease(p *Policy, lim Limits) {
	defaultTTL, maxTTL := lim.Leases()
	t.MaxTTL = maxTTL
	if written := OrDefault(p.MaxTTL, 0); written > 0 && (maxTTL <= 0 || written < maxTTL) {
		t.MaxTTL = written
	}
	t.TTL = defaultDynamicTTL
	if defaultTTL > 0 {
		t.TTL = min(t.TTL, defaultTTL)
	}
	if written := OrDefault(p.TTL, 0); written > 0 {
		t.TTL = written
	}
	if t.MaxTTL > 0 {
		t.TTL = min(t.TTL, t.MaxTTL)
	}
}

// Bound is the longest ttl that a reader of the role may be told: one that
// re-reads when it is over still meets the grace of a rotation by hand.
func (t Terms) Bound() time.Duration {
	if t.Grace > 0 {
		return min(t.Refresh, t.Grace/2)
	}
	return t.Refresh
}
