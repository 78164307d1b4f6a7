// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// benchPluginEnv makes this test binary a plugin: the engine with one path more,
// whose handler does nothing.
const benchPluginEnv = "APIKEYS_BENCH_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(benchPluginEnv) == "" {
		os.Exit(m.Run())
	}
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: emptyPathFactory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func emptyPathFactory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := newBackend(systemClock{}, rand.Reader)
	// An answer of the size that a verdict has.
	verdict := map[string]any{
		"valid": true, "code": "VALID", "now": "2026-03-02T09:00:00Z", "state": "current", "reason": "", "expires_at": "", "end": "",
		"cache_ttl": int64(30), "role": "orders", "role_id": "00000000-0000-4000-8000-000000000000", "key_id": "000000000000", "version": 1,
		"scopes": []string{"orders:read", "orders:write"}, "metadata": map[string]string{"team": "shop"}, "rate_limit": 0.0,
	}
	b.Paths = append([]*framework.Path{{
		Pattern: "empty", Fields: verifyFields().schemas(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
					return &logical.Response{Data: verdict}, nil
				},
			},
		},
	}}, b.Paths...)
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	return &bareBackend{b, verdict}, nil
}

// bareBackend answers one path before the engine or the framework see it: the
// way to the process and back, and nothing else.
type bareBackend struct {
	*backend
	verdict map[string]any
}

func (b *bareBackend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if req.Path == "bare" {
		return &logical.Response{Data: b.verdict}, nil
	}
	return b.backend.HandleRequest(ctx, req)
}

// pluginProcess is a mount of the engine in a process of its own, whose storage
// is in this one.
type pluginProcess struct {
	logical.Backend
	goplugin.ClientProtocol

	client *goplugin.Client
	conn   *grpc.ClientConn
	ready  time.Duration // from the launch until it has answered a read
}

// Conn names the mount in every call.
func (p *pluginProcess) Conn() grpc.ClientConnInterface { return mountConn{p.conn} }

func (p *pluginProcess) Reload() error { return p.Close() }

func (p *pluginProcess) Close() error {
	p.client.Kill()
	return nil
}

type mountConn struct{ *grpc.ClientConn }

func (c mountConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConn.Invoke(metadata.AppendToOutgoingContext(ctx, pluginutil.MultiplexingCtxKey, "bench"), method, args, reply, opts...)
}

// launch starts a plugin on the storage, as a server does.
func launch(b *testing.B, path string, s logical.Storage, env ...string) *pluginProcess {
	b.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(append(os.Environ(), env...), "VAULT_PLUGIN_AUTOMTLS_ENABLED=true", "VAULT_PLUGIN_METADATA_MODE=false", "VAULT_VERSION=1.21.0")
	began := time.Now()
	p := &pluginProcess{client: goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig, VersionedPlugins: plugin.PluginSet, Cmd: cmd, AutoMTLS: true,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})}
	b.Cleanup(p.client.Kill)
	var err error
	if p.ClientProtocol, err = p.client.Client(); err != nil {
		b.Fatal(err)
	}
	p.conn = p.ClientProtocol.(*goplugin.GRPCClient).Conn
	if p.Backend, err = plugin.Dispense(p.ClientProtocol, p); err != nil {
		b.Fatal(err)
	}
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: sys, StorageView: s, BackendUUID: "bench"}
	if err := p.Setup(b.Context(), conf); err != nil {
		b.Fatal(err)
	}
	if err := p.Initialize(b.Context(), &logical.InitializationRequest{Storage: s}); err != nil {
		b.Fatal(err)
	}
	p.ready = time.Since(began)
	return p
}

// send is one request, which has to succeed.
func (p *pluginProcess) send(b *testing.B, s logical.Storage, op logical.Operation, path string, data map[string]any) *logical.Response {
	b.Helper()
	resp, err := p.HandleRequest(b.Context(), &logical.Request{Operation: op, Path: path, Data: data, Storage: s, MountPoint: "apikeys/"})
	if err != nil || resp.IsError() {
		b.Fatal(path, resp, err)
	}
	return resp
}

// resident is the process's memory, in MiB; false where the system does not say.
func (p *pluginProcess) resident(b *testing.B) (float64, bool) {
	b.Helper()
	status, err := os.ReadFile("/proc/" + p.client.ID() + "/status")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(status) {
		if text, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024, true
		}
	}
	return 0, false
}

// buildPlugin makes the plugin that is shipped.
func buildPlugin(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "plugin")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "../cmd/vault-plugin-secrets-apikeys")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building the plugin: %v\n%s", err, out)
	}
	return path
}

// BenchmarkProcess is the shipped plugin in a process of its own: how soon it is
// ready, and how much memory it has after the start, after 100,000 reads of as
// many roles, and after a part of a tidy pass on top.
func BenchmarkProcess(b *testing.B) {
	path := buildPlugin(b)
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("roles=%d", n), func(b *testing.B) {
			s := newTreeStore()
			fillStore(b, s, n)
			c := &calls{Storage: s}
			best := time.Hour
			for range 5 {
				p := launch(b, path, c)
				best = min(best, p.ready)
				p.client.Kill()
			}
			c.all.Store(0)
			c.lists.Store(0)
			p := launch(b, path, c)
			metrics := map[string]float64{"ms-to-ready": ms(best), "calls": float64(c.all.Load()), "lists": float64(c.lists.Load())}
			if mib, ok := p.resident(b); ok {
				metrics["MiB"] = mib
			}
			once(b, "start", metrics)
			const reads = 100000
			for i := range reads {
				p.send(b, c, logical.ReadOperation, "creds/"+benchRole(i%(n+2*dueRoles)), nil)
			}
			if mib, ok := p.resident(b); ok {
				once(b, "reads=100000", map[string]float64{"MiB": mib})
			}
			// The longest lists that the engine ever asks for are tidy's.
			p.send(b, c, logical.UpdateOperation, "tidy", nil)
			if mib, ok := p.resident(b); ok {
				once(b, "tidy", map[string]float64{"MiB": mib})
			}
		})
	}
}

// BenchmarkServer asks a plugin process for verdicts and, in between, the same
// process for nothing with requests and answers of the same size: what the
// verdict itself costs beside the way there and back. empty is a handler of the
// framework's; bare is answered before that, as no handler can be.
func BenchmarkServer(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := newTreeStore()
	p := launch(b, self, s, benchPluginEnv+"=1")
	p.send(b, s, logical.CreateOperation, "roles/orders", map[string]any{"scopes": "orders:read,orders:write", "metadata": map[string]any{"team": "shop"}})
	data := map[string]any{"key": p.send(b, s, logical.ReadOperation, "creds/orders", nil).Data["api_key"]}
	const round = 50
	paths := []string{"verify", "empty", "bare"}
	spent := map[string]time.Duration{}
	ask := func(path string) {
		began := time.Now()
		for range round {
			p.send(b, s, logical.UpdateOperation, path, data)
		}
		spent[path] += time.Since(began)
	}
	for _, path := range paths {
		if resp := p.send(b, s, logical.UpdateOperation, path, data); resp.Data["valid"] != true {
			b.Fatal(path, resp)
		}
	}
	rounds := 0
	for b.Loop() {
		// The one that comes first changes, so that none has an advantage.
		for i := range paths {
			ask(paths[(i+rounds)%len(paths)])
		}
		rounds++
	}
	b.ReportMetric(0, "ns/op")
	for _, path := range paths {
		b.ReportMetric(float64(spent[path].Nanoseconds())/float64(rounds*round), "ns/"+path)
		if path != "verify" {
			b.ReportMetric(100*float64(spent[path])/float64(spent["verify"]), "%-of-"+path)
		}
	}
}

// cpu is what the process has computed so far, in seconds of one core; 0 where the
// system does not say.
func (p *pluginProcess) cpu(b *testing.B) float64 {
	b.Helper()
	stat, err := os.ReadFile("/proc/" + p.client.ID() + "/stat")
	if err != nil {
		return 0
	}
	const ticks = 100 // per second, wherever Linux runs
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	fields := bytes.Fields(rest)
	var sum float64
	for _, field := range fields[11:13] { // user and system time
		n, err := strconv.ParseFloat(string(field), 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return sum / ticks
}
