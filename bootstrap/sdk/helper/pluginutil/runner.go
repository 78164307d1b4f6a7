// SPDX-License-Identifier: MPL-2.0

package pluginutil

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
)

// PluginClient is a host's hold on a plugin process on behalf of one mount.
type PluginClient interface {
	// Conn is the connection for this mount's calls: it adds the mount's
	// multiplex id to each of them.
	Conn() grpc.ClientConnInterface

	// Reload replaces the process.
	Reload() error

	goplugin.ClientProtocol
}

// PluginClientConfig says which plugin a host launches, and how.
type PluginClientConfig struct {
	Name            string
	PluginType      consts.PluginType
	Version         string
	PluginSets      map[int]goplugin.PluginSet
	HandshakeConfig goplugin.HandshakeConfig
	Logger          hclog.Logger
	IsMetadataMode  bool
	AutoMTLS        bool
	MLock           bool
	Wrapper         RunnerUtil
}

// PluginRunner is a catalog's knowledge of one plugin.
type PluginRunner struct {
	Name           string                      `json:"name" structs:"name"`
	Type           consts.PluginType           `json:"type" structs:"type"`
	Version        string                      `json:"version" structs:"version"`
	Command        string                      `json:"command" structs:"command"`
	Args           []string                    `json:"args" structs:"args"`
	Env            []string                    `json:"env" structs:"env"`
	Sha256         []byte                      `json:"sha256" structs:"sha256"`
	Builtin        bool                        `json:"builtin" structs:"builtin"`
	BuiltinFactory func() (interface{}, error) `json:"-" structs:"-"`
}

// VersionedPlugin describes one version of a plugin in API answers.
type VersionedPlugin struct {
	Type              string `json:"type"`
	Name              string `json:"name"`
	Version           string `json:"version"`
	SHA256            string `json:"sha256,omitempty"`
	Builtin           bool   `json:"builtin"`
	DeprecationStatus string `json:"deprecation_status,omitempty"`
}

// Looker finds plugins in a catalog.
type Looker interface {
	LookupPlugin(ctx context.Context, pluginName string, pluginType consts.PluginType) (*PluginRunner, error)
	LookupPluginVersion(ctx context.Context, pluginName string, pluginType consts.PluginType, version string) (*PluginRunner, error)
}

// RunnerUtil is the part of a server's system view that launching a plugin
// needs.
type RunnerUtil interface {
	NewPluginClient(ctx context.Context, config PluginClientConfig) (PluginClient, error)
	ResponseWrapData(ctx context.Context, data map[string]interface{}, ttl time.Duration, jwt bool) (*wrapping.ResponseWrapInfo, error)
	MlockEnabled() bool
	VaultVersion(ctx context.Context) (string, error)
}

// LookRunnerUtil finds plugins and launches them.
type LookRunnerUtil interface {
	Looker
	RunnerUtil
}

// CtxCancelIfCanceled calls f when ctxCanceler is done. The caller closes the
// returned channel once that is no longer wanted.
func CtxCancelIfCanceled(f context.CancelFunc, ctxCanceler context.Context) chan struct{} {
	quit := make(chan struct{})
	go func() {
		select {
		case <-ctxCanceler.Done():
			f()
		case <-quit:
		}
	}()
	return quit
}
