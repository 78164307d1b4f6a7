// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// benchNet is the way from edges to the engine that is active: requests and answers are
// JSON, as over a network, but nothing travels. It counts.
type benchNet struct {
	storage logical.Storage

	mu     sync.Mutex
	active logical.Backend
	life   context.Context // of the active one
	stop   context.CancelFunc

	polls, calls, verifications atomic.Int64
	known                       sync.Map // key ids of the answers since forget
	knows                       atomic.Int64
}

func newBenchNet(b *testing.B, s logical.Storage) *benchNet {
	b.Helper()
	n := &benchNet{storage: s, stop: func() {}}
	n.failOver(b)
	b.Cleanup(func() {
		n.stop()
		n.active.Cleanup(context.Background())
	})
	return n
}

// failOver makes an engine active that has nothing in memory. What was asked of the one
// before fails.
func (n *benchNet) failOver(b *testing.B) {
	b.Helper()
	n.mu.Lock()
	old := n.active
	n.stop()
	n.mu.Unlock()
	if old != nil {
		old.Cleanup(b.Context())
	}
	next := startStorm(b, n.storage)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.active = next
	n.life, n.stop = context.WithCancel(context.Background())
}

// ask is a request to the active engine.
func (n *benchNet) ask(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	n.mu.Lock()
	active, life := n.active, n.life
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	return active.HandleRequest(ctx, &logical.Request{
		Operation: op, Path: path, Data: data, Storage: n.storage, MountPoint: "apikeys/", ClientTokenAccessor: "edge", DisplayName: "edge",
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
}

// must is a request that has to succeed.
func (n *benchNet) must(b *testing.B, op logical.Operation, path string, data map[string]any) map[string]any {
	b.Helper()
	resp, err := n.ask(b.Context(), op, path, data)
	if err != nil || resp.IsError() {
		b.Fatal(path, resp, err)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

// RoundTrip is a request of an edge.
func (n *benchNet) RoundTrip(req *http.Request) (*http.Response, error) {
	var data map[string]any
	if err := json.NewDecoder(req.Body).Decode(&data); err != nil {
		return nil, err
	}
	path := strings.TrimPrefix(req.URL.Path, "/v1/apikeys/")
	resp, err := n.ask(req.Context(), logical.UpdateOperation, path, data)
	status, out := http.StatusOK, map[string]any{}
	switch {
	case err != nil:
		status, out["errors"] = http.StatusInternalServerError, []string{err.Error()}
	case resp != nil && resp.IsError():
		status, out["errors"] = http.StatusBadRequest, []string{resp.Error().Error()}
	case resp != nil:
		out["data"] = resp.Data
		n.count(path, resp.Data)
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

func (n *benchNet) count(path string, answer map[string]any) {
	switch path {
	case "changes":
		n.polls.Add(1)
	case "verify":
		n.calls.Add(1)
		results, _ := answer["results"].([]any)
		n.verifications.Add(int64(len(results)))
		for _, r := range results {
			result, _ := r.(map[string]any)
			if id, _ := result["key_id"].(string); id != "" {
				if _, again := n.known.LoadOrStore(id, true); !again {
					n.knows.Add(1)
				}
			}
		}
	}
}

// forget begins to count anew.
func (n *benchNet) forget() {
	n.known.Clear()
	for _, c := range []*atomic.Int64{&n.polls, &n.calls, &n.verifications, &n.knows} {
		c.Store(0)
	}
}

// edge is one that follows the engine over this net.
func (n *benchNet) edge(b *testing.B) *edge.Verifier {
	b.Helper()
	config := api.DefaultConfig()
	config.Address, config.HttpClient = "http://bench.invalid", &http.Client{Transport: n}
	client, err := api.NewClient(config)
	if err != nil {
		b.Fatal(err)
	}
	client.SetToken("bench")
	v, err := edge.New(edge.Options{Client: client, Mount: "apikeys", UnknownPerSecond: 1e9})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = v.Close() })
	return v
}

// hold has the edge know all the keys.
func hold(b *testing.B, v *edge.Verifier, keys []string) {
	b.Helper()
	const together = 1000
	var wg sync.WaitGroup
	for i := range min(together, len(keys)) {
		wg.Go(func() {
			for ; i < len(keys); i += together {
				for {
					got, err := v.Verify(b.Context(), edge.Request{Key: keys[i]})
					if errors.Is(err, edge.ErrUnavailable) {
						continue // the feed has not been read yet, or the machine is slow
					}
					if err != nil || !got.Valid {
						b.Error(got, err)
					}
					break
				}
			}
		})
	}
	wg.Wait()
	for v.Stats().Held < len(keys) { // told before the feed was read
		for _, key := range keys {
			if got, err := v.Verify(b.Context(), edge.Request{Key: key}); err != nil || !got.Valid {
				b.Fatal(got, err)
			}
		}
	}
}

// delays are what was waited for.
type delays struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *delays) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, took)
}

// report tells the middle, the 99th percentile and the longest, in milliseconds.
func (d *delays) report(b *testing.B, name string) {
	b.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.all) == 0 {
		b.Fatalf("%s: nothing was measured", name)
	}
	slices.Sort(d.all)
	b.ReportMetric(ms(d.all[len(d.all)/2]), "ms-p50"+name)
	b.ReportMetric(ms(d.all[len(d.all)*99/100]), "ms-p99"+name)
	b.ReportMetric(ms(d.all[len(d.all)-1]), "ms-max"+name)
}

// BenchmarkEdgeRevocation: 100 edges hold a key, which is revoked. How long after the
// answer to that does each of them refuse it?
func BenchmarkEdgeRevocation(b *testing.B) {
	const (
		edges = 100
		keys  = 10 // revoked one after the other
	)
	n := newBenchNet(b, newTreeStore())
	all := make([]*edge.Verifier, edges)
	for i := range all {
		all[i] = n.edge(b)
	}
	var refused delays
	roles := 0
	for b.Loop() {
		names, secrets := make([]string, keys), make([]string, keys)
		for i := range names {
			roles++
			names[i] = fmt.Sprint("r", roles)
			n.must(b, logical.CreateOperation, "roles/"+names[i], nil)
			secrets[i] = n.must(b, logical.ReadOperation, "creds/"+names[i], nil)["api_key"].(string)
		}
		for _, v := range all {
			hold(b, v, secrets)
		}
		for i, secret := range secrets {
			<-time.After(rand.N(500 * time.Millisecond)) // polls are anywhere
			var answered atomic.Int64
			var wg sync.WaitGroup
			for _, v := range all {
				wg.Go(func() {
					for {
						got, err := v.Verify(b.Context(), edge.Request{Key: secret})
						at := answered.Load()
						switch {
						case err == nil && got.Valid:
							if at > 0 && time.Now().UnixNano()-at > int64(10*time.Second) {
								b.Error("accepted ten seconds after it was revoked")
								return
							}
						case err == nil && got.Code == codeRevoked.String():
							for at == 0 {
								at = answered.Load() // it was faster than the answer
							}
							refused.add(max(0, time.Duration(time.Now().UnixNano()-at)))
							return
						default:
							b.Error(got, err)
							return
						}
						<-time.After(2*time.Millisecond + rand.N(2*time.Millisecond))
					}
				})
			}
			n.must(b, logical.UpdateOperation, "revoke/"+names[i], map[string]any{"version": 1})
			answered.Store(time.Now().UnixNano())
			wg.Wait()
		}
	}
	b.ReportMetric(0, "ns/op")
	refused.report(b, "")
}

// heldKeys is how many keys an edge holds when a decision is about all of them.
const heldKeys = 100_000

// users are those who use keys of an edge, any of them, so often per second.
type users struct {
	v         *edge.Verifier
	keys      []string
	perSecond int
	took      func(i int, d time.Duration)
}

// run uses keys until done says so.
func (u *users) run(b *testing.B, done func() bool) {
	b.Helper()
	const together = 20
	var wg sync.WaitGroup
	for range together {
		wg.Go(func() {
			began, used := time.Now(), 0
			for !done() && !b.Failed() {
				<-time.After(5 * time.Millisecond)
				for ; used < int(time.Since(began).Seconds()*float64(u.perSecond/together)); used++ {
					i := rand.IntN(len(u.keys))
					began := time.Now()
					got, err := u.v.Verify(b.Context(), edge.Request{Key: u.keys[i]})
					if err != nil || !got.Valid {
						b.Error(got, err)
						return
					}
					u.took(i, time.Since(began))
				}
			}
		})
	}
	wg.Wait()
}

// for reports whether so much time has passed since it was made.
func during(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}

// BenchmarkEdgeRotation: an edge holds 100,000 keys of one dynamic role, which rotates.
// How long does it take until all are confirmed, and how long does who uses one wait?
func BenchmarkEdgeRotation(b *testing.B) {
	n := newBenchNet(b, newTreeStore())
	n.must(b, logical.CreateOperation, "roles/d", map[string]any{"type": "dynamic", "ttl": "24h", "max_ttl": "48h"})
	keys := make([]string, heldKeys)
	for i := range keys {
		keys[i] = n.must(b, logical.ReadOperation, "creds/d", nil)["api_key"].(string)
	}
	v := n.edge(b)
	hold(b, v, keys)
	var before, waited delays
	u := &users{v: v, keys: keys, perSecond: 2000}
	var confirmed time.Duration
	rotations := 0
	for b.Loop() {
		rotations++
		u.took = func(_ int, d time.Duration) { before.add(d) }
		u.run(b, during(2*time.Second))
		n.forget()
		n.must(b, logical.UpdateOperation, "rotate/d", map[string]any{"grace_period": "23h", "force": true})
		began := time.Now()
		u.took = func(_ int, d time.Duration) { waited.add(d) }
		late := during(10 * time.Minute)
		u.run(b, func() bool {
			if late() {
				b.Errorf("%d of %d keys are confirmed", n.knows.Load(), len(keys))
			}
			return n.knows.Load() == heldKeys
		})
		confirmed += time.Since(began)
		for i := range 1000 {
			got, err := v.Verify(b.Context(), edge.Request{Key: keys[i*len(keys)/1000]})
			if err != nil || !got.Valid || got.State != "previous" {
				b.Fatal(got, err)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(confirmed.Seconds()/float64(rotations), "s-until-confirmed")
	before.report(b, "-before")
	waited.report(b, "")
}

// fillStatic writes static roles past the API, with their keys, which it returns.
func fillStatic(b *testing.B, s logical.Storage, count int) []string {
	b.Helper()
	c := newFakeClock()
	c.set(time.Now())
	m := mountOn(b, s, c)
	m.write("roles/model", map[string]any{"scopes": "orders:read"})
	model, err := m.roles.get(b.Context(), s, rolePath("model"))
	if err != nil {
		b.Fatal(err)
	}
	digests, err := m.digests(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, count)
	for i := range keys {
		key, rec, err := m.mintKey(digests, "ak")
		if err != nil {
			b.Fatal(err)
		}
		role := model.clone()
		role.Name, role.ID = benchRole(i), benchID(i)
		role.Ring.Versions[0].KeyID = rec.ID
		rec.Role, rec.RoleID, rec.Version = role.Name, role.ID, 1
		plant(b, s, keyPath(rec.ID), rec)
		plant(b, s, rolePath(role.Name), role)
		keys[i] = key.Reveal()
	}
	m.Cleanup(b.Context())
	return keys
}

// BenchmarkEdgeFailover: an edge holds 100,000 keys of as many roles, and another node
// takes over, which has nothing in memory. How long does the first use of a key after
// that take, and what does the engine do until all are confirmed?
func BenchmarkEdgeFailover(b *testing.B) {
	store := newTreeStore()
	keys := fillStatic(b, store, heldKeys)
	c := &calls{Storage: store}
	n := newBenchNet(b, c)
	v := n.edge(b)
	hold(b, v, keys)
	var first delays
	var spent time.Duration
	var asked, verifications, storage int64
	for b.Loop() {
		n.forget()
		n.failOver(b)
		stored := c.all.Load()
		var began time.Time
		for late := during(10 * time.Second); n.polls.Load() == 0; {
			if late() {
				b.Fatal("the edge does not follow the new node")
			}
			<-time.After(time.Millisecond)
		}
		began = time.Now()
		used := make([]atomic.Bool, len(keys))
		u := &users{v: v, keys: keys, perSecond: 2000, took: func(i int, d time.Duration) {
			if !used[i].Swap(true) {
				first.add(d)
			}
		}}
		late := during(10 * time.Minute)
		u.run(b, func() bool {
			if late() {
				b.Errorf("%d of %d keys are confirmed", n.knows.Load(), len(keys))
			}
			return n.knows.Load() == heldKeys
		})
		spent += time.Since(began)
		asked += n.calls.Load()
		verifications += n.verifications.Load()
		storage += c.all.Load() - stored
	}
	b.ReportMetric(0, "ns/op")
	first.report(b, "")
	b.ReportMetric(spent.Seconds()*heldKeys/float64(verifications), "s-until-confirmed")
	b.ReportMetric(float64(asked)/spent.Seconds(), "calls/s")
	b.ReportMetric(float64(verifications)/spent.Seconds(), "verifications/s")
	b.ReportMetric(float64(storage)/float64(verifications), "storage/verification")
}

// BenchmarkEdgeFeed: 1,000 edges wait for decisions at the shipped plugin, in a process
// of its own. What does that cost the process, and the storage, while nothing is
// decided, and with a decision or ten each second?
func BenchmarkEdgeFeed(b *testing.B) {
	const (
		waiters = 1000
		span    = 10 * time.Second
	)
	c := &calls{Storage: newTreeStore()}
	p := launch(b, buildPlugin(b), c)
	p.send(b, c, logical.CreateOperation, "roles/r", map[string]any{"rotation_period": 0})
	for _, n := range []int{0, waiters} {
		for _, perSecond := range []int{0, 1, 10} {
			if n == 0 && perSecond == 0 {
				continue
			}
			b.Run(fmt.Sprintf("waiters=%d/decisions=%d", n, perSecond), func(b *testing.B) {
				ctx, cancel := context.WithCancel(b.Context())
				var wg sync.WaitGroup
				var polls, told atomic.Int64
				for range n {
					wg.Go(func() { followFeed(ctx, b, p, c, &polls, &told) })
				}
				<-time.After(3 * time.Second) // all wait, at different times
				var decided, spent float64
				var stored, answered int64
				for b.Loop() {
					calls, before, began, answers := c.all.Load(), p.cpu(b), time.Now(), polls.Load()
					for i := 1; time.Since(began) < span; i++ {
						if perSecond > 0 {
							p.send(b, c, logical.UpdateOperation, "roles/r", map[string]any{"rate_limit": i})
							decided++
							<-time.After(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
						} else {
							<-time.After(span)
						}
					}
					spent += 100 * (p.cpu(b) - before) / time.Since(began).Seconds()
					stored += c.all.Load() - calls
					answered += polls.Load() - answers
				}
				cancel()
				wg.Wait()
				if n > 0 && perSecond > 0 && told.Load() == 0 {
					b.Fatal("nobody was told of a decision")
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(spent/float64(b.N), "%-of-a-core")
				b.ReportMetric(float64(answered)/float64(b.N)/span.Seconds(), "polls/s")
				if decided > 0 {
					b.ReportMetric(float64(stored)/decided, "storage/decision")
				} else {
					b.ReportMetric(float64(stored)/float64(b.N), "storage")
				}
			})
		}
	}
}

// followFeed asks for decisions as an edge does until ctx ends.
func followFeed(ctx context.Context, b *testing.B, p *pluginProcess, s logical.Storage, polls, told *atomic.Int64) {
	<-time.After(rand.N(2 * time.Second))
	cursor := ""
	for {
		resp, err := p.HandleRequest(ctx, &logical.Request{
			Operation: logical.UpdateOperation, Path: "changes", Data: map[string]any{"since": cursor, "wait": "2s"}, Storage: s, MountPoint: "apikeys/",
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil || resp.IsError() {
			b.Error(resp, err)
			return
		}
		polls.Add(1)
		if notices, _ := resp.Data["notices"].([]any); len(notices) > 0 {
			told.Add(1)
		}
		cursor, _ = resp.Data["cursor"].(string)
	}
}
