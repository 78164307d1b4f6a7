// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// BenchmarkDeliveries measures how many events reach a receiver on this machine in a
// second, from the outbox, through the real way out.
func BenchmarkDeliveries(b *testing.B) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	m := newEventMount(b)
	m.courier = func(req *http.Request, ca string) (*egress.Answer, error) { return m.egress.Do(req, ca, maxAnswer) }
	m.write("config", map[string]any{"egress_allow": "127.0.0.0/8:" + u.Port(), "outbound_paused": true})
	m.write("events/e", map[string]any{"url": server.URL, "pace": 10000, "types": "role.created"})
	n := max(b.N, 2000)
	for i := range n {
		m.write(fmt.Sprintf("roles/r%06d", i), map[string]any{"type": "dynamic"})
	}
	m.write("config", map[string]any{"outbound_paused": false})
	b.ResetTimer()
	began := time.Now() //nolint:forbidigo // it is what is measured
	for got.Load() < int64(n) {
		m.clock.advance(time.Second) // the pace is that of the mount's clock
		m.deliver()
	}
	took := time.Since(began) //nolint:forbidigo // the same
	b.ReportMetric(float64(n)/took.Seconds(), "events/s")
}

// BenchmarkDeadEndpoint measures, on two engines that take turns, how long after the
// answer to a rotation an endpoint on this machine has heard of it: one engine has this
// endpoint only, the other one beside it that takes connections and never answers.
// Backlog is how many events wait for that one already.
func BenchmarkDeadEndpoint(b *testing.B) {
	for _, backlog := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("backlog=%d", backlog), func(b *testing.B) {
			live := newHearer(b)
			silent := newSilence(b)
			alone, beside := startTold(b, live, "", 0), startTold(b, live, silent, backlog)
			n := max(b.N, 500)
			b.ResetTimer()
			var took [2][]time.Duration
			for i := range 2 * n {
				which := i & 1
				if i&2 != 0 {
					which = 1 - which
				}
				took[which] = append(took[which], [...]*tellsAll{alone, beside}[which].rotates(b, live))
			}
			for i, name := range []string{"alone", "beside"} {
				slices.Sort(took[i])
				b.ReportMetric(float64(took[i][n/2].Microseconds()), "µs-"+name)
				b.ReportMetric(float64(took[i][n*99/100].Microseconds()), "µs-"+name+"-99%")
			}
			b.ReportMetric(float64(took[1][n/2])/float64(took[0][n/2]), "ratio")
			b.ReportMetric(float64(took[1][n*99/100])/float64(took[0][n*99/100]), "ratio-99%")
			for _, m := range []*tellsAll{alone, beside} {
				m.Cleanup(b.Context())
			}
		})
	}
}

// hearer is an endpoint that says who told it.
type hearer struct {
	url, port string
	heard     chan string
}

func newHearer(b *testing.B) *hearer {
	b.Helper()
	h := &hearer{heard: make(chan string, 16)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
		h.heard <- r.URL.Path
	}))
	b.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	h.url, h.port = server.URL, u.Port()
	return h
}

// newSilence takes connections and says nothing; it returns its URL.
func newSilence(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		var held []net.Conn // open as long as this runs
		for {
			conn, err := l.Accept()
			if err != nil {
				for _, c := range held {
					c.Close()
				}
				return
			}
			held = append(held, conn)
		}
	}()
	return "http://" + l.Addr().String()
}

// tellsAll is an engine, as a server runs it, that tells an endpoint of rotations.
type tellsAll struct {
	logical.Backend

	s    logical.Storage
	path string
}

// startTold makes one, with a silent endpoint beside the other where there is a URL.
func startTold(b *testing.B, live *hearer, silent string, backlog int) *tellsAll {
	b.Helper()
	m := &tellsAll{s: newTreeStore(), path: fmt.Sprintf("/%d", len(silent))}
	m.Backend = startStorm(b, m.s)
	m.write(b, "config", map[string]any{"egress_allow": "127.0.0.0/8:*"})
	if silent != "" {
		m.write(b, "events/silent", map[string]any{"url": silent, "types": "key.activated", "pace": 10000})
	}
	for i := range backlog {
		m.write(b, fmt.Sprintf("roles/waits%d", i), map[string]any{"type": "dynamic"})
	}
	m.write(b, "roles/r", map[string]any{"rotation_period": 0})
	m.write(b, "events/live", map[string]any{"url": live.url + m.path, "types": "key.activated", "pace": 10000})
	for range 20 { // the first connection, and a warm cache
		m.rotates(b, live)
	}
	return m
}

func (m *tellsAll) write(b *testing.B, path string, data map[string]any) {
	b.Helper()
	req := &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: m.s, Data: data}
	if _, exists, err := m.HandleExistenceCheck(b.Context(), req); err == nil && !exists && strings.HasPrefix(path, "roles/") {
		req.Operation = logical.CreateOperation
	}
	resp, err := m.HandleRequest(b.Context(), req)
	if err != nil || resp != nil && resp.IsError() {
		b.Fatalf("%s: %v %v", path, err, resp)
	}
}

// rotates is how long after a rotation the endpoint has heard of it.
func (m *tellsAll) rotates(b *testing.B, live *hearer) time.Duration {
	b.Helper()
	m.write(b, "rotate/r", map[string]any{"grace_period": 0})
	began := time.Now() //nolint:forbidigo // it is what is measured
	select {
	case who := <-live.heard:
		if who != m.path {
			b.Fatalf("%s tells, not %s", who, m.path)
		}
	case <-time.After(time.Minute): //nolint:forbidigo // else it would hang
		b.Fatal("nothing is told")
	}
	return time.Since(began) //nolint:forbidigo // it is what is measured
}
