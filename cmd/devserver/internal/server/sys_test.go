// SPDX-License-Identifier: MPL-2.0

package server

import (
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/testplugin"
)

func TestWrapping(t *testing.T) {
	f := newFixture(t)
	c := f.client(rootToken)
	c.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	s := must(c.Logical().Read("test/echo"))(t)
	if s.WrapInfo == nil || s.WrapInfo.TTL != 300 || s.Data != nil || s.WrapInfo.CreationPath != "test/echo" {
		t.Fatalf("wrapped answer %+v", s)
	}
	look := must(f.client("").Logical().Write("sys/wrapping/lookup", map[string]any{"token": s.WrapInfo.Token}))(t)
	if look.Data["creation_path"] != "test/echo" || text(look.Data["creation_ttl"]) != "300" {
		t.Errorf("lookup %v", look.Data)
	}
	inner := must(f.client(s.WrapInfo.Token).Logical().Unwrap(""))(t)
	if inner.Data["display_name"] != "root" {
		t.Errorf("unwrapped %+v", inner)
	}
	_, err := f.client(s.WrapInfo.Token).Logical().Unwrap("")
	wantStatus(t, err, 400)

	// By somebody else's token, and too late.
	s = must(c.Auth().Token().Create(&api.TokenCreateRequest{TTL: "1h"}))(t)
	if s.Auth != nil || s.WrapInfo.WrappedAccessor == "" {
		t.Fatalf("wrapped token %+v", s)
	}
	if got := must(f.root.Logical().Unwrap(s.WrapInfo.Token))(t); got.Auth.Accessor != s.WrapInfo.WrappedAccessor {
		t.Errorf("unwrapped %+v", got)
	}
	s = must(c.Logical().Read("test/echo"))(t)
	f.clock.advance(5 * time.Minute)
	_, err = f.client(s.WrapInfo.Token).Logical().Unwrap("")
	if got := wantStatus(t, err, 400); got != "wrapping token is not valid or does not exist" {
		t.Errorf("text %q", got)
	}
	f.runDue()
	if keys := must(f.server.cfg.Store.List(wrapPrefix, "", -1))(t); len(keys) != 0 {
		t.Errorf("%d wrapped answers left", len(keys))
	}

	// What is wrapped is leased first.
	c.SetWrappingLookupFunc(func(string, string) string { return "90" })
	s = must(c.Logical().Write("test/lease/a", map[string]any{"ttl": "1h"}))(t)
	if got := must(f.client(s.WrapInfo.Token).Logical().Unwrap(""))(t); got.LeaseID == "" || got.LeaseDuration != 3600 {
		t.Errorf("unwrapped %+v", got)
	}
	// An absent thing is a 404, wrapped or not, and the plugin can wrap by itself.
	if s := must(c.Logical().Read("test/kv/absent"))(t); s != nil {
		t.Errorf("read %+v", s)
	}
	token := must(f.root.Logical().Read("test/wrapped"))(t).Data["token"].(string)
	if got := must(f.root.Logical().Unwrap(token))(t); got.Data["inner"] != "data" {
		t.Errorf("unwrapped %+v", got)
	}
	c.SetWrappingLookupFunc(nil)
	rewrapped := must(f.root.Logical().Write("sys/wrapping/rewrap", map[string]any{"token": must(f.root.Logical().Read("test/wrapped"))(t).Data["token"]}))(t)
	if got := must(f.root.Logical().Unwrap(rewrapped.WrapInfo.Token))(t); got.Data["inner"] != "data" {
		t.Errorf("rewrapped %+v", got)
	}
}

func TestPolicyLimitsWrapping(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "wrapped-only", `path "test/echo" { capabilities = ["read"] min_wrapping_ttl = "1m" max_wrapping_ttl = "10m" }`)
	c := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"wrapped-only"}})
	_, err := c.Logical().Read("test/echo")
	wantStatus(t, err, 403)
	c.SetWrappingLookupFunc(func(string, string) string { return "2m" })
	must(c.Logical().Read("test/echo"))(t)
}

func TestPasswordPolicies(t *testing.T) {
	f := newFixture(t)
	rules := `length = 12
rule "charset" { charset = "abc" min-chars = 2 }
rule "charset" { charset = "0123" min-chars = 3 }`
	must(f.root.Logical().Write("sys/policies/password/short", map[string]any{"policy": rules}))(t)
	p := must(f.root.Logical().Read("test/password/short"))(t).Data["password"].(string)
	if !regexp.MustCompile(`^[abc0-3]{12}$`).MatchString(p) || len(regexp.MustCompile(`[0-3]`).FindAllString(p, -1)) < 3 {
		t.Errorf("generated %q", p)
	}
	if s := must(f.root.Logical().Read("sys/policies/password/short/generate"))(t); len(s.Data["password"].(string)) != 12 {
		t.Errorf("generated %v", s.Data)
	}
	_, err := f.root.Logical().Read("test/password/absent")
	wantStatus(t, err, 400)
	_, err = f.root.Logical().Write("sys/policies/password/bad", map[string]any{"policy": "length = 2"})
	wantStatus(t, err, 400)
}

func TestMounts(t *testing.T) {
	f := newFixture(t)
	sys := f.root.Sys()
	if err := sys.Mount("team/keys", &api.MountInput{
		Type: f.server.PluginName(), Description: "of a team", Local: true, Config: api.MountConfigInput{DefaultLeaseTTL: "1h", MaxLeaseTTL: "24h"},
	}); err != nil {
		t.Fatal(err)
	}
	m := must(sys.ListMounts())(t)["team/keys/"]
	if m == nil || m.Config.DefaultLeaseTTL != 3600 || m.Config.MaxLeaseTTL != 86400 || !m.Local || m.RunningVersion != testplugin.Version {
		t.Fatalf("mount %+v", m)
	}
	if got := must(sys.GetMount("team/keys"))(t); got.UUID != m.UUID {
		t.Errorf("read %+v", got)
	}
	for path, want := range map[string]string{"team/keys/deeper": "already in use", "team": "already in use", "sys/x": "reserved", "": ""} {
		if err := sys.Mount(path, &api.MountInput{Type: f.server.PluginName()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mount at %q: %v", path, err)
		}
	}
	wantStatus(t, sys.Mount("x", &api.MountInput{Type: "absent"}), 400)
	wantStatus(t, sys.Mount("x", &api.MountInput{Type: f.server.PluginName(), Config: api.MountConfigInput{DefaultLeaseTTL: "2h", MaxLeaseTTL: "1h"}}), 400)
	if err := sys.TuneMountAllowNil("team/keys", api.TuneMountConfigInput{DefaultLeaseTTL: strPtr("30m"), Description: strPtr("tuned")}); err != nil {
		t.Fatal(err)
	}
	if c := must(sys.MountConfig("team/keys"))(t); c.DefaultLeaseTTL != 1800 || c.MaxLeaseTTL != 86400 {
		t.Errorf("tuned %+v", c)
	}
	must(f.root.Logical().Write("team/keys/kv/a", map[string]any{"value": "kept"}))(t)
	ui := must(f.root.Logical().Read("sys/internal/ui/mounts/team/keys/kv/a"))(t)
	if ui.Data["path"] != "team/keys/" || ui.Data["description"] != "tuned" {
		t.Errorf("mount of a path %v", ui.Data)
	}
	if err := sys.Remount("team/keys", "moved"); err != nil {
		t.Fatal(err)
	}
	if got := must(f.root.Logical().Read("moved/kv/a"))(t).Data["value"]; got != "kept" {
		t.Errorf("moved value %v", got)
	}
	if resp, _ := f.do(t, "GET", "team/keys/kv/a", rootToken, ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d at the old path", resp.StatusCode)
	}
	if err := sys.Unmount("moved"); err != nil {
		t.Fatal(err)
	}
	if _, ok := must(sys.ListMounts())(t)["moved/"]; ok {
		t.Error("still listed")
	}
}

func TestUIMountsShowWhatTheTokenMayUse(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "app", `path "test/kv/*" { capabilities = ["read"] }`)
	if err := f.root.Sys().Mount("other", &api.MountInput{Type: f.server.PluginName()}); err != nil {
		t.Fatal(err)
	}
	c := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"app"}})
	secret := must(c.Logical().Read("sys/internal/ui/mounts"))(t).Data["secret"].(map[string]any)
	if secret["test/"] == nil || secret["other/"] != nil {
		t.Errorf("mounts %v", secret)
	}
	_, err := c.Logical().Read("sys/internal/ui/mounts/other/kv")
	wantStatus(t, err, 403)
}

func TestPluginCatalog(t *testing.T) {
	f := newFixture(t)
	self := must(os.Executable())(t)
	sum := hex.EncodeToString(must(host.Checksum(self))(t))
	own := f.server.PluginName()
	list := must(f.root.Sys().ListPlugins(&api.ListPluginsInput{}))(t)
	if len(list.Details) != 1 || list.Details[0].Name != own || list.Details[0].SHA256 != sum {
		t.Errorf("catalog %+v", list.Details)
	}
	in := &api.RegisterPluginInput{Name: "again", Type: api.PluginTypeSecrets, Command: filepath.Base(self), SHA256: sum, Version: testplugin.Version}
	if err := f.root.Sys().RegisterPlugin(in); err != nil {
		t.Fatal(err)
	}
	got := must(f.root.Sys().GetPlugin(&api.GetPluginInput{Name: "again", Type: api.PluginTypeSecrets, Version: testplugin.Version}))(t)
	if got.SHA256 != sum || got.Command != filepath.Base(self) {
		t.Errorf("plugin %+v", got)
	}
	if err := f.root.Sys().Mount("again", &api.MountInput{Type: "again", Config: api.MountConfigInput{}}); err == nil {
		t.Error("mounted a version that was not asked for")
	}
	if _, err := f.root.Logical().Write("sys/mounts/again", map[string]any{"type": "again", "plugin_version": testplugin.Version}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*api.RegisterPluginInput){
		"sum":     func(i *api.RegisterPluginInput) { i.SHA256 = strings.Repeat("0", 64) },
		"command": func(i *api.RegisterPluginInput) { i.Command = "../" + i.Command },
		"absent":  func(i *api.RegisterPluginInput) { i.Command = "absent" },
		"version": func(i *api.RegisterPluginInput) { i.Version = "v9.9.9" },
		"type":    func(i *api.RegisterPluginInput) { i.Type = api.PluginTypeDatabase },
	} {
		bad := *in
		change(&bad)
		if err := f.root.Sys().RegisterPlugin(&bad); err == nil {
			t.Errorf("registered with a wrong %s", name)
		} else {
			wantStatus(t, err, 400)
		}
	}
	if err := f.root.Sys().DeregisterPlugin(&api.DeregisterPluginInput{Name: "again", Type: api.PluginTypeSecrets, Version: testplugin.Version}); err != nil {
		t.Fatal(err)
	}
}
