// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// Defaults of the mount's config.
const (
	defaultStageAhead     = 10 * time.Minute
	defaultDeleteRecovery = 24 * time.Hour
	defaultMaxRotations   = 50
	defaultMaxLeakActions = 100
	leakWindow            = 10 * time.Minute
	defaultCacheSize      = 20000
	defaultMaxStaleness   = time.Hour
	defaultFeedWait       = 2 * time.Second
)

// configRecord is the mount's config. A nil pointer was never written or was
// reset: its default holds.
type configRecord struct {
	Schema                int             `json:"schema"`
	RotationPaused        bool            `json:"rotation_paused,omitempty"`
	MaxRotationsPerSecond *int            `json:"max_rotations_per_second,omitempty"` // 0: no limit
	StageAhead            *policy.Seconds `json:"stage_ahead,omitempty"`
	DeleteRecovery        *policy.Seconds `json:"delete_recovery,omitempty"` // 0: none
	MaxLeakActions        *int            `json:"max_leak_actions,omitempty"`
	// TrustReportedUsage: everybody is a trusted reporter. TrustedReporters are else.
	TrustReportedUsage bool     `json:"trust_reported_usage,omitempty"`
	TrustedReporters   []string `json:"trusted_reporters,omitempty"`

	AllowWeakImports bool            `json:"allow_weak_imports,omitempty"`
	CacheSize        *int            `json:"cache_size,omitempty"` // records of each kind
	CountReads       bool            `json:"count_reads,omitempty"`
	EdgeMaxStaleness *policy.Seconds `json:"edge_max_staleness,omitempty"`
	FeedWait         *policy.Seconds `json:"feed_wait,omitempty"`

	// Of events, and of whatever else is sent to the outside.
	EgressAllow       []string          `json:"egress_allow,omitempty"`
	EgressProxy       string            `json:"egress_proxy,omitempty"`
	OutboundPaused    bool              `json:"outbound_paused,omitempty"`
	MetricsRoleLabels bool              `json:"metrics_role_labels,omitempty"`
	NotifyBefore      *[]policy.Seconds `json:"notify_before,omitempty"`
}

func (c *configRecord) schema() int { return c.Schema }

func (c *configRecord) stageAhead() time.Duration {
	return policy.OrDefault(c.StageAhead, defaultStageAhead)
}

func (c *configRecord) deleteRecovery() time.Duration {
	return policy.OrDefault(c.DeleteRecovery, defaultDeleteRecovery)
}

func (c *configRecord) edgeMaxStaleness() time.Duration {
	return policy.OrDefault(c.EdgeMaxStaleness, defaultMaxStaleness)
}

func (c *configRecord) feedWait() time.Duration { return policy.OrDefault(c.FeedWait, defaultFeedWait) }

// defaultNotify is how long before the end of a key that is told.
var defaultNotify = []policy.Seconds{7 * 24 * 3600, 24 * 3600}

// notifyBefore is how long before the end of a key that is told, if nothing follows it.
func (c *configRecord) notifyBefore() []policy.Seconds {
	if c.NotifyBefore == nil {
		return defaultNotify
	}
	return *c.NotifyBefore
}

// everyone, in place of entity ids, is whoever may report.
const everyone = "*"

// trustedReporters are the entities whose reports of use extend graces.
func (c *configRecord) trustedReporters() []string {
	if c.TrustReportedUsage {
		return []string{everyone}
	}
	return orEmpty(c.TrustedReporters)
}

// trusts reports whether what that entity reports extends graces.
func (c *configRecord) trusts(entityID string) bool {
	return c.TrustReportedUsage || entityID != "" && slices.Contains(c.TrustedReporters, entityID)
}

func (c *configRecord) maxRotations() int {
	return orNumber(c.MaxRotationsPerSecond, defaultMaxRotations)
}

func (c *configRecord) maxLeakActions() int { return orNumber(c.MaxLeakActions, defaultMaxLeakActions) }
func (c *configRecord) cacheSize() int      { return orNumber(c.CacheSize, defaultCacheSize) }

func orNumber(n *int, def int) int {
	if n == nil {
		return def
	}
	return *n
}

// config returns the mount's config; the default one where none was written.
func (b *backend) config(ctx context.Context, s logical.Storage) (*configRecord, error) {
	return b.configs.get(ctx, s)
}

// configOrLast is config, or where that cannot be read what it was last, or else would
// be if it had never been written: nothing that ends a key waits for it.
func (b *backend) configOrLast(ctx context.Context, s logical.Storage) (*configRecord, error) {
	cfg, err := b.config(ctx, s)
	if err == nil || mustForward(err) {
		return cfg, err
	}
	if last := b.configs.last(); last != nil {
		return last, nil
	}
	return &configRecord{Schema: recordSchema}, nil
}

// learn takes over cfg, which is in force.
func (b *backend) learn(cfg *configRecord) {
	b.resize(cfg)
	p, err := egress.Parse(egress.Config{Allow: cfg.EgressAllow, Proxy: cfg.EgressProxy, Paused: cfg.OutboundPaused})
	if err != nil {
		b.Logger().Error("the mount's egress_allow or egress_proxy cannot be read: nothing leaves", "error", err)
		p = &egress.Policy{}
	}
	b.egress.Use(p)
}

// resize makes the caches as large as cfg, which is in force, says.
func (b *backend) resize(cfg *configRecord) {
	b.roles.resize(cfg.cacheSize())
	b.keys.resize(cfg.cacheSize())
	b.secretCache.resize(cfg.cacheSize())
	for _, resize := range b.resized {
		resize(cfg.cacheSize())
	}
}

// limits is what the mount says about the roles in it.
func (b *backend) limits(ctx context.Context, s logical.Storage) (policy.Limits, error) {
	cfg, err := b.configOrLast(ctx, s)
	if err != nil {
		return policy.Limits{}, err
	}
	return policy.Limits{
		StageAhead: cfg.stageAhead(),
		Leases:     b.leaseTTLs,
	}, nil
}

// leaseTTLs are the mount's default and maximum TTL of leases.
func (b *backend) leaseTTLs() (defaultTTL, maxTTL time.Duration) {
	return b.System().DefaultLeaseTTL(), b.System().MaxLeaseTTL()
}

// countsReads reports whether the mount's config says that this node counts all
// reads, as far as it has read it.
func (b *backend) countsReads() bool {
	cfg := b.configs.last()
	return cfg != nil && cfg.CountReads
}

// hearing is what is to be told of the role before it happens, as far as this node has
// read config and endpoints.
func (b *backend) hearing(role string) hearing {
	h := hearing{paused: b.mountPaused(), notices: defaultNotify, ending: b.heard(tellsEnding, role)}
	if cfg := b.configs.last(); cfg != nil {
		h.notices = cfg.notifyBefore()
	}
	return h
}

// mountPaused reports whether the mount's automatic rotation is paused, as far as
// this node has read its config.
func (b *backend) mountPaused() bool {
	cfg := b.configs.last()
	return cfg != nil && cfg.RotationPaused
}
