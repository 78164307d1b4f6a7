// SPDX-License-Identifier: MPL-2.0

// Package server is the development server: the part of Vault's HTTP API around one secrets engine,
// with mounts, tokens, policies, leases and wrapping, over a store and a plugin host.
package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/acl"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/store"
)

// Version is what clients see. It is of Vault's form because clients compare it; the build part says what this is.
const Version = "1.20.0+apikeys-devserver"

// Lease durations of a mount or token that sets none, as in Vault.
const (
	systemDefaultTTL = 768 * time.Hour
	systemMaxTTL     = 768 * time.Hour
)

// rollbackLimit bounds one periodic call.
const rollbackLimit = 90 * time.Second

// errSealed maps to 503 by its text.
var errSealed = errors.New("Vault is sealed") //nolint:staticcheck // the text is part of the API

// Config is what a Server is made of.
type Config struct {
	Store  store.Store
	Host   *host.Host
	Logger hclog.Logger
	// Now is the clock of leases, tokens and wrapped answers.
	Now func() time.Time
	// RootToken is the token that may do everything.
	RootToken string
	// PluginDir is where registered plugins must lie, and Plugin the binary that is registered from the start.
	PluginDir string
	Plugin    string
	// StorageType is reported in the seal status.
	StorageType string
}

// Server is one development server. Its handler serves from New on; Open starts the mounts.
type Server struct {
	cfg    Config
	logger hclog.Logger
	routes []route

	clusterID string
	started   time.Time

	// mountMu is held by whoever changes the mount table, across plugin calls; tableMu only while
	// the table is read or replaced, because plugins ask back while they are set up.
	mountMu sync.Mutex
	tableMu sync.RWMutex
	table   map[string]*mount
	sealed  atomic.Bool

	// Locks of leases and of tokens: never nested within one kind.
	leaseLocks, tokenLocks locks

	due      dueQueue
	wakeup   chan struct{}
	loops    sync.WaitGroup
	rollback sync.WaitGroup
	cancel   context.CancelFunc

	aclMu    sync.Mutex
	aclCache map[string]*acl.ACL
}

// New prepares a server.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.RootToken == "" {
		return nil, errors.New("the root token is empty")
	}
	s := &Server{
		cfg:      cfg,
		logger:   cfg.Logger,
		started:  time.Now(),
		table:    map[string]*mount{},
		wakeup:   make(chan struct{}, 1),
		aclCache: map[string]*acl.ACL{},
	}
	s.sealed.Store(true)
	s.routes = s.buildRoutes()
	if err := s.loadCluster(); err != nil {
		return nil, err
	}
	if err := s.writeRootToken(); err != nil {
		return nil, err
	}
	if err := s.writeDefaultPolicy(); err != nil {
		return nil, err
	}
	return s, nil
}

// Open starts every mount of the table, and the queue of what ends when.
func (s *Server) Open(ctx context.Context) error {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	if !s.sealed.Load() {
		return nil
	}
	if err := s.loadDue(); err != nil {
		return err
	}
	if err := s.loadMounts(ctx); err != nil {
		return err
	}
	s.sealed.Store(false)
	s.kick()
	return nil
}

// Seal cleans every mount up and refuses requests until Open.
func (s *Server) Seal() {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	// Under the table's lock no Tick is between its look at the seal and its start of a call.
	s.tableMu.Lock()
	if s.sealed.Swap(true) {
		s.tableMu.Unlock()
		return
	}
	table := s.table
	s.table = map[string]*mount{}
	s.tableMu.Unlock()
	s.rollback.Wait()
	for _, m := range table {
		m.running.Close()
	}
}

// Run starts the loops: what is due is ended when it is due, and every mount gets its periodic call each tick.
func (s *Server) Run(tick time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.loops.Go(func() { s.expireLoop(ctx) })
	s.loops.Go(func() { s.tickLoop(ctx, tick) })
}

// Close ends the loops and seals.
func (s *Server) Close() {
	if s.cancel != nil {
		s.cancel()
	}
	s.loops.Wait()
	s.Seal()
}

func (s *Server) expireLoop(ctx context.Context) {
	// The longest sleep: a wall clock that is set back or forth is noticed after this long.
	const nap = time.Second
	for {
		wait := nap
		if !s.sealed.Load() {
			s.RunDue(ctx)
			if at, ok := s.due.next(); ok {
				wait = min(nap, max(at.Sub(s.now()), time.Millisecond))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wakeup:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (s *Server) tickLoop(ctx context.Context, tick time.Duration) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.Tick(ctx)
		}
	}
}

// Tick starts the periodic call of every mount that is not still busy with its last one.
func (s *Server) Tick(ctx context.Context) {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	if s.sealed.Load() {
		return
	}
	for _, m := range s.table {
		if !m.ticking.CompareAndSwap(false, true) {
			continue
		}
		s.rollback.Go(func() {
			defer m.ticking.Store(false)
			ctx, cancel := context.WithTimeout(ctx, rollbackLimit)
			defer cancel()
			s.rollbackMount(ctx, m)
		})
	}
}

func (s *Server) rollbackMount(ctx context.Context, m *mount) {
	entry := m.entry.Load()
	resp, err := m.running.HandleRequest(ctx, &logical.Request{
		Operation:  logical.RollbackOperation,
		MountPoint: entry.Path,
		MountType:  entry.Type,
		Storage:    m.view,
	})
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, logical.ErrUnsupportedOperation) {
		s.logger.Error("periodic call failed", "mount", forLog(entry.Path), "error", errForLog(err))
	}
}

func (s *Server) now() time.Time { return s.cfg.Now() }

// kick makes the expiry loop look again.
func (s *Server) kick() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

func (s *Server) loadCluster() error {
	const key = "core/cluster"
	var c struct {
		ID string `json:"id"`
	}
	found, err := s.load(key, &c)
	if err != nil {
		return err
	}
	if !found {
		c.ID = newUUID()
		if err := s.cfg.Store.Apply(put(key, c)); err != nil {
			return fmt.Errorf("write cluster id: %w", err)
		}
	}
	s.clusterID = c.ID
	return nil
}

// load decodes the record at key into out and says whether there was one.
func (s *Server) load(key string, out any) (bool, error) {
	raw, err := s.cfg.Store.Get(key)
	if err != nil || raw == nil {
		return false, err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return false, fmt.Errorf("stored record %s: %w", kindOf(key), err)
	}
	return true, nil
}

// kindOf is the part of a storage key that says nothing about whom it belongs to.
func kindOf(key string) string {
	parts := strings.SplitN(key, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// put is the write of a record. What the server stores always encodes.
func put(key string, v any) store.Write {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", kindOf(key), err))
	}
	return store.Write{Key: key, Value: raw}
}

func del(key string) store.Write { return store.Write{Key: key} }

type write = store.Write

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// locks serialises work on one name among many.
type locks [256]sync.Mutex

func (l *locks) lock(name string) *sync.Mutex {
	var h uint8
	for i := range len(name) {
		h = h*31 + name[i]
	}
	m := &l[h]
	m.Lock()
	return m
}

// coded is an error with an HTTP status.
func coded(status int, format string, args ...any) error {
	return logical.CodedError(status, fmt.Sprintf(format, args...))
}

func badRequest(format string, args ...any) error {
	return coded(http.StatusBadRequest, format, args...)
}
