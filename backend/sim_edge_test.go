// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The simulation of edges: the engine on nodes with clocks of their own, some edges, the
// network between them, and all that happens to these. Time is the bubble's, so a world
// of minutes takes a second.
//
//   - sim_edge_server_test.go: nodes, their storage and clocks;
//   - sim_edge_network_test.go: an edge, its machine and its network;
//   - sim_edge_events_test.go: what operators, consumers and fate do;
//   - sim_edge_oracle_test.go: what edges say, held against what the engine said.
//
// A seed is a world: all randomness follows from it, that of the engine and of the edges
// included, and one processor runs it. What is left to chance is which of two goroutines
// goes first that are woken at the same nanosecond.

var (
	worlds    = flag.Int("worlds", defaultWorlds, "how many worlds with edges are simulated")
	worldLog  = flag.Int("worldlog", 40, "how much is told of what happened in a world that fails")
	worldSeed = flag.Uint64("world", 0, "simulate the world with this seed only")
	worldFrom = flag.Uint64("worldfrom", 1, "the first seed")
)

const (
	// defaultWorlds is the fixed budget of the tests.
	defaultWorlds = 12
	// simSteps of about simStep each are the life of a world.
	simSteps = 4000
	simStep  = 100 * time.Millisecond
	// simStaleness is the mount's edge_max_staleness.
	simStaleness = 60 * time.Second
)

// edgeWorld is the engine, some edges, the network between them, and all that happens to
// them.
type edgeWorld struct {
	t    *testing.T
	seed uint64
	rand *mathrand.Rand // of what is decided, by the world's own goroutine
	dir  string
	// again is how a world is run again.
	again string
	wait  time.Duration // the mount's feed_wait
	// bound is the role that some edges know alone.
	bound string

	request logical.Request
	tasks   taskGroup

	mu      sync.Mutex
	node    *simNode
	nodes   []*simNode // all there have been, and are not gone
	disk    *logical.InmemStorage
	backup  *logical.InmemStorage
	edges   []*simEdge
	keys    []*simKey
	leases  []*simLease
	roles   map[string]bool   // by name; whether it is dynamic
	names   map[string]string // of roles, by role id
	deleted []string          // role ids
	failed  bool

	logMu sync.Mutex
	log   []string
	seen  map[string]int
}

// now is the true time.
func (w *edgeWorld) now() time.Time { return time.Now() } //nolint:forbidigo // the bubble's time

// logf notes what happened, in order: two runs of a world note the same.
func (w *edgeWorld) logf(format string, args ...any) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.log = append(w.log, w.now().Format("04:05.000000 ")+fmt.Sprintf(format, args...))
}

// saw counts a kind of event.
func (w *edgeWorld) saw(kind string) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.seen[kind]++
}

// random is a source of its own for something that happens now: what others draw does
// not change it.
func (w *edgeWorld) random(who ...string) *mathrand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, who, w.now().UnixNano())
	return mathrand.New(mathrand.NewPCG(h.Sum64(), w.seed))
}

// fail tells the first thing that is wrong.
func (w *edgeWorld) fail(format string, args ...any) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	if w.failed {
		return
	}
	w.failed = true
	w.t.Errorf("world %d at %s: %s\n%s\nagain: go test ./backend -run %s %d", w.seed, w.now().Format("04:05.000000"),
		fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-*worldLog):], "\n"), cmp.Or(w.again, "TestEdgesAgree -world"), w.seed)
}

// settled is after how long without trouble an edge is held to the bounds of a live feed:
// a poll over a connection that died takes wait + 5 s, and twice that with the pauses
// until all is asked for again.
func (w *edgeWorld) settled() time.Duration { return 2*(w.wait+5*time.Second) + time.Second }

// standing: server time never goes back, and each answer bounds it from one side. Of a
// server whose time stands still, as after a failover to an earlier clock, an answer that
// took wait says that it may be that much later, and until the next one, as long again,
// it is believed to go on.
func (w *edgeWorld) standing() time.Duration {
	return 2*(w.wait+40*time.Millisecond) + 20*time.Millisecond
}

func (w *edgeWorld) over() bool {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.failed
}

func TestEdgesAgreeWithTheEngine(t *testing.T) {
	seeds := []uint64{*worldSeed}
	if *worldSeed == 0 {
		seeds = nil
		for i := range *worlds {
			seeds = append(seeds, *worldFrom+uint64(i)) //nolint:gosec // not negative
		}
	}
	seen := map[string]int{}
	for _, seed := range seeds {
		w := runWorld(t, fmt.Sprint("world ", seed), seed)
		for kind, n := range w.seen {
			seen[kind] += n
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[kind], kind)
	}
	if *worldSeed != 0 || len(seeds) < defaultWorlds || t.Failed() {
		return
	}
	for _, kind := range kindsOfEvents() {
		if seen[kind] == 0 {
			t.Errorf("in no world there was: %s", kind)
		}
	}
}

// runWorld simulates one world.
func runWorld(t *testing.T, name string, seed uint64) *edgeWorld {
	t.Helper()
	w := &edgeWorld{seed: seed, rand: mathrand.New(mathrand.NewPCG(seed, 0)), disk: &logical.InmemStorage{}, seen: map[string]int{}}
	t.Run(name, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		w.dir = t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			w.run()
		})
	})
	return w
}

func (w *edgeWorld) run() {
	w.roles, w.names = map[string]bool{}, map[string]string{}
	w.request = logical.Request{ClientTokenAccessor: "sim", DisplayName: "sim", MountPoint: "apikeys/", Connection: &logical.Connection{RemoteAddr: "127.0.0.1"}}
	w.wait = choose(w, time.Second, 2*time.Second, 2*time.Second, 5*time.Second)
	w.bound = choose(w, "hand", "auto", "leased")
	w.start(0)
	w.settle()
	for i := range 3 {
		w.edges = append(w.edges, w.newEdge(fmt.Sprint("edge", i), "", w.rand.IntN(2) == 0))
	}
	w.edges = append(w.edges, w.newEdge("bound", w.bound, w.rand.IntN(2) == 0))
	defer w.end()
	w.pass(w.settled())

	// Some worlds are calmer than others: what a long outage does shows in these.
	unrest := []float64{0.002, 0.005, 0.01}[w.rand.IntN(3)]
	decisions := []float64{0.01, 0.03, 0.06}[w.rand.IntN(3)]
	for i := 0; i < simSteps && !w.over(); i++ {
		w.pass(simStep)
		if i%600 == 0 {
			w.tick()
		}
		if i%10 == 0 {
			w.sample()
		}
		w.endLeases()
		if w.rand.Float64() < decisions {
			w.decide()
		}
		if w.rand.Float64() < unrest {
			w.upset()
		}
		for _, e := range w.edges {
			e.look()
			if w.rand.Float64() < 0.2 {
				k := w.some()
				later := time.Duration(w.rand.Int64N(int64(simStep)))
				w.tasks.Go(func() {
					_ = until(context.Background(), later)
					e.verify(k)
				})
			}
		}
	}
	if !w.over() {
		w.recover()
	}
}

// pass lets time pass, by an odd number of nanoseconds: what happens does not coincide
// with what was planned.
func (w *edgeWorld) pass(d time.Duration) {
	time.Sleep(d + time.Duration(w.rand.Int64N(int64(d/50)))) //nolint:forbidigo // the bubble's time
}

// some key, mostly a young one.
func (w *edgeWorld) some() *simKey {
	if n := len(w.keys); n > 6 && w.rand.Float64() < 0.7 {
		return w.keys[n-1-w.rand.IntN(6)]
	}
	return w.keys[w.rand.IntN(len(w.keys))]
}

// recover ends all trouble, and sees that the edges agree with the engine about every
// key.
func (w *edgeWorld) recover() {
	w.logf("the end: all is well")
	for _, e := range w.edges {
		e.wake()
	}
	w.heal()
	w.tasks.Wait()
	w.pass(w.settled() + 5*time.Second)
	for _, e := range w.edges {
		for _, k := range w.keys {
			e.verify(k)
			e.agrees(k)
		}
	}
}

// end takes everything down, so that the bubble can burst.
func (w *edgeWorld) end() {
	for _, e := range w.edges {
		e.wake()
	}
	w.tasks.Wait()
	for _, e := range w.edges {
		_ = e.v.Close()
	}
	for _, n := range w.nodes {
		n.stop(false)
	}
}

// tick is the server's periodic call, which ends other nodes' leases on leadership.
func (w *edgeWorld) tick() {
	req := w.request
	req.Operation, req.Storage = logical.RollbackOperation, w.node.storage
	err := func() error {
		_, err := w.node.HandleRequest(context.Background(), &req)
		return err
	}()
	if err != nil && !errors.Is(err, logical.ErrUnsupportedOperation) && !w.node.storage.troubled() {
		w.fail("the periodic call: %v", err)
	}
	w.sample()
}
