// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Defaults of a role.
const (
	defaultPrefix          = "ak"
	defaultRotationPeriod  = 90 * 24 * time.Hour
	defaultGrace           = 24 * time.Hour
	defaultRefreshInterval = 5 * time.Minute
	defaultLeakGrace       = time.Hour
	defaultDynamicTTL      = time.Hour

	revealAlways = "always"
	revealOnce   = "once"

	onLeakRevoke = "revoke"
	onLeakRotate = "rotate"
	onLeakAlert  = "alert"
)

// limits is what the mount and its config say about a role.
type limits struct {
	// leases gives the mount's default and maximum lease TTL. It may be a call
	// to the server, so it is made for dynamic roles only.
	leases     func() (defaultTTL, maxTTL time.Duration)
	stageAhead time.Duration
}

// terms are a role's policy with every default filled in.
type terms struct {
	ttl        time.Duration // static: 0 is for ever. dynamic: of a lease
	maxTTL     time.Duration // dynamic
	cadence    cadence       // nil without automatic rotation
	longest    time.Duration // longest distance between two activations; 0 without
	shortest   time.Duration
	jitter     time.Duration // the role's own, fixed part of rotation_jitter
	lead       time.Duration // of the staging
	grace      time.Duration
	maxGrace   time.Duration
	refresh    time.Duration
	leakGrace  time.Duration
	prefix     string
	reveal     string
	onLeak     string
	period     time.Duration // as answered: 0 with a schedule
	autoPaused bool
}

// terms fills in the defaults. A policy that was validated never fails; one
// whose schedule no longer parses does.
func (p *policy) terms(roleID, typ string, lim limits) (terms, error) {
	t := terms{
		prefix: p.Prefix, reveal: p.Reveal, onLeak: p.OnLeak, jitter: keyring.Jitter(roleID, p.RotationJitter.duration()),
		refresh: orDefault(p.RefreshInterval, defaultRefreshInterval), leakGrace: orDefault(p.LeakGracePeriod, defaultLeakGrace),
		autoPaused: p.RotationPaused,
	}
	if t.prefix == "" {
		t.prefix = defaultPrefix
	}
	if t.reveal == "" {
		t.reveal = revealAlways
	}
	if t.onLeak == "" {
		t.onLeak = onLeakRevoke
	}
	switch {
	case p.RotationSchedule != "":
		c, err := parseSchedule(p.RotationSchedule)
		if err != nil {
			return terms{}, err
		}
		t.cadence, t.longest, t.shortest = c, c.longest, c.shortest
	default:
		period := time.Duration(0)
		if typ == typeStatic {
			period = defaultRotationPeriod
		}
		if t.period = orDefault(p.RotationPeriod, period); t.period > 0 {
			t.cadence, t.longest, t.shortest = periodCadence(t.period), t.period, t.period
		}
	}
	t.lead = keyring.Lead(lim.stageAhead, t.shortest)
	grace := defaultGrace
	if t.shortest > 0 {
		grace = min(grace, (t.shortest / 2).Truncate(time.Second))
	}
	t.grace = orDefault(p.GracePeriod, grace)
	t.maxGrace = max(orDefault(p.MaxGracePeriod, t.grace), t.grace)
	if typ == typeDynamic {
		defaultTTL, maxTTL := lim.leases()
		t.maxTTL = maxTTL
		if p.MaxTTL != nil && *p.MaxTTL > 0 {
			t.maxTTL = p.MaxTTL.duration()
			if maxTTL > 0 {
				t.maxTTL = min(t.maxTTL, maxTTL)
			}
		}
		t.ttl = defaultDynamicTTL
		if defaultTTL > 0 {
			t.ttl = min(t.ttl, defaultTTL)
		}
		if p.TTL != nil && *p.TTL > 0 {
			t.ttl = p.TTL.duration()
		}
		if t.maxTTL > 0 {
			t.ttl = min(t.ttl, t.maxTTL)
		}
	} else {
		t.ttl = orDefault(p.TTL, 0)
		if t.ttl > 0 && t.cadence != nil {
			// A stage_ahead that was raised after the ttl was checked must not let
			// a version expire before its successor has taken over.
			t.lead = min(t.lead, max(0, t.ttl-t.longest-p.RotationJitter.duration()-t.maxGrace))
		}
	}
	return t, nil
}

func orDefault(s *seconds, d time.Duration) time.Duration {
	if s == nil {
		return d
	}
	return s.duration()
}

// bound is the longest ttl that a reader of the role may be told.
func (t terms) bound() time.Duration {
	if t.grace > 0 {
		return min(t.refresh, t.grace/2)
	}
	return t.refresh
}

func shownMap(m map[string]string) map[string]string {
	shown := make(map[string]string, len(m))
	for k, v := range m {
		shown[k] = v
	}
	return shown
}

// policy is what an operator wrote. A nil pointer, like an empty Prefix,
// Reveal or OnLeak, is a field that was never written or was reset: its default
// is looked up when it is needed, so that a default may depend on other fields
// and on the mount.
type policy struct {
	Description        string            `json:"description,omitempty"`
	Owner              string            `json:"owner,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	Scopes             []string          `json:"scopes,omitempty"`
	Prefix             string            `json:"prefix,omitempty"`
	TTL                *seconds          `json:"ttl,omitempty"`
	MaxTTL             *seconds          `json:"max_ttl,omitempty"`
	RotationPeriod     *seconds          `json:"rotation_period,omitempty"`
	RotationSchedule   string            `json:"rotation_schedule,omitempty"`
	RotationJitter     seconds           `json:"rotation_jitter,omitempty"`
	RotationPaused     bool              `json:"rotation_paused,omitempty"`
	GracePeriod        *seconds          `json:"grace_period,omitempty"`
	MaxGracePeriod     *seconds          `json:"max_grace_period,omitempty"`
	RefreshInterval    *seconds          `json:"refresh_interval,omitempty"`
	Reveal             string            `json:"reveal,omitempty"`
	AllowedCIDRs       []string          `json:"allowed_cidrs,omitempty"`
	RateLimit          float64           `json:"rate_limit,omitempty"`
	OnLeak             string            `json:"on_leak,omitempty"`
	LeakGracePeriod    *seconds          `json:"leak_grace_period,omitempty"`
	Disabled           bool              `json:"disabled,omitempty"`
	DeletionProtection bool              `json:"deletion_protection,omitempty"`
}

// seconds is a duration as it is written and answered.
type seconds int64

func (s seconds) duration() time.Duration { return time.Duration(s) * time.Second }

// The two types of roles.
const (
	typeStatic  = "static"
	typeDynamic = "dynamic"
)
