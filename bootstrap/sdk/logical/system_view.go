// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"io"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/rotation"
)

// SystemView is what a backend may know of the server and ask of it.
type SystemView interface {
	DefaultLeaseTTL() time.Duration

	// MaxLeaseTTL is the longest that anything the mount issues may live.
	MaxLeaseTTL() time.Duration

	// Tainted reports whether the mount is going away, when a failing revocation should not stop it.
	Tainted() bool

	CachingDisabled() bool

	// LocalMount reports whether the mount is kept from replication.
	LocalMount() bool

	ReplicationState() consts.ReplicationState

	HasFeature(feature license.Features) bool

	ResponseWrapData(ctx context.Context, data map[string]interface{}, ttl time.Duration, jwt bool) (*wrapping.ResponseWrapInfo, error)

	LookupPlugin(ctx context.Context, pluginName string, pluginType consts.PluginType) (*pluginutil.PluginRunner, error)

	LookupPluginVersion(ctx context.Context, pluginName string, pluginType consts.PluginType, version string) (*pluginutil.PluginRunner, error)

	ListVersionedPlugins(ctx context.Context, pluginType consts.PluginType) ([]pluginutil.VersionedPlugin, error)

	NewPluginClient(ctx context.Context, config pluginutil.PluginClientConfig) (pluginutil.PluginClient, error)

	MlockEnabled() bool

	EntityInfo(entityID string) (*Entity, error)

	GroupsForEntity(entityID string) ([]*Group, error)

	PluginEnv(context.Context) (*PluginEnvironment, error)

	VaultVersion(context.Context) (string, error)

	GeneratePasswordFromPolicy(ctx context.Context, policyName string) (password string, err error)

	// ClusterID is what PBPWFClusterSentinel stands for.
	ClusterID(ctx context.Context) (string, error)

	GenerateIdentityToken(ctx context.Context, req *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error)

	RegisterRotationJob(ctx context.Context, req *rotation.RotationJobConfigureRequest) (rotationID string, err error)

	DeregisterRotationJob(ctx context.Context, req *rotation.RotationJobDeregisterRequest) error

	DownloadExtractVerifyPlugin(ctx context.Context, plugin *pluginutil.PluginRunner) error
}

// PasswordPolicy makes passwords.
type PasswordPolicy interface {
	Generate(context.Context, io.Reader) (string, error)
}

// PasswordGenerator makes passwords.
type PasswordGenerator func() (password string, err error)
