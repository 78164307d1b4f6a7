// SPDX-License-Identifier: MPL-2.0

// Package plugin speaks the protocol of backend plugins, as the plugin
// (Serve, ServeMultiplex) and as the host that launched it (Dispense).
package plugin

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// BackendPluginName is what a host dispenses.
const BackendPluginName = "backend"

// HandshakeConfig keeps a backend plugin from being run by hand. It protects
// from mistakes, not from attacks.
var HandshakeConfig = goplugin.HandshakeConfig{
	MagicCookieKey:   "VAULT_BACKEND_PLUGIN",
	MagicCookieValue: "6669da05-b1c8-4f49-97d9-c8e5bed98e20",
}

// PluginSet is what a host offers first: the protocol version with AutoMTLS.
var PluginSet = map[int]goplugin.PluginSet{
	5: {BackendPluginName: &GRPCBackendPlugin{}},
}

var (
	// ErrPluginShutdown means that the plugin's process is gone.
	ErrPluginShutdown = errors.New("plugin is shut down")

	// ErrClientInMetadataMode means that a host asked too much of a process
	// that it launched only to learn what the plugin is.
	ErrClientInMetadataMode = errors.New("plugin client can not perform action while in metadata mode")

	// ErrServerInMetadataMode is the plugin's answer to the same.
	ErrServerInMetadataMode = errors.New("plugin server can not perform action while in metadata mode")
)

// ContextKey is the type of this package's context keys.
type ContextKey string

// String names the key.
func (c ContextKey) String() string { return "plugin" + string(c) }

// ContextKeyPluginReload in a Cleanup's context, with a string as value, means
// that the plugin is to be reloaded instead of closed.
const ContextKeyPluginReload = ContextKey("plugin-reload")

// GRPCBackendPlugin is a backend as go-plugin knows it, on either side.
type GRPCBackendPlugin struct {
	// Factory makes the backends; needed on the plugin's side.
	Factory logical.Factory

	// MetadataMode is set by a host that only asks what the plugin is.
	MetadataMode bool

	// Logger is given to the backends.
	Logger hclog.Logger

	// MultiplexingSupport lets one process serve many mounts.
	MultiplexingSupport bool

	goplugin.NetRPCUnsupportedPlugin
}

var (
	_ goplugin.Plugin     = (*GRPCBackendPlugin)(nil)
	_ goplugin.GRPCPlugin = (*GRPCBackendPlugin)(nil)
)

// GRPCServer registers the plugin's services.
func (b GRPCBackendPlugin) GRPCServer(broker *goplugin.GRPCBroker, s *grpc.Server) error {
	if b.MultiplexingSupport {
		pluginutil.RegisterPluginMultiplexingServer(s, pluginutil.PluginMultiplexingServerImpl{Supported: true})
	}
	server := newBackendServer(broker, b.Factory, b.Logger, b.MultiplexingSupport)
	pb.RegisterBackendServer(s, server)
	logical.RegisterPluginVersionServer(s, server)
	return nil
}

// GRPCClient returns the host's view of the plugin, for Dispense to finish.
func (b *GRPCBackendPlugin) GRPCClient(ctx context.Context, broker *goplugin.GRPCBroker, c *grpc.ClientConn) (interface{}, error) {
	return &backendClient{
		broker:       broker,
		client:       pb.NewBackendClient(c),
		version:      logical.NewPluginVersionClient(c),
		process:      ctx,
		metadataMode: b.MetadataMode,
	}, nil
}

// BackendPluginClientV5 is a backend in another process. Its Cleanup also
// gives back the plugin client.
type BackendPluginClientV5 struct {
	client pluginutil.PluginClient

	logical.Backend
}

var _ logical.PluginVersioner = (*BackendPluginClientV5)(nil)

// Dispense returns the backend of one mount. Its calls go over the
// connection of pluginClient, which names the mount.
func Dispense(rpcClient goplugin.ClientProtocol, pluginClient pluginutil.PluginClient) (logical.Backend, error) {
	raw, err := rpcClient.Dispense(BackendPluginName)
	if err != nil {
		return nil, err
	}
	backend, ok := raw.(*backendClient)
	if !ok {
		return nil, fmt.Errorf("unsupported plugin client type %T", raw)
	}
	conn := pluginClient.Conn()
	backend.client = pb.NewBackendClient(conn)
	backend.version = logical.NewPluginVersionClient(conn)
	return &BackendPluginClientV5{client: pluginClient, Backend: backend}, nil
}

// Cleanup ends the backend and closes, or reloads, the plugin client.
func (b *BackendPluginClientV5) Cleanup(ctx context.Context) {
	b.Backend.Cleanup(ctx)
	if _, reload := ctx.Value(ContextKeyPluginReload).(string); reload {
		_ = b.client.Reload()
		return
	}
	_ = b.client.Close()
}

// PluginVersion asks the plugin for its version.
func (b *BackendPluginClientV5) PluginVersion() logical.PluginVersion {
	if v, ok := b.Backend.(logical.PluginVersioner); ok {
		return v.PluginVersion()
	}
	return logical.EmptyPluginVersion
}

// IsExternal reports whether the backend runs in a process of its own: true.
func (b *BackendPluginClientV5) IsExternal() bool { return true }

// Requests, responses and stored values are not held to gRPC's default of
// 4 MiB: the server bounds them.
var (
	largeCalls = []grpc.CallOption{
		grpc.MaxCallSendMsgSize(math.MaxInt32),
		grpc.MaxCallRecvMsgSize(math.MaxInt32),
	}
	largeServer = []grpc.ServerOption{
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
	}
)
