// SPDX-License-Identifier: MPL-2.0

package policy

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
	DefaultLeakGrace       = time.Hour
	defaultDynamicTTL      = time.Hour

	revealAlways = "always"
	RevealOnce   = "once"

	LeakRevoke = "revoke"
	LeakRotate = "rotate"
	LeakAlert  = "alert"
)

// limits is what the mount and its config say about a role.
type Limits struct {
	// leases gives the mount's default and maximum lease TTL. It may be a call
	// to the server, so it is made for dynamic roles only.
	Leases     func() (defaultTTL, maxTTL time.Duration)
	StageAhead time.Duration
}

// terms are a role's policy with every default filled in.
type Terms struct {
	Ttl        time.Duration // static: 0 is for ever. dynamic: of a lease
	MaxTTL     time.Duration // dynamic
	Cadence    cadence       // nil without automatic rotation
	Longest    time.Duration // longest distance between two activations; 0 without
	Shortest   time.Duration
	Jitter     time.Duration // the role's own, fixed part of rotation_jitter
	Lead       time.Duration // of the staging
	Grace      time.Duration
	MaxGrace   time.Duration
	Refresh    time.Duration
	LeakGrace  time.Duration
	Prefix     string
	Reveal     string
	OnLeak     string
	period     time.Duration // as answered: 0 with a schedule
	AutoPaused bool
}

// terms fills in the defaults. A policy that was validated never fails; one
// whose schedule no longer parses does.
func (p *Policy) Effective(roleID, typ string, lim Limits) (Terms, error) {
	t := Terms{
		Prefix: p.Prefix, Reveal: p.Reveal, OnLeak: p.OnLeak, Jitter: keyring.Jitter(roleID, p.RotationJitter.Duration()),
		Refresh: OrDefault(p.RefreshInterval, defaultRefreshInterval), LeakGrace: OrDefault(p.LeakGracePeriod, DefaultLeakGrace),
		AutoPaused: p.RotationPaused,
	}
	if t.Prefix == "" {
		t.Prefix = defaultPrefix
	}
	if t.Reveal == "" {
		t.Reveal = revealAlways
	}
	if t.OnLeak == "" {
		t.OnLeak = LeakRevoke
	}
	switch {
	case p.RotationSchedule != "":
		c, err := parseSchedule(p.RotationSchedule)
		if err != nil {
			return Terms{}, err
		}
		t.Cadence, t.Longest, t.Shortest = c, c.longest, c.shortest
	default:
		period := time.Duration(0)
		if typ == Static {
			period = defaultRotationPeriod
		}
		if t.period = OrDefault(p.RotationPeriod, period); t.period > 0 {
			t.Cadence, t.Longest, t.Shortest = periodCadence(t.period), t.period, t.period
		}
	}
	t.Lead = keyring.Lead(lim.StageAhead, t.Shortest)
	grace := defaultGrace
	if t.Shortest > 0 {
		grace = min(grace, (t.Shortest / 2).Truncate(time.Second))
	}
	t.Grace = OrDefault(p.GracePeriod, grace)
	t.MaxGrace = max(OrDefault(p.MaxGracePeriod, t.Grace), t.Grace)
	if typ == Dynamic {
		defaultTTL, maxTTL := lim.Leases()
		t.MaxTTL = maxTTL
		if p.MaxTTL != nil && *p.MaxTTL > 0 {
			t.MaxTTL = p.MaxTTL.Duration()
			if maxTTL > 0 {
				t.MaxTTL = min(t.MaxTTL, maxTTL)
			}
		}
		t.Ttl = defaultDynamicTTL
		if defaultTTL > 0 {
			t.Ttl = min(t.Ttl, defaultTTL)
		}
		if p.TTL != nil && *p.TTL > 0 {
			t.Ttl = p.TTL.Duration()
		}
		if t.MaxTTL > 0 {
			t.Ttl = min(t.Ttl, t.MaxTTL)
		}
	} else {
		t.Ttl = OrDefault(p.TTL, 0)
		if t.Ttl > 0 && t.Cadence != nil {
			// A stage_ahead that was raised after the ttl was checked must not let
			// a version expire before its successor has taken over.
			t.Lead = min(t.Lead, max(0, t.Ttl-t.Longest-p.RotationJitter.Duration()-t.MaxGrace))
		}
	}
	return t, nil
}

func OrDefault(s *Seconds, d time.Duration) time.Duration {
	if s == nil {
		return d
	}
	return s.Duration()
}

// bound is the longest ttl that a reader of the role may be told.
func (t Terms) Bound() time.Duration {
	if t.Grace > 0 {
		return min(t.Refresh, t.Grace/2)
	}
	return t.Refresh
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
type Policy struct {
	Description        string            `json:"description,omitempty"`
	Owner              string            `json:"owner,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	Scopes             []string          `json:"scopes,omitempty"`
	Prefix             string            `json:"prefix,omitempty"`
	TTL                *Seconds          `json:"ttl,omitempty"`
	MaxTTL             *Seconds          `json:"max_ttl,omitempty"`
	RotationPeriod     *Seconds          `json:"rotation_period,omitempty"`
	RotationSchedule   string            `json:"rotation_schedule,omitempty"`
	RotationJitter     Seconds           `json:"rotation_jitter,omitempty"`
	RotationPaused     bool              `json:"rotation_paused,omitempty"`
	GracePeriod        *Seconds          `json:"grace_period,omitempty"`
	MaxGracePeriod     *Seconds          `json:"max_grace_period,omitempty"`
	RefreshInterval    *Seconds          `json:"refresh_interval,omitempty"`
	Reveal             string            `json:"reveal,omitempty"`
	AllowedCIDRs       []string          `json:"allowed_cidrs,omitempty"`
	RateLimit          float64           `json:"rate_limit,omitempty"`
	OnLeak             string            `json:"on_leak,omitempty"`
	LeakGracePeriod    *Seconds          `json:"leak_grace_period,omitempty"`
	Disabled           bool              `json:"disabled,omitempty"`
	DeletionProtection bool              `json:"deletion_protection,omitempty"`
}

// seconds is a duration as it is written and answered.
type Seconds int64

func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// The two types of roles.
const (
	Static  = "static"
	Dynamic = "dynamic"
)

func InSeconds(d time.Duration) int64 { return int64(d / time.Second) }
