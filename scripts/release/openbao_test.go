// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestOpenBaoDownloads has a real OpenBao, at least 2.5, take the plugin from a registry, and use
// it. SERVER_BIN names it; `make acceptance` runs this one.
func TestOpenBaoDownloads(t *testing.T) {
	server := os.Getenv("SERVER_BIN")
	if server == "" {
		t.Fatal("SERVER_BIN names no OpenBao")
	}
	atRoot(t)
	t.Setenv("GOWORK", "")
	r := built(t, "v1.2.3-test")
	if err := r.writeLicences(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.writeImages(t.Context()); err != nil {
		t.Fatal(err)
	}

	// The client speaks plain HTTP with loopback.
	host := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(host.Close)
	image := strings.TrimPrefix(host.URL, "http://") + "/apikeys"
	tag, err := name.NewTag(image + ":" + r.version)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, unpacked(t, r.path(plugin, "_oci.tar"), r.version), remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	sum, err := fileSum(r.binaries[0].path)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("another sum", func(t *testing.T) {
		wrong := sum[:len(sum)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(sum, "0")]
		b := startBao(t, server, image, r.version, wrong)
		if !b.ended(t) || !strings.Contains(b.log(), "plugin hash mismatch") {
			t.Errorf("a plugin with another sum was taken:\n%s", b.log())
		}
	})
	t.Run("the sum of SHA256SUMS", func(t *testing.T) {
		b := startBao(t, server, image, r.version, sum)
		b.ready(t)
		b.post(t, "sys/mounts/apikeys", map[string]any{"type": "apikeys", "config": map[string]any{"plugin_version": r.version}})
		b.post(t, "apikeys/roles/orders", map[string]any{"scopes": "orders:read"})
		key, _ := b.post(t, "apikeys/creds/orders", nil)["api_key"].(string)
		if verdict := b.post(t, "apikeys/verify", map[string]any{"key": key}); verdict["valid"] != true {
			t.Errorf("%v", verdict["code"])
		}
		mount, _ := b.call(t, http.MethodGet, "sys/mounts", nil)["apikeys/"].(map[string]any)
		if mount["running_plugin_version"] != r.version || mount["running_sha256"] != sum {
			t.Errorf("%v", mount)
		}
		if !strings.Contains(b.log(), "built=") || !strings.Contains(b.log(), "bootstrap/sdk") {
			t.Errorf("the server's log does not tell what the plugin was built from:\n%s", b.log())
		}
	})
}

const rootToken = "root"

// bao is a server in development mode that takes one plugin from a registry.
type bao struct {
	address string
	cmd     *exec.Cmd
	done    chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (b *bao) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *bao) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func startBao(t *testing.T, server, image, version, sum string) *bao {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "server.hcl")
	text := fmt.Sprintf(`plugin_directory     = %q
plugin_auto_download = true
plugin_auto_register = true

plugin "secret" "apikeys" {
  image       = %q
  version     = %q
  sha256sum   = %q
  binary_name = %q
}
`, plugins, image, version, sum, plugin)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bao{address: l.Addr().String(), done: make(chan struct{})}
	l.Close()
	ctx, stop := context.WithCancel(context.Background())
	b.cmd = exec.CommandContext(ctx, server, "server", "-dev", "-dev-root-token-id="+rootToken, "-dev-listen-address="+b.address, "-dev-no-store-token", "-config="+config)
	b.cmd.Env = append(os.Environ(), "HOME="+dir)
	b.cmd.Stdout, b.cmd.Stderr = b, b
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = b.cmd.Wait()
		close(b.done)
	}()
	t.Cleanup(func() {
		stop()
		<-b.done
		if t.Failed() {
			t.Log(b.log())
		}
	})
	return b
}

// ended reports whether the server gave up by itself.
func (b *bao) ended(t *testing.T) bool {
	t.Helper()
	select {
	case <-b.done:
		return true
	case <-time.After(time.Minute):
		return false
	}
}

// ready waits until the server has registered the plugin.
func (b *bao) ready(t *testing.T) {
	t.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); {
		select {
		case <-b.done:
			t.Fatalf("the server ended:\n%s", b.log())
		case <-poll.C:
		}
		if status, _ := b.do(t, http.MethodGet, "sys/plugins/catalog/secret/apikeys?version=v1.2.3-test", nil); status == http.StatusOK {
			return
		}
	}
	t.Fatalf("the plugin was not registered:\n%s", b.log())
}

func (b *bao) post(t *testing.T, path string, body map[string]any) map[string]any {
	t.Helper()
	return b.call(t, http.MethodPost, path, body)
}

func (b *bao) call(t *testing.T, method, path string, body map[string]any) map[string]any {
	t.Helper()
	status, answer := b.do(t, method, path, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d", method, path, status)
	}
	data, _ := answer["data"].(map[string]any)
	return data
}

// do asks the server; what it cannot reach has status 0.
func (b *bao) do(t *testing.T, method, path string, body map[string]any) (int, map[string]any) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+b.address+"/v1/"+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", rootToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	answer := map[string]any{}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && resp.StatusCode != http.StatusNoContent {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, answer
}

func TestMain(m *testing.M) {
	if runtime.GOOS != "linux" {
		fmt.Fprintln(os.Stderr, "releases are checked on Linux")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
