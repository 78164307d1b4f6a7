// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// held waits until there is a key.
func (r *running) held() {
	r.t.Helper()
	r.until("there is a key", func() bool { status, _ := r.get("http://" + r.admin.String() + "/readyz"); return status == 200 })
}

// Without a key it is said at once why not, and the key is used when it is there.
func TestNoKeyAtFirst(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	vault := newVaultServer(t)
	vault.denied = true
	r := startAt(t, vault, api.URL)
	r.until("it was tried", func() bool { return r.metric("apikeys_proxy_key_reads_failing") == "1" })
	resp, err := http.Get(r.url("/a"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "5" || resp.Header.Get("Proxy-Status") != "apikeys; error=proxy_internal_error" ||
		string(body) != "apikeys proxy: there is no key yet: the proxy's log says why\n" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	if status, text := r.get("http://" + r.admin.String() + "/readyz"); status != 503 || !strings.Contains(text, `"key_held":false`) || !strings.Contains(text, `"failing_seconds":0`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := r.get("http://" + r.admin.String() + "/healthz"); status != 200 {
		t.Errorf("it is not alive: %d", status)
	}
	if got := r.metric("apikeys_proxy_key_held"); got != "0" {
		t.Errorf("held: %s", got)
	}
	if len(api.seen()) > 0 {
		t.Error("the upstream was asked without a key")
	}
	vault.set(func() { vault.denied = false })
	r.held()
	if status, text := r.get(r.url("/a")); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	if got := r.metric(`apikeys_proxy_failures_total{reason="no_key"}`); got != "1" {
		t.Errorf("failures: %s", got)
	}
}

// The last key is used while the server is away, and whoever looks sees for how long.
func TestServerAway(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL)
	r.held()
	r.vault.set(func() { r.vault.away = true })
	api.takesOnly(2) // a refusal has it read
	if status, _ := r.get(r.url("/a")); status != 401 {
		t.Errorf("%d", status)
	}
	r.until("a read has failed", func() bool { return r.metric("apikeys_proxy_key_reads_failing") == "1" })
	if status, text := r.get("http://" + r.admin.String() + "/readyz"); status != 200 || !strings.Contains(text, `"reads_failing":true`) || !strings.Contains(text, "failing_seconds") {
		t.Errorf("%d %s", status, text)
	}
	api.takesOnly(1)
	if status, _ := r.get(r.url("/a")); status != 200 {
		t.Errorf("%d", status)
	}
}

// What comes between is told apart from the upstream's answers, and the log says why
// without what an upstream has sent.
func TestUpstreamFails(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = complaintsTo(slog.New(slog.DiscardHandler))
	t.Cleanup(untrusted.Close)
	// It sends back what it was sent, which is no answer.
	mirror, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mirror.Close() })
	go func() {
		for {
			conn, err := mirror.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
				for in := bufio.NewReader(conn); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, strings.ReplaceAll(line, ": ", " ")) // also the key
				}
			}()
		}
	}()
	for url, said := range map[string]string{
		"http://" + gone.Addr().String():   "connection refused",
		untrusted.URL:                      "certificate",
		"http://" + mirror.Addr().String(): "the answer is none",
	} {
		r := start(t, url)
		resp, err := http.Get(r.url("/a"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Proxy-Status") != "apikeys; error=destination_unavailable" || strings.Contains(string(body), "the-key") {
			t.Errorf("%s: %d %v %s", url, resp.StatusCode, resp.Header, body)
		}
		r.says("the upstream does not answer")
		r.says(said)
		if got := r.metric(`apikeys_proxy_failures_total{reason="upstream"}`); got != "1" {
			t.Errorf("failures: %s", got)
		}
	}
}

// A client that goes away, or whose body breaks off, is no failure of the upstream.
func TestClientsGoAway(t *testing.T) {
	t.Parallel()
	came := make(chan struct{}, 1)
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(api.Close)
	r := start(t, api.URL)
	r.held()
	for reason, text := range map[string]string{
		"canceled": "GET /a HTTP/1.1\r\nHost: " + r.main.String() + "\r\n\r\n",
		"body":     "POST /a HTTP/1.1\r\nHost: " + r.main.String() + "\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno length\r\n",
	} {
		conn, err := net.Dial("tcp", r.main.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		<-came
		_ = conn.Close()
		r.until(reason+" is counted", func() bool { return r.metric(`apikeys_proxy_failures_total{reason="`+reason+`"}`) == "1" })
	}
	r.until("nothing is under way", func() bool { return r.metric("apikeys_proxy_in_flight_requests") == "0" })
	if strings.Contains(r.log.String(), "the upstream does not answer") {
		t.Errorf("the upstream is blamed:\n%s", r.log)
	}
}

// A redirect within the upstream leads to the proxy again; another is left as it is.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var to string
	status := http.StatusFound
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	}))
	t.Cleanup(api.Close)
	r := start(t, api.URL+"/base")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for location, want := range map[string]string{
		api.URL + "/base/b%2Fc?d=%zz#e": "/b%2Fc?d=%zz#e",
		api.URL + "/base":               "/",
		api.URL + "/other":              api.URL + "/other",
		api.URL + "/basement":           api.URL + "/basement",
		api.URL + "/base//evil":         api.URL + "/base//evil",
		"https://evil/base/b":           "https://evil/base/b",
		"/base/b":                       "/b",
		"/other":                        "/other",
		"c":                             "c",
		strings.Replace(api.URL, "http", "https", 1) + "/base/b": strings.Replace(api.URL, "http", "https", 1) + "/base/b",
	} {
		to = location
		resp, err := client.Get(r.url("/a"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("%s: %s, want %s", location, got, want)
		}
	}
	to, status = api.URL+"/base/b", http.StatusCreated
	resp, err := client.Get(r.url("/a"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Location"); got != to {
		t.Errorf("the name of what was made: %s", got)
	}
}

// A socket is this user's only, takes any Host, and stands in for one that was left.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := open(t.Context(), "unix:"+path); err == nil {
		_ = l.Close()
		t.Error("two listen at one socket")
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	admin := filepath.Join(t.TempDir(), "a")
	r := start(t, api.URL, "-listen", "unix:"+path, "-admin", "unix:"+admin)
	for _, file := range []string{path, admin} {
		if info, err := os.Stat(file); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if got := r.send("GET /a HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n"); fmt.Sprint(got) != "[200]" {
		t.Errorf("%v", got)
	}
	if got := r.send("GET /a HTTP/1.1\r\nHost: anything\r\nOrigin: http://other\r\nConnection: close\r\n\r\n"); fmt.Sprint(got) != "[403]" {
		t.Errorf("%v", got)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, file := range []string{path, admin} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is left", file)
		}
	}
	if err := os.WriteFile(path, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := open(t.Context(), "unix:"+path); err == nil {
		_ = l.Close()
		t.Error("a file is overwritten")
	}
}

// What is under way is answered before the end; what takes too long is cut off, and
// nobody is let in.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		came, more := make(chan struct{}), make(chan struct{})
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came <- struct{}{}
			select {
			case <-more:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, "late")
		}))
		t.Cleanup(api.Close)
		drain := "20s"
		if !waits {
			drain = "100ms"
		}
		r := start(t, api.URL, "-drain", drain)
		answered := make(chan string)
		for _, c := range clients(t) {
			go func() {
				resp, err := c.Get(r.url("/a"))
				if err != nil {
					answered <- "cut off"
					return
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				answered <- fmt.Sprint(resp.StatusCode, " ", string(text))
			}()
			<-came
		}
		ended := make(chan error)
		go func() { ended <- r.stop() }()
		r.until("nobody is let in", func() bool {
			c, err := net.Dial("tcp", r.main.String())
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		if waits {
			if status, text := r.get("http://" + r.admin.String() + "/readyz"); status != 503 || !strings.Contains(text, `"ending":true`) {
				t.Errorf("%d %s", status, text)
			}
			close(more)
		}
		for range clients(t) {
			if got := <-answered; waits && got != "200 late" || !waits && got == "200 late" {
				t.Errorf("waits %v: %s", waits, got)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := strings.Contains(r.log.String(), "requests were cut off"); got == waits {
			t.Errorf("waits %v:\n%s", waits, r.log)
		}
	}
}

// A listener that ends by itself ends the proxy, with an error.
func TestListenerFails(t *testing.T) {
	s, err := begin(t.Context(), flags(t, append(needed(t), "-listen", "127.0.0.1:0")...), io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	broken := errors.New("broken")
	go s.serve(s.main, failing{broken})
	if err := <-s.failed; !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (l failing) Accept() (net.Conn, error) { return nil, l.err }
func (failing) Close() error                { return nil }
func (failing) Addr() net.Addr              { return &net.TCPAddr{} }

// Nothing is left behind, whatever the proxy did.
func TestNoGoroutinesAreLeft(t *testing.T) {
	vault := newVaultServer(t)
	api := newUpstream(t)
	sockets := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, buf)
	}))
	defer sockets.Close()
	ours := func() string {
		buf := make([]byte, 4<<20)
		all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		var left []string
		for _, g := range all {
			if (strings.Contains(g, "internal/sidecar.") || strings.Contains(g, "apikeys/client.") || strings.Contains(g, "httputil.")) && !strings.Contains(g, "testing.tRunner") {
				left = append(left, g)
			}
		}
		return strings.Join(left, "\n\n")
	}
	for _, upstream := range []string{api.URL, sockets.URL} {
		r := startAt(t, vault, upstream)
		r.held()
		if upstream == sockets.URL {
			r.webSocket()
			r.webSocket()
		} else {
			for _, c := range clients(t) {
				from, to := io.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url("/a"), from)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					if resp, err := c.Do(req); err == nil {
						_ = resp.Body.Close()
					}
				})
				_, _ = io.WriteString(to, "some")
				r.until("it came", func() bool { return len(api.seen()) > 0 })
				cancel() // in the middle of an upload
				_ = to.CloseWithError(context.Canceled)
				wg.Wait()
				if status, _ := r.get(r.url("/b")); status != 200 {
					t.Error(status)
				}
			}
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
	for until := time.Now().Add(20 * time.Second); ours() != ""; runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatal(ours())
		}
	}
}

// needed are flags without which there is no proxy.
func needed(t testing.TB) []string {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-role", "orders", "-upstream", "https://api.example.com", "-address", "http://127.0.0.1:1", "-token-file", token}
}

// What cannot begin says which flag, and why; nothing is left of it.
func TestCannotBegin(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const local = "-listen 127.0.0.1:0 "
	for args, want := range map[string]string{
		local + "-role=":           "-role: is missing: give one, such as orders",
		"":                         "-listen: is missing: give one, such as 127.0.0.1:9000",
		local + "-upstream=":       "-upstream: is missing",
		local + "-role Orders":     `Role: "Orders" is not the name of a role`,
		local + "more":             `"more": is not a flag`,
		"-listen 0.0.0.0:9000":     `-listen: "0.0.0.0:9000": others than this machine's processes would reach the key`,
		"-listen :9000":            `-listen: ":9000": others`,
		"-listen [::]:9000":        `-listen: "[::]:9000": others`,
		"-listen 192.0.2.1:9000":   `-listen: "192.0.2.1:9000": others`,
		"-listen example.com:9000": `-listen: "example.com:9000": others`,
		"-listen 127.0.0.1":        `-listen: "127.0.0.1": is no address with a port`,
		"-listen 127.0.0.1:http":   `-listen: "http": is not a port`,
		"-listen 127.0.0.1:70000":  `-listen: "70000": is not a port`,
		"-listen unix:":            "-listen: unix: names no file",
		"-listen unix:@a":          "-listen: unix: names no file",
		"-listen unix:/no/where/s": "-listen: ",
		"-listen unix:" + empty:    "is there, and is not a socket",
		"-listen unix:/" + strings.Repeat("x", 120):            "-listen: unix: the path has 121 characters",
		"-listen " + taken.Addr().String():                     "-listen: ",
		local + "-admin 9001":                                  `-admin: "9001": is no address with a port`,
		local + "-admin " + taken.Addr().String():              "-admin: ",
		local + "-upstream api.example.com":                    `-upstream: "api.example.com": is not a URL such as`,
		local + "-upstream ftp://api.example.com":              "is not a URL such as https://api.example.com",
		local + "-upstream https://":                           "is not a URL such as",
		local + "-upstream http://api.example.com":             "would send the key without TLS",
		local + "-upstream http://localhost:80":                "would send the key without TLS",
		local + "-upstream http://192.0.2.1":                   "would send the key without TLS",
		local + "-upstream https://u:secret@api.example.com":   "-upstream: holds a user",
		local + "-upstream https://api.example.com?a=b":        "has a query or a fragment",
		local + "-upstream https://api.example.com/a/%2e%2e/b": "its path holds .. segments",
		local + "-upstream-ca-cert " + empty:                   "-upstream-ca-cert: " + empty + ": holds no certificate",
		local + "-upstream-ca-cert /no/where":                  "-upstream-ca-cert: open",
		local + "-allow-host http://a":                         `-allow-host: "http://a": is no host`,
		local + "-allow-host *":                                `-allow-host: "*": is no host`,
		local + "-header Ho:st":                                `Header: "Ho:st" is no name of a header`,
		local + "-header Host":                                 "Header: Host means something else",
		local + "-scheme=":                                     "-scheme: is empty",
		local + "-scheme a,b":                                  `Scheme: "a,b" is not one word`,
		local + "-refused-status 200":                          `-refused-status: "200": is not a status from 400 to 499`,
		local + "-refused-status 401,":                         `-refused-status: "": is not a status`,
		local + "-drain -1s":                                   "-drain: -1s: is negative",
		local + "-ttl 1ms":                                     "-ttl: 1ms: is less than a second",
		local + "-log-format xml":                              `-log-format: "xml": is none: give json or text`,
		local + "-token-file /no/where":                        "/no/where",
		local + "-auth ldap":                                   `-auth: "ldap": is none`,
		local + "-mount /":                                     "-mount: is empty",
	} {
		err := Serve(t.Context(), flags(t, append(needed(t), strings.Fields(args)...)...), io.Discard, nil)
		if !errors.Is(err, ErrBegin) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	itself := flags(t, append(needed(t), "-listen", "127.0.0.1:9", "-upstream", "http://127.0.0.1:9")...)
	if err := Serve(t.Context(), itself, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "-upstream: 127.0.0.1:9: is the proxy itself") {
		if !errors.Is(err, syscall.EACCES) { // who runs the test may not listen there
			t.Error(err)
		}
	}
}

// The flags say how the key is sent, to whom and what refuses it.
func TestSettings(t *testing.T) {
	log, err := flags(t).log(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	f := flags(t, append(needed(t), "-listen", "localhost:9000", "-header", "X-Key", "-scheme", "Key", "-refused-status", "401, 403", "-scopes", "a:read, b:read",
		"-ttl", "5m", "-label", "shop", "-key-label", "nightly", "-mount", "/keys/", "-upstream", "https://API.example.com:8443/v2")...)
	s, err := f.settings(log)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.transport.Hosts, s.transport.Header, s.transport.Scheme, s.transport.RefusedStatus); got != "[api.example.com:8443]X-KeyKey[401 403]" {
		t.Error(got)
	}
	if o := s.source; fmt.Sprintf("%s %s %v %v %s %s", o.Mount, o.Role, o.Scopes, o.TTL, o.Label, o.KeyLabel) != "keys orders [a:read b:read] 5m0s shop nightly" {
		t.Errorf("%+v", o)
	}
	for text, want := range map[string]string{"https://a": "a:443", "http://127.0.0.1": "127.0.0.1:80", "http://[::1]:8080": "[::1]:8080"} {
		u, err := parseUpstream(text)
		if err != nil || hostPort(u) != want {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
}

// With Authorization the scheme is Bearer unless another is given; other headers have
// none.
func TestSchemes(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-header Authorization":               "Authorization: Bearer KEY",
		"-header authorization -scheme Token": "Authorization: Token KEY",
		"-header X-API-Key":                   "X-Api-Key: KEY",
		"-header X-API-Key -scheme Key":       "X-Api-Key: Key KEY",
	} {
		api := newUpstream(t)
		r := start(t, api.URL, strings.Fields(args)...)
		r.get(r.url("/"))
		name, value, _ := strings.Cut(want, ": ")
		if got := api.seen()[0].Header[name]; len(got) != 1 || got[0] != strings.Replace(value, "KEY", keyOf(1), 1) {
			t.Errorf("%s: %q", args, got)
		}
	}
}

// The numbers are all there, also those that are 0, and in the form of OpenMetrics.
func TestMetrics(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL)
	r.get(r.url("/a"))
	r.get(r.url("/a/../b"))
	req, err := http.NewRequest(http.MethodGet, "http://"+r.admin.String()+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	_, text := r.do(req)
	for _, want := range []string{
		`apikeys_proxy_requests_total{code="2xx"} 1.0`, `apikeys_proxy_retries_total 0.0`, `apikeys_proxy_key_version 1`, `apikeys_proxy_key_held 1`, `apikeys_proxy_key_changes_total 0`,
		`apikeys_proxy_refused_total{reason="host"} 0.0`, `apikeys_proxy_failures_total{reason="no_key"} 0.0`, `apikeys_proxy_build_info{version=`, `apikeys_proxy_in_flight_requests 0`,
		`apikeys_proxy_answer_seconds_count 1`, `apikeys_proxy_key_read_timestamp_seconds`, `apikeys_proxy_upgraded_connections 0`, "# EOF", "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, `"k1"`) {
		t.Error("a label names a key")
	}
	if got := r.metric(`apikeys_proxy_refused_total{reason="path"}`); got != "1" {
		t.Errorf("refused: %s", got)
	}
}
