// SPDX-License-Identifier: MPL-2.0

package plugin_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

// Versions 3 and 4 bring their own TLS, and one mount.
func TestOlderVersions(t *testing.T) {
	for _, version := range []int{3, 4} {
		p := launch(t, launchOpts{versions: []int{version}, noMTLS: true, wrapTLS: true})
		if got := p.client.NegotiatedVersion(); got != version {
			t.Errorf("negotiated %d", got)
		}
		if yes, err := pluginutil.MultiplexingSupported(context.Background(), p.conn(), "probe"); err != nil || yes {
			t.Errorf("multiplexing: %v, %v", yes, err)
		}
		b := p.mount(t, config(&logical.InmemStorage{}))
		read(t, b, "storage", map[string]interface{}{"do": "put", "key": "k", "value": "v"})
		if got := read(t, b, "storage", map[string]interface{}{"key": "k"}).Data["value"]; got != "v" {
			t.Errorf("got %v", got)
		}
		b.Cleanup(context.Background())
	}
}

func TestNegotiation(t *testing.T) {
	p := launch(t, launchOpts{versions: []int{3, 4, 5}})
	if got := p.client.NegotiatedVersion(); got != 5 {
		t.Errorf("negotiated %d", got)
	}
	if _, err := tryLaunch(t, launchOpts{versions: []int{6}}); err == nil {
		t.Error("negotiated a version that does not exist")
	}
}

func TestMetadataMode(t *testing.T) {
	old := launchOpts{versions: []int{3, 4}, noMTLS: true, metadata: true, metadataHost: true}
	p := launch(t, old)
	b := p.mount(t, &logical.BackendConfig{Logger: hclog.NewNullLogger()})
	if b.Type() != logical.TypeLogical || b.SpecialPaths() == nil {
		t.Error("type and special paths are not served")
	}
	if v := b.(logical.PluginVersioner).PluginVersion().Version; v != "v1.2.3" {
		t.Errorf("version is %q", v)
	}
	if _, err := b.HandleRequest(context.Background(), &logical.Request{}); !errors.Is(err, plugin.ErrClientInMetadataMode) {
		t.Errorf("request: %v", err)
	}
	if _, _, err := b.HandleExistenceCheck(context.Background(), &logical.Request{}); !errors.Is(err, plugin.ErrClientInMetadataMode) {
		t.Errorf("existence check: %v", err)
	}
	if err := b.Initialize(context.Background(), nil); err != nil {
		t.Errorf("initialize: %v", err)
	}
	b.InvalidateKey(context.Background(), "k")
	b.Cleanup(context.Background())

	// The plugin refuses by itself.
	old.metadataHost = false
	b = launch(t, old).mount(t, config(&logical.InmemStorage{}))
	_, reqErr := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "pid"})
	_, _, checkErr := b.HandleExistenceCheck(context.Background(), &logical.Request{})
	for _, err := range []error{reqErr, checkErr, b.Initialize(context.Background(), nil)} {
		if err == nil || !strings.Contains(err.Error(), plugin.ErrServerInMetadataMode.Error()) {
			t.Errorf("got %v", err)
		}
	}
}

// respawning is a host's wrapper: it starts a dead plugin again and repeats
// the request once.
type respawning struct {
	t       *testing.T
	conf    *logical.BackendConfig
	backend logical.Backend
	process *process
	spawned int
}

func (r *respawning) spawn() {
	r.spawned++
	r.process = launch(r.t, launchOpts{})
	r.backend = r.process.mount(r.t, r.conf)
}

func (r *respawning) read(path string, data map[string]interface{}) (*logical.Response, error) {
	req := &logical.Request{Operation: logical.ReadOperation, Path: path, Data: data}
	resp, err := r.backend.HandleRequest(context.Background(), req)
	if !processGone(err) {
		return resp, err
	}
	r.backend.Cleanup(context.Background())
	r.spawn()
	return r.backend.HandleRequest(context.Background(), req)
}

func TestKilledPluginIsRespawned(t *testing.T) {
	r := &respawning{t: t, conf: config(&logical.InmemStorage{})}
	r.spawn()
	if _, err := r.read("storage", map[string]interface{}{"do": "put", "key": "k", "value": "kept"}); err != nil {
		t.Fatal(err)
	}
	if err := r.process.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	resp, err := r.read("storage", map[string]interface{}{"key": "k"})
	if err != nil || resp.Data["value"] != "kept" || r.spawned != 2 {
		t.Fatalf("got %v, %v after %d spawns", resp, err, r.spawned)
	}
}

func TestDeadPlugin(t *testing.T) {
	p := launch(t, launchOpts{})
	b := p.mount(t, config(&logical.InmemStorage{}))
	_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "exit"})
	if !processGone(err) {
		t.Errorf("the call that killed it: %v", err)
	}
	eventually(t, "the host notices", func() bool {
		_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "pid"})
		return errors.Is(err, plugin.ErrPluginShutdown)
	})
	if _, _, err := b.HandleExistenceCheck(context.Background(), &logical.Request{}); !errors.Is(err, plugin.ErrPluginShutdown) {
		t.Errorf("existence check: %v", err)
	}
	if err := b.Initialize(context.Background(), nil); !errors.Is(err, plugin.ErrPluginShutdown) {
		t.Errorf("initialize: %v", err)
	}
	if b.Type() != logical.TypeUnknown || b.SpecialPaths() != nil {
		t.Error("a dead plugin has a type or special paths")
	}
	if v := b.(logical.PluginVersioner).PluginVersion(); v != logical.EmptyPluginVersion {
		t.Errorf("version is %v", v)
	}
	b.InvalidateKey(context.Background(), "k")
	b.Cleanup(context.Background())
}
