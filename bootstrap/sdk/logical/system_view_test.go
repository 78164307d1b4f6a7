// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/rotation"
)

func TestStaticSystemView(t *testing.T) {
	ctx := context.Background()
	entity, groups := &Entity{ID: "e"}, []*Group{{ID: "g"}}
	env := &PluginEnvironment{VaultVersion: "1.0"}
	var view SystemView = StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 2 * time.Hour, TaintedVal: true, CachingDisabledVal: true, LocalMountVal: true,
		ReplicationStateVal: consts.ReplicationDRPrimary, EnableMlock: true, EntityVal: entity, GroupsVal: groups,
		PluginEnvironment: env, VersionString: "1.0", ClusterUUID: "c",
	}
	if view.DefaultLeaseTTL() != time.Hour || view.MaxLeaseTTL() != 2*time.Hour {
		t.Error("wrong TTLs")
	}
	if !view.Tainted() || !view.CachingDisabled() || !view.LocalMount() || !view.MlockEnabled() {
		t.Error("wrong flags")
	}
	if view.ReplicationState() != consts.ReplicationDRPrimary || view.HasFeature(license.Features(1)) {
		t.Error("wrong state")
	}
	if got, err := view.EntityInfo("x"); got != entity || err != nil {
		t.Errorf("entity is %v, %v", got, err)
	}
	if got, err := view.GroupsForEntity("x"); len(got) != 1 || err != nil {
		t.Errorf("groups are %v, %v", got, err)
	}
	if got, err := view.PluginEnv(ctx); got != env || err != nil {
		t.Errorf("environment is %v, %v", got, err)
	}
	if got, err := view.VaultVersion(ctx); got != "1.0" || err != nil {
		t.Errorf("version is %v, %v", got, err)
	}
	if got, err := view.ClusterID(ctx); got != "c" || err != nil {
		t.Errorf("cluster is %v, %v", got, err)
	}
	if (StaticSystemView{}).Tainted() || (StaticSystemView{}).CachingDisabled() || (StaticSystemView{}).LocalMount() || (StaticSystemView{}).MlockEnabled() {
		t.Error("flags are not off")
	}

	_, wrap := view.ResponseWrapData(ctx, nil, 0, false)
	_, lookup := view.LookupPlugin(ctx, "", 0)
	_, lookupVersion := view.LookupPluginVersion(ctx, "", 0, "")
	_, list := view.ListVersionedPlugins(ctx, 0)
	_, client := view.NewPluginClient(ctx, pluginutil.PluginClientConfig{})
	_, token := view.GenerateIdentityToken(ctx, &pluginutil.IdentityTokenRequest{})
	_, register := view.RegisterRotationJob(ctx, &rotation.RotationJobConfigureRequest{})
	for _, err := range []error{
		wrap, lookup, lookupVersion, list, client, token, register,
		view.DeregisterRotationJob(ctx, &rotation.RotationJobDeregisterRequest{}),
		view.DownloadExtractVerifyPlugin(ctx, nil),
	} {
		if err == nil || !strings.HasSuffix(err.Error(), "is not implemented in StaticSystemView") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestPasswordPolicies(t *testing.T) {
	ctx := context.Background()
	view := &StaticSystemView{}
	failure := errors.New("failed")
	if _, err := view.GeneratePasswordFromPolicy(ctx, "p"); err == nil || err.Error() != "password policy not found" {
		t.Errorf("error is %v", err)
	}
	view.SetPasswordPolicy("p", func() (string, error) { return "made", nil })
	view.SetPasswordPolicy("q", func() (string, error) { return "", failure })
	if got, err := view.GeneratePasswordFromPolicy(ctx, "p"); got != "made" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := view.GeneratePasswordFromPolicy(ctx, "q"); err != failure {
		t.Errorf("error is %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := view.GeneratePasswordFromPolicy(cancelled, "p"); got != "" || err == nil {
		t.Errorf("got %q, %v", got, err)
	}
	if !view.DeletePasswordPolicy("p") || view.DeletePasswordPolicy("p") {
		t.Error("deleted otherwise than once")
	}
	if _, err := view.GeneratePasswordFromPolicy(ctx, "p"); err == nil {
		t.Error("still there")
	}
}

func TestTestBackendConfig(t *testing.T) {
	config := TestBackendConfig()
	if config.StorageView != nil || config.Config == nil || config.Logger == nil || !config.Logger.IsTrace() {
		t.Errorf("got %+v", config)
	}
	version, err := config.System.VaultVersion(context.Background())
	if err != nil || version != "testVersionString" || config.System.DefaultLeaseTTL() != 24*time.Hour || config.System.MaxLeaseTTL() != 48*time.Hour {
		t.Errorf("got %+v", config.System)
	}
}

func TestBackendTypes(t *testing.T) {
	for backendType, want := range map[BackendType]string{0: "unknown", 1: "secret", 2: "auth", 3: "unknown"} {
		if backendType.String() != want {
			t.Errorf("%d is %s", backendType, backendType)
		}
	}
	if EmptyPluginVersion.Version != "" {
		t.Error("the empty version isn't")
	}
}
