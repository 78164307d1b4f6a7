// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// secure is an upstream with TLS and HTTP/2, and the flag that has it trusted.
func secure(t testing.TB, h http.Handler) (*httptest.Server, []string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, trust(t, s.Certificate().Raw)
}

func trust(t testing.TB, der []byte) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-upstream-ca-cert", file}
}

// clients are programs: with HTTP/1.1, and with HTTP/2 that is known to be spoken.
func clients(t testing.TB) map[string]*http.Client {
	t.Helper()
	one, two := &http.Transport{}, &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	return map[string]*http.Client{"HTTP/1.1": {Transport: one}, "HTTP/2.0": {Transport: two}}
}

// echo answers each line at once, before the body ends.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	w.Header().Set("X-Proto", r.Proto)
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush()
	for in := bufio.NewReader(r.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(w, line)
		_ = rc.Flush()
	}
}

// Bytes go both ways as they come: neither a whole body nor a whole answer is waited for.
func TestStreamsBothWays(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(plain.Close)
	two, trusted := secure(t, http.HandlerFunc(echo))
	for _, api := range []struct {
		url, proto string
		args       []string
	}{{plain.URL, "HTTP/1.1", nil}, {two.URL, "HTTP/2.0", trusted}} {
		r := start(t, api.url, api.args...)
		for proto, c := range clients(t) {
			from, to := io.Pipe()
			req, err := http.NewRequest(http.MethodPost, r.url("/echo"), from)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Proto != proto || resp.Header.Get("X-Proto") != api.proto {
				t.Errorf("%s to the proxy, %s to the upstream", resp.Proto, resp.Header.Get("X-Proto"))
			}
			in := bufio.NewReader(resp.Body)
			for i := range 200 { // more than is kept
				line := fmt.Sprintln(i, strings.Repeat("x", 1000))
				if _, err := io.WriteString(to, line); err != nil {
					t.Fatal(err)
				}
				if got, err := in.ReadString('\n'); err != nil || got != line {
					t.Fatalf("%s: line %d: %.20q, %v", proto, i, got, err)
				}
			}
			_ = to.Close()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			_ = resp.Body.Close()
		}
	}
}

// Headers are flushed before there is a body, also where its length is known; so are
// interim answers.
func TestAnswersAreFlushed(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Length", "4")
		w.WriteHeader(http.StatusOK)
		for range 4 {
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, "x")
		}
	}))
	t.Cleanup(api.Close)
	r := start(t, api.URL)
	for proto, c := range clients(t) {
		resp, err := c.Get(r.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			more <- struct{}{}
			if n, err := resp.Body.Read(make([]byte, 1)); n != 1 {
				t.Fatalf("%s: %v", proto, err)
			}
		}
		_ = resp.Body.Close()
	}
}

// What was refused is sent again with the next key, as long as enough of it is kept.
func TestReplay(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	two, trusted := secure(t, api)
	for url, args := range map[string][]string{api.URL: nil, two.URL: trusted} {
		api.takesOnly(1)
		r := start(t, url, args...)
		programs := clients(t)
		for _, size := range []int{0, 1, 1000, maxKept, maxKept + 1, 10 * maxKept} {
			for _, known := range []bool{true, false} {
				for proto, c := range programs {
					body := text(size)
					var from io.Reader = strings.NewReader(body)
					if !known {
						from = struct{ io.Reader }{from}
					}
					r.next(api)
					req, err := http.NewRequest(http.MethodPut, r.url("/x"), from)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := c.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					want := 200
					if size > maxKept {
						want = 401 // this upstream has read all of it when it refuses
					}
					if err != nil || resp.StatusCode != want || want == 200 && string(got) != "PUT /x "+body {
						t.Errorf("%s, %d bytes, known %v: %d, %.60q, %v", proto, size, known, resp.StatusCode, got, err)
					}
				}
			}
		}
		_ = r.stop()
	}
}

// next has the upstream accept only the key after the one at hand, which the server has.
func (r *running) next(api *upstream) {
	r.t.Helper()
	r.until("there is a key", func() bool { status, _ := r.get("http://" + r.admin.String() + "/readyz"); return status == 200 })
	r.vault.set(func() {
		r.vault.version++
		api.takesOnly(r.vault.version)
	})
}

// A body that is too long is sent again all the same where the upstream refuses it before
// it has come; and the client that sends it is not waited for.
func TestReplayWhileItComes(t *testing.T) {
	t.Parallel()
	var refused atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != keyOf(2) {
			refused.Add(1)
			_ = http.NewResponseController(w).EnableFullDuplex() // it answers before the body has come
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		echo(w, r)
	})
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	two, trusted := secure(t, h)
	for url, args := range map[string][]string{plain.URL: nil, two.URL: trusted} {
		for proto, c := range clients(t) {
			r := start(t, url, args...)
			r.until("there is a key", func() bool { status, _ := r.get("http://" + r.admin.String() + "/readyz"); return status == 200 })
			r.vault.rotate()
			from, to := io.Pipe()
			req, err := http.NewRequest(http.MethodPost, r.url("/echo"), from)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Repeat(text(1000)+"\n", 300)
			go func() {
				// The first line comes, and nothing more until the answer begins.
				_, _ = io.WriteString(to, lines[:1001])
			}()
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = io.WriteString(to, lines[1001:])
				_ = to.Close()
			}()
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || string(got) != lines {
				t.Errorf("%s to %s: %d, %d bytes of %d, %v", proto, url, resp.StatusCode, len(got), len(lines), err)
			}
			_ = r.stop()
		}
	}
	if got := refused.Load(); got != 4 {
		t.Errorf("%d were refused", got)
	}
}

// An answer that comes before the body has reaches the client, which may go on.
func TestEarlyAnswers(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	two, trusted := secure(t, h)
	for url, args := range map[string][]string{plain.URL: nil, two.URL: trusted} {
		r := start(t, url, args...)
		for proto, c := range clients(t) {
			from, to := io.Pipe()
			go func() { _, _ = io.WriteString(to, "some") }()
			req, err := http.NewRequest(http.MethodPost, r.url("/x"), from)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s to %s: %v", proto, url, err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || string(got) != "too large\n" {
				t.Errorf("%s: %d %q %v", proto, resp.StatusCode, got, err)
			}
			_ = resp.Body.Close()
			_ = to.Close()
		}
	}
}

// Who expects to be told to go on is told so by the upstream.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL)
	conn, err := net.Dial("tcp", r.main.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r.next(api)
	_, _ = io.WriteString(conn, "POST /a HTTP/1.1\r\nHost: "+r.main.String()+"\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = io.WriteString(conn, "body")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "HTTP/1.1 200") {
			return
		}
	}
}

// WebSocket, or another protocol that is switched to; also with a key that was replaced.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != keyOf(2) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.ProtoMajor != 1 || r.Header.Get("Upgrade") != "websocket" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nX-Origin: "+r.Header.Get("Origin")+"\r\n\r\n")
		_, _ = io.Copy(conn, buf)
	})
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	two, trusted := secure(t, h)
	for url, args := range map[string][]string{plain.URL: nil, two.URL: trusted} {
		r := start(t, url, args...)
		r.until("there is a key", func() bool { status, _ := r.get("http://" + r.admin.String() + "/readyz"); return status == 200 })
		r.vault.rotate()
		conn, in := r.webSocket()
		for i := range 10 {
			line := fmt.Sprintln("frame", i)
			_, _ = io.WriteString(conn, line)
			if got, err := in.ReadString('\n'); err != nil || got != line {
				t.Fatalf("%q %v", got, err)
			}
		}
		if got := r.metric("apikeys_proxy_upgraded_connections"); got != "1" {
			t.Errorf("upgraded: %s", got)
		}
		// At the end it is closed at once: nobody knows when it would.
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the end took %v", took)
		}
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("it is open: %v", err)
		}
	}
}

// webSocket is a connection that has switched protocols.
func (r *running) webSocket() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial(r.main.Network(), r.main.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: "+r.main.String()+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://"+r.main.String()+
		"\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "x" {
		r.t.Fatalf("%v, %v", resp, err)
	}
	return conn, in
}

// talk is a gRPC service whose calls answer each message with it.
type talk struct{ takes atomic.Value }

func (s *talk) check(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("x-api-key"); len(got) != 1 || got[0] != s.takes.Load() {
		return status.Error(codes.Unauthenticated, "not that key")
	}
	return nil
}

func (s *talk) stream(_ any, stream grpc.ServerStream) error {
	if err := s.check(stream.Context()); err != nil {
		return err
	}
	for {
		m := &healthpb.HealthCheckRequest{}
		if err := stream.RecvMsg(m); err != nil {
			stream.SetTrailer(metadata.Pairs("x-sum", "7"))
			return status.Error(codes.DataLoss, "at the end") // a status that only trailers tell
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

var talkDesc = grpc.ServiceDesc{
	ServiceName: "talk", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "Both", ServerStreams: true, ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		return srv.(*talk).stream(srv, stream)
	}}},
}

// Calls of gRPC stream both ways, with their trailers, and one that is refused before it
// has begun is made again.
func TestGRPC(t *testing.T) {
	t.Parallel()
	certs, trusted := secure(t, http.NotFoundHandler())
	for _, upstream := range []struct {
		scheme string
		opts   []grpc.ServerOption
		args   []string
	}{
		{"https", []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: certs.TLS.Certificates}))}, trusted},
		{"http", nil, nil},
	} {
		service := &talk{}
		service.takes.Store(keyOf(2))
		server := grpc.NewServer(upstream.opts...)
		server.RegisterService(&talkDesc, service)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		r := start(t, upstream.scheme+"://"+l.Addr().String(), upstream.args...)
		r.until("there is a key", func() bool { status, _ := r.get("http://" + r.admin.String() + "/readyz"); return status == 200 })
		r.vault.rotate()
		conn, err := grpc.NewClient(r.main.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		stream, err := conn.NewStream(t.Context(), &talkDesc.Streams[0], "/talk/Both")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			m := &healthpb.HealthCheckRequest{Service: fmt.Sprint(i, strings.Repeat("x", 10_000))}
			if err := stream.SendMsg(m); err != nil {
				t.Fatal(err)
			}
			got := &healthpb.HealthCheckRequest{}
			if err := stream.RecvMsg(got); err != nil || got.Service != m.Service {
				t.Fatalf("%s: message %d: %v", upstream.scheme, i, err)
			}
		}
		_ = stream.CloseSend()
		err = stream.RecvMsg(&healthpb.HealthCheckRequest{})
		if status.Code(err) != codes.DataLoss || strings.Join(stream.Trailer().Get("x-sum"), ",") != "7" {
			t.Errorf("%s: %v, %v", upstream.scheme, err, stream.Trailer())
		}
		if got := r.metric("apikeys_proxy_retries_total"); got != "1" {
			t.Errorf("%s: retries: %s", upstream.scheme, got)
		}
		service.takes.Store("another")
		for range 50 {
			stream, err = conn.NewStream(t.Context(), &talkDesc.Streams[0], "/talk/Both")
			if err == nil {
				err = stream.RecvMsg(&healthpb.HealthCheckRequest{})
			}
			if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != "not that key" {
				t.Fatalf("%s: refused for good: %v", upstream.scheme, err)
			}
		}
	}
}

// Trailers of answers pass, announced or not.
func TestTrailers(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "text")
		w.Header().Set("X-Sum", "7")
		w.Header().Set(http.TrailerPrefix+"X-Late", "8")
	}))
	t.Cleanup(api.Close)
	r := start(t, api.URL)
	for proto, c := range clients(t) {
		resp, err := c.Get(r.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.Trailer.Get("X-Sum") != "7" || resp.Trailer.Get("X-Late") != "8" {
			t.Errorf("%s: %v", proto, resp.Trailer)
		}
	}
}

// Many at once, through rotations after which the old key is refused at once: all are
// answered, and with what they sent.
func TestLoadThroughRevocations(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	two, trusted := secure(t, api)
	for url, args := range map[string][]string{api.URL: nil, two.URL: trusted} {
		r := start(t, url, append(args, "-log-level", "info")...)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		var done atomic.Int64
		for proto, c := range clients(t) {
			for worker := range 4 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						body := fmt.Sprint(worker, i, text(i*97%5000))
						resp, err := c.Post(r.url("/x"), "text/plain", struct{ io.Reader }{strings.NewReader(body)})
						if err != nil {
							t.Error(err)
							return
						}
						got, err := io.ReadAll(resp.Body)
						_ = resp.Body.Close()
						if err != nil || resp.StatusCode != http.StatusOK || !bytes.HasSuffix(got, []byte(" "+body)) {
							t.Errorf("%s: %d %.80q %v", proto, resp.StatusCode, got, err)
							return
						}
						done.Add(1)
					}
				})
			}
		}
		for version := 2; version < 6; version++ {
			before := done.Load()
			r.until("requests are made", func() bool { return done.Load() > before+50 || t.Failed() })
			// The engine first, then those who verify.
			r.vault.set(func() { r.vault.version = version })
			api.takesOnly(version)
		}
		before := done.Load()
		r.until("requests are made", func() bool { return done.Load() > before+50 || t.Failed() })
		close(stop)
		wg.Wait()
		if got := r.metric("apikeys_proxy_key_changes_total"); got != "4" {
			t.Errorf("key changes: %s", got)
		}
		_ = r.stop()
		api.takesOnly(1)
	}
}
