// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

var (
	worlds    = flag.Int("worlds", 10, "how many worlds with edges are simulated")
	worldLog  = flag.Int("worldlog", 25, "how much is told of what happened in a world that fails")
	worldSeed = flag.Uint64("world", 0, "simulate the world with this seed only")
)

// simClock is a node's clock: time passes by the bubble's, and may be wrong.
type simClock struct{ off time.Duration }

func (c simClock) Now() time.Time { return time.Now().Add(c.off).UTC() } //nolint:forbidigo // the bubble's time

func (c simClock) Wait(ctx context.Context, d time.Duration) bool { return systemClock{}.Wait(ctx, d) }

func (c simClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// world is the engine, some edges, the network between them, and all that happens to
// them.
type edgeWorld struct {
	t    *testing.T
	rand *mathrand.Rand
	dir  string

	storage *logical.InmemStorage
	mu      sync.Mutex
	node    *backend
	edges   []*simEdge
	keys    []*simKey
	request logical.Request
	log     []string
}

// simKey is a key that somebody has, and what the engine said of it, when.
type simKey struct {
	secret, id, role, roleID string
	said                     []said
}

type said struct {
	at    time.Time
	valid bool
}

// simEdge is an edge and its network.
type simEdge struct {
	w        *edgeWorld
	name     string
	v        *edge.Verifier
	opt      edge.Options
	rng      *mathrand.Rand
	cut      int // of requests, answers: 1, 2, both: 3
	slow     time.Duration
	flaky    float64
	healthy  time.Time // since when
	wall     time.Duration
	slept    time.Duration
	sleeping chan struct{}
	closed   map[string]time.Time // when it was told of a closing decision about a role or a key
}

// told notes what an answer of the feed tells of closing decisions.
func (e *simEdge) told(resp *logical.Response) {
	if resp == nil {
		return
	}
	notices, _ := resp.Data["notices"].([]any)
	for _, n := range notices {
		if data, _ := n.(map[string]any); data["closing"] == true {
			for _, field := range []string{"role_id", "key_id"} {
				if id, _ := data[field].(string); id != "" {
					e.closed[id] = time.Now() //nolint:forbidigo // the bubble's time
				}
			}
		}
	}
}

func (w *edgeWorld) logf(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...)) //nolint:forbidigo // the bubble's time
}

// start makes a node active.
func (w *edgeWorld) start(off time.Duration) {
	b := newBackend(simClock{off}, rand.Reader)
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: sys, StorageView: w.storage, BackendUUID: "sim"}
	if err := b.Setup(context.Background(), conf); err != nil {
		w.t.Fatal(err)
	}
	if err := b.Initialize(context.Background(), &logical.InitializationRequest{Storage: w.storage}); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.node = b
	w.mu.Unlock()
}

// ask is a request to the active node.
func (w *edgeWorld) ask(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	w.mu.Lock()
	node := w.node
	w.mu.Unlock()
	req := w.request
	req.Operation, req.Path, req.Data, req.Storage = op, path, data, w.storage
	if op == logical.UpdateOperation {
		if found, exists, err := node.HandleExistenceCheck(ctx, &req); err == nil && found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	return node.HandleRequest(ctx, &req)
}

func (w *edgeWorld) operate(op logical.Operation, path string, data map[string]any) map[string]any {
	w.sample()
	resp, err := w.ask(context.Background(), op, path, data)
	w.sample()
	if err != nil || resp != nil && resp.IsError() {
		w.logf("%s %v: refused", path, data)
		return nil
	}
	w.logf("%s %v", path, data)
	if resp == nil {
		return map[string]any{}
	}
	if secret, ok := resp.Data["api_key"].(string); ok {
		w.have(secret, resp.Data["key_id"].(string), resp.Data["role"].(string))
	}
	return resp.Data
}

func (w *edgeWorld) have(secret, id, role string) {
	for _, k := range w.keys {
		if k.id == id {
			return
		}
	}
	k := &simKey{secret: secret, id: id, role: role}
	if resp, err := w.ask(context.Background(), logical.UpdateOperation, "verify", map[string]any{"key": secret, "timeline": 1}); err == nil {
		k.roleID, _ = resp.Data["role_id"].(string)
	}
	w.keys = append(w.keys, k)
	w.sample()
}

// sample asks the engine about every key: its word is what the edges are held against.
func (w *edgeWorld) sample() {
	now := time.Now() //nolint:forbidigo // the bubble's time
	for _, k := range w.keys {
		resp, err := w.ask(context.Background(), logical.UpdateOperation, "verify", map[string]any{"key": k.secret})
		if err != nil {
			w.t.Fatalf("oracle: %v", err)
		}
		valid := resp.Data["valid"].(bool)
		if n := len(k.said); n == 0 || k.said[n-1].valid != valid {
			k.said = append(k.said, said{now, valid})
		}
	}
}

// left is how long the key is good by what the engine says now.
func (w *edgeWorld) left(k *simKey) time.Duration {
	resp, err := w.ask(context.Background(), logical.UpdateOperation, "verify", map[string]any{"key": k.secret})
	if err != nil {
		w.t.Fatalf("oracle: %v", err)
	}
	ends, err := time.Parse(time.RFC3339, fmt.Sprint(resp.Data["expires_at"]))
	now, nerr := time.Parse(time.RFC3339, fmt.Sprint(resp.Data["now"]))
	if err != nil || nerr != nil {
		return time.Hour
	}
	return ends.Sub(now)
}

// ever reports whether the engine said that of the key at some instant between.
func (k *simKey) ever(valid bool, from, to time.Time) bool {
	for i, s := range k.said {
		end := to
		if i+1 < len(k.said) {
			end = k.said[i+1].at
		}
		if s.valid == valid && !s.at.After(to) && !end.Before(from) {
			return true
		}
	}
	return false
}

// RoundTrip is the network between an edge and the engine.
func (e *simEdge) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var data map[string]any
	if err := json.Unmarshal(body, &data); err != nil {
		return nil, err
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v1/"), "/")
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-req.Context().Done():
			return req.Context().Err()
		}
	}
	e.w.mu.Lock()
	there, back := e.delay(), e.delay()
	lost, answerLost, twice := e.cut&1 != 0 || e.rng.Float64() < e.flaky, e.cut&2 != 0 || e.rng.Float64() < e.flaky, e.rng.Float64() < 0.02
	sleeping := e.sleeping
	e.w.mu.Unlock()
	if sleeping != nil {
		select {
		case <-sleeping:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if err := wait(there); err != nil {
		return nil, err
	}
	if lost {
		if e.rng2() < 0.5 {
			return nil, errors.New("connection refused")
		}
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	resp, err := e.w.ask(req.Context(), logical.UpdateOperation, path, data)
	if twice {
		resp, err = e.w.ask(req.Context(), logical.UpdateOperation, path, data)
	}
	if werr := wait(back); werr != nil {
		return nil, werr
	}
	e.w.mu.Lock()
	answerLost = answerLost || e.cut&2 != 0
	if !answerLost && path == "changes" {
		e.told(resp)
	}
	e.w.mu.Unlock()
	if answerLost {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	status, out := http.StatusOK, map[string]any{}
	switch {
	case err != nil:
		status, out["errors"] = http.StatusInternalServerError, []string{err.Error()}
	case resp != nil && resp.IsError():
		status, out["errors"] = http.StatusBadRequest, []string{resp.Error().Error()}
	case resp != nil:
		out["data"] = resp.Data
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(raw)), ContentLength: int64(len(raw)), Request: req,
	}, nil
}

// delay of one message. Some overtake others where the network is unwell.
func (e *simEdge) delay() time.Duration {
	if e.flaky > 0 && e.rng.IntN(3) == 0 {
		return e.slow + time.Duration(e.rng.Int64N(int64(700*time.Millisecond)))
	}
	return e.slow + time.Duration(e.rng.Int64N(int64(20*time.Millisecond)))
}

func (e *simEdge) rng2() float64 {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	return e.rng.Float64()
}

var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when a bubble begins

func (e *simEdge) now() (wall, mono int64) {
	now := time.Now() //nolint:forbidigo // the bubble's time
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	return now.Add(e.wall).UnixNano(), int64(now.Sub(simStart) - e.slept)
}

func (w *edgeWorld) newEdge(name string, state bool) *simEdge {
	e := &simEdge{w: w, name: name, closed: map[string]time.Time{}, rng: mathrand.New(mathrand.NewPCG(w.rand.Uint64(), 1)), healthy: time.Now()} //nolint:forbidigo // the bubble's time
	config := api.DefaultConfig()
	config.Address = "http://sim.invalid"
	config.HttpClient = &http.Client{Transport: e}
	client, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	client.SetToken("sim")
	e.opt = edge.Options{Client: client, Mount: "apikeys", Instance: name, Clock: e.now, Label: name}
	if state {
		e.opt.StateFile, e.opt.StateKeyFile = filepath.Join(w.dir, name+".state"), filepath.Join(w.dir, name+".key")
	}
	e.open()
	return e
}

func (e *simEdge) open() {
	v, err := edge.New(e.opt)
	if err != nil {
		e.w.t.Fatal(err)
	}
	e.v = v
}

const (
	simStaleness = 60 * time.Second
	// standing is how far an edge may run ahead of a server whose time stands still, as
	// it does after a failover to an earlier clock: what it learns between two answers.
	standing = 5 * time.Second
)

// verify has the edge judge a key, and holds that against what the engine said.
func (e *simEdge) verify(k *simKey) {
	began := time.Now() //nolint:forbidigo // the bubble's time
	v, err := e.v.Verify(context.Background(), edge.Request{Key: k.secret})
	ended := time.Now() //nolint:forbidigo // the bubble's time
	w := e.w
	w.sample()
	if ended.Sub(began) > 1100*time.Millisecond {
		w.fail("%s: a verdict took %v", e.name, ended.Sub(began))
	}
	healthy := began.Sub(e.since())
	bound := 1200 * time.Millisecond
	if healthy < 15*time.Second {
		bound = simStaleness + 15*time.Second
	}
	w.mu.Lock()
	closed := e.closed[k.roleID]
	if t := e.closed[k.id]; t.After(closed) {
		closed = t
	}
	w.mu.Unlock()
	switch {
	case err == nil && v.Valid && closed.Before(began) && !closed.IsZero() && !k.ever(true, closed, ended):
		w.fail("%s at %v accepted key %s of %s (%s, cut off %t), though it was told at %v that it was closed: %v", e.name, began, k.id, k.role, v.State, v.CutOff, closed, k.said)
	case err != nil:
		if healthy > 15*time.Second {
			w.fail("%s at %v: no verdict about key %s of %s, though the network has been well since %v: %v; cut %d slow %v flaky %v", e.name, began, k.id, k.role, e.since(), err, e.cut, e.slow, e.flaky)
		}
	case v.Valid && !k.ever(true, began.Add(-bound), ended):
		w.fail("%s at %v accepted key %s of %s (%s, cut off %t), which has not been good since %v; healthy since %v cut %d slow %v flaky %v ", e.name, began, k.id, k.role, v.State, v.CutOff, k.said, e.since(), e.cut, e.slow, e.flaky)
	case !v.Valid && healthy > 15*time.Second && w.left(k) > standing && !k.ever(false, began.Add(-bound-5*time.Second), ended):
		w.fail("%s at %v, %v there, refused key %s of %s as %s %s, which is good: %v ", e.name, began, v.Now, k.id, k.role, v.Code, v.State, k.said)
	}
}

func (w *edgeWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf(format+"\n%s", append(args, strings.Join(w.log[max(0, len(w.log)-*worldLog):], "\n"))...)
}

func TestEdgesAgreeWithTheEngine(t *testing.T) {
	seeds := []uint64{*worldSeed}
	if *worldSeed == 0 {
		seeds = nil
		for i := range *worlds {
			seeds = append(seeds, uint64(i)+1)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("world ", seed), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { simulate(t, seed, dir) })
		})
	}
}

func simulate(t *testing.T, seed uint64, dir string) {
	w := &edgeWorld{t: t, rand: mathrand.New(mathrand.NewPCG(seed, 0)), dir: dir, storage: &logical.InmemStorage{}}
	w.request = logical.Request{ClientTokenAccessor: "sim", DisplayName: "sim", MountPoint: "apikeys/", Connection: &logical.Connection{RemoteAddr: "127.0.0.1"}}
	defer func() {
		if t.Failed() {
			t.Logf("the seed is %d: go test ./backend -run TestEdgesAgree -world %d", seed, seed)
		}
	}()
	w.start(0)
	w.operate(logical.UpdateOperation, "config", map[string]any{"edge_max_staleness": "60s", "delete_recovery": "1h"})
	roles := []string{"a", "b", "d"}
	ids := map[string]string{}
	w.operate(logical.UpdateOperation, "roles/a", map[string]any{"rotation_period": "10m", "grace_period": "2m"})
	w.operate(logical.UpdateOperation, "roles/b", map[string]any{"rotation_period": "0", "grace_period": "1m"})
	w.operate(logical.UpdateOperation, "roles/d", map[string]any{"type": "dynamic", "ttl": "90s", "max_ttl": "1h"})
	for _, r := range roles {
		w.operate(logical.ReadOperation, "creds/"+r, nil)
	}
	for i := range 3 {
		w.edges = append(w.edges, w.newEdge(fmt.Sprint("edge", i), i == 0))
	}
	t.Cleanup(func() { // after the context of the test has ended
		for _, e := range w.edges {
			e.wake()
			_ = e.v.Close()
		}
	})
	time.Sleep(15 * time.Second)
	step := 100 * time.Millisecond
	for i := range 4000 {
		time.Sleep(step)
		if i%600 == 0 {
			w.mu.Lock()
			node := w.node
			w.mu.Unlock()
			req := w.request
			req.Operation, req.Storage = logical.RollbackOperation, w.storage
			if _, err := node.HandleRequest(context.Background(), &req); err != nil && !errors.Is(err, logical.ErrUnsupportedOperation) {
				t.Fatal(err)
			}
			w.sample()
		}
		if i%10 == 0 {
			w.sample()
		}
		if w.rand.Float64() < 0.03 {
			w.decide(roles, ids)
		}
		if w.rand.Float64() < 0.01 {
			w.upset()
		}
		for _, e := range w.edges {
			if w.rand.Float64() < 0.2 && !e.asleep() {
				w.one(e)
			}
		}
		if t.Failed() {
			return
		}
	}
}

func (w *edgeWorld) one(e *simEdge) {
	k := w.keys[w.rand.IntN(len(w.keys))]
	if n := len(w.keys); n > 6 && w.rand.Float64() < 0.7 {
		k = w.keys[n-1-w.rand.IntN(6)]
	}
	e.verify(k)
}

// decide is something that an operator or a consumer does.
func (w *edgeWorld) decide(roles []string, ids map[string]string) {
	r := roles[w.rand.IntN(len(roles))]
	grace := []string{"0", "5s", "30s", "2m"}[w.rand.IntN(4)]
	switch w.rand.IntN(16) {
	case 0, 1:
		w.operate(logical.UpdateOperation, "rotate/"+r, map[string]any{"grace_period": grace, "force": true})
	case 2:
		w.operate(logical.UpdateOperation, "rotate/"+r, map[string]any{"activate_at": "30s", "grace_period": grace})
	case 3:
		w.operate(logical.UpdateOperation, "rollback/"+r, map[string]any{"grace_period": grace})
	case 4:
		w.operate(logical.UpdateOperation, "revoke/a", map[string]any{"all": true})
	case 5:
		if k := w.keys[w.rand.IntN(len(w.keys))]; true {
			w.operate(logical.UpdateOperation, "revoke/"+k.role, map[string]any{"key_id": k.id})
		}
	case 6:
		w.operate(logical.UpdateOperation, "roles/"+r, map[string]any{"disabled": true})
	case 7, 8:
		for _, r := range roles {
			w.operate(logical.UpdateOperation, "roles/"+r, map[string]any{"disabled": false})
		}
	case 9:
		if answer := w.operate(logical.DeleteOperation, "roles/"+r, nil); answer != nil && answer["role_id"] != nil {
			ids[r] = answer["role_id"].(string)
		}
	case 10, 11:
		for r, id := range ids {
			if w.rand.IntN(3) == 0 {
				w.operate(logical.UpdateOperation, "roles/"+r, map[string]any{"type": map[bool]string{true: "dynamic", false: "static"}[r == "d"]})
			} else {
				w.operate(logical.UpdateOperation, "restore/"+id, nil)
			}
			delete(ids, r)
		}
	case 12:
		k := w.keys[w.rand.IntN(len(w.keys))]
		w.operate(logical.UpdateOperation, "report", map[string]any{"key": k.secret})
	default:
		for _, r := range roles {
			w.operate(logical.ReadOperation, "creds/"+r, nil)
		}
	}
}

// upset is something that happens to the network, to a machine or to the server.
func (w *edgeWorld) upset() {
	e := w.edges[w.rand.IntN(len(w.edges))]
	now := time.Now() //nolint:forbidigo // the bubble's time
	unwell := func() { e.healthy = now.Add(24 * time.Hour) }
	w.mu.Lock()
	what := w.rand.IntN(12)
	var after func()
	switch what {
	case 0, 1:
		e.cut = 1 + w.rand.IntN(3)
		unwell()
		w.logf("%s: cut %d", e.name, e.cut)
	case 2:
		e.slow = time.Duration(w.rand.Int64N(int64(3 * time.Second)))
		unwell()
		w.logf("%s: slow %v", e.name, e.slow)
	case 3:
		e.flaky = w.rand.Float64() / 2
		unwell()
		w.logf("%s: flaky %.2f", e.name, e.flaky)
	case 4:
		e.wall += time.Duration(w.rand.Int64N(int64(240*time.Second))) - 120*time.Second
		unwell()
		w.logf("%s: its clock is set to %v", e.name, e.wall)
	case 5:
		off := time.Duration(w.rand.Int64N(int64(240*time.Second))) - 120*time.Second
		w.logf("failover to a clock that is off by %v", off)
		after = func() { w.start(off); w.sample() }
		for _, e := range w.edges {
			if e.healthy.Before(now) {
				e.healthy = now
			}
		}
	case 6:
		w.logf("%s: restart", e.name)
		after = func() {
			e.wake()
			_ = e.v.Close()
			if w.rand.IntN(2) == 0 && e.opt.StateFile != "" {
				_ = os.Remove(e.opt.StateFile)
			}
			e.open()
		}
		if e.healthy.Before(now) {
			e.healthy = now
		}
	case 7:
		if e.sleeping == nil {
			d := time.Duration(w.rand.Int64N(int64(2 * time.Minute)))
			w.logf("%s: sleeps for %v", e.name, d)
			e.sleeping = make(chan struct{})
			unwell()
			go func() {
				select {
				case <-time.After(d):
				case <-w.t.Context().Done():
				}
				w.mu.Lock()
				e.slept += d
				w.mu.Unlock()
				e.wake()
			}()
		}
	default:
		for _, e := range w.edges {
			e.cut, e.slow, e.flaky = 0, 0, 0
			if e.healthy.After(now) {
				e.healthy = now
			}
		}
		w.logf("the network is well")
	}
	w.mu.Unlock()
	if after != nil {
		after()
	}
}

func (e *simEdge) asleep() bool {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	return e.sleeping != nil
}

// since is since when its network is well.
func (e *simEdge) since() time.Time {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	return e.healthy
}

func (e *simEdge) wake() {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.sleeping != nil {
		close(e.sleeping)
		e.sleeping = nil
		if e.cut == 0 && e.slow == 0 && e.flaky == 0 {
			e.healthy = time.Now() //nolint:forbidigo // the bubble's time
		}
	}
}
