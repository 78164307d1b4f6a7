// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
)

// systemView answers what a plugin asks about its mount. What this server has not is answered as the
// embedded static view does: not available.
type systemView struct {
	logical.StaticSystemView
	server *Server
	mount  *mount
}

func newSystemView(s *Server, m *mount) logical.SystemView {
	return &systemView{server: s, mount: m}
}

func (v *systemView) DefaultLeaseTTL() time.Duration { return v.mount.entry.Load().defaultTTL() }
func (v *systemView) MaxLeaseTTL() time.Duration     { return v.mount.entry.Load().maxTTL() }
func (v *systemView) Tainted() bool                  { return v.mount.entry.Load().Tainted }
func (v *systemView) CachingDisabled() bool          { return v.mount.entry.Load().ForceNoCache }
func (v *systemView) LocalMount() bool               { return v.mount.entry.Load().Local }
func (v *systemView) MlockEnabled() bool             { return false }

func (v *systemView) ReplicationState() consts.ReplicationState {
	return consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
}

func (v *systemView) VaultVersion(context.Context) (string, error) { return Version, nil }

func (v *systemView) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	return &logical.PluginEnvironment{VaultVersion: Version}, nil
}

func (v *systemView) ClusterID(context.Context) (string, error) { return v.server.clusterID, nil }

// EntityInfo finds nobody: tokens of this server belong to no entity.
func (v *systemView) EntityInfo(string) (*logical.Entity, error) {
	return nil, errors.New("no such entity")
}

func (v *systemView) GroupsForEntity(string) ([]*logical.Group, error) {
	return nil, errors.New("no such entity")
}

func (v *systemView) GeneratePasswordFromPolicy(_ context.Context, name string) (string, error) {
	return v.server.generatePassword(name)
}

func (v *systemView) ResponseWrapData(_ context.Context, data map[string]any, ttl time.Duration, _ bool) (*wrapping.ResponseWrapInfo, error) {
	return v.server.wrap(&logical.Response{Data: data}, ttl, v.mount.entry.Load().Path)
}
