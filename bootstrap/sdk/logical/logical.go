// SPDX-License-Identifier: MPL-2.0

// Package logical defines what a server and a secrets engine say to each other.
package logical

//go:generate sh -c "cd .. && protoc -I. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative logical/identity.proto logical/plugin.proto logical/version.proto logical/event.proto"

import (
	"context"

	"github.com/hashicorp/go-hclog"
)

// BackendType tells secrets engines from auth methods.
type BackendType uint32

const (
	TypeUnknown    BackendType = 0
	TypeLogical    BackendType = 1
	TypeCredential BackendType = 2
)

func (b BackendType) String() string {
	switch b {
	case TypeLogical:
		return "secret"
	case TypeCredential:
		return "auth"
	}
	return "unknown"
}

// Backend is what can be mounted.
type Backend interface {
	// Initialize runs after the mount is usable: once mounted, unsealed, reloaded or restarted.
	Initialize(context.Context, *InitializationRequest) error

	// HandleRequest answers one request. A response and an error may come together.
	HandleRequest(context.Context, *Request) (*Response, error)

	// SpecialPaths may be nil.
	SpecialPaths() *Paths

	System() SystemView

	Logger() hclog.Logger

	// HandleExistenceCheck decides between create and update: it reports
	// whether the path has such a check, and if so whether the object exists.
	HandleExistenceCheck(context.Context, *Request) (bool, bool, error)

	// Cleanup runs before the backend is dropped.
	Cleanup(context.Context)

	// InvalidateKey says that another node changed a key of this mount's storage.
	InvalidateKey(context.Context, string)

	// Setup comes before everything else.
	Setup(context.Context, *BackendConfig) error

	Type() BackendType
}

// BackendConfig is what a factory gets. Catalogs call factories with all of it empty,
// only to learn type and version.
type BackendConfig struct {
	// StorageView is for use during setup only, and refuses writes.
	StorageView Storage

	Logger hclog.Logger

	System SystemView

	// BackendUUID identifies the mount for life.
	BackendUUID string

	// Config has the mount's options.
	Config map[string]string

	// EventsSender may be nil.
	EventsSender EventSender

	// ObservationRecorder may be nil.
	ObservationRecorder ObservationRecorder
}

// Factory makes a backend and sets it up.
type Factory func(context.Context, *BackendConfig) (Backend, error)

// Paths are the paths that the server treats specially.
type Paths struct {
	// Root API paths need sudo. Exact, or a prefix if ending in '*'.
	Root []string

	// Unauthenticated API paths need no token. Exact, a prefix if ending in '*', and '+' stands for one whole segment.
	Unauthenticated []string

	// LocalStorage prefixes are not replicated to other clusters.
	LocalStorage []string

	// SealWrapStorage keys get another layer of encryption where the seal can. Exact, or a prefix if ending in '/'.
	SealWrapStorage []string

	// WriteForwardedStorage keys are written on the primary cluster. Each must contain PBPWFClusterSentinel.
	WriteForwardedStorage []string

	// Binary API paths take bodies that are not JSON.
	Binary []string

	// Limited paths come under the request limiter.
	Limited []string

	// AllowSnapshotRead API paths can be read from a loaded snapshot.
	AllowSnapshotRead []string
}

// PluginVersion is a semantic version, empty if there is none to tell.
type PluginVersion struct {
	Version string
}

// PluginVersioner is optional for a backend.
type PluginVersioner interface {
	PluginVersion() PluginVersion
}

// EmptyPluginVersion is no version.
var EmptyPluginVersion = PluginVersion{""}
