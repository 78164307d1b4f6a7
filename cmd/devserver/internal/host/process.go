// SPDX-License-Identifier: MPL-2.0

// Package host runs plugin binaries the way a Vault server does: over go-plugin with AutoMTLS, many
// mounts in one process where the plugin can, and a dead process replaced at the next call.
package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Command is a plugin binary as the catalog has it.
type Command struct {
	Name    string
	Version string
	Path    string
	Args    []string
	Env     []string
	// SHA256 is what the binary must have; nil accepts the binary as it is at each start.
	SHA256 []byte
}

func (c Command) key() string {
	return fmt.Sprintf("%q %q %q %q %q %x", c.Name, c.Version, c.Path, c.Args, c.Env, c.SHA256)
}

// Host owns the plugin processes.
type Host struct {
	logger  hclog.Logger
	version string
	// starts runs on one OS thread for the life of the Host: Linux ties the signal that ends an
	// orphaned child to the thread that started it.
	starts chan func()

	mu        sync.Mutex
	processes map[string]*process
	closed    bool
}

// New returns a Host that presents itself to plugins as the given server version.
func New(logger hclog.Logger, serverVersion string) *Host {
	h := &Host{logger: logger, version: serverVersion, starts: make(chan func()), processes: map[string]*process{}}
	go func() {
		runtime.LockOSThread()
		for f := range h.starts {
			f()
		}
	}()
	return h
}

// Close kills what still runs. Mounts are closed before, so normally nothing does.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	for _, p := range h.processes {
		p.client.Kill()
	}
	close(h.starts)
}

// process is one running plugin binary.
type process struct {
	key         string
	client      *goplugin.Client
	rpc         goplugin.ClientProtocol
	conn        *grpc.ClientConn
	multiplexed bool
	// refs counts connections; guarded by Host.mu.
	refs int
}

// connection is one mount's use of a process. It is the plugin client that the SDK's host side expects.
type connection struct {
	goplugin.ClientProtocol
	host    *Host
	process *process
	id      string

	once sync.Once
	kill atomic.Bool
}

var _ pluginutil.PluginClient = (*connection)(nil)

// Conn carries the id by which a process with several mounts tells them apart.
func (c *connection) Conn() grpc.ClientConnInterface {
	return idConn{ClientConn: c.process.conn, id: c.id}
}

// Close gives the connection back; the last one ends the process.
func (c *connection) Close() error {
	c.once.Do(func() { c.host.release(c.process, c.kill.Load()) })
	return nil
}

// Reload ends the process whoever else uses it.
func (c *connection) Reload() error {
	c.kill.Store(true)
	return c.Close()
}

type idConn struct {
	*grpc.ClientConn
	id string
}

func (c idConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConn.Invoke(c.mark(ctx), method, args, reply, opts...)
}

func (c idConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConn.NewStream(c.mark(ctx), desc, method, opts...)
}

func (c idConn) mark(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pluginutil.MultiplexingCtxKey, c.id))
}

// connect returns a connection to a process for cmd, a running one if that may be shared.
func (h *Host) connect(ctx context.Context, cmd Command, shared bool) (*connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("the server is stopping")
	}
	p := h.processes[cmd.key()]
	if p == nil || p.client.Exited() || !shared {
		var err error
		if p, err = h.spawn(ctx, cmd); err != nil {
			return nil, err
		}
		if shared && p.multiplexed {
			h.processes[p.key] = p
		}
	}
	p.refs++
	return &connection{ClientProtocol: p.rpc, host: h, process: p, id: rand.Text()[:10]}, nil
}

func (h *Host) release(p *process, kill bool) {
	h.mu.Lock()
	p.refs--
	last := p.refs <= 0 || kill
	if last && h.processes[p.key] == p {
		delete(h.processes, p.key)
	}
	h.mu.Unlock()
	if last {
		p.client.Kill()
	}
}

func (h *Host) spawn(ctx context.Context, cmd Command) (*process, error) {
	sum := cmd.SHA256
	if sum == nil {
		var err error
		if sum, err = Checksum(cmd.Path); err != nil {
			return nil, err
		}
	}
	//nolint:noctx // the process outlives the request that starts it
	child := exec.Command(cmd.Path, cmd.Args...)
	child.Env = h.environment(cmd)
	child.SysProcAttr = endWithParent()
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig,
		VersionedPlugins: plugin.PluginSet,
		Cmd:              child,
		SecureConfig:     &goplugin.SecureConfig{Checksum: sum, Hash: sha256.New()},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           h.logger.Named(keyformat.Redact(cmd.Name)),
		AutoMTLS:         true,
		SkipHostEnv:      true,
	})
	started := make(chan error, 1)
	h.starts <- func() {
		_, err := client.Start()
		started <- err
	}
	if err := <-started; err != nil {
		client.Kill()
		return nil, fmt.Errorf("start plugin %s: %w", cmd.Name, err)
	}
	rpc, err := client.Client()
	if err != nil {
		client.Kill()
		return nil, fmt.Errorf("connect to plugin %s: %w", cmd.Name, err)
	}
	grpcClient, ok := rpc.(*goplugin.GRPCClient)
	if !ok {
		client.Kill()
		return nil, fmt.Errorf("plugin %s does not speak gRPC", cmd.Name)
	}
	p := &process{key: cmd.key(), client: client, rpc: rpc, conn: grpcClient.Conn}
	if p.multiplexed, err = pluginutil.MultiplexingSupported(ctx, p.conn, cmd.Name); err != nil {
		client.Kill()
		return nil, fmt.Errorf("ask plugin %s whether it multiplexes: %w", cmd.Name, err)
	}
	return p, nil
}

// environment is what a Vault and an OpenBao server would set, so that plugins for either start here.
// A client token that this process was started with is no plugin's business.
func (h *Host) environment(cmd Command) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == "VAULT_TOKEN" || name == "BAO_TOKEN"
	})
	env = append(env, cmd.Env...)
	for _, kv := range []string{"PLUGIN_AUTOMTLS_ENABLED=true", "PLUGIN_METADATA_MODE=false", "VERSION=" + h.version} {
		env = append(env, "VAULT_"+kv, "BAO_"+kv)
	}
	return env
}

// Checksum is the SHA-256 of a file.
func Checksum(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open plugin binary: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, fmt.Errorf("read plugin binary: %w", err)
	}
	return sum.Sum(nil), nil
}
