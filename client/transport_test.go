// SPDX-License-Identifier: MPL-2.0

package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http/httpguts"
)

// answered makes an answer.
func answered(req *http.Request, status int, header http.Header, body string) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req, ProtoMajor: 1, ProtoMinor: 1}
}

// transport is one whose requests fn answers.
func transport(t *testing.T, s *Source, opt TransportOptions, fn func(*http.Request) (*http.Response, error)) *Transport {
	t.Helper()
	if opt.Hosts == nil {
		opt.Hosts = []string{"api.example.com"}
	}
	opt.Base = roundTripper(fn)
	tr, err := NewTransport(s, opt)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, reader)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestWhoGetsTheKey(t *testing.T) {
	s := source(t, newEngine(), nil)
	for _, test := range []struct {
		hosts  string
		target string
		key    bool
		err    error
	}{
		{hosts: "api.example.com", target: "https://api.example.com/x", key: true},
		{hosts: "api.example.com", target: "https://API.Example.com:443/x", key: true},
		{hosts: "API.example.com.", target: "https://api.example.com/x", key: true},
		{hosts: "api.example.com", target: "https://api.example.com.:443/x", key: true},
		{hosts: "api.example.com", target: "https://api.example.com:8443/x"},
		{hosts: "api.example.com:8443", target: "https://api.example.com:8443/x", key: true},
		{hosts: "api.example.com:8443", target: "https://api.example.com/x"},
		{hosts: "api.example.com", target: "https://evil.example.com/x"},
		{hosts: "api.example.com", target: "https://api.example.com.evil.com/x"},
		{hosts: "api.example.com", target: "https://xapi.example.com/x"},
		{hosts: "api.example.com", target: "https://api.example.com@evil.com/x"},
		{hosts: "api.example.com", target: "http://api.example.com/x"},
		{hosts: "api.example.com:80", target: "http://api.example.com/x", err: ErrInsecure},
		{hosts: "localhost:8080", target: "http://localhost:8080/x", err: ErrInsecure},
		{hosts: "127.0.0.1:8080", target: "http://127.0.0.1:8080/x", key: true},
		{hosts: "[::1]:8080", target: "http://[::1]:8080/x", key: true},
		{hosts: "127.0.0.1:8080,10.0.0.1:8080", target: "http://10.0.0.1:8080/x", err: ErrInsecure},
		{hosts: "10.0.0.1:8080", target: "https://10.0.0.1:8080/x", key: true},
	} {
		got := ""
		tr := transport(t, s, TransportOptions{Hosts: strings.Split(test.hosts, ",")}, func(r *http.Request) (*http.Response, error) {
			got = r.Header.Get("Authorization")
			return answered(r, http.StatusOK, nil, ""), nil
		})
		req := request(t, "GET", test.target, "")
		resp, err := tr.RoundTrip(req)
		if !errors.Is(err, test.err) || (got == "Bearer value-k1") != test.key || got != "" && !test.key {
			t.Errorf("%s for %s: %q, %v", test.target, test.hosts, got, err)
		}
		if req.Header.Get("Authorization") != "" || resp != nil && resp.Request.Header.Get("Authorization") != "" {
			t.Errorf("%s: the caller's request holds the key", test.target)
		}
	}
}

func TestOptionsOfATransportThatAreRefused(t *testing.T) {
	s := source(t, newEngine(), nil)
	for want, opt := range map[string]TransportOptions{
		"say to which hosts":            {},
		"not a URL":                     {Hosts: []string{"https://api.example.com"}},
		`Hosts: ""`:                     {Hosts: []string{""}},
		`Hosts: "user@api.example.com"`: {Hosts: []string{"user@api.example.com"}},
		`Header: "X API Key"`:           {Hosts: []string{"a"}, Header: "X API Key"},
		"Header: Host":                  {Hosts: []string{"a"}, Header: "host"},
		`Scheme: "Bearer x"`:            {Hosts: []string{"a"}, Scheme: "Bearer x"},
	} {
		if _, err := NewTransport(s, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := NewTransport(nil, TransportOptions{Hosts: []string{"a"}}); err == nil {
		t.Error("without a source")
	}
}

// After a redirect to another host nobody gets the key, also where that leads back.
func TestRedirects(t *testing.T) {
	s := source(t, newEngine(), nil)
	for _, test := range []struct{ name, chain string }{
		{"a given host", "https://api.example.com/a +key https://other.example.com/b +key"},
		{"elsewhere", "https://api.example.com/a +key https://evil.com/b"},
		{"elsewhere and back", "https://api.example.com/a +key https://evil.com/b https://api.example.com/c https://api.example.com/d"},
		{"from elsewhere", "https://evil.com/a https://api.example.com/b"},
		{"without TLS and back", "https://api.example.com/a +key http://api.example.com/b https://api.example.com/c"},
	} {
		for _, header := range []string{"Authorization", "X-API-Key"} {
			var seen []string
			words := strings.Fields(test.chain)
			var hops []string
			for _, w := range words {
				if w != "+key" {
					hops = append(hops, w)
				}
			}
			tr := transport(t, s, TransportOptions{Hosts: []string{"api.example.com", "other.example.com"}, Header: header}, func(r *http.Request) (*http.Response, error) {
				seen = append(seen, r.URL.String())
				if r.Header.Get(header) != "" {
					seen = append(seen, "+key")
				}
				for i, hop := range hops {
					if hop == r.URL.String() && i+1 < len(hops) {
						return answered(r, http.StatusTemporaryRedirect, http.Header{"Location": {hops[i+1]}}, ""), nil
					}
				}
				return answered(r, http.StatusOK, nil, ""), nil
			})
			resp, err := (&http.Client{Transport: tr}).Do(request(t, "GET", hops[0], ""))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := strings.Join(seen, " "); got != test.chain {
				t.Errorf("%s: %s", test.name, got)
			}
		}
	}
}

func TestHeaderAndScheme(t *testing.T) {
	s := source(t, newEngine(), nil)
	for _, test := range []struct {
		opt          TransportOptions
		header, want string
	}{
		{TransportOptions{}, "Authorization", "Bearer value-k1"},
		{TransportOptions{Scheme: "Token"}, "Authorization", "Token value-k1"},
		{TransportOptions{Header: "x-api-key"}, "X-Api-Key", "value-k1"},
		{TransportOptions{Header: "X-API-Key", Scheme: "Key"}, "X-Api-Key", "Key value-k1"},
	} {
		tr := transport(t, s, test.opt, func(r *http.Request) (*http.Response, error) {
			for name := range r.Header {
				if sameHeader(name, test.header) && (name != test.header || len(r.Header[name]) != 1) {
					t.Errorf("%s: %v is there, too", test.header, r.Header[name])
				}
			}
			if got := r.Header.Get(test.header); got != test.want || !httpguts.ValidHeaderFieldValue(got) {
				t.Errorf("%s: %q, want %q", test.header, got, test.want)
			}
			if r.Header.Get("Accept") != "text/plain" {
				t.Error("other headers are gone")
			}
			return answered(r, http.StatusOK, nil, ""), nil
		})
		req := request(t, "GET", "https://api.example.com", "")
		req.Header = http.Header{"Accept": {"text/plain"}, test.header: {"mine"}, strings.ToLower(test.header): {"mine"}, strings.ReplaceAll(test.header, "-", "_"): {"mine"}}
		if _, err := tr.RoundTrip(req); err != nil {
			t.Error(err)
		}
		if req.Header.Get(test.header) != "mine" {
			t.Error("the caller's request was changed")
		}
	}
}

// revoked answers as an API does whose key k1 was revoked.
func revoked(r *http.Request) *http.Response {
	if r.Header.Get("Authorization") == "Bearer value-k1" {
		return answered(r, http.StatusUnauthorized, nil, strings.Repeat("x", 100_000))
	}
	return answered(r, http.StatusOK, nil, "fine")
}

func TestARefusedRequestIsMadeOnceMore(t *testing.T) {
	for _, test := range []struct {
		name   string
		body   func(*http.Request)
		rotate bool
		status int
		sent   int
	}{
		{"without a body", nil, true, 200, 2},
		{"a body that can be sent again", func(r *http.Request) {
			r.Body, r.GetBody = io.NopCloser(strings.NewReader("abc")), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil }
		}, true, 200, 2},
		{"a body that cannot", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("abc")) }, true, 401, 1},
		{"a body that cannot any more", func(r *http.Request) {
			r.Body, r.GetBody = io.NopCloser(strings.NewReader("abc")), func() (io.ReadCloser, error) { return nil, errAway }
		}, true, 401, 1},
		{"no other key", nil, false, 401, 1},
	} {
		e := newEngine()
		s := source(t, e, nil)
		has(t, s, "k1")
		if test.rotate {
			e.rotate()
		}
		sent := 0
		tr := transport(t, s, TransportOptions{}, func(r *http.Request) (*http.Response, error) { sent++; return revoked(r), nil })
		req := request(t, "POST", "https://api.example.com/x", "")
		if test.body != nil {
			test.body(req)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.status || sent != test.sent || (len(body) == 4) != (test.status == 200) || test.status == 401 && len(body) != 100_000 {
			t.Errorf("%s: %d after %d, %d bytes", test.name, resp.StatusCode, sent, len(body))
		}
		s.mu.Lock()
		if s.cur.users != 0 {
			t.Errorf("%s: %d requests are said to be under way", test.name, s.cur.users)
		}
		s.mu.Unlock()
	}
}

func TestASecondRefusalIsFinal(t *testing.T) {
	e := newEngine()
	s := source(t, e, nil)
	has(t, s, "k1")
	e.rotate()
	sent := 0
	tr := transport(t, s, TransportOptions{RefusedStatus: []int{403}}, func(r *http.Request) (*http.Response, error) {
		sent++
		e.rotate()
		return answered(r, http.StatusForbidden, nil, ""), nil
	})
	resp, err := tr.RoundTrip(request(t, "GET", "https://api.example.com", ""))
	if err != nil || resp.StatusCode != http.StatusForbidden || sent != 2 {
		t.Errorf("%v %v after %d", resp, err, sent)
	}
	sent = 0
	tr = transport(t, s, TransportOptions{}, func(r *http.Request) (*http.Response, error) {
		sent++
		return answered(r, http.StatusForbidden, nil, ""), nil
	})
	if resp, err := tr.RoundTrip(request(t, "GET", "https://api.example.com", "")); err != nil || resp.StatusCode != http.StatusForbidden || sent != 1 {
		t.Errorf("403 is no refusal unless somebody says so: %v %v after %d", resp, err, sent)
	}
}

func TestNoKeyIsAnErrorAndClosesTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.err = errAway
		s := source(t, e, nil)
		tr := transport(t, s, TransportOptions{}, func(*http.Request) (*http.Response, error) {
			t.Error("a request was made")
			return nil, errAway
		})
		closed := false
		req := request(t, "POST", "https://api.example.com", "abc")
		req.Body = closer{req.Body, func() { closed = true }}
		if _, err := tr.RoundTrip(req); !errors.Is(err, ErrNoKey) || !closed {
			t.Errorf("%v, closed: %v", err, closed)
		}
	})
}

type closer struct {
	io.ReadCloser
	fn func()
}

func (c closer) Close() error { c.fn(); return c.ReadCloser.Close() }

// A lease is not given back while an answer is read.
func TestAKeyIsInUseUntilItsAnswerWasRead(t *testing.T) {
	e := newEngine()
	s := source(t, e, nil)
	users := func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.cur.users }
	for _, test := range []struct {
		name string
		end  func(*http.Response)
	}{
		{"read", func(r *http.Response) { _, _ = io.Copy(io.Discard, r.Body) }},
		{"closed", func(r *http.Response) { r.Body.Close() }},
		{"both", func(r *http.Response) { _, _ = io.Copy(io.Discard, r.Body); r.Body.Close(); r.Body.Close() }},
	} {
		tr := transport(t, s, TransportOptions{}, func(r *http.Request) (*http.Response, error) { return answered(r, http.StatusOK, nil, "abc"), nil })
		resp, err := tr.RoundTrip(request(t, "GET", "https://api.example.com", ""))
		if err != nil || users() != 1 {
			t.Fatalf("%s: %v, %d in use", test.name, err, users())
		}
		test.end(resp)
		if users() != 0 {
			t.Errorf("%s: %d in use", test.name, users())
		}
	}
	tr := transport(t, s, TransportOptions{}, func(*http.Request) (*http.Response, error) { return nil, errAway })
	if _, err := tr.RoundTrip(request(t, "GET", "https://api.example.com", "")); !errors.Is(err, errAway) || users() != 0 {
		t.Errorf("%v, %d in use", err, users())
	}
}

// trailing is the body of an answer whose trailers are there once it was read.
type trailing struct {
	io.Reader
	resp *http.Response
	code string
}

func (b *trailing) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		b.resp.Trailer = http.Header{"Grpc-Status": {b.code}}
	}
	return n, err
}

func (b *trailing) Close() error { return nil }

func TestGRPC(t *testing.T) {
	grpc := func() http.Header { return http.Header{"Content-Type": {"application/grpc+proto"}} }
	for _, test := range []struct {
		name          string
		header        string // grpc-status before everything
		message, late string
		statuses      []int
		sent          int
		refused, used bool
	}{
		{name: "accepted", message: "m", late: "0", sent: 1, used: true},
		{name: "accepted without a message", late: "0", sent: 1, used: true},
		{name: "refused at once", header: "16", sent: 2, refused: true},
		{name: "refused after no message", late: "16", sent: 1, refused: true},
		{name: "UNAUTHENTICATED after a message is the application's", message: "m", late: "16", sent: 1, used: true},
		{name: "another status", header: "5", sent: 1},
		{name: "another late status", late: "5", sent: 1},
		{name: "one that was chosen", header: "7", statuses: []int{7}, sent: 2, refused: true},
		{name: "no number", header: "16x", sent: 1},
	} {
		e := newEngine()
		s := source(t, e, func(o *Options) { o.NoReports = true })
		has(t, s, "k1")
		e.rotate()
		sent := 0
		tr := transport(t, s, TransportOptions{RefusedGRPC: test.statuses}, func(r *http.Request) (*http.Response, error) {
			sent++
			resp := answered(r, http.StatusOK, grpc(), "")
			if sent == 2 {
				resp.Header.Set("Grpc-Status", "5")
				return resp, nil
			}
			if test.header != "" {
				resp.Header.Set("Grpc-Status", test.header)
				return resp, nil
			}
			resp.Body = &trailing{strings.NewReader(test.message), resp, test.late}
			return resp, nil
		})
		resp, err := tr.RoundTrip(request(t, "POST", "https://api.example.com/s/m", ""))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if sent != test.sent || (s.Stats().Refused > 0) != test.refused {
			t.Errorf("%s: made %d times, refused %d", test.name, sent, s.Stats().Refused)
		}
		s.usage.mu.Lock()
		if used := len(s.usage.counts) > 0; used != test.used {
			t.Errorf("%s: counted as used: %v", test.name, used)
		}
		s.usage.mu.Unlock()
	}
}

// A connection that has switched protocols is written to as well.
func TestSwitchedProtocols(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer value-k1" {
			t.Error("no key")
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, line)
		rw.Flush()
	}))
	defer server.Close()
	s := source(t, newEngine(), nil)
	u, _ := url.Parse(server.URL)
	tr, err := NewTransport(s, TransportOptions{Hosts: []string{u.Host}})
	if err != nil {
		t.Fatal(err)
	}
	req := request(t, "GET", server.URL, "")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%d, %T cannot be written to", resp.StatusCode, resp.Body)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// Many requests through a revocation, over real connections: each is answered. The
// connection of one that was refused is used again.
func TestManyRequestsThroughARevocation(t *testing.T) {
	var good, conns, refusals atomic.Int64
	good.Store(1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Api-Key") != fmt.Sprint("value-k", good.Load()) {
			refusals.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, strings.Repeat("x", 10_000))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	e := newEngine()
	s := source(t, e, nil)
	u, _ := url.Parse(server.URL)
	base := server.Client().Transport.(*http.Transport)
	base.MaxIdleConnsPerHost = 20
	tr, err := NewTransport(s, TransportOptions{Hosts: []string{u.Host}, Header: "X-API-Key", Base: base})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: tr}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 50 {
				if i == 0 && j == 25 {
					e.rotate() // the new key is there when the old one ends
					good.Store(2)
				}
				req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, server.URL, strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%d", resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
	if n := e.readsNow(); n != 2 {
		t.Errorf("%d reads", n)
	}
	if refusals.Load() == 0 || refusals.Load() > 20 {
		t.Errorf("%d refusals", refusals.Load())
	}
	// One after the other, over the one connection that is left.
	client.CloseIdleConnections()
	conns.Store(0)
	for range 2 {
		e.rotate()
		good.Add(1)
		resp, err := client.Do(request(t, http.MethodPost, server.URL, "body"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || conns.Load() != 1 {
			t.Errorf("%d, %d connections", resp.StatusCode, conns.Load())
		}
	}
}

// A refusal whose body never ends keeps nobody waiting.
func TestARefusalThatTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		has(t, s, "k1")
		e.rotate()
		tr := transport(t, s, TransportOptions{}, func(r *http.Request) (*http.Response, error) {
			resp := revoked(r)
			if resp.StatusCode == http.StatusUnauthorized {
				resp.Body, _ = io.Pipe()
			}
			return resp, nil
		})
		began := time.Now()
		resp, err := tr.RoundTrip(request(t, "GET", "https://api.example.com", ""))
		if err != nil || resp.StatusCode != http.StatusOK || time.Since(began) > drainTime {
			t.Errorf("after %v: %v %v", time.Since(began), resp, err)
		}
	})
}

// What follows a body is sent as well; it is set while the body is read.
func TestTrailers(t *testing.T) {
	s := source(t, newEngine(), nil)
	tr := transport(t, s, TransportOptions{}, func(r *http.Request) (*http.Response, error) {
		_, _ = io.Copy(io.Discard, r.Body)
		if got := r.Trailer.Get("X-Sum"); got != "3" {
			t.Errorf("the trailer is %q", got)
		}
		return answered(r, http.StatusOK, nil, ""), nil
	})
	req := request(t, "POST", "https://api.example.com", "")
	req.Trailer = http.Header{"X-Sum": nil}
	req.Body = io.NopCloser(reader(func([]byte) (int, error) {
		req.Trailer.Set("X-Sum", "3")
		return 0, io.EOF
	}))
	if _, err := tr.RoundTrip(req); err != nil {
		t.Error(err)
	}
}

type reader func([]byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }
