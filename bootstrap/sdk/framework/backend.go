// SPDX-License-Identifier: MPL-2.0

// Package framework builds a logical.Backend from a table of paths.
package framework

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

var (
	// ErrNoEvents comes from SendEvent where the server takes no events.
	ErrNoEvents = errors.New("no event sender configured")

	// ErrNoObservations comes from RecordObservation where the server takes no observations.
	ErrNoObservations = errors.New("no observation recorder configured")
)

// Backend is a logical.Backend. Its factory fills in the fields and calls Setup; after
// that they must not change.
type Backend struct {
	// Help describes the backend on the root help page.
	Help string

	// Paths are tried in order; the first whose pattern matches gets the request, and no other.
	Paths []*Path

	PathsSpecial *logical.Paths

	// Secrets are looked up by type on renewal and revocation.
	Secrets []*Secret

	InitializeFunc InitializeFunc

	// PeriodicFunc runs at every rollback operation, about once a minute.
	PeriodicFunc func(context.Context, *logical.Request) error

	// WALRollback undoes what a log entry that was never deleted had announced.
	WALRollback WALRollbackFunc

	// WALRollbackMinAge must exceed the time that any operation may take between
	// writing an entry and deleting it. 0 means 10 minutes.
	WALRollbackMinAge time.Duration

	Clean CleanupFunc

	Invalidate InvalidateFunc

	// AuthRenew renews tokens, in auth methods.
	AuthRenew OperationFunc

	// RotateCredential answers the rotate operation of the server's rotation manager.
	RotateCredential func(context.Context, *logical.Request) error

	// BackendType must be set: the zero value is TypeUnknown.
	BackendType logical.BackendType

	// RunningVersion is the plugin's own version.
	RunningVersion string

	logger       hclog.Logger
	system       logical.SystemView
	events       logical.EventSender
	observations logical.ObservationRecorder

	once    sync.Once
	pathsRe []*regexp.Regexp
}

var (
	_ logical.Backend         = (*Backend)(nil)
	_ logical.PluginVersioner = (*Backend)(nil)
)

// OperationFunc answers one operation on a path.
type OperationFunc func(context.Context, *logical.Request, *FieldData) (*logical.Response, error)

// ExistenceFunc reports whether the object at a path exists. It runs before the access decision.
type ExistenceFunc func(context.Context, *logical.Request, *FieldData) (bool, error)

// WALRollbackFunc gets the kind and data of a log entry. On success the entry is deleted.
type WALRollbackFunc func(context.Context, *logical.Request, string, interface{}) error

// CleanupFunc runs before the backend is dropped.
type CleanupFunc func(context.Context)

// InvalidateFunc gets the key that another node changed.
type InvalidateFunc func(context.Context, string)

// InitializeFunc runs once the mount is usable.
type InitializeFunc func(context.Context, *logical.InitializationRequest) error

// Setup keeps what the server offers.
func (b *Backend) Setup(_ context.Context, config *logical.BackendConfig) error {
	b.logger = config.Logger
	b.system = config.System
	b.events = config.EventsSender
	b.observations = config.ObservationRecorder
	return nil
}

// Initialize implements logical.Backend.
func (b *Backend) Initialize(ctx context.Context, req *logical.InitializationRequest) error {
	if b.InitializeFunc == nil {
		return nil
	}
	return b.InitializeFunc(ctx, req)
}

// Cleanup implements logical.Backend.
func (b *Backend) Cleanup(ctx context.Context) {
	if b.Clean != nil {
		b.Clean(ctx)
	}
}

// InvalidateKey implements logical.Backend.
func (b *Backend) InvalidateKey(ctx context.Context, key string) {
	if b.Invalidate != nil {
		b.Invalidate(ctx, key)
	}
}

// SpecialPaths implements logical.Backend.
func (b *Backend) SpecialPaths() *logical.Paths { return b.PathsSpecial }

// Type implements logical.Backend.
func (b *Backend) Type() logical.BackendType { return b.BackendType }

// PluginVersion implements logical.PluginVersioner.
func (b *Backend) PluginVersion() logical.PluginVersion {
	return logical.PluginVersion{Version: b.RunningVersion}
}

// System is nil before Setup.
func (b *Backend) System() logical.SystemView { return b.system }

// Logger discards everything before Setup.
func (b *Backend) Logger() hclog.Logger {
	if b.logger == nil {
		return hclog.NewNullLogger()
	}
	return b.logger
}

// GetRandomReader is where random bytes must come from.
func (b *Backend) GetRandomReader() io.Reader { return rand.Reader }

// Secret looks up a secret by type; nil if there is none.
func (b *Backend) Secret(k string) *Secret {
	for _, s := range b.Secrets {
		if s.Type == k {
			return s
		}
	}
	return nil
}

// WriteSafeReplicationState reports whether this node can write to the mount's storage.
func (b *Backend) WriteSafeReplicationState() bool {
	state := b.System().ReplicationState()
	if state.HasState(consts.ReplicationDRSecondary | consts.ReplicationPerformanceStandby) {
		return false
	}
	return b.System().LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary)
}

// SendEvent sends an event through the server.
func (b *Backend) SendEvent(ctx context.Context, eventType logical.EventType, event *logical.EventData) error {
	if b.events == nil {
		return ErrNoEvents
	}
	return b.events.SendEvent(ctx, eventType, event)
}

// RecordObservation records an observation with the server.
func (b *Backend) RecordObservation(ctx context.Context, observationType string, data map[string]interface{}) error {
	if b.observations == nil {
		return ErrNoObservations
	}
	return b.observations.RecordObservationFromPlugin(ctx, observationType, data)
}
