// SPDX-License-Identifier: MPL-2.0

package plugin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func tlsState(t *testing.T) (*tls.ConnectionState, *x509.Certificate) {
	t.Helper()
	conf, _ := hostTLS(t)
	cert := conf.Certificates[0].Leaf
	return &tls.ConnectionState{
		Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: "client.invalid",
		PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}},
	}, cert
}

func TestMountLifecycle(t *testing.T) {
	storage := &logical.InmemStorage{}
	conf := config(storage)
	b := launch(t, launchOpts{}).mount(t, conf)

	if b.Type() != logical.TypeLogical {
		t.Errorf("type is %v", b.Type())
	}
	if v := b.(logical.PluginVersioner).PluginVersion().Version; v != "v1.2.3" {
		t.Errorf("version is %q", v)
	}
	if b.System() != conf.System || b.Logger() != conf.Logger {
		t.Error("system view and logger are not the host's own")
	}
	paths := b.SpecialPaths()
	if paths == nil || !reflect.DeepEqual(*paths, *(&probe{conf: conf}).SpecialPaths()) {
		t.Errorf("special paths are %v", paths)
	}
	got := read(t, b, "setup", nil).Data
	if got["uuid"] != "0b61" || !reflect.DeepEqual(got["config"], map[string]interface{}{"plugin_name": "probe"}) {
		t.Errorf("plugin was set up with %v", got)
	}

	if err := b.Initialize(context.Background(), &logical.InitializationRequest{Storage: storage}); err != nil {
		t.Fatal(err)
	}
	b.InvalidateKey(context.Background(), "role/r")
	for _, key := range []string{"initialized", "invalidated/role/r"} {
		if !stored(t, storage, key) {
			t.Errorf("%s did not reach the plugin", key)
		}
	}
	b.Cleanup(context.Background())
	if !stored(t, storage, "cleaned-up") {
		t.Error("cleanup did not reach the plugin")
	}
	_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "pid"})
	if err == nil || !strings.Contains(err.Error(), "no backend instance found") {
		t.Errorf("request after cleanup: %v", err)
	}
	b.Cleanup(context.Background())
}

func TestCleanupClosesOrReloads(t *testing.T) {
	p := launch(t, launchOpts{})
	for _, reload := range []bool{false, true} {
		client := &mountClient{ClientProtocol: p.rpc, conn: &mountConn{ClientConn: p.conn(), id: "only"}}
		b, err := plugin.Dispense(p.rpc, client)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Setup(context.Background(), config(&logical.InmemStorage{})); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		if reload {
			ctx = context.WithValue(ctx, plugin.ContextKeyPluginReload, "reload")
		}
		b.Cleanup(ctx)
		if (client.reloaded == 1) != reload || (client.closed == 1) == reload {
			t.Errorf("reload %v: reloaded %d, closed %d", reload, client.reloaded, client.closed)
		}
	}
}

func TestFailedSetup(t *testing.T) {
	p := launch(t, launchOpts{})
	conf := config(&logical.InmemStorage{})
	conf.Config = map[string]string{"fail": "will not start"}
	b := p.dispense(t)
	if err := b.Setup(context.Background(), conf); err == nil || err.Error() != "will not start" {
		t.Errorf("got %v", err)
	}
	b.Cleanup(context.Background())

	// A host may clean up what it never set up.
	p.dispense(t).Cleanup(context.Background())

	conf.Config = map[string]string{"fail_initialize": "not today", "no_paths": "yes"}
	b = p.mount(t, conf)
	if err := b.Initialize(context.Background(), nil); !errors.Is(err, errutil.UserError{Err: "not today"}) {
		t.Errorf("got %v", err)
	}
	if paths := b.SpecialPaths(); paths != nil {
		t.Errorf("no special paths became %v", paths)
	}
}

func TestWriteDuringSetupIsRefusedByText(t *testing.T) {
	storage := &sealStorage{Storage: &logical.InmemStorage{}, seal: map[string]bool{}, err: logical.ErrSetupReadOnly}
	conf := config(storage)
	conf.Config = map[string]string{"write": "yes"}
	b := launch(t, launchOpts{}).mount(t, conf)
	if got := read(t, b, "setup", nil).Data["error"]; got != "cannot write to storage during setup" {
		t.Errorf("got %v", got)
	}
}

// A catalog sets a plugin up with nothing, to learn what it is.
func TestCatalog(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, &logical.BackendConfig{})
	if b.Type() != logical.TypeLogical {
		t.Errorf("type is %v", b.Type())
	}
	if v := b.(logical.PluginVersioner).PluginVersion().Version; v != "v1.2.3" {
		t.Errorf("version is %q", v)
	}

	_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "storage"})
	if err == nil || !strings.Contains(err.Error(), "missing storage implementation") {
		t.Errorf("storage without storage: %v", err)
	}
	got := read(t, b, "system", nil).Data
	for name, zero := range map[string]interface{}{
		"default_ttl": "0s", "max_ttl": "0s", "tainted": false, "caching_disabled": false,
		"local": false, "mlock": false, "replication": 0.0,
	} {
		if got[name] != zero {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	for _, name := range []string{"entity", "groups", "version", "password", "cluster", "wrap_call"} {
		if text, _ := got[name+"_error"].(string); !strings.Contains(text, "missing system view implementation") {
			t.Errorf("%s: error is %q", name, text)
		}
	}
}

// wrapView is a system view that can wrap.
type wrapView struct {
	logical.StaticSystemView

	jwt *bool
}

func (v wrapView) ResponseWrapData(_ context.Context, data map[string]interface{}, ttl time.Duration, jwt bool) (*wrapping.ResponseWrapInfo, error) {
	*v.jwt = jwt
	return &wrapping.ResponseWrapInfo{
		Token: fmt.Sprint(data["a"]), TTL: ttl,
		CreationTime: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC),
	}, nil
}

func TestSystemView(t *testing.T) {
	var jwt bool
	view := wrapView{jwt: &jwt, StaticSystemView: logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour, TaintedVal: true, CachingDisabledVal: true,
		LocalMountVal: true, EnableMlock: true, ClusterUUID: "cluster-1",
		ReplicationStateVal: consts.ReplicationPerformanceSecondary | consts.ReplicationDRPrimary,
		EntityVal:           &logical.Entity{ID: "e1", Name: "alice", Metadata: map[string]string{"team": "blue"}},
		GroupsVal:           []*logical.Group{{ID: "g1"}, {ID: "g2"}},
		PluginEnvironment:   &logical.PluginEnvironment{VaultVersion: "1.21.0"},
		PasswordPolicies:    map[string]logical.PasswordGenerator{"policy": func() (string, error) { return "generated", nil }},
	}}
	conf := config(&logical.InmemStorage{})
	conf.System = view
	p := launch(t, launchOpts{})
	got := read(t, p.mount(t, conf), "system", nil).Data
	want := map[string]interface{}{
		"default_ttl": "1h0m0s", "max_ttl": "24h0m0s", "tainted": true, "caching_disabled": true, "local": true, "mlock": true,
		"replication": float64(consts.ReplicationPerformanceSecondary | consts.ReplicationDRPrimary),
		"entity":      "alice/blue", "groups": 2.0, "version": "1.21.0", "password": "generated", "cluster": "cluster-1",
		"wrap": "b/1m0s/2030-01-02T03:04:05.000000006Z", "wrap_call": true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if jwt {
		t.Error("a plugin was given a JWT")
	}

	// A failing view: errors where there is room for them.
	conf.System = &logical.StaticSystemView{PluginEnvironment: &logical.PluginEnvironment{}}
	got = read(t, p.mount(t, conf), "system", nil).Data
	if text, _ := got["password_error"].(string); !strings.Contains(text, "failed to generate password") {
		t.Errorf("password error is %q", text)
	}
	if text, _ := got["wrap_call_error"].(string); text == "" {
		t.Error("wrapping that is not there did not fail")
	}
}

func TestManyMountsInOneProcess(t *testing.T) {
	p := launch(t, launchOpts{})
	if yes, err := pluginutil.MultiplexingSupported(context.Background(), p.conn(), "probe"); err != nil || !yes {
		t.Fatalf("multiplexing: %v, %v", yes, err)
	}

	const mounts = 8
	var wg sync.WaitGroup
	backends := make([]logical.Backend, mounts)
	for i := range backends {
		backends[i] = p.dispense(t)
	}
	pids := make([]interface{}, mounts)
	for i, b := range backends {
		wg.Go(func() {
			storage := &logical.InmemStorage{}
			if err := b.Setup(context.Background(), config(storage)); err != nil {
				t.Error(err)
				return
			}
			for n := range 20 {
				_, err := b.HandleRequest(context.Background(), &logical.Request{
					Operation: logical.UpdateOperation, Path: "storage",
					Data: map[string]interface{}{"do": "put", "key": fmt.Sprintf("%d-%d", i, n)},
				})
				if err != nil {
					t.Error(err)
				}
			}
			keys, err := storage.List(context.Background(), "")
			if err != nil || len(keys) != 20 || !strings.HasPrefix(keys[0], fmt.Sprintf("%d-", i)) {
				t.Errorf("mount %d has %v, %v", i, keys, err)
			}
			resp, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "pid"})
			if err != nil {
				t.Error(err)
				return
			}
			pids[i] = resp.Data["pid"]
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid != pids[0] {
			t.Fatalf("not one process: %v", pids)
		}
	}

	// Ending one leaves the others.
	backends[0].Cleanup(context.Background())
	read(t, backends[1], "pid", nil)
}

func TestNotMultiplexed(t *testing.T) {
	p := launch(t, launchOpts{serve: "single"})
	if yes, err := pluginutil.MultiplexingSupported(context.Background(), p.conn(), "probe"); err != nil || yes {
		t.Fatalf("multiplexing: %v, %v", yes, err)
	}
	// The mount's id is sent all the same.
	b := p.mount(t, config(&logical.InmemStorage{}))
	read(t, b, "pid", nil)
}

func TestMultiplexingOptOut(t *testing.T) {
	p := launch(t, launchOpts{})
	t.Setenv("VAULT_PLUGIN_MULTIPLEXING_OPT_OUT", "other,probe")
	if yes, err := pluginutil.MultiplexingSupported(context.Background(), p.conn(), "probe"); err != nil || yes {
		t.Errorf("opted out: %v, %v", yes, err)
	}
	// OpenBao's name wins where it is present, even empty.
	t.Setenv("BAO_PLUGIN_MULTIPLEXING_OPT_OUT", "")
	if yes, err := pluginutil.MultiplexingSupported(context.Background(), p.conn(), "probe"); err != nil || !yes {
		t.Errorf("not opted out: %v, %v", yes, err)
	}
	if _, err := pluginutil.MultiplexingSupported(context.Background(), nil, "probe"); err == nil {
		t.Error("no connection is no error")
	}
}

func TestMultiplexedCallsNeedAnID(t *testing.T) {
	p := launch(t, launchOpts{})
	for id, text := range map[string]string{"": "empty multiplex ID", "-": "no multiplexing ID found"} {
		client := &mountClient{ClientProtocol: p.rpc, conn: &mountConn{ClientConn: p.conn(), id: id}}
		if id == "-" {
			client.conn = p.conn()
		}
		b, err := plugin.Dispense(p.rpc, client)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Setup(context.Background(), config(&logical.InmemStorage{})); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}
