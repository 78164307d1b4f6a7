// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// BenchmarkNginx is nginx with auth_request, as it is shipped, asking an edge that holds
// the key, beside the same nginx asking an empty handler, in turns. share is its
// throughput, of the other's; edge-connections are all that nginx has opened to the edge.
func BenchmarkNginx(b *testing.B) {
	e := startEngine(b)
	e.write("apikeys/roles/orders", data{"scopes": []string{"orders:read"}})
	k := e.creds("orders")
	d := newDaemon(b, "nginx", e.addr, e.edgeToken)
	d.start()
	d.live()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	b.Cleanup(api.Close)
	// A process of its own, as the edge is one.
	empty := freeAddress(b)
	b.Setenv(emptyVariable, empty)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := launch(b, &output{}, b.TempDir(), self)
	eventually(b, 10*time.Second, "empty handler", listens(empty, p))
	behind := func(auth string) *clients {
		g := &gateway{name: "nginx", api: &upstream{addr: api.Listener.Addr().String()}, line: &line{addr: auth}}
		startNginx(b, g)
		return &clients{b: b, addr: g.addr, secret: k.secret}
	}
	ours, floor := behind(d.auth), behind(empty)
	ours.ask(50)
	floor.ask(50)
	const turn = 50
	var took, empties time.Duration
	b.ResetTimer()
	for b.Loop() {
		took += ours.ask(turn)
		empties += floor.ask(turn)
	}
	requests := float64(b.N * turn * clientsEach)
	b.ReportMetric(float64(took.Nanoseconds())/requests, "ns/request")
	b.ReportMetric(float64(empties.Nanoseconds())/requests, "ns/empty")
	b.ReportMetric(float64(empties)/float64(took), "share")
	b.ReportMetric(float64(connectionsTo(b, d.auth)), "edge-connections")
}

const clientsEach = 16

// emptyVariable has this program answer everything with nothing, at an address.
const emptyVariable = "GATEWAYS_EMPTY"

func serveEmpty(addr string) error {
	s := &http.Server{Addr: addr, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	return s.ListenAndServe()
}

// clients send the same request again and again, each over a connection of its own.
type clients struct {
	b            *testing.B
	addr, secret string
	conns        []net.Conn
	asked        int
}

// ask has every client send that many requests, each after the answer to the one before.
func (c *clients) ask(each int) time.Duration {
	// nginx gives up a client's connection after 1,000 requests.
	if c.asked += each; c.conns == nil || c.asked > 900 {
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.conns, c.asked = nil, each
		for range clientsEach {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				c.b.Fatal(err)
			}
			c.conns = append(c.conns, conn)
		}
	}
	request := "GET /orders/7?page=2 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-API-Key: " + c.secret + "\r\n\r\n"
	began := time.Now()
	var wg sync.WaitGroup
	for _, conn := range c.conns {
		wg.Go(func() {
			var buf [4096]byte
			for range each {
				if _, err := io.WriteString(conn, request); err != nil {
					c.b.Error(err)
					return
				}
				n := 0
				for !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) { // the API answers without a body
					m, err := conn.Read(buf[n:])
					if err != nil {
						c.b.Error(err)
						return
					}
					n += m
				}
				if !bytes.HasPrefix(buf[:], []byte("HTTP/1.1 204 ")) {
					c.b.Errorf("%s", buf[:n])
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// connectionsTo is how many connections to a port of this machine are open, or were a
// minute ago.
func connectionsTo(b *testing.B, addr string) (n int) {
	b.Helper()
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		b.Fatal(err)
	}
	number, err := strconv.Atoi(port(addr))
	if err != nil {
		b.Fatal(err)
	}
	suffix := fmt.Sprintf(":%04X", number)
	ends := 0
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] != "0A" && (strings.HasSuffix(fields[1], suffix) || strings.HasSuffix(fields[2], suffix)) {
			ends++ // one that is open has two
		}
	}
	return (ends + 1) / 2
}

// BenchmarkEnvoyCold is how long Envoy waits for the verdict about a key that the edge
// has never seen, with one that asks and with 16 at once. By itself Envoy waits for 200 ms.
func BenchmarkEnvoyCold(b *testing.B) {
	e := startEngine(b)
	e.write("apikeys/roles/orders", data{"type": "dynamic", "ttl": "1h", "scopes": []string{"orders:read"}})
	d := newDaemon(b, "envoy", e.addr, e.edgeToken)
	d.start()
	d.live()
	conn, err := grpc.NewClient(d.auth, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	client := authv3.NewAuthorizationClient(conn)
	for _, at := range []int{1, 16} {
		b.Run(fmt.Sprintf("at=%d", at), func(b *testing.B) {
			secrets := make(chan string, b.N)
			for range b.N {
				secrets <- e.creds("orders").secret
			}
			close(secrets)
			var mu sync.Mutex
			var took []time.Duration
			var wg sync.WaitGroup
			b.ResetTimer()
			for range at {
				wg.Go(func() {
					for secret := range secrets {
						began := time.Now()
						resp, err := client.Check(context.Background(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
							Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
								Method: "GET", Path: "/orders/7", HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "x-api-key", RawValue: []byte(secret)}}},
							}},
						}})
						mu.Lock()
						took = append(took, time.Since(began))
						mu.Unlock()
						if err != nil || resp.GetOkResponse() == nil {
							b.Errorf("%v, %v", resp, err)
						}
					}
				})
			}
			wg.Wait()
			slices.Sort(took)
			for name, i := range map[string]int{"p50": len(took) / 2, "p99": len(took) * 99 / 100, "max": len(took) - 1} {
				b.ReportMetric(took[i].Seconds()*1000, "ms-"+name)
			}
		})
	}
}
