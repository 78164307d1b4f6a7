// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/rotation"
)

// StaticSystemView answers from its fields. What needs a server fails.
type StaticSystemView struct {
	DefaultLeaseTTLVal           time.Duration
	MaxLeaseTTLVal               time.Duration
	SudoPrivilegeVal             bool
	TaintedVal                   bool
	CachingDisabledVal           bool
	Primary                      bool
	EnableMlock                  bool
	LocalMountVal                bool
	ReplicationStateVal          consts.ReplicationState
	EntityVal                    *Entity
	GroupsVal                    []*Group
	Features                     license.Features
	PluginEnvironment            *PluginEnvironment
	PasswordPolicies             map[string]PasswordGenerator
	VersionString                string
	ClusterUUID                  string
	APILockShouldBlockRequestVal bool
}

var (
	_ SystemView = StaticSystemView{}
	_ SystemView = (*StaticSystemView)(nil)
)

func notImplemented(method string) error {
	return errors.New(method + " is not implemented in StaticSystemView")
}

// DefaultLeaseTTL implements SystemView.
func (d StaticSystemView) DefaultLeaseTTL() time.Duration { return d.DefaultLeaseTTLVal }

// MaxLeaseTTL implements SystemView.
func (d StaticSystemView) MaxLeaseTTL() time.Duration { return d.MaxLeaseTTLVal }

// SudoPrivilege implements SystemView.
func (d StaticSystemView) SudoPrivilege(context.Context, string, string) bool {
	return d.SudoPrivilegeVal
}

// Tainted implements SystemView.
func (d StaticSystemView) Tainted() bool { return d.TaintedVal }

// CachingDisabled implements SystemView.
func (d StaticSystemView) CachingDisabled() bool { return d.CachingDisabledVal }

// LocalMount implements SystemView.
func (d StaticSystemView) LocalMount() bool { return d.LocalMountVal }

// ReplicationState implements SystemView.
func (d StaticSystemView) ReplicationState() consts.ReplicationState { return d.ReplicationStateVal }

// HasFeature implements SystemView.
func (d StaticSystemView) HasFeature(feature license.Features) bool {
	return d.Features.HasFeature(feature)
}

// ResponseWrapData implements SystemView.
func (d StaticSystemView) ResponseWrapData(context.Context, map[string]interface{}, time.Duration, bool) (*wrapping.ResponseWrapInfo, error) {
	return nil, notImplemented("ResponseWrapData")
}

// LookupPlugin implements SystemView.
func (d StaticSystemView) LookupPlugin(context.Context, string, consts.PluginType) (*pluginutil.PluginRunner, error) {
	return nil, notImplemented("LookupPlugin")
}

// LookupPluginVersion implements SystemView.
func (d StaticSystemView) LookupPluginVersion(context.Context, string, consts.PluginType, string) (*pluginutil.PluginRunner, error) {
	return nil, notImplemented("LookupPluginVersion")
}

// ListVersionedPlugins implements SystemView.
func (d StaticSystemView) ListVersionedPlugins(context.Context, consts.PluginType) ([]pluginutil.VersionedPlugin, error) {
	return nil, notImplemented("ListVersionedPlugins")
}

// NewPluginClient implements SystemView.
func (d StaticSystemView) NewPluginClient(context.Context, pluginutil.PluginClientConfig) (pluginutil.PluginClient, error) {
	return nil, notImplemented("NewPluginClient")
}

// MlockEnabled implements SystemView.
func (d StaticSystemView) MlockEnabled() bool { return d.EnableMlock }

// EntityInfo implements SystemView.
func (d StaticSystemView) EntityInfo(string) (*Entity, error) { return d.EntityVal, nil }

// GroupsForEntity implements SystemView.
func (d StaticSystemView) GroupsForEntity(string) ([]*Group, error) { return d.GroupsVal, nil }

// PluginEnv implements SystemView.
func (d StaticSystemView) PluginEnv(context.Context) (*PluginEnvironment, error) {
	return d.PluginEnvironment, nil
}

// VaultVersion implements SystemView.
func (d StaticSystemView) VaultVersion(context.Context) (string, error) { return d.VersionString, nil }

// GeneratePasswordFromPolicy implements SystemView.
func (d StaticSystemView) GeneratePasswordFromPolicy(ctx context.Context, policyName string) (string, error) {
	if ctx.Err() != nil {
		return "", errors.New("context timed out")
	}
	generate, ok := d.PasswordPolicies[policyName]
	if !ok {
		return "", errors.New("password policy not found")
	}
	return generate()
}

// SetPasswordPolicy adds a policy or replaces it.
func (d *StaticSystemView) SetPasswordPolicy(name string, generator PasswordGenerator) {
	if d.PasswordPolicies == nil {
		d.PasswordPolicies = make(map[string]PasswordGenerator)
	}
	d.PasswordPolicies[name] = generator
}

// DeletePasswordPolicy reports whether there was one.
func (d *StaticSystemView) DeletePasswordPolicy(name string) (existed bool) {
	_, existed = d.PasswordPolicies[name]
	delete(d.PasswordPolicies, name)
	return existed
}

// ClusterID implements SystemView.
func (d StaticSystemView) ClusterID(context.Context) (string, error) { return d.ClusterUUID, nil }

// GenerateIdentityToken implements SystemView.
func (d StaticSystemView) GenerateIdentityToken(context.Context, *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
	return nil, notImplemented("GenerateIdentityToken")
}

// RegisterRotationJob implements SystemView.
func (d StaticSystemView) RegisterRotationJob(context.Context, *rotation.RotationJobConfigureRequest) (string, error) {
	return "", notImplemented("RegisterRotationJob")
}

// DeregisterRotationJob implements SystemView.
func (d StaticSystemView) DeregisterRotationJob(context.Context, *rotation.RotationJobDeregisterRequest) error {
	return notImplemented("DeregisterRotationJob")
}

// DownloadExtractVerifyPlugin implements SystemView.
func (d StaticSystemView) DownloadExtractVerifyPlugin(context.Context, *pluginutil.PluginRunner) error {
	return notImplemented("DownloadExtractVerifyPlugin")
}

// APILockShouldBlockRequest reports whether the namespace is locked.
func (d StaticSystemView) APILockShouldBlockRequest() (bool, error) {
	return d.APILockShouldBlockRequestVal, nil
}
