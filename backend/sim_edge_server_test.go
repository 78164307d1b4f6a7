// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// simClock is a node's clock: time passes by the bubble's, and may be wrong.
type simClock struct{ off time.Duration }

func (c simClock) Now() time.Time { return time.Now().Add(c.off).UTC() } //nolint:forbidigo // the bubble's time

func (c simClock) Reading() reading {
	at := systemClock{}.Reading()
	return reading{at.wall.Add(c.off), at.steady}
}

func (c simClock) Wait(ctx context.Context, d time.Duration) bool { return systemClock{}.Wait(ctx, d) }

func (c simClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// simNode is the engine on one node.
type simNode struct {
	*backend
	storage *simStorage
	life    context.Context //nolint:containedctx // what it answers ends by it
	die     context.CancelFunc
	hangs   bool      // its connections stay open when it dies
	deposed time.Time // since when another node decides; zero: none does
	stands  time.Time // its time stands still until its clock shows that
	gone    bool
}

// simStorage is what a node has of the server's storage. One that is fenced cannot be
// written any more, as raft refuses a deposed node; one in trouble fails now and then,
// before or after the write.
type simStorage struct {
	logical.Storage

	w *edgeWorld

	mu      sync.Mutex
	fenced  bool
	trouble float64
	writes  map[string]int // of a path: what fails does not depend on who writes first
}

var (
	errFenced  = errors.New("this node is not the leader")
	errTrouble = errors.New("storage does not answer")
)

func (s *simStorage) write(path string, do func() error) error {
	s.mu.Lock()
	fenced, luck := s.fenced, 1.0
	if s.trouble > 0 {
		luck = s.w.random("storage", path, fmt.Sprint(s.writes[path])).Float64() / s.trouble
		s.writes[path]++
	}
	s.mu.Unlock()
	switch {
	case fenced:
		return errFenced
	case luck < 0.5:
		return errTrouble
	case luck < 1:
		_ = do() // and nobody hears of it
		return errTrouble
	}
	return do()
}

func (s *simStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.write(e.Key, func() error { return s.Storage.Put(ctx, e) })
}

func (s *simStorage) Delete(ctx context.Context, key string) error {
	return s.write(key, func() error { return s.Storage.Delete(ctx, key) })
}

func (s *simStorage) set(trouble float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = trouble
}

func (s *simStorage) troubled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble > 0
}

func (s *simStorage) fence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fenced = true
}

// copied is a copy of everything that is stored.
func copied(from *logical.InmemStorage) *logical.InmemStorage {
	to := &logical.InmemStorage{}
	ctx := context.Background()
	var walk func(prefix string)
	walk = func(prefix string) {
		names, _ := from.List(ctx, prefix) // a map in memory does not fail
		for _, name := range names {
			if strings.HasSuffix(name, "/") {
				walk(prefix + name)
				continue
			}
			if e, _ := from.Get(ctx, prefix+name); e != nil {
				_ = to.Put(ctx, e)
			}
		}
	}
	walk("")
	return to
}

// start makes a node active.
func (w *edgeWorld) start(off time.Duration) {
	n := &simNode{backend: newBackend(simClock{off}, rand.Reader), storage: &simStorage{Storage: w.disk, w: w, writes: map[string]int{}}}
	n.life, n.die = context.WithCancel(context.Background())
	n.worker.loops = true
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: n.storage, BackendUUID: "sim"}
	if err := n.Setup(context.Background(), conf); err != nil {
		w.t.Fatal(err)
	}
	if err := n.Initialize(context.Background(), &logical.InitializationRequest{Storage: n.storage}); err != nil {
		w.t.Fatal(err)
	}
	n.stands = n.highWater()
	w.mu.Lock()
	w.node = n
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
}

// stop ends a node: in order, or as a crash does, after which nothing of it is written.
func (n *simNode) stop(orderly bool) {
	if n.gone {
		return
	}
	n.gone = true
	if !orderly {
		n.storage.fence()
	}
	n.die()
	n.Cleanup(context.Background())
	n.storage.fence()
}

// ask is a request to a node.
func (w *edgeWorld) ask(ctx context.Context, n *simNode, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	req := w.request
	req.Operation, req.Path, req.Data, req.Storage = op, path, data, n.storage
	if op == logical.UpdateOperation {
		if found, exists, err := n.HandleExistenceCheck(ctx, &req); err == nil && found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	return n.HandleRequest(ctx, &req)
}

// active is the node that decides.
func (w *edgeWorld) active() *simNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node
}

// taskGroup is a WaitGroup to which tasks may be added while somebody waits.
type taskGroup struct {
	mu   sync.Mutex
	n    int
	idle chan struct{}
}

func (g *taskGroup) Go(fn func()) {
	g.mu.Lock()
	g.n++
	g.mu.Unlock()
	go func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.n--; g.n == 0 && g.idle != nil {
				close(g.idle)
				g.idle = nil
			}
		}()
		fn()
	}()
}

func (g *taskGroup) Wait() {
	g.mu.Lock()
	if g.n == 0 {
		g.mu.Unlock()
		return
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	<-idle
}
