// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkAuth is forward-auth as the program answers it, about a key that it holds,
// beside an empty handler that is asked the same, in turns, over connections that are
// kept. What asks writes bytes and looks for the end of a header, and costs both alike.
// share is the throughput, of the empty handler's.
func BenchmarkAuth(b *testing.B) {
	for _, connections := range []int{1, 16} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			r := start(b, strings.Replace(confAuth, "PRESET", "nginx", 1)+"log {\n level = \"error\"\n}\n")
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := &http.Server{
				Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: headerTime, ReadTimeout: 2 * headerTime,
				WriteTimeout: answerTime, IdleTimeout: idleTime,
			}
			go func() { _ = s.Serve(listener) }()
			b.Cleanup(func() { _ = s.Close() })
			ours, empty := dial(b, r.addrs[0], connections), dial(b, listener.Addr(), connections)
			ours.ask(100) // the key is held after the first
			empty.ask(100)
			const turn = 50
			var took, floor time.Duration
			b.ResetTimer()
			for b.Loop() {
				took += ours.ask(turn)
				floor += empty.ask(turn)
			}
			requests := float64(b.N * turn * connections)
			b.ReportMetric(float64(took.Nanoseconds())/requests, "ns/auth")
			b.ReportMetric(float64(floor.Nanoseconds())/requests, "ns/empty")
			b.ReportMetric(float64(floor)/float64(took), "share")
		})
	}
}

// asking are connections on which the same question is sent again and again.
type asking struct {
	b     *testing.B
	conns []net.Conn
}

// questionOfNginx is what nginx sends with the configuration that is shipped.
const questionOfNginx = "GET /auth HTTP/1.1\r\nX-Original-Method: GET\r\nX-Original-URI: /orders/7?page=2\r\nX-Real-IP: 192.0.2.7\r\nHost: apikeys_edge\r\n" +
	"User-Agent: curl/8.5.0\r\nAccept: */*\r\nX-API-Key: the-key-of-the-tests\r\n\r\n"

func dial(b *testing.B, addr net.Addr, connections int) *asking {
	b.Helper()
	a := &asking{b: b}
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

// ask sends that many questions on every connection, each after the answer to the one
// before.
func (a *asking) ask(each int) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for _, conn := range a.conns {
		wg.Go(func() {
			var buf [4096]byte
			for range each {
				if _, err := io.WriteString(conn, questionOfNginx); err != nil {
					a.b.Error(err)
					return
				}
				n := 0
				for !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) { // no answer has a body
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
