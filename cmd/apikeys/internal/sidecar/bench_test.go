// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkProxy is a request through the proxy as the program passes it on, beside one
// through a plain httputil.ReverseProxy that adds a fixed key, in turns, over connections
// that are kept. Upstream and client are the same. share is the throughput, of the plain
// one's.
func BenchmarkProxy(b *testing.B) {
	for _, connections := range []int{1, 16} {
		for _, size := range []int{0, 1000, 100_000} {
			b.Run(fmt.Sprintf("connections=%d/body=%d", connections, size), func(b *testing.B) {
				api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(w, "an answer of the upstream")
				}))
				b.Cleanup(api.Close)
				r := start(b, api.URL, "-log-level", "error")
				r.held()
				to, err := url.Parse(api.URL)
				if err != nil {
					b.Fatal(err)
				}
				plain := httptest.NewServer(&httputil.ReverseProxy{
					Rewrite: func(pr *httputil.ProxyRequest) {
						pr.SetURL(to)
						pr.Out.Header.Set("X-API-Key", keyOf(1))
					},
					Transport: connect(nil, nil).plain, BufferPool: pooled,
				})
				b.Cleanup(plain.Close)
				ours, theirs := dial(b, r.main, connections, size), dial(b, plain.Listener.Addr(), connections, size)
				ours.ask(100)
				theirs.ask(100)
				const turn = 50
				var took, floor time.Duration
				b.ResetTimer()
				for b.Loop() {
					took += ours.ask(turn)
					floor += theirs.ask(turn)
				}
				requests := float64(b.N * turn * connections)
				b.ReportMetric(float64(took.Nanoseconds())/requests, "ns/proxy")
				b.ReportMetric(float64(floor.Nanoseconds())/requests, "ns/plain")
				b.ReportMetric(float64(floor)/float64(took), "share")
			})
		}
	}
}

// asking are connections on which the same is asked again and again.
type asking struct {
	b     *testing.B
	text  string
	conns []net.Conn
}

func dial(b *testing.B, addr net.Addr, connections, size int) *asking {
	b.Helper()
	a := &asking{b: b, text: "GET /orders/7 HTTP/1.1\r\nHost: " + addr.String() + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"}
	if size > 0 {
		a.text = fmt.Sprintf("POST /orders HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s", addr, size, strings.Repeat("x", size))
	}
	for range connections {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		a.conns = append(a.conns, conn)
	}
	return a
}

// ask sends that many requests on every connection, each after the answer to the one
// before.
func (a *asking) ask(each int) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for _, conn := range a.conns {
		wg.Go(func() {
			var buf [4096]byte
			for range each {
				if _, err := io.WriteString(conn, a.text); err != nil {
					a.b.Error(err)
					return
				}
				n := 0
				for !bytes.HasSuffix(buf[:n], []byte("an answer of the upstream")) {
					m, err := conn.Read(buf[n:])
					if err != nil {
						a.b.Error(err)
						return
					}
					n += m
				}
				if !bytes.HasPrefix(buf[:], []byte("HTTP/1.1 200 ")) {
					a.b.Errorf("%s", buf[:n])
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}
