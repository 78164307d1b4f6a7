// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

var (
	failovers    = flag.Int("failovers", 4, "how many worlds with two nodes are tried, of each kind")
	failoverSeed = flag.Uint64("failover", 0, "try the world with this seed only")
)

// nodesStorage is the storage that the nodes of a server share.
type nodesStorage struct {
	mu     sync.Mutex
	stored logical.Storage
	active *node
	// refuses: nobody but the active node can write, as on raft.
	refuses bool
	// spoiled are the roles of which a node that is not active wrote something.
	spoiled map[string]bool
	roleIDs map[string]string // name by id
}

var errNotLeader = errors.New("node is not the leader")

// node is the storage as one node sees it: through a cache that knows of its own writes
// only.
type node struct {
	logical.Storage // what has no method here is not to be called

	cluster *nodesStorage
	cache   *lru.Cache[string, *logical.StorageEntry]

	mu    sync.Mutex
	at    int    // the call before which then is called, from 1; 0: none
	then  func() // while the call waits
	calls int
}

func (c *nodesStorage) join(size int) *node {
	cache, err := lru.New[string, *logical.StorageEntry](size)
	if err != nil {
		panic(err)
	}
	return &node{cluster: c, cache: cache}
}

// before is called before each call.
func (n *node) before() {
	n.mu.Lock()
	n.calls++
	then := n.then
	if n.calls != n.at {
		then = nil
	}
	n.mu.Unlock()
	if then != nil {
		then()
	}
}

func (n *node) arm(at int, then func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls, n.at, n.then = 0, at, then
}

func (n *node) List(ctx context.Context, prefix string) ([]string, error) {
	n.before()
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.cluster.stored.List(ctx, prefix)
}

func (n *node) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	n.before()
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if e, ok := n.cache.Get(key); ok {
		return e, nil
	}
	e, err := n.cluster.stored.Get(ctx, key)
	if err == nil {
		n.cache.Add(key, e) // also that there is none
	}
	return e, err
}

// write makes one, if the cluster lets this node.
func (n *node) write(key string, e *logical.StorageEntry, do func() error) error {
	n.before()
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active != n {
		if c.refuses {
			return errNotLeader
		}
		c.spoil(key)
	}
	err := do()
	if err == nil {
		n.cache.Add(key, e)
	}
	return err
}

// spoil notes whose record it is. The caller holds mu.
func (c *nodesStorage) spoil(key string) {
	kind, rest, _ := strings.Cut(key, "/")
	id, _, _ := strings.Cut(rest, "/")
	switch kind + "/" {
	case rolePrefix:
		c.spoiled[rest] = true
	case secretPrefix, deletedPrefix:
		c.spoiled[c.roleIDs[id]] = true
	case duePrefix:
		c.spoiled[rest[strings.LastIndexByte(rest, '/')+1:]] = true
	}
}

func (n *node) Put(ctx context.Context, e *logical.StorageEntry) error {
	return n.write(e.Key, e, func() error { return n.cluster.stored.Put(context.WithoutCancel(ctx), e) })
}

func (n *node) Delete(ctx context.Context, key string) error {
	return n.write(key, nil, func() error { return n.cluster.stored.Delete(context.WithoutCancel(ctx), key) })
}

// failover is a world with an active node and, for a while, the one before.
type failover struct {
	t       testing.TB
	rand    *mathrand.Rand
	clock   *fakeClock
	cluster *nodesStorage
	active  *testMount
	deposed *testMount

	held   map[string]string    // key last handed out, by role
	since  map[string]time.Time // when
	killed map[string]string    // role by key whose end was acknowledged
	ids    map[string]string    // key id by role and version
	log    []string
}

const failoverRoles = 6

func (f *failover) say(format string, args ...any) {
	f.log = append(f.log, f.clock.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

// takeOver makes another node the active one.
func (f *failover) takeOver() {
	n := f.cluster.join(20 + f.rand.IntN(500))
	f.deposed = f.active
	f.cluster.mu.Lock()
	f.cluster.active = n
	f.cluster.mu.Unlock()
	f.active = f.mount(n)
	f.say("another node is active")
}

func (f *failover) mount(n *node) *testMount {
	m := mountOn(withoutSchemas{f.t}, n, f.clock)
	m.worker.running = true
	m.entrust(n)
	return m
}

func (f *failover) role() string { return fmt.Sprintf("r%d", f.rand.IntN(failoverRoles)) }

// act does something on a node; one that is not active may refuse it.
func (f *failover) act(m *testMount) {
	name := f.role()
	ours := m == f.active
	send := func(path string, data map[string]any) bool {
		_, err := m.send(logical.UpdateOperation, path, data)
		f.say("%s %v, active: %t: %v", path, data, ours, err)
		if err != nil && m == f.active {
			f.t.Errorf("%s %v: %v", path, data, err)
		}
		return err == nil
	}
	switch f.rand.IntN(8) {
	case 0:
		send("rotate/"+name, nil)
	case 1:
		if key := f.held[name]; key != "" {
			parsed, err := keyformat.Parse(key)
			if err != nil {
				f.t.Fatal(err)
			}
			if send("revoke/"+name, map[string]any{"key_id": parsed.ID()}) && ours {
				f.killed[key] = name
				delete(f.held, name)
			}
		}
	case 2:
		send("roles/"+name, map[string]any{"description": fmt.Sprint(f.rand.Uint64())})
	case 3:
		if f.rand.IntN(3) == 0 {
			send("tidy", nil)
		}
	case 4:
		if f.rand.IntN(3) == 0 {
			send("bulk", map[string]any{"action": "rotate", "roles": name, "dry_run": false, "reason": "x"})
		}
	default:
		if ours {
			f.read(name)
		}
	}
}

// read is a consumer that reads its key from the active node, and uses it.
func (f *failover) read(name string) {
	resp, err := f.active.send(logical.ReadOperation, "creds/"+name, nil)
	if err != nil {
		if !f.cluster.spoiled[name] {
			f.t.Errorf("creds/%s: %v", name, err)
		}
		f.say("creds/%s: %v", name, err)
		return
	}
	key := resp.Data["api_key"].(string)
	f.held[name], f.since[name] = key, f.clock.Now()
	if code := f.code(key); code != "VALID" {
		f.t.Errorf("creds/%s hands out a key of version %v that is %s", name, resp.Data["version"], code)
	}
}

func (f *failover) code(key string) string {
	return f.active.write("verify", map[string]any{"key": key})["code"].(string)
}

// check: what nobody may lose is there, as the active node has it.
func (f *failover) check() {
	for name, key := range f.held {
		// The grace is 40 minutes.
		if f.clock.Now().Sub(f.since[name]) < 30*time.Minute && !f.cluster.spoiled[name] {
			if code := f.code(key); code != "VALID" {
				f.t.Errorf("the key of %s is %s", name, code)
			}
		}
	}
	for key, name := range f.killed {
		if code := f.code(key); code == "VALID" && !f.cluster.spoiled[name] {
			f.t.Errorf("a key of %s was killed and verifies again", name)
		}
	}
	w := newWorld()
	for i := range failoverRoles {
		name := fmt.Sprintf("r%d", i)
		rec, err := getRecord[roleRecord](context.Background(), f.active.storage, rolePath(name))
		if err != nil || rec == nil {
			f.t.Errorf("role %s: %v %v", name, rec, err)
			continue
		}
		if f.cluster.spoiled[name] {
			continue
		}
		w.checkRing(f.active, rec, f.active.now(rec.Committed))
		for i := range rec.Ring.Versions {
			v := &rec.Ring.Versions[i]
			at := fmt.Sprintf("version %d of %s", v.N, name)
			if known, ok := f.ids[at]; ok && known != v.KeyID {
				f.t.Errorf("%s was another key", at)
			}
			f.ids[at] = v.KeyID
		}
	}
}

// step lets a worker do one.
func (f *failover) step(m *testMount) {
	_, err := m.step(f.clock.Now(), stepBudget)
	if m == f.active && err != nil {
		f.t.Errorf("a step of the active node: %v", err)
	}
	if err != nil {
		f.say("a step, active: %t: %v", m == f.active, err)
	}
}

// pass lets time pass, in which the server calls the active node.
func (f *failover) pass(minutes int) {
	for range minutes {
		f.clock.advance(time.Minute)
		f.active.tick()
		for range 3 {
			f.clock.advance(time.Second)
			f.step(f.active)
		}
		f.act(f.active)
	}
}

// play is one world.
func (f *failover) play() {
	f.active = f.mount(f.cluster.active)
	for i := range failoverRoles {
		name := fmt.Sprintf("r%d", i)
		f.active.write("roles/"+name, map[string]any{"rotation_period": "1h", "grace_period": "40m"})
		f.cluster.roleIDs[f.active.record(name).ID] = name
	}
	for range 4 {
		f.pass(30 + f.rand.IntN(60))
		f.check()
		// It loses its place before some call that it makes, in a step or a request.
		old := f.active
		old.storage.(*node).arm(1+f.rand.IntN(60), func() {
			f.takeOver()
			for range f.rand.IntN(6) {
				f.clock.advance(time.Second)
				f.step(f.active)
				f.act(f.active)
			}
		})
		for i := 0; f.active == old && i < 100; i++ {
			f.clock.advance(time.Duration(f.rand.IntN(40)) * time.Second)
			old.entrust(old.storage)
			if f.rand.IntN(2) == 0 {
				f.step(old)
			} else {
				f.act(old)
			}
		}
		// It goes on while its mandate lasts, and requests that it had still come to it.
		for range 12 {
			f.clock.advance(time.Duration(f.rand.IntN(20)) * time.Second)
			f.active.entrust(f.active.storage)
			f.step(f.active)
			f.step(old)
			f.act(f.active)
			f.act(old)
			f.check()
		}
		f.clock.advance(mandateTime)
		if _, err := old.step(f.clock.Now(), stepBudget); !errors.Is(err, errNoMandate) {
			f.t.Errorf("the deposed node's mandate does not end: %v", err)
		}
		f.pass(3)
		f.check()
	}
	f.heal()
}

// heal: what a deposed node has spoiled is whole again once its role was rotated.
func (f *failover) heal() {
	f.active.storage.(*node).cache.Purge()
	f.active.roles.purge()
	f.active.keys.purge()
	f.active.secretCache.purge()
	for name := range f.cluster.spoiled {
		if strings.HasPrefix(name, "r") {
			f.read(name) // an error, or a key that verifies
			f.active.write("rotate/"+name, nil)
		}
	}
	clear(f.cluster.spoiled)
	f.pass(3)
	f.clock.advance(2 * time.Hour)
	f.pass(10)
	f.active.write("tidy", nil)
	f.pass(70)
	f.check()
	newWorld().check(f.active, true)
}

// Nodes that lose their place, anywhere in what they do, and go on while they do not
// know it: on a storage that refuses them nothing is lost; on another one, only what the
// documentation says.
func TestDeposedNodes(t *testing.T) {
	t.Parallel()
	for _, refuses := range []bool{true, false} {
		for i := range *failovers {
			seed := uint64(i + 1)
			if *failoverSeed > 0 {
				seed = *failoverSeed
			}
			t.Run(fmt.Sprintf("refuses=%t,seed=%d", refuses, seed), func(t *testing.T) {
				t.Parallel()
				c := &nodesStorage{stored: &logical.InmemStorage{}, refuses: refuses, spoiled: map[string]bool{}, roleIDs: map[string]string{}}
				c.active = c.join(1000)
				f := &failover{
					t: t, rand: mathrand.New(mathrand.NewPCG(seed, 0)), clock: newFakeClock(), cluster: c, //nolint:gosec // a world of a test
					held: map[string]string{}, since: map[string]time.Time{}, killed: map[string]string{}, ids: map[string]string{},
				}
				f.play()
				if t.Failed() {
					t.Logf("seed %d:\n%s", seed, strings.Join(f.log, "\n"))
				}
			})
		}
	}
}
