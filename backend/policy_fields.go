// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// policyField is one field of a role's policy: how it is documented, read from
// a request, reset and shown.
type policyField struct {
	name   string
	schema framework.FieldSchema
	// set takes the value as the schema converted it and refuses what breaks
	// the field's own rule. Rules between fields are checked afterwards.
	set   func(p *policy, v any) error
	reset func(p *policy)
	show  func(p *policy, t terms) any
}

// policyFields lists them in the order in which refusals are looked for.
var policyFields = []policyField{
	{
		name:   "description",
		schema: framework.FieldSchema{Type: framework.TypeString, Description: "What the key is for; at most 512 characters."},
		set:    setText("description", func(p *policy) *string { return &p.Description }),
		reset:  func(p *policy) { p.Description = "" },
		show:   func(p *policy, _ terms) any { return p.Description },
	},
	{
		name:   "owner",
		schema: framework.FieldSchema{Type: framework.TypeString, Description: "Whom to page about this key: a team, an address; at most 512 characters."},
		set:    setText("owner", func(p *policy) *string { return &p.Owner }),
		reset:  func(p *policy) { p.Owner = "" },
		show:   func(p *policy, _ terms) any { return p.Owner },
	},
	{
		name: "metadata",
		schema: framework.FieldSchema{
			Type: framework.TypeKVPairs,
			Description: "Names and values that verify returns with a good key: at most 64, names of 64 and values of 512 characters at most. " +
				"A create or update replaces the whole map; a patch merges into it, where null removes a name.",
		},
		set:   setMetadata,
		reset: func(p *policy) { p.Metadata = nil },
		show:  func(p *policy, _ terms) any { return shownMap(p.Metadata) },
	},
	{
		name: "scopes",
		schema: framework.FieldSchema{
			Type: framework.TypeCommaStringSlice,
			Description: "What the key may be used for, in the order given: at most 128 such as orders:read, orders:* or *, each of 128 characters at most. " +
				"Segments of A-Z a-z 0-9 . _ - are joined by colons; * stands for anything, as last segment only.",
		},
		set:   setScopes,
		reset: func(p *policy) { p.Scopes = nil },
		show:  func(p *policy, _ terms) any { return append([]string{}, p.Scopes...) },
	},
	{
		name: "prefix",
		schema: framework.FieldSchema{
			Type: framework.TypeString, Default: defaultPrefix,
			Description: "First part of every key made from now on: parts of a lower-case letter and 1 to 15 lower-case letters or digits, " +
				"joined by _, such as acme_live; at most 32 characters.",
		},
		set:   setPrefix,
		reset: func(p *policy) { p.Prefix = "" },
		show:  func(_ *policy, t terms) any { return t.prefix },
	},
	{
		name: "ttl",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "How long one key may live. Static role: 0, the default, is for ever; with rotation on at least the longest distance between " +
				"activations, the jitter, the staging lead and the grace together. Dynamic role: the TTL of a lease; default 1h, or the mount's default where that is shorter.",
		},
		set:   setSeconds("ttl", 0, func(p *policy) **seconds { return &p.TTL }),
		reset: func(p *policy) { p.TTL = nil },
		show:  showTTL,
	},
	{
		name: "max_ttl",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "How far renewals of a dynamic role's lease reach: at least ttl, at most the mount's maximum, which is the default. " +
				"A static role has none (0).",
		},
		set:   setSeconds("max_ttl", 0, func(p *policy) **seconds { return &p.MaxTTL }),
		reset: func(p *policy) { p.MaxTTL = nil },
		show:  showMaxTTL,
	},
	{
		name: "rotation_period",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "Distance between automatic rotations: 0 (by hand only) or at least 60s; exclusive with rotation_schedule. " +
				"Default: 2160h for a static role, 0 for a dynamic one. From 5 minutes up activations are exact to the second.",
		},
		set:   setSeconds("rotation_period", 0, func(p *policy) **seconds { return &p.RotationPeriod }),
		reset: func(p *policy) { p.RotationPeriod = nil },
		show:  func(_ *policy, t terms) any { return inSeconds(t.period) },
	},
	{
		name: "rotation_schedule",
		schema: framework.FieldSchema{
			Type: framework.TypeString,
			Description: "When to rotate, as a cron expression of five fields (minute, hour, day of month, month, day of week), in UTC unless CRON_TZ=<zone> " +
				"stands before them; exclusive with rotation_period; empty: none. An hour that the clocks skip is made up for at once, one that they repeat counts once.",
		},
		set:   setSchedule,
		reset: func(p *policy) { p.RotationSchedule = "" },
		show:  func(p *policy, _ terms) any { return p.RotationSchedule },
	},
	{
		name: "rotation_jitter",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "Shifts the role's rotations by a fixed part of this, derived from role_id, so that roles with one plan do not all rotate at once: " +
				"less than a quarter of the distance between activations. Default: 0.",
		},
		set: func(p *policy, v any) error {
			n, err := asSeconds("rotation_jitter", v, 0)
			p.RotationJitter = n
			return err
		},
		reset: func(p *policy) { p.RotationJitter = 0 },
		show:  func(p *policy, _ terms) any { return int64(p.RotationJitter) },
	},
	{
		name:   "rotation_paused",
		schema: framework.FieldSchema{Type: framework.TypeBool, Description: "Automatic rotation off for now; rotate/<role> still works. Default: false."},
		set:    func(p *policy, v any) error { p.RotationPaused = v.(bool); return nil },
		reset:  func(p *policy) { p.RotationPaused = false },
		show:   func(p *policy, _ terms) any { return p.RotationPaused },
	},
	{
		name: "grace_period",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "How long the version before stays valid after a rotation that names no other grace: at most nine distances between activations. " +
				"Default: 24h, or half that distance where it is shorter.",
		},
		set:   setSeconds("grace_period", 0, func(p *policy) **seconds { return &p.GracePeriod }),
		reset: func(p *policy) { p.GracePeriod = nil },
		show:  func(_ *policy, t terms) any { return inSeconds(t.grace) },
	},
	{
		name: "max_grace_period",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond,
			Description: "If larger than grace_period: the grace of an automatic rotation is prolonged step by step, up to this, while the version before " +
				"is still in use. At most nine distances between activations. Default: grace_period.",
		},
		set:   setSeconds("max_grace_period", 0, func(p *policy) **seconds { return &p.MaxGracePeriod }),
		reset: func(p *policy) { p.MaxGracePeriod = nil },
		show:  func(_ *policy, t terms) any { return inSeconds(t.maxGrace) },
	},
	{
		name: "refresh_interval",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond, Default: int(defaultRefreshInterval / time.Second),
			Description: "Upper bound of the ttl that creds/<role> tells the readers of a static role: how fast a manual rotation reaches every consumer. 1s to 720h.",
		},
		set:   setSeconds("refresh_interval", 1, func(p *policy) **seconds { return &p.RefreshInterval }),
		reset: func(p *policy) { p.RefreshInterval = nil },
		show:  func(_ *policy, t terms) any { return inSeconds(t.refresh) },
	},
	{
		name: "reveal",
		schema: framework.FieldSchema{
			Type: framework.TypeString, Default: revealAlways, AllowedValues: []any{revealAlways, revealOnce},
			Description: "always: everybody who may read the role gets the key. once: the first read of a version hands it out and erases it, as for customers' keys. Static roles only.",
		},
		set:   setChoice("reveal", func(p *policy) *string { return &p.Reveal }, revealAlways, revealOnce),
		reset: func(p *policy) { p.Reveal = "" },
		show:  func(_ *policy, t terms) any { return t.reveal },
	},
	{
		name: "allowed_cidrs",
		schema: framework.FieldSchema{
			Type: framework.TypeCommaStringSlice,
			Description: "Networks from which the key may be used; verify answers FORBIDDEN_IP for any other address and for none. At most 256, such as 10.0.0.0/8 or " +
				"2001:db8::/32; an address without a length is that one address. Empty: no restriction.",
		},
		set:   setCIDRs,
		reset: func(p *policy) { p.AllowedCIDRs = nil },
		show:  func(p *policy, _ terms) any { return append([]string{}, p.AllowedCIDRs...) },
	},
	{
		name: "rate_limit",
		schema: framework.FieldSchema{
			Type:        framework.TypeFloat,
			Description: "Requests per second for the role as a whole, old and new version together, in each verifying process; 0, the default, is no limit.",
		},
		set:   setRate,
		reset: func(p *policy) { p.RateLimit = 0 },
		show:  func(p *policy, _ terms) any { return p.RateLimit },
	},
	{
		name: "on_leak",
		schema: framework.FieldSchema{
			Type: framework.TypeString, Default: onLeakRevoke, AllowedValues: []any{onLeakRevoke, onLeakRotate, onLeakAlert},
			Description: "What a report of the key does: revoke (killed and replaced at once), rotate (replaced; the old one lives for leak_grace_period) or alert (nothing but the record).",
		},
		set:   setChoice("on_leak", func(p *policy) *string { return &p.OnLeak }, onLeakRevoke, onLeakRotate, onLeakAlert),
		reset: func(p *policy) { p.OnLeak = "" },
		show:  func(_ *policy, t terms) any { return t.onLeak },
	},
	{
		name: "leak_grace_period",
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond, Default: int(defaultLeakGrace / time.Second),
			Description: "How long a reported key lives on where on_leak is rotate: at most 168h.",
		},
		set:   setSeconds("leak_grace_period", 0, func(p *policy) **seconds { return &p.LeakGracePeriod }),
		reset: func(p *policy) { p.LeakGracePeriod = nil },
		show:  func(_ *policy, t terms) any { return inSeconds(t.leakGrace) },
	},
	{
		name:   "disabled",
		schema: framework.FieldSchema{Type: framework.TypeBool, Description: "verify answers DISABLED for every key of the role; reversible, nothing is destroyed. Default: false."},
		set:    func(p *policy, v any) error { p.Disabled = v.(bool); return nil },
		reset:  func(p *policy) { p.Disabled = false },
		show:   func(p *policy, _ terms) any { return p.Disabled },
	},
	{
		name:   "deletion_protection",
		schema: framework.FieldSchema{Type: framework.TypeBool, Description: "The role cannot be deleted while this is set. Default: false."},
		set:    func(p *policy, v any) error { p.DeletionProtection = v.(bool); return nil },
		reset:  func(p *policy) { p.DeletionProtection = false },
		show:   func(p *policy, _ terms) any { return p.DeletionProtection },
	},
}

// policySchemas are the fields as a path declares them, for requests and
// answers alike.
func policySchemas() map[string]*framework.FieldSchema {
	all := make(map[string]*framework.FieldSchema, len(policyFields))
	for i := range policyFields {
		s := policyFields[i].schema
		all[policyFields[i].name] = &s
	}
	return all
}

// show is the policy as a reader sees it, every default filled in.
func (p *policy) show(t terms) map[string]any {
	view := make(map[string]any, len(policyFields)+4)
	for i := range policyFields {
		view[policyFields[i].name] = policyFields[i].show(p, t)
	}
	return view
}

// showTTL and showMaxTTL show what was written even where the mount's maximum
// has become smaller since: what a reader wrote must not seem to have changed.
func showTTL(p *policy, t terms) any {
	if p.TTL != nil {
		return int64(*p.TTL)
	}
	return inSeconds(t.ttl)
}

func showMaxTTL(p *policy, t terms) any {
	if p.MaxTTL != nil {
		return int64(*p.MaxTTL)
	}
	return inSeconds(t.maxTTL)
}
