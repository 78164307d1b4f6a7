// SPDX-License-Identifier: MPL-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/store"
)

// cleanupLimit bounds a plugin's clean-up: one that hangs is killed.
const cleanupLimit = 10 * time.Second

// exitLimit is how long a broken connection is given to turn out to be a dead process.
const exitLimit = 2 * time.Second

// MountConfig is what a mount's plugin instance is set up with.
type MountConfig struct {
	// Command is asked at every start, so that a re-registered plugin takes effect at a reload.
	Command func() (Command, error)
	Storage *store.View
	System  logical.SystemView
	Logger  hclog.Logger
	UUID    string
	// Options end up in the plugin's configuration together with its name, type and version.
	Options map[string]string
}

// Mount is one instance of a plugin. Calls drain before it is reloaded or closed.
type Mount struct {
	host *Host
	cfg  MountConfig

	mu      sync.RWMutex
	backend logical.Backend
	conn    *connection
	special *logical.Paths
	version string
	// generation counts starts, so that of many calls that saw one process die only one replaces it.
	generation int
	closed     bool
}

var errClosed = errors.New("the mount is closed")

// NewMount prepares an instance. Start starts it; failing that, the first call tries.
func (h *Host) NewMount(cfg MountConfig) *Mount {
	return &Mount{host: h, cfg: cfg, special: &logical.Paths{}}
}

// Start starts the instance: Setup, Type, SpecialPaths, Initialize.
func (m *Mount) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.start(ctx)
}

// start needs the write lock.
func (m *Mount) start(ctx context.Context) (err error) {
	cmd, err := m.cfg.Command()
	if err != nil {
		return err
	}
	conn, err := m.host.connect(ctx, cmd, true)
	if err != nil {
		return err
	}
	backend, err := plugin.Dispense(conn.process.rpc, conn)
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("dispense plugin: %w", err)
	}
	defer func() {
		if err != nil {
			m.cleanup(backend, conn)
		}
	}()
	config := map[string]string{}
	for k, v := range m.cfg.Options {
		config[k] = v
	}
	config["plugin_name"], config["plugin_type"], config["plugin_version"] = cmd.Name, "secret", cmd.Version
	m.cfg.Storage.Refuse(logical.ErrSetupReadOnly)
	err = backend.Setup(ctx, &logical.BackendConfig{
		StorageView: m.cfg.Storage,
		Logger:      m.cfg.Logger,
		System:      m.cfg.System,
		BackendUUID: m.cfg.UUID,
		Config:      config,
	})
	m.cfg.Storage.Refuse(nil)
	if err != nil {
		return fmt.Errorf("set up plugin %s: %w", cmd.Name, err)
	}
	if t := backend.Type(); t != logical.TypeLogical {
		return fmt.Errorf("plugin %s is of type %s, not a secrets engine", cmd.Name, t)
	}
	special := backend.SpecialPaths()
	if special == nil {
		special = &logical.Paths{}
	}
	if err := backend.Initialize(ctx, &logical.InitializationRequest{Storage: m.cfg.Storage}); err != nil {
		return fmt.Errorf("initialize plugin %s: %w", cmd.Name, err)
	}
	m.backend, m.conn, m.special, m.version = backend, conn, special, runningVersion(backend)
	m.generation++
	return nil
}

func runningVersion(b logical.Backend) string {
	if v, ok := b.(logical.PluginVersioner); ok {
		return v.PluginVersion().Version
	}
	return ""
}

// HandleRequest passes req to the plugin. A plugin that died is started anew and asked once more.
func (m *Mount) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	var resp *logical.Response
	err := m.call(ctx, func(b logical.Backend) (err error) {
		resp, err = b.HandleRequest(ctx, req)
		return err
	})
	return resp, err
}

// HandleExistenceCheck asks whether the request would create something, with the same second try.
func (m *Mount) HandleExistenceCheck(ctx context.Context, req *logical.Request) (found, exists bool, err error) {
	err = m.call(ctx, func(b logical.Backend) (err error) {
		found, exists, err = b.HandleExistenceCheck(ctx, req)
		return err
	})
	return found, exists, err
}

func (m *Mount) call(ctx context.Context, f func(logical.Backend) error) error {
	for attempt := 0; ; attempt++ {
		generation, err := m.once(ctx, f)
		if err == nil || attempt > 0 || !errors.Is(err, plugin.ErrPluginShutdown) {
			return err
		}
		if err := m.respawn(ctx, generation); err != nil {
			return err
		}
	}
}

func (m *Mount) once(ctx context.Context, f func(logical.Backend) error) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case m.closed:
		return m.generation, errClosed
	case m.backend == nil:
		return m.generation, plugin.ErrPluginShutdown
	}
	err := f(m.backend)
	if status.Code(err) == codes.Unavailable && m.exited(ctx) {
		err = plugin.ErrPluginShutdown
	}
	return m.generation, err
}

// exited reports whether the process is dead, and waits for that: the connection breaks a moment earlier.
func (m *Mount) exited(ctx context.Context) bool {
	deadline := time.NewTimer(exitLimit)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !m.conn.process.client.Exited() {
		select {
		case <-ctx.Done():
			return false
		case <-deadline.C:
			return false
		case <-poll.C:
		}
	}
	return true
}

func (m *Mount) respawn(ctx context.Context, generation int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	if m.generation != generation {
		return nil
	}
	m.cfg.Logger.Warn("plugin process is gone, starting it again")
	m.stop()
	// The start serves everybody, so it does not end with the one caller that happened to trigger it.
	return m.start(context.WithoutCancel(ctx))
}

// Reload waits for calls under way, cleans up, ends the process and starts it anew.
func (m *Mount) Reload(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	if m.conn != nil {
		m.conn.kill.Store(true)
	}
	m.stop()
	return m.start(ctx)
}

// Close cleans up and gives the process back.
func (m *Mount) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.stop()
}

func (m *Mount) stop() {
	if m.backend != nil {
		m.cleanup(m.backend, m.conn)
	}
	m.backend, m.conn = nil, nil
}

func (m *Mount) cleanup(b logical.Backend, conn *connection) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	done := make(chan struct{})
	go func() {
		defer cancel()
		// A dead process cannot accept the brokered connection that the SDK's client waits to close.
		if !conn.process.client.Exited() {
			b.Cleanup(ctx)
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(cleanupLimit):
		m.cfg.Logger.Warn("plugin did not clean up in time, killing it")
		_ = conn.Reload()
	}
	_ = conn.Close()
}

// SpecialPaths are those the plugin declared at its last start.
func (m *Mount) SpecialPaths() *logical.Paths {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.special
}

// Version is the plugin's own, as of its last start.
func (m *Mount) Version() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.version
}

// PID is the process that serves the mount, 0 if there is none.
func (m *Mount) PID() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.conn == nil {
		return 0
	}
	pid, _ := strconv.Atoi(m.conn.process.client.ID())
	return pid
}

// Probe starts the plugin without storage, as a catalog does, and returns its version.
func (h *Host) Probe(ctx context.Context, cmd Command) (version string, err error) {
	conn, err := h.connect(ctx, cmd, false)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Reload() }()
	b, err := plugin.Dispense(conn.process.rpc, conn)
	if err != nil {
		return "", fmt.Errorf("dispense plugin: %w", err)
	}
	if err := b.Setup(ctx, &logical.BackendConfig{Logger: h.logger}); err != nil {
		return "", fmt.Errorf("set up plugin %s: %w", cmd.Name, err)
	}
	if t := b.Type(); t != logical.TypeLogical {
		return "", fmt.Errorf("plugin %s is of type %s, not a secrets engine", cmd.Name, t)
	}
	return runningVersion(b), nil
}
