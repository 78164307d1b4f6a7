// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/store"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/testplugin"
)

func TestMain(m *testing.M) {
	testplugin.RunIfLaunched()
	os.Exit(m.Run())
}

const rootToken = "test-root"

// clock is a clock that the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fixture is a server in this process with the test plugin in a process of its own, mounted at test/.
type fixture struct {
	t      *testing.T
	server *Server
	http   *httptest.Server
	clock  *clock
	root   *api.Client
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOn(t, store.NewMemory(), &clock{at: time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)})
}

func newFixtureOn(t *testing.T, db store.Store, c *clock) *fixture {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	logger := hclog.NewNullLogger()
	plugins := host.New(logger, Version)
	s, err := New(Config{
		Store: db, Host: plugins, Logger: logger, Now: c.now, RootToken: rootToken, Plugin: self, PluginDir: filepath.Dir(self), StorageType: "inmem",
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, server: s, clock: c}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.EnsureMounted(t.Context(), "test", s.PluginName()); err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		f.http.Close()
		s.Close()
		plugins.Close()
	})
	f.root = f.client(rootToken)
	return f
}

func (f *fixture) client(token string) *api.Client {
	f.t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = f.http.URL
	cfg.MaxRetries = 0
	c, err := api.NewClient(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	c.SetToken(token)
	c.ClearNamespace()
	return c
}

// runDue ends what is due, as the server's loop does all the time.
func (f *fixture) runDue() {
	f.t.Helper()
	f.server.RunDue(context.Background())
}

// counter asks the plugin how often something happened.
func (f *fixture) counter(name string) string {
	f.t.Helper()
	s := must(f.root.Logical().Read("test/counters"))(f.t)
	return text(s.Data[name])
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
