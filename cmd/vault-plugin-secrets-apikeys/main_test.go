// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// The test binary is also the plugin.
const mainEnv = "APIKEYS_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(env, mainEnv+"=1", "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	return cmd
}

func TestFlags(t *testing.T) {
	out, err := command(t, nil, "-version").Output()
	if err != nil || string(out) != version.Version+"\n" {
		t.Errorf("version: %q, %v", out, err)
	}
	out, err = command(t, nil, "-built").Output()
	if err != nil || string(out) != version.Built()+"\n" {
		t.Errorf("built: %q, %v", out, err)
	}
	out, err = command(t, nil, "-no-such-flag").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), `"@level":"error"`) {
		t.Errorf("bad flag: %q, %v", out, err)
	}
	// By hand it explains itself and serves nothing.
	if out, err := command(t, nil).CombinedOutput(); err == nil || !strings.Contains(string(out), "plugin") {
		t.Errorf("by hand: %q, %v", out, err)
	}
}

// What the plugin writes goes to a file: a broken pipe must not be what ends it.
func TestEndsWithItsParent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	served := command(t, append(os.Environ(), "OUT="+out, plugin.HandshakeConfig.MagicCookieKey+"="+plugin.HandshakeConfig.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=5", "VAULT_PLUGIN_AUTOMTLS_ENABLED=true"))
	parent := exec.Command("sh", "-c", `"$0" >"$OUT" 2>&1 & wait`, served.Path)
	parent.Env = served.Env
	parent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-parent.Process.Pid, syscall.SIGKILL) })
	wait := func(text string) {
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
			have, _ := os.ReadFile(out)
			if strings.Contains(string(have), text) {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("no %q in what the plugin wrote:\n%s", text, have)
			}
		}
	}
	wait("|grpc|")
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	wait("the server is gone")
}

// mount is one mount's hold on the process.
type mount struct {
	goplugin.ClientProtocol
	*grpc.ClientConn
}

func (m mount) Conn() grpc.ClientConnInterface { return m }

func (m mount) Reload() error { return nil }

func (m mount) Close() error { return nil }

func (m mount) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return m.ClientConn.Invoke(metadata.AppendToOutgoingContext(ctx, "multiplex_id", "mount"), method, args, reply, opts...)
}

// probe launches the plugin and asks what a catalog asks.
func probe(t *testing.T, protocol int, config *goplugin.ClientConfig) {
	t.Helper()
	config.HandshakeConfig = plugin.HandshakeConfig
	config.VersionedPlugins = map[int]goplugin.PluginSet{
		protocol: {plugin.BackendPluginName: &plugin.GRPCBackendPlugin{}},
	}
	config.AllowedProtocols = []goplugin.Protocol{goplugin.ProtocolGRPC}
	config.Logger = hclog.NewNullLogger()
	client := goplugin.NewClient(config)
	defer client.Kill()
	rpc, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	b, err := plugin.Dispense(rpc, mount{ClientProtocol: rpc, ClientConn: rpc.(*goplugin.GRPCClient).Conn})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Setup(context.Background(), &logical.BackendConfig{Logger: hclog.NewNullLogger()}); err != nil {
		t.Fatal(err)
	}
	if b.Type() != logical.TypeLogical {
		t.Errorf("type is %v", b.Type())
	}
	if v := b.(logical.PluginVersioner).PluginVersion().Version; v != version.Version {
		t.Errorf("version is %q", v)
	}
	b.Cleanup(context.Background())
}

func TestServesWithAutoMTLS(t *testing.T) {
	probe(t, 5, &goplugin.ClientConfig{
		Cmd:      command(t, []string{"VAULT_PLUGIN_AUTOMTLS_ENABLED=true", "VAULT_PLUGIN_METADATA_MODE=false"}),
		AutoMTLS: true,
	})
}

func TestServesInMetadataMode(t *testing.T) {
	probe(t, 4, &goplugin.ClientConfig{
		Cmd: command(t, []string{"VAULT_PLUGIN_AUTOMTLS_ENABLED=false", "VAULT_PLUGIN_METADATA_MODE=true"}),
	})
}

// An old host hands the plugin a token for its certificate.
func TestServesWithWrappedTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plugin.invalid"}, DNSNames: []string{"plugin.invalid"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	certDER, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		t.Fatal(err)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/wrapping/unwrap" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string][]byte{"ServerCert": certDER, "ServerKey": keyDER}})
	}))
	defer server.Close()

	pool := x509.NewCertPool()
	pool.AddCert(cert)
	probe(t, 4, &goplugin.ClientConfig{
		Cmd: command(t, []string{
			"VAULT_PLUGIN_AUTOMTLS_ENABLED=false", "VAULT_PLUGIN_METADATA_MODE=false",
			"VAULT_UNWRAP_TOKEN=" + wrappingToken(server.URL),
		}),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{certDER}, PrivateKey: key, Leaf: cert}},
			RootCAs:      pool, ClientCAs: pool, ServerName: "plugin.invalid", MinVersion: tls.VersionTLS12,
		},
	})
}

// wrappingToken names the server. Its signature is not the plugin's to check.
func wrappingToken(addr string) string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return part(`{"alg":"ES512"}`) + "." + part(fmt.Sprintf(`{"addr":%q}`, addr)) + "." + part("unsigned")
}
