// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gateway is one in front of an API of its own, with an edge of its own.
type gateway struct {
	name string
	addr string // where clients come
	edge *daemon
	line *line // between the two
	api  *upstream

	// first: of headers that came twice it looks at the first, and keeps all to itself.
	first bool
	// drops: spellings of a header that others could mistake end here.
	drops bool
	// tells: clients hear that their key is the previous one.
	tells bool
}

// kind is a kind of gateway. A stand-in asks and obeys as the real one does.
type kind struct {
	name   string
	config string // its directory
	start  func(t testing.TB, g *gateway)
}

var kinds = []kind{
	{"nginx", "nginx", startNginx},
	{"haproxy", "haproxy", startHAProxy},
	{"caddy", "caddy", startCaddy},
	{"traefik", "traefik", startTraefik},
	{"apisix, a stand-in", "apisix", standInAPISIX},
	{"envoy over gRPC, a stand-in", "envoy", standInEnvoy(true)},
	{"envoy over gRPC with plain headers, a stand-in", "envoy", standInEnvoy(false)},
	{envoyHTTP, "envoy", standInEnvoyHTTP},
}

const envoyHTTP = "envoy over HTTP, a stand-in"

// startAll starts every gateway; their Vault is at server.
func startAll(t testing.TB, e *engine) []*gateway {
	out := make([]*gateway, len(kinds))
	for i, k := range kinds {
		out[i] = startOne(t, e, k, e.addr)
	}
	return out
}

func startOne(t testing.TB, e *engine, k kind, server string) *gateway {
	g := &gateway{name: k.name, api: newUpstream(t), edge: newDaemon(t, k.config, server, e.edgeToken)}
	to := g.edge.auth
	if k.name == envoyHTTP {
		to = g.edge.http
	}
	g.line = newLine(t, to)
	g.edge.start()
	k.start(t, g)
	return g
}

func startNginx(t testing.TB, g *gateway) {
	dir := t.TempDir()
	g.addr, g.drops, g.tells = freeAddress(t), true, true
	put(t, dir, "nginx", "nginx.conf", "127.0.0.1:9090", g.line.addr, "127.0.0.1:8000", g.api.addr, "127.0.0.1:8080", g.addr)
	put(t, dir, "nginx", "identity.conf")
	g.run(t, dir, programs.nginx, "-p", dir, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;")
}

func startHAProxy(t testing.TB, g *gateway) {
	dir := t.TempDir()
	g.addr, g.tells = freeAddress(t), true
	put(t, dir, "haproxy", "haproxy.cfg", "127.0.0.1:9090", g.line.addr, "127.0.0.1:8000", g.api.addr, "127.0.0.1:8080", g.addr)
	put(t, dir, "haproxy", "apikeys.lua")
	g.run(t, dir, programs.haproxy, "-f", "haproxy.cfg", "-db")
}

func startCaddy(t testing.TB, g *gateway) {
	dir := t.TempDir()
	g.addr, g.drops, g.tells = freeAddress(t), true, true
	put(t, dir, "caddy", "Caddyfile", "127.0.0.1:9090", g.line.addr, "127.0.0.1:8000", g.api.addr, "http://:8080", "http://:"+port(g.addr))
	g.run(t, dir, programs.caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile")
}

func startTraefik(t testing.TB, g *gateway) {
	if programs.traefik == "" {
		standInTraefik(t, g)
		return
	}
	dir := t.TempDir()
	g.addr = freeAddress(t)
	put(t, dir, "traefik", "traefik.yml", "127.0.0.1:8080", g.addr)
	put(t, dir, "traefik", "dynamic.yml", "127.0.0.1:9090", g.line.addr, "127.0.0.1:8000", g.api.addr)
	g.run(t, dir, programs.traefik, "--configFile=traefik.yml")
}

func (g *gateway) run(t testing.TB, dir, program string, args ...string) {
	out := &output{}
	p := launch(t, out, dir, program, args...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", g.name, out.end())
		}
	})
	eventually(t, 30*time.Second, g.name, listens(g.addr, p))
}

// upstream is the API behind a gateway. It answers with what it has received.
type upstream struct {
	addr     string
	requests atomic.Int64
	// keys are requests that still had one; nobodies such without an identity.
	keys, nobodies atomic.Int64
}

// received is a request as the API has seen it.
type received struct {
	Method, URI string
	Header      http.Header
}

func newUpstream(t testing.TB) *upstream {
	u := &upstream{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.requests.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-API-Key") != "" {
			u.keys.Add(1)
		}
		if r.Header.Get("X-Apikey-Role") == "" || r.Header.Get("X-Apikey-Version") == "" {
			u.nobodies.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(received{r.Method, r.RequestURI, r.Header})
	}))
	t.Cleanup(s.Close)
	u.addr = s.Listener.Addr().String()
	return u
}

// line carries connections to an edge, and counts them.
type line struct {
	addr     string
	accepted atomic.Int64
}

func newLine(t testing.TB, to string) *line {
	l := &line{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	var open sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.accepted.Add(1)
			go carry(conn, to)
		}
	})
	return l
}

// carry ends when either side does.
func carry(conn net.Conn, to string) {
	defer conn.Close()
	other, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer other.Close()
	over := make(chan struct{}, 2)
	for from, to := range map[net.Conn]net.Conn{conn: other, other: conn} {
		go func() {
			_, _ = io.Copy(to, from)
			over <- struct{}{}
		}()
	}
	<-over
}
