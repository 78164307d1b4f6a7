// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

// The simulation of consumers: programs with the client library on machines with clocks
// and networks of their own call an API, whose word about each key is the engine's. What
// is asserted is what they are promised: no request is refused but by what an operator
// decided while the consumer could not ask, and the first one after that succeeds.

var (
	clientWorlds = flag.Int("clientworlds", defaultWorlds, "how many worlds with consumers are simulated")
	clientSeed   = flag.Uint64("clientworld", 0, "simulate the world with this seed only")
	clientFrom   = flag.Uint64("clientfrom", 1, "the first seed")
)

const (
	clientSteps = 1500
	clientStep  = time.Second
	// clientGrace and clientRefresh are those of the roles, and clientLease the ttl of a
	// dynamic key.
	clientGrace, clientRefresh, clientLease = 4 * time.Minute, time.Minute, 3 * time.Minute
	// clientPause is how soon a consumer asks again for itself once it can.
	clientPause = 35 * time.Second
)

// clientWorld is the engine, consumers, and an API.
type clientWorld struct {
	*edgeWorld

	consumers []*simCaller

	// Guarded by the world's lock.
	closed   map[string]time.Time // roles: when an operator last ended a key early
	failover time.Time            // the last one
	disabled map[string]bool
	grants   map[string]*simGrant // by lease id
}

// simGrant is a lease, and the token that it ends with.
type simGrant struct {
	simLease

	token string
}

// simCaller is a program, its machine and its network.
type simCaller struct {
	w      *clientWorld
	name   string
	role   string
	source *client.Source
	http   *http.Client

	// Guarded by the world's lock.
	cut     bool
	away    bool      // it is cut off, or sleeps
	down    time.Time // since when; of the last time
	up      time.Time // since when it is not
	wall    time.Duration
	set     time.Time // when its clock was
	slept   time.Duration
	asleep  time.Time
	wakes   chan struct{}
	token   string
	tokens  int
	refused string // the key for which a request failed that could not be made again
	calls   int
}

func TestConsumersHoldNoDeadKey(t *testing.T) {
	seeds := []uint64{*clientSeed}
	if *clientSeed == 0 {
		seeds = nil
		for i := range *clientWorlds {
			seeds = append(seeds, *clientFrom+uint64(i)) //nolint:gosec // not negative
		}
	}
	seen := map[string]int{}
	for _, seed := range seeds {
		w := runClientWorld(t, seed)
		for kind, n := range w.seen {
			seen[kind] += n
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[kind], kind)
	}
	if *clientSeed != 0 || len(seeds) < defaultWorlds || t.Failed() {
		return
	}
	for _, kind := range []string{
		"accepted", "retried", "refused once", "excused", "no key, excused", "revocation", "rotation", "rotation without grace", "staging", "rollback", "leak", "disabled",
		"cut", "long cut", "failover", "suspended", "clock set", "another token", "lease renewed", "lease given back",
	} {
		if seen[kind] == 0 {
			t.Errorf("in no world there was: %s", kind)
		}
	}
}

func runClientWorld(t *testing.T, seed uint64) *edgeWorld {
	t.Helper()
	w := &edgeWorld{seed: seed, rand: mathrand.New(mathrand.NewPCG(seed, 1)), disk: &logical.InmemStorage{}, seen: map[string]int{}, again: "TestConsumersHoldNoDeadKey -clientworld"}
	t.Run(fmt.Sprint("world ", seed), func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			(&clientWorld{edgeWorld: w, closed: map[string]time.Time{}, disabled: map[string]bool{}, grants: map[string]*simGrant{}}).run()
		})
	})
	return w
}

func (w *clientWorld) run() {
	w.request = logical.Request{ClientTokenAccessor: "sim", DisplayName: "sim", MountPoint: "apikeys/", Connection: &logical.Connection{RemoteAddr: "127.0.0.1"}}
	w.start(0)
	seconds := func(d time.Duration) string { return d.String() }
	static := map[string]any{"grace_period": seconds(clientGrace), "refresh_interval": seconds(clientRefresh)}
	w.write("roles/hand", with(static, "rotation_period", "0"))
	w.write("roles/auto", with(static, "rotation_period", "10m"))
	w.write("roles/leased", map[string]any{"type": "dynamic", "ttl": seconds(clientLease), "max_ttl": "8m", "rotation_period": "15m", "grace_period": "5m"})
	for i, role := range []string{"hand", "auto", "leased", choose(w.edgeWorld, "hand", "auto", "leased")} {
		c := w.consumer(fmt.Sprint("c", i, "-", role), role)
		w.mu.Lock()
		w.consumers = append(w.consumers, c) // the others ask already
		w.mu.Unlock()
	}
	defer w.end()
	w.pass(time.Second)
	calm := []float64{0.003, 0.01, 0.03}[w.rand.IntN(3)]
	busy := []float64{0.003, 0.01, 0.03}[w.rand.IntN(3)]
	for i := range clientSteps {
		if w.over() {
			return
		}
		w.pass(clientStep)
		if i%60 == 0 {
			w.tick()
		}
		w.endGrants()
		if w.rand.Float64() < busy {
			w.decide()
		}
		if w.rand.Float64() < calm {
			w.upset()
		}
		for _, c := range w.consumers {
			if w.rand.IntN(2) == 0 {
				w.tasks.Go(c.call)
			}
		}
	}
	w.heal()
	w.pass(2 * clientPause)
	for _, c := range w.consumers {
		c.call()
	}
}

func with(m map[string]any, name string, value any) map[string]any {
	m = maps.Clone(m)
	m[name] = value
	return m
}

// write is what an operator asks of the engine; nil if it is refused.
func (w *clientWorld) write(path string, data map[string]any) map[string]any {
	out := w.apply(path, data)
	w.logf("%s %v: %v", path, data, out["version"])
	return out
}

func (w *clientWorld) apply(path string, data map[string]any) map[string]any {
	resp, err := w.ask(context.Background(), w.active(), logical.UpdateOperation, path, data)
	switch {
	case resp != nil && resp.IsError():
		w.logf("%s: %v", path, resp.Error())
		return nil
	case err != nil:
		w.logf("%s: %v", path, err)
		return nil
	case resp == nil:
		return map[string]any{}
	}
	return resp.Data
}

func (w *clientWorld) consumer(name, role string) *simCaller {
	c := &simCaller{w: w, name: name, role: role, up: w.now(), token: name + "-t0"}
	config := api.DefaultConfig()
	config.Address = "http://sim.invalid"
	config.HttpClient = &http.Client{Transport: c}
	vault, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	c.source, err = client.New(client.Options{Client: vault, Mount: "apikeys", Role: role, Instance: name, Label: name, Clock: c.clock, Auth: c})
	if err != nil {
		w.t.Fatal(err)
	}
	transport, err := client.NewTransport(c.source, client.TransportOptions{Hosts: []string{"api.example.com"}, Base: simAPI{c}})
	if err != nil {
		w.t.Fatal(err)
	}
	c.http = &http.Client{Transport: transport}
	return c
}

// clock is what the machine's clocks show.
func (c *simCaller) clock() (wall, mono int64) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	now := c.w.now()
	if !c.asleep.IsZero() {
		now = c.asleep
	}
	return now.Add(c.wall).UnixNano(), int64(now.Sub(simStart) - c.slept)
}

// Login is what the server's auth method answers.
func (c *simCaller) Login(ctx context.Context, _ *api.Client) (*api.Secret, error) {
	if err := c.reach(ctx); err != nil {
		return nil, err
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.tokens++
	c.token = fmt.Sprint(c.name, "-t", c.tokens)
	return &api.Secret{Auth: &api.SecretAuth{ClientToken: c.token, LeaseDuration: int(clientTokens / time.Second), Renewable: true}}, nil
}

// clientTokens is the ttl of tokens; they are not renewed beyond it.
const clientTokens = 7 * time.Minute

// reach is the way to the server.
func (c *simCaller) reach(ctx context.Context) error {
	c.w.mu.Lock()
	cut, wakes := c.cut, c.wakes
	delay := time.Duration(c.w.random(c.name, "reach").Int64N(int64(30 * time.Millisecond)))
	c.w.mu.Unlock()
	if wakes != nil {
		select {
		case <-wakes:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if cut {
		if c.w.random(c.name, "cut").IntN(2) == 0 {
			return errRefused
		}
		return never(ctx)
	}
	return until(ctx, delay)
}

// RoundTrip is the server for a consumer.
func (c *simCaller) RoundTrip(req *http.Request) (*http.Response, error) {
	w, ctx := c.w, req.Context()
	var data map[string]any
	if req.Body != nil {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &data); err != nil {
				return nil, err
			}
		}
	}
	if err := c.reach(ctx); err != nil {
		return nil, err
	}
	node := w.active()
	token := req.Header.Get("X-Vault-Token")
	out := w.serve(node, req.Method, strings.TrimPrefix(req.URL.Path, "/v1/"), token, req.URL.Query(), data)
	if node.life.Err() != nil {
		return nil, errReset
	}
	if err := c.reach(ctx); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(out.body)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: out.status, Status: http.StatusText(out.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: int64(len(raw)),
		Header: http.Header{"Content-Type": {"application/json"}, "Date": {node.clock.Now().UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(bytes.NewReader(raw)),
	}, nil
}

type simReply struct {
	status int
	body   map[string]any
}

// serve answers as a server does that has the engine mounted.
func (w *clientWorld) serve(node *simNode, method, path, token string, query map[string][]string, data map[string]any) simReply {
	w.mu.Lock()
	known := len(w.consumers) < 4 || slices.ContainsFunc(w.consumers, func(c *simCaller) bool { return c.token == token })
	w.mu.Unlock()
	if !known {
		return simReply{http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}}}
	}
	switch path {
	case "auth/token/lookup-self":
		return simReply{http.StatusOK, map[string]any{"data": map[string]any{"ttl": int(clientTokens / time.Second)}}}
	case "auth/token/renew-self":
		return simReply{http.StatusBadRequest, map[string]any{"errors": []string{"not renewable"}}}
	case "auth/token/revoke-self":
		return simReply{http.StatusNoContent, nil}
	case "sys/leases/renew", "sys/leases/revoke":
		return w.serveLease(node, path, data)
	}
	op := logical.Operation(logical.UpdateOperation)
	if method == http.MethodGet {
		op, data = logical.ReadOperation, map[string]any{}
		for name, values := range query {
			data[name] = values[0]
		}
	}
	resp, err := w.ask(context.Background(), node, op, strings.TrimPrefix(path, "apikeys/"), data)
	if bad := failure(resp, err); bad != nil {
		return *bad
	}
	if resp == nil {
		return simReply{http.StatusNotFound, map[string]any{"errors": []string{}}}
	}
	out := map[string]any{"data": resp.Data}
	if resp.Secret != nil {
		id := fmt.Sprint("lease-", resp.Data["key_id"])
		out["lease_id"], out["lease_duration"], out["renewable"] = id, int(resp.Secret.TTL/time.Second), resp.Secret.Renewable
		resp.Secret.IssueTime = node.clock.Now()
		w.mu.Lock()
		w.grants[id] = &simGrant{simLease{resp.Secret, resp.Data, w.now().Add(resp.Secret.TTL)}, token}
		w.mu.Unlock()
	}
	return simReply{http.StatusOK, out}
}

// failure is an answer that tells what went wrong; nil if nothing did.
func failure(resp *logical.Response, err error) *simReply {
	switch {
	case resp != nil && resp.IsError():
		return &simReply{http.StatusBadRequest, map[string]any{"errors": []string{resp.Error().Error()}}}
	case err != nil:
		return &simReply{http.StatusInternalServerError, map[string]any{"errors": []string{err.Error()}}}
	}
	return nil
}

func (w *clientWorld) serveLease(node *simNode, path string, data map[string]any) simReply {
	id := fmt.Sprint(data["lease_id"])
	w.mu.Lock()
	g := w.grants[id]
	w.mu.Unlock()
	if g == nil || !w.now().Before(g.ends) {
		return simReply{http.StatusBadRequest, map[string]any{"errors": []string{"lease not found"}}}
	}
	op := logical.Operation(logical.RenewOperation)
	if path == "sys/leases/revoke" {
		op = logical.RevokeOperation
	}
	resp, err := w.lease(node, op, g)
	w.logf("%s %s: %v", op, id, failure(resp, err))
	if bad := failure(resp, err); bad != nil {
		return *bad
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if op == logical.RevokeOperation {
		delete(w.grants, id)
		w.saw("lease given back")
		return simReply{http.StatusNoContent, nil}
	}
	w.saw("lease renewed")
	// As servers do: the answer's TTL, but not beyond MaxTTL of the first issue.
	ttl := resp.Secret.TTL
	if most := resp.Secret.MaxTTL; most > 0 {
		ttl = min(ttl, g.secret.IssueTime.Add(most).Sub(node.clock.Now()))
	}
	g.ends = w.now().Add(ttl)
	return simReply{http.StatusOK, map[string]any{"lease_id": id, "lease_duration": int(ttl / time.Second), "renewable": true}}
}

// lease is a request of the server about a lease.
func (w *clientWorld) lease(node *simNode, op logical.Operation, g *simGrant) (*logical.Response, error) {
	secret := *g.secret
	req := w.request
	req.Operation, req.Path, req.Secret, req.Data, req.Storage = op, "creds/any", &secret, g.data, node.storage
	return node.HandleRequest(context.Background(), &req)
}

// endGrants ends leases that are over, and those of tokens that are.
func (w *clientWorld) endGrants() {
	w.mu.Lock()
	var over []string
	for id, g := range w.grants {
		alive := slices.ContainsFunc(w.consumers, func(c *simCaller) bool { return c.token == g.token })
		if !w.now().Before(g.ends) || !alive && w.now().After(g.secret.IssueTime.Add(clientTokens)) {
			over = append(over, id)
		}
	}
	w.mu.Unlock()
	slices.Sort(over)
	for _, id := range over {
		w.mu.Lock()
		g := w.grants[id]
		w.mu.Unlock()
		if g == nil {
			continue
		}
		w.logf("%s ends with %s", id, g.token)
		if resp, err := w.lease(w.active(), logical.RevokeOperation, g); failure(resp, err) == nil {
			w.mu.Lock()
			delete(w.grants, id)
			w.mu.Unlock()
		}
	}
}

// simAPI is the API, which has the engine verify each key.
type simAPI struct{ c *simCaller }

func (a simAPI) RoundTrip(req *http.Request) (*http.Response, error) {
	w := a.c.w
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	secret := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	data := w.verdict(secret)
	a.c.calls++
	status := http.StatusOK
	if data["valid"] != true {
		status = http.StatusUnauthorized
		w.logf("%s: %v %v %v %v", a.c.name, data["key_id"], data["version"], data["code"], data["reason"])
	}
	return &http.Response{StatusCode: status, Header: http.Header{"X-Code": {fmt.Sprint(data["code"])}, "X-Key": {fmt.Sprint(data["key_id"])}}, Body: io.NopCloser(strings.NewReader("")), Request: req, ProtoMajor: 1, ProtoMinor: 1}, nil
}

func (w *clientWorld) verdict(secret string) map[string]any {
	for {
		node := w.active()
		resp, err := w.ask(context.Background(), node, logical.UpdateOperation, "verify", map[string]any{"key": secret})
		if node.life.Err() != nil {
			continue // there is another one
		}
		if bad := failure(resp, err); bad != nil {
			w.fail("verify: %v", bad)
			return nil
		}
		return resp.Data
	}
}

// call makes a request, and judges what becomes of it.
func (c *simCaller) call() {
	w := c.w
	w.mu.Lock()
	if !c.asleep.IsZero() {
		w.mu.Unlock()
		return
	}
	began := w.now()
	w.mu.Unlock()
	once := w.random(c.name, "body").IntN(3) == 0
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.example.com/", strings.NewReader("body"))
	if err != nil {
		w.t.Error(err)
		return
	}
	if once {
		req.GetBody = nil
	}
	before := c.source.Stats().Refused
	resp, err := c.http.Do(req)
	retried := c.source.Stats().Refused > before
	w.mu.Lock()
	defer w.mu.Unlock()
	excuse := c.excuse(began)
	switch {
	case err != nil:
		if excuse == "" {
			w.fail("%s: %v", c.name, err)
		}
		w.saw("no key, excused")
	case resp.StatusCode == http.StatusOK:
		w.saw("accepted")
		if retried {
			w.saw("retried")
		}
	case excuse != "":
		w.saw("excused")
	case once && c.refused != resp.Header.Get("X-Key") && (w.closed[c.role].After(began.Add(-clientGrace)) || c.role == "leased"):
		// It could not be sent again; the next one must succeed.
		c.refused = resp.Header.Get("X-Key")
		w.saw("refused once")
	default:
		w.fail("%s: refused: %s", c.name, resp.Header.Get("X-Code"))
	}
}

// excuse is why a request that was begun then may fail; "" if it may not. The world is
// locked.
func (c *simCaller) excuse(began time.Time) string {
	w := c.w
	now := w.now()
	since := began.Add(-clientPause)
	if w.disabled[c.role] {
		return "disabled"
	}
	// The consumer can ask, and has been able to for long enough to have noticed.
	if !c.away && c.up.Before(since) {
		return ""
	}
	lost := c.down
	switch {
	case w.closed[c.role].After(lost.Add(-clientRefresh - clientPause)):
		return "an operator ended the key, and the consumer could not ask"
	case c.role == "leased" && (w.failover.After(since) || w.failover.After(lost.Add(-clientPause))):
		return "by the new node's clock the lease is over"
	case c.role == "leased" && c.set.After(lost.Add(-clientPause)):
		return "by its own clock the lease is over"
	case c.role == "leased" && now.Sub(lost) > clientLease/4:
		return "the lease could not be renewed"
	case now.Sub(lost) > clientGrace/2:
		return "the grace is over"
	}
	return ""
}

// decide is what operators do.
func (w *clientWorld) decide() {
	role := choose(w.edgeWorld, "hand", "hand", "auto", "leased")
	ends := func() {
		w.mu.Lock()
		w.closed[role] = w.now()
		w.mu.Unlock()
	}
	switch w.rand.IntN(9) {
	case 0, 1:
		w.saw("rotation")
		w.write("rotate/"+role, nil)
	case 2:
		w.saw("rotation without grace")
		if w.write("rotate/"+role, map[string]any{"grace_period": "0", "force": true}) != nil {
			ends()
		}
	case 3, 4:
		w.saw("revocation")
		if w.write("revoke/"+role, map[string]any{"all": true}) != nil {
			ends()
		}
	case 5:
		if role == "leased" {
			return
		}
		w.saw("staging")
		w.write("rotate/"+role, map[string]any{"activate_at": fmt.Sprint(10+w.rand.IntN(120), "s")})
	case 6:
		w.saw("rollback")
		w.write("rollback/"+role, nil)
	case 7:
		if key, err := w.consumers[w.rand.IntN(3)].source.Key(context.Background()); err == nil {
			role = key.Role
			w.saw("leak")
			if w.apply("report", map[string]any{"key": key.Value}) != nil {
				ends()
			}
		}
	case 8:
		w.mu.Lock()
		already := w.disabled[role]
		w.disabled[role] = true
		w.mu.Unlock()
		if already {
			return
		}
		w.saw("disabled")
		w.write("roles/"+role, map[string]any{"disabled": true})
		w.tasks.Go(func() {
			_ = until(context.Background(), time.Duration(w.random("disabled").Int64N(int64(time.Minute))))
			for w.write("roles/"+role, map[string]any{"disabled": false}) == nil {
				_ = until(context.Background(), time.Second) // a failover came between
			}
			_ = until(context.Background(), clientPause)
			w.mu.Lock()
			w.disabled[role] = false
			w.mu.Unlock()
		})
	}
}

// upset is what fate does.
func (w *clientWorld) upset() {
	c := choose(w.edgeWorld, w.consumers...)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.rand.IntN(7) {
	case 0, 1, 2:
		if c.cut {
			return
		}
		w.saw("cut")
		longest := 2 * time.Minute
		if w.rand.IntN(4) == 0 {
			w.saw("long cut")
			longest = 12 * time.Minute
		}
		d := time.Duration(w.rand.Int64N(int64(longest)))
		w.logf("%s is cut off for %v", c.name, d)
		c.cut = true
		c.changed()
		w.tasks.Go(func() {
			_ = until(context.Background(), d)
			w.mu.Lock()
			defer w.mu.Unlock()
			c.cut = false
			c.changed()
		})
	case 3:
		w.saw("failover")
		orderly := w.rand.IntN(2) == 0
		off := time.Duration(w.rand.Int64N(int64(3*time.Minute))) - 90*time.Second
		w.logf("failover to a clock off by %v", off)
		old := w.node
		w.failover = w.now()
		for _, c := range w.consumers {
			if c.away {
				continue
			}
			if c.up.Before(w.now().Add(-clientPause)) {
				c.down = w.now()
			}
			c.up = w.now() // calls were under way
		}
		w.mu.Unlock()
		old.stop(orderly)
		w.start(off)
		w.mu.Lock()
	case 4:
		if c.asleep.IsZero() {
			w.saw("suspended")
			c.asleep, c.wakes = w.now(), make(chan struct{})
			c.changed()
			d := time.Duration(w.rand.Int64N(int64(10 * time.Minute)))
			w.logf("%s sleeps for %v", c.name, d)
			w.tasks.Go(func() {
				_ = until(context.Background(), d)
				w.mu.Lock()
				defer w.mu.Unlock()
				c.wake()
			})
		}
	case 5:
		w.saw("clock set")
		c.set = w.now()
		c.wall = time.Duration(w.rand.Int64N(int64(20*time.Minute))) - 10*time.Minute
		w.logf("%s: its clock is off by %v", c.name, c.wall)
	case 6:
		w.saw("another token")
		// Somebody has revoked it, and so ended what it was issued.
		old := c.token
		c.token = "none"
		for _, g := range w.grants {
			if g.token == old {
				g.ends = w.now()
			}
		}
		w.closed[c.role] = w.now()
		w.logf("%s: its token is gone", c.name)
	}
}

func (c *simCaller) wake() {
	if c.wakes == nil {
		return
	}
	c.slept += c.w.now().Sub(c.asleep)
	c.asleep = time.Time{}
	close(c.wakes)
	c.wakes = nil
	c.changed()
}

// changed notes since when the consumer can, or cannot, reach the server. The world is
// locked.
func (c *simCaller) changed() {
	away := c.cut || !c.asleep.IsZero()
	switch {
	case away && !c.away:
		if c.up.Before(c.w.now().Add(-clientPause)) {
			c.down = c.w.now() // else it had no time to make up for the last time
		}
	case !away && c.away:
		c.up = c.w.now()
	}
	c.away = away
}

// heal ends all trouble.
func (w *clientWorld) heal() {
	w.tasks.Wait()
}

func (w *clientWorld) end() {
	w.tasks.Wait()
	var all sync.WaitGroup
	for _, c := range w.consumers {
		all.Go(func() { _ = c.source.Close() })
	}
	all.Wait()
	for _, n := range w.nodes {
		n.stop(false)
	}
}

// TestAConsumerIsSeenToHaveMoved: after its first success with a new key the role's
// status says so.
func TestAConsumerIsSeenToHaveMoved(t *testing.T) {
	w := &edgeWorld{rand: mathrand.New(mathrand.NewPCG(1, 1)), disk: &logical.InmemStorage{}, seen: map[string]int{}}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		cw := &clientWorld{edgeWorld: w, closed: map[string]time.Time{}, disabled: map[string]bool{}, grants: map[string]*simGrant{}}
		w.request = logical.Request{ClientTokenAccessor: "sim", DisplayName: "sim", MountPoint: "apikeys/"}
		w.start(0)
		cw.write("roles/hand", map[string]any{"grace_period": "4m", "refresh_interval": "1m"})
		c := cw.consumer("shop", "hand")
		w.mu.Lock()
		cw.consumers = append(cw.consumers, c)
		w.mu.Unlock()
		defer cw.end()
		reported := func(version int64) any {
			resp, err := w.ask(t.Context(), w.node, logical.ReadOperation, "status/hand", nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range resp.Data["versions"].([]any) {
				v := v.(map[string]any)
				if fmt.Sprint(v["version"]) != fmt.Sprint(version) {
					continue
				}
				told := v["usage"].(map[string]any)["reported"].(map[string]any)
				var labels []string
				for _, c := range told["clients"].([]any) {
					labels = append(labels, fmt.Sprint(c.(map[string]any)["client"]))
				}
				return fmt.Sprint(told["accepted"], " ", labels)
			}
			return nil
		}
		c.call()
		w.pass(time.Second)
		if got := reported(1); got != "1 [shop]" {
			t.Fatalf("of version 1: %v", got)
		}
		cw.write("rotate/hand", nil)
		if got := reported(2); got != "0 []" {
			t.Errorf("of version 2 before it has moved: %v", got)
		}
		w.pass(70 * time.Second)
		c.call()
		w.pass(time.Second)
		if got := reported(2); got != "1 [shop]" {
			t.Errorf("of version 2: %v", got)
		}
		// An emergency: it moves with the next request.
		cw.write("revoke/hand", map[string]any{"version": 2})
		c.call()
		w.pass(time.Second)
		if got := reported(3); got != "1 [shop]" {
			t.Errorf("of version 3: %v", got)
		}
	})
}
