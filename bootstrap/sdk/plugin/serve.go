// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"crypto/tls"
	"errors"
	"os"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// TLSProviderFunc brings the certificate of a plugin that does not use
// AutoMTLS.
type TLSProviderFunc func() (*tls.Config, error)

// ServeOpts says what to serve.
type ServeOpts struct {
	BackendFactoryFunc logical.Factory

	// TLSProviderFunc must be nil under AutoMTLS and in metadata mode:
	// go-plugin would prefer it.
	TLSProviderFunc TLSProviderFunc

	// Logger defaults to JSON on standard error, which hosts understand.
	Logger hclog.Logger
}

// Serve serves one mount until the host ends the process.
func Serve(opts *ServeOpts) error { return serve(opts, false) }

// ServeMultiplex serves any number of mounts until the host ends the process.
// Hosts of protocol versions before 5 use it for one mount.
func ServeMultiplex(opts *ServeOpts) error { return serve(opts, true) }

func serve(opts *ServeOpts, multiplex bool) error {
	if opts == nil || opts.BackendFactoryFunc == nil {
		return errors.New("no backend factory to serve")
	}
	logger := opts.Logger
	if logger == nil {
		logger = hclog.New(&hclog.LoggerOptions{
			Level:      hclog.Trace,
			Output:     os.Stderr,
			JSONFormat: true,
		})
	}
	if err := pluginutil.OptionallyEnableMlock(); err != nil {
		return err
	}

	set := func(multiplex bool) goplugin.PluginSet {
		return goplugin.PluginSet{BackendPluginName: &GRPCBackendPlugin{
			Factory:             opts.BackendFactoryFunc,
			Logger:              logger,
			MultiplexingSupport: multiplex,
		}}
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: HandshakeConfig,
		VersionedPlugins: map[int]goplugin.PluginSet{
			3: set(false),
			4: set(false),
			5: set(multiplex),
		},
		TLSProvider: opts.TLSProviderFunc,
		Logger:      logger,
		GRPCServer: func(base []grpc.ServerOption) *grpc.Server {
			return goplugin.DefaultGRPCServer(append(base, largeServer...))
		},
	})
	return nil
}
