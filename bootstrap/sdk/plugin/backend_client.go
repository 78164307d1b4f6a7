// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// backendClient is the host's end of pb.Backend, for one mount.
type backendClient struct {
	broker       *goplugin.GRPCBroker
	client       pb.BackendClient
	version      logical.PluginVersionClient
	metadataMode bool

	// process is done when the plugin's process is.
	process context.Context

	mu        sync.Mutex
	callbacks *callbacks
	system    logical.SystemView
	logger    hclog.Logger
}

var (
	_ logical.Backend         = (*backendClient)(nil)
	_ logical.PluginVersioner = (*backendClient)(nil)
)

// call derives the context of one call, which also ends with the process.
func (b *backendClient) call(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.process, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// failure tells a call that failed with its process from one that the plugin
// answered with an error.
func (b *backendClient) failure(err error) error {
	if err != nil && b.process.Err() != nil {
		return ErrPluginShutdown
	}
	return err
}

// Setup offers storage and system view to the plugin and has it make its
// backend. Either may be nil, as a catalog leaves them.
func (b *backendClient) Setup(ctx context.Context, config *logical.BackendConfig) error {
	ctx, cancel := b.call(ctx)
	defer cancel()

	storage, system := config.StorageView, config.System
	if b.metadataMode {
		storage, system = noopStorage{}, &logical.StaticSystemView{}
	}
	cb := &callbacks{storage: storage, system: system, grace: callbackGrace}
	id := b.broker.NextId()
	go b.broker.AcceptAndServe(id, cb.newServer)

	b.mu.Lock()
	replaced := b.callbacks
	b.callbacks = cb
	b.mu.Unlock()
	if replaced != nil {
		replaced.stop()
	}

	reply, err := b.client.Setup(ctx, &pb.SetupArgs{
		BrokerId:    id,
		Config:      config.Config,
		BackendUuid: config.BackendUUID,
	})
	if err == nil {
		err = pb.ErrFromString(reply.GetErr())
	}
	if err != nil {
		cb.stop()
		return b.failure(err)
	}

	b.mu.Lock()
	b.system, b.logger = config.System, config.Logger
	b.mu.Unlock()
	return nil
}

// Initialize passes for a plugin that does not know it.
func (b *backendClient) Initialize(ctx context.Context, _ *logical.InitializationRequest) error {
	if b.metadataMode {
		return nil
	}
	ctx, cancel := b.call(ctx)
	defer cancel()
	reply, err := b.client.Initialize(ctx, &pb.InitializeArgs{}, largeCalls...)
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if err != nil {
		return b.failure(err)
	}
	return pb.ProtoErrToErr(reply.GetErr())
}

func (b *backendClient) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if b.metadataMode {
		return nil, ErrClientInMetadataMode
	}
	args, err := pb.LogicalRequestToProtoRequest(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := b.call(ctx)
	defer cancel()
	reply, err := b.client.HandleRequest(ctx, &pb.HandleRequestArgs{Request: args}, largeCalls...)
	if err != nil {
		return nil, b.failure(err)
	}
	resp, err := pb.ProtoResponseToLogicalResponse(reply.GetResponse())
	if err != nil {
		return nil, err
	}
	return resp, pb.ProtoErrToErr(reply.GetErr())
}

func (b *backendClient) HandleExistenceCheck(ctx context.Context, req *logical.Request) (bool, bool, error) {
	if b.metadataMode {
		return false, false, ErrClientInMetadataMode
	}
	args, err := pb.LogicalRequestToProtoRequest(req)
	if err != nil {
		return false, false, err
	}
	ctx, cancel := b.call(ctx)
	defer cancel()
	reply, err := b.client.HandleExistenceCheck(ctx, &pb.HandleExistenceCheckArgs{Request: args}, largeCalls...)
	if err != nil {
		return false, false, b.failure(err)
	}
	if err := pb.ProtoErrToErr(reply.GetErr()); err != nil {
		return false, false, err
	}
	return reply.GetCheckFound(), reply.GetExists(), nil
}

// InvalidateKey has no answer: a plugin that cannot take it has no cache that
// the host could do anything about.
func (b *backendClient) InvalidateKey(ctx context.Context, key string) {
	if b.metadataMode {
		return
	}
	ctx, cancel := b.call(ctx)
	defer cancel()
	_, _ = b.client.InvalidateKey(ctx, &pb.InvalidateKeyArgs{Key: key})
}

// Cleanup ends the mount in the plugin, then what the host served to it.
func (b *backendClient) Cleanup(ctx context.Context) {
	ctx, cancel := b.call(ctx)
	defer cancel()
	_, _ = b.client.Cleanup(ctx, &pb.Empty{})

	b.mu.Lock()
	cb := b.callbacks
	b.callbacks = nil
	b.mu.Unlock()
	if cb != nil {
		cb.stop()
	}
}

// SpecialPaths is nil also if the plugin could not be asked.
func (b *backendClient) SpecialPaths() *logical.Paths {
	reply, err := b.client.SpecialPaths(b.process, &pb.Empty{})
	if err != nil || reply.GetPaths() == nil {
		return nil
	}
	paths := reply.GetPaths()
	return &logical.Paths{
		Root:                  paths.GetRoot(),
		Unauthenticated:       paths.GetUnauthenticated(),
		LocalStorage:          paths.GetLocalStorage(),
		SealWrapStorage:       paths.GetSealWrapStorage(),
		WriteForwardedStorage: paths.GetWriteForwardedStorage(),
		Binary:                paths.GetBinary(),
		Limited:               paths.GetLimited(),
		AllowSnapshotRead:     paths.GetAllowSnapshotRead(),
	}
}

// Type is unknown also if the plugin could not be asked.
func (b *backendClient) Type() logical.BackendType {
	reply, err := b.client.Type(b.process, &pb.Empty{})
	if err != nil {
		return logical.TypeUnknown
	}
	return logical.BackendType(reply.GetType())
}

// PluginVersion is empty for a plugin that does not tell it.
func (b *backendClient) PluginVersion() logical.PluginVersion {
	reply, err := b.version.Version(b.process, &logical.Empty{})
	if err != nil {
		if logger := b.Logger(); logger != nil && status.Code(err) != codes.Unimplemented {
			logger.Warn("cannot get the plugin's version", "error", err)
		}
		return logical.EmptyPluginVersion
	}
	return logical.PluginVersion{Version: reply.GetPluginVersion()}
}

// System is the view that Setup was given.
func (b *backendClient) System() logical.SystemView {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.system
}

// Logger is the one that Setup was given.
func (b *backendClient) Logger() hclog.Logger {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.logger
}

// IsExternal reports whether the backend runs in a process of its own: true.
func (b *backendClient) IsExternal() bool { return true }
