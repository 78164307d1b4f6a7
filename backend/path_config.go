// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// configField is one field of the mount's config.
type configField struct {
	name  string
	field field
	set   func(c *configRecord, v any) error
	reset func(c *configRecord)
	show  func(c *configRecord) any
}

var configFields = []configField{
	configSwitch("rotation_paused", "Freezes the automatic rotation of the whole mount; manual rotation still works. Default: false.",
		func(c *configRecord) *bool { return &c.RotationPaused }),
	configNumber("max_rotations_per_second", 0, 100000, "How many automatic rotations start per second at most; 0: no limit. Default: 50.",
		func(c *configRecord) **int { return &c.MaxRotationsPerSecond }, (*configRecord).maxRotations),
	configDuration("stage_ahead", 3*time.Minute, 24*time.Hour, "How long before its activation the automatic rotation makes the next version, at most half the distance between activations: 3m to 24h. Default: 10m.",
		func(c *configRecord) **policy.Seconds { return &c.StageAhead }, (*configRecord).stageAhead),
	configDuration("delete_recovery", 0, 2160*time.Hour, "How long a deleted role can be restored: at most 2160h; 0: not at all. Default: 24h.",
		func(c *configRecord) **policy.Seconds { return &c.DeleteRecovery }, (*configRecord).deleteRecovery),
	configNumber("max_leak_actions", 0, 100000, "How many reports of leaked keys act by themselves within 10 minutes; those beyond are recorded and wait for an operator. Default: 100.",
		func(c *configRecord) **int { return &c.MaxLeakActions }, (*configRecord).maxLeakActions),
	{
		name:  "trust_reported_usage",
		field: field{kind: kindSwitch, about: "The older way to say trusted_reporters: true is *, and false takes * away. Default: false."},
		set: func(c *configRecord, v any) error {
			if c.TrustReportedUsage = v.(bool); c.TrustReportedUsage {
				c.TrustedReporters = nil
			}
			return nil
		},
		reset: func(c *configRecord) { c.TrustReportedUsage = false },
		show:  func(c *configRecord) any { return c.TrustReportedUsage },
	},
	{
		name: "trusted_reporters",
		field: field{
			kind: kindList, empty: emptyTaken,
			about: "Whose reports of use (usage) also prolong graces (max_grace_period), not only what verify saw itself: ids of entities, at most 1000, or * for all who may report. Default: none.",
		},
		set:   setTrustedReporters,
		reset: func(c *configRecord) { c.TrustReportedUsage, c.TrustedReporters = false, nil },
		show:  func(c *configRecord) any { return c.trustedReporters() },
	},
	configSwitch("count_reads", "It is a problem of a role that nobody has read or used the current version while the previous one is about to end. "+
		"Only where the active node answers all reads of creds: standbys that serve reads count none. Roles with reveal=once need no such setting. Default: false.",
		func(c *configRecord) *bool { return &c.CountReads }),
	configSwitch("allow_weak_imports", "Keys that can be guessed may be imported. Default: false.",
		func(c *configRecord) *bool { return &c.AllowWeakImports }),
	configNumber("cache_size", 100, 10000000, "How many records of each kind a node keeps in memory at most: 100 to 10000000. Default: 20000.",
		func(c *configRecord) **int { return &c.CacheSize }, (*configRecord).cacheSize),
	configDuration("edge_max_staleness", time.Minute, 24*time.Hour, "How long an edge may accept keys by what it was told, while it cannot ask: 1m to 24h. Default: 1h.",
		func(c *configRecord) **policy.Seconds { return &c.EdgeMaxStaleness }, (*configRecord).edgeMaxStaleness),
	configDuration("feed_wait", time.Second, 5*time.Second, "How long a request of changes waits at most: 1s to 5s. A request in progress holds up a reload of the plugin. Default: 2s.",
		func(c *configRecord) **policy.Seconds { return &c.FeedWait }, (*configRecord).feedWait),
	{
		name: "egress_allow",
		field: field{
			kind: kindList, empty: emptyTaken,
			about: "Where deliveries of events, and whatever else the engine sends, may go: hosts (hooks.example.com, *.example.com:8443; public addresses only), networks (10.20.0.0/16, 127.0.0.1:*; private addresses need one), and ! before what is excluded. Port 443 unless said. Default: nowhere.",
		},
		set: func(c *configRecord, v any) error {
			_, err := egress.Parse(egress.Config{Allow: v.([]string)})
			if err == nil {
				c.EgressAllow = slices.Clone(v.([]string)) // as written: what is read is no change
			}
			return err
		},
		reset: func(c *configRecord) { c.EgressAllow = nil },
		show:  func(c *configRecord) any { return orEmpty(c.EgressAllow) },
	},
	{
		name:  "egress_proxy",
		field: field{kind: kindText, empty: emptyTaken, about: "The URL of a proxy that takes all connections but those to this machine. The engine resolves names and checks addresses itself. Default: none."},
		set: func(c *configRecord, v any) error {
			_, err := egress.Parse(egress.Config{Proxy: v.(string)})
			if err == nil {
				c.EgressProxy = v.(string)
			}
			return err
		},
		reset: func(c *configRecord) { c.EgressProxy = "" },
		show:  func(c *configRecord) any { return c.EgressProxy },
	},
	configSwitch("outbound_paused", "Stops all that the engine sends, tests too: for copies of the storage. Events are kept meanwhile, for 7 days. Default: false.",
		func(c *configRecord) *bool { return &c.OutboundPaused }),
	configSwitch("metrics_role_labels", "The metrics tell of each role, by name, up to 1000 of them: who may read metrics learns these names. Default: false.",
		func(c *configRecord) *bool { return &c.MetricsRoleLabels }),
	{
		name: "notify_before",
		field: field{
			kind:  kindList,
			about: "How long before the end of a key that nothing replaces the event key.expiring tells it: at most 8 durations from 1m to 365d; an empty list tells nothing. Default: 7d,1d.",
		},
		set:   setNotifyBefore,
		reset: func(c *configRecord) { c.NotifyBefore = nil },
		show: func(c *configRecord) any {
			all := []int64{}
			for _, s := range c.notifyBefore() {
				all = append(all, int64(s))
			}
			return all
		},
	},
}

const maxNotices = 8

func setNotifyBefore(c *configRecord, v any) error {
	const todo = "give durations such as 7d,1d"
	all := []policy.Seconds{}
	for _, text := range v.([]string) {
		d, m := readDuration(text)
		if m != nil {
			return refusal.New("notify_before", text, m.rule, todo)
		}
		n := policy.Seconds(d.(int))
		if n < 60 || n > 365*24*3600 {
			return refusal.New("notify_before", text, "must be from 1m to 365d", todo)
		}
		all = append(all, n)
	}
	if len(all) > maxNotices {
		return refusal.New("notify_before", len(all), "has more than 8 entries", todo)
	}
	c.NotifyBefore = &all
	return nil
}

const maxTrustedReporters = 1000

var entityForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,127}$`)

func setTrustedReporters(c *configRecord, v any) error {
	ids := v.([]string)
	all := slices.Contains(ids, everyone)
	switch {
	case all && len(ids) > 1:
		return refusal.New("trusted_reporters", nil, "has other entries beside *", "give * alone, or entity ids")
	case len(ids) > maxTrustedReporters:
		return refusal.New("trusted_reporters", len(ids), "has more than 1000 entries", "trust those entities that have to be")
	}
	for _, id := range ids {
		if !all && !entityForm.MatchString(id) {
			return refusal.New("trusted_reporters", id, "is no entity id", "give entity ids as identity/entity/name/<name> shows them, or *")
		}
	}
	if c.TrustReportedUsage, c.TrustedReporters = all, slices.Clone(ids); all {
		c.TrustedReporters = nil
	}
	return nil
}

// checkTrust refuses a request whose two fields about reporters contradict each other.
func checkTrust(in *input) error {
	if !in.given("trust_reported_usage") || !in.given("trusted_reporters") {
		return nil
	}
	if in.flag("trust_reported_usage") != slices.Equal(in.list("trusted_reporters"), []string{everyone}) {
		return refusal.New("trust_reported_usage", in.flag("trust_reported_usage"), "contradicts trusted_reporters", "give trusted_reporters alone")
	}
	return nil
}

func configSwitch(name, text string, at func(*configRecord) *bool) configField {
	return configField{
		name: name, field: field{kind: kindSwitch, about: text},
		set:   func(c *configRecord, v any) error { *at(c) = v.(bool); return nil },
		reset: func(c *configRecord) { *at(c) = false },
		show:  func(c *configRecord) any { return *at(c) },
	}
}

func configNumber(name string, least, most int, text string, at func(*configRecord) **int, show func(*configRecord) int) configField {
	return configField{
		name: name, field: field{kind: kindInteger, about: text, def: show(&configRecord{})},
		set: func(c *configRecord, v any) error {
			n := int(v.(int64))
			if n < least || n > most {
				return refusal.New(name, n, fmt.Sprintf("must be from %d to %d", least, most), "give another number, or null in a patch for the default")
			}
			*at(c) = &n
			return nil
		},
		reset: func(c *configRecord) { *at(c) = nil },
		show:  func(c *configRecord) any { return show(c) },
	}
}

func configDuration(name string, least, most time.Duration, text string, at func(*configRecord) **policy.Seconds, show func(*configRecord) time.Duration) configField {
	return configField{
		name: name, field: field{kind: kindDuration, about: text, def: int(policy.InSeconds(show(&configRecord{})))},
		set: func(c *configRecord, v any) error {
			n := policy.Seconds(v.(int))
			if int64(n) < policy.InSeconds(least) || int64(n) > policy.InSeconds(most) {
				return refusal.New(name, n, "must be from "+refusal.Duration(least)+" to "+refusal.Duration(most), "give another duration, or null in a patch for the default")
			}
			*at(c) = &n
			return nil
		},
		reset: func(c *configRecord) { *at(c) = nil },
		show:  func(c *configRecord) any { return policy.InSeconds(show(c)) },
	}
}

func configFieldSet() fieldSet {
	all := make(fieldSet, len(configFields))
	for i := range configFields {
		all[configFields[i].name] = configFields[i].field
	}
	return all
}

func (b *backend) pathsConfig() []*framework.Path {
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "config", suffix: "configuration",
			synopsis: "Defaults and limits of the mount.",
			fields:   fieldsOf(configFieldSet(), replaceField("the config")),
			ops: map[logical.Operation]operation{
				logical.ReadOperation: {
					do: b.readConfig, summary: "Read the mount's config.", told: "The config, every default filled in.", answer: configFieldSet().schemas(),
				},
				logical.UpdateOperation: {do: b.writeConfig, writes: true, summary: "Change the fields that are named.", none: "Written."},
				logical.PatchOperation: {
					do: b.writeConfig, writes: true, summary: "Change the fields that are named; null resets one to its default.", none: "Written.",
				},
			},
			help: `
A write changes only the fields it names; in a patch, null resets a field to its
default, and replace=true resets all that a write does not name. Every field has
a default, so a mount works without any config.`,
		}),
		b.path(pathSpec{
			pattern: "config/rotate-digest", verb: "rotate", suffix: "digest",
			synopsis: "Make a new secret for the digests of keys minted from now on.",
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.rotateDigestSecret, writes: true, told: "The new secret is in force.",
					answer: map[string]*framework.FieldSchema{
						"digest_version": {Type: framework.TypeInt, Description: "Number of the secret. The secret itself never leaves the engine."},
						"rotated":        {Type: framework.TypeString, Description: "Since when it is in force (RFC 3339)."},
					},
				},
			},
			help: `
Keys are stored as digests under a secret of the mount. Keys minted from now on
are digested under a new one; those minted before stay under the secret they
were digested with, which is kept for them.`,
		}),
	}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *input) (*logical.Response, error) {
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return answer(cfg.show()), nil
}

// show is the config as a reader sees it, every default filled in.
func (c *configRecord) show() map[string]any {
	view := make(map[string]any, len(configFields))
	for i := range configFields {
		view[configFields[i].name] = configFields[i].show(c)
	}
	return view
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	if err := checkTrust(in); err != nil {
		return nil, err
	}
	_, err := b.configs.change(ctx, req.Storage, func(stored *configRecord) (*configRecord, error) {
		next, reset := *stored, false
		// Resets come first: two fields may speak of the same thing, and what is given counts.
		for i := range configFields {
			f := &configFields[i]
			if !in.given(f.name) && (in.resets(f.name) || in.flag("replace")) {
				was := next
				f.reset(&next)
				reset = reset || !reflect.DeepEqual(was, next)
			}
		}
		for i := range configFields {
			f := &configFields[i]
			if in.given(f.name) {
				if err := f.set(&next, in.values[f.name]); err != nil {
					return nil, err
				}
			}
		}
		if !reset && reflect.DeepEqual(stored.show(), next.show()) {
			// What was read and is written back leaves the defaults what they are.
			return nil, nil
		}
		return &next, nil
	})
	if err == nil {
		b.letOut()
	}
	return nil, err
}

func (b *backend) rotateDigestSecret(ctx context.Context, req *logical.Request, _ *input) (*logical.Response, error) {
	rec, err := b.rotateDigest(ctx, req.Storage, func(*digestRecord) bool { return true })
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{"digest_version": rec.Current, "rotated": stamp(rec.Rotated)}), nil
}
