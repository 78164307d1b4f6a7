// SPDX-License-Identifier: MPL-2.0

package plugin_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

const (
	probeServerName = "probe.invalid"
	patience        = 30 * time.Second
)

// launchOpts says how a host launches the plugin.
type launchOpts struct {
	serve        string // "multiplex" (default) or "single"
	versions     []int  // default: 5
	noMTLS       bool
	metadata     bool // what the process is told
	metadataHost bool // what the host's own side is told
	wrapTLS      bool
}

// process is a launched plugin.
type process struct {
	client *goplugin.Client
	cmd    *exec.Cmd
	rpc    goplugin.ClientProtocol
	mounts int
}

func launch(t *testing.T, o launchOpts) *process {
	t.Helper()
	p, err := tryLaunch(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryLaunch(t *testing.T, o launchOpts) (*process, error) {
	t.Helper()
	if o.serve == "" {
		o.serve = "multiplex"
	}
	if o.versions == nil {
		o.versions = []int{5}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{
		probeEnv + "=" + o.serve,
		// A race in the plugin shall not go unnoticed in its log.
		"GORACE=halt_on_error=1 atexit_sleep_ms=0",
	}
	for _, prefix := range []string{"VAULT_", "BAO_"} {
		cmd.Env = append(
			cmd.Env,
			fmt.Sprintf("%sPLUGIN_AUTOMTLS_ENABLED=%t", prefix, !o.noMTLS),
			fmt.Sprintf("%sPLUGIN_METADATA_MODE=%t", prefix, o.metadata),
			prefix+"VERSION=1.21.0",
		)
	}
	config := &goplugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig,
		VersionedPlugins: map[int]goplugin.PluginSet{},
		Cmd:              cmd,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
		AutoMTLS:         !o.noMTLS,
	}
	for _, v := range o.versions {
		config.VersionedPlugins[v] = goplugin.PluginSet{
			plugin.BackendPluginName: &plugin.GRPCBackendPlugin{MetadataMode: o.metadataHost},
		}
	}
	if o.wrapTLS {
		var text string
		config.TLSConfig, text = hostTLS(t)
		cmd.Env = append(cmd.Env, probeTLSEnv+"="+text)
	}

	p := &process{client: goplugin.NewClient(config), cmd: cmd}
	t.Cleanup(p.client.Kill)
	p.rpc, err = p.client.Client()
	return p, err
}

// hostTLS makes the certificate that both ends share.
func hostTLS(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: probeServerName},
		DNSNames:              []string{probeServerName},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	_ = pem.Encode(&text, &pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})

	cert, err := tls.X509KeyPair(text.Bytes(), text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text.Bytes())
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ServerName:   probeServerName,
		MinVersion:   tls.VersionTLS12,
	}, text.String()
}

func (p *process) conn() *grpc.ClientConn { return p.rpc.(*goplugin.GRPCClient).Conn }

// dispense returns one more mount of the process.
func (p *process) dispense(t *testing.T) logical.Backend {
	t.Helper()
	p.mounts++
	backend, err := plugin.Dispense(p.rpc, &mountClient{
		ClientProtocol: p.rpc,
		conn:           &mountConn{ClientConn: p.conn(), id: fmt.Sprintf("mount%05d", p.mounts)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return backend
}

// mount is dispense and what a server does to mount a backend.
func (p *process) mount(t *testing.T, conf *logical.BackendConfig) logical.Backend {
	t.Helper()
	backend := p.dispense(t)
	if err := backend.Setup(context.Background(), conf); err != nil {
		t.Fatal(err)
	}
	return backend
}

func config(storage logical.Storage) *logical.BackendConfig {
	return &logical.BackendConfig{
		StorageView: storage,
		Logger:      hclog.NewNullLogger(),
		System:      &logical.StaticSystemView{},
		BackendUUID: "0b61",
		Config:      map[string]string{"plugin_name": "probe"},
	}
}

// mountClient is one mount's hold on a process that outlives it.
type mountClient struct {
	goplugin.ClientProtocol

	conn     grpc.ClientConnInterface
	closed   int
	reloaded int
}

func (c *mountClient) Conn() grpc.ClientConnInterface { return c.conn }

func (c *mountClient) Reload() error {
	c.reloaded++
	return nil
}

func (c *mountClient) Close() error {
	c.closed++
	return nil
}

var _ pluginutil.PluginClient = (*mountClient)(nil)

// mountConn names the mount in each call.
type mountConn struct {
	*grpc.ClientConn

	id string
}

func (c *mountConn) Invoke(ctx context.Context, method string, args, reply interface{}, opts ...grpc.CallOption) error {
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs(pluginutil.MultiplexingCtxKey, c.id))
	return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// read is a request as a server sends it.
func read(t *testing.T, b logical.Backend, path string, data map[string]interface{}) *logical.Response {
	t.Helper()
	resp, err := b.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.ReadOperation,
		Path:      path,
		Data:      data,
	})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp
}

// eventually polls for something another process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func stored(t *testing.T, s logical.Storage, key string) bool {
	t.Helper()
	entry, err := s.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return entry != nil
}

// processGone reports whether err is one of the two faces of a dead plugin: the call that was cut off,
// and the calls after it.
func processGone(err error) bool {
	return errors.Is(err, plugin.ErrPluginShutdown) || status.Code(err) == codes.Unavailable
}
