// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// vaultServer answers as the engine does behind a server: with a key of a static role,
// which a test replaces.
type vaultServer struct {
	*httptest.Server
	mu      sync.Mutex
	version int
	away    bool
	denied  bool
}

// keyOf is the key of a version.
func keyOf(version int) string { return fmt.Sprint("the-key-of-the-tests-", version) }

func newVaultServer(t testing.TB) *vaultServer {
	t.Helper()
	s := &vaultServer{version: 1}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.away:
			http.Error(w, `{"errors": ["Vault is sealed"]}`, http.StatusServiceUnavailable)
		case s.denied || r.Header.Get("X-Vault-Token") != "t0":
			http.Error(w, `{"errors": ["permission denied"]}`, http.StatusForbidden)
		case r.URL.Path == "/v1/apikeys/creds/orders":
			fmt.Fprintf(w, `{"data": {"api_key": %q, "key_id": "k%d", "version": %d, "role": "orders", "ttl": 3600, "last_vault_rotation": %q}}`,
				keyOf(s.version), s.version, s.version, time.Unix(int64(1e9+s.version), 0).UTC().Format(time.RFC3339))
		default:
			fmt.Fprint(w, `{"data": {}}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *vaultServer) set(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// rotate has another key be the current one.
func (s *vaultServer) rotate() { s.set(func() { s.version++ }) }

// locked is a buffer that several write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a proxy as the command runs it.
type running struct {
	t           testing.TB
	vault       *vaultServer
	main, admin net.Addr
	log         *locked
	stop        func() error
}

// flags are those of a command line, without what the environment of the test has.
func flags(t testing.TB, args ...string) *Flags {
	t.Helper()
	set := flag.NewFlagSet("test", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f := Register(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

// start runs a proxy to an upstream.
func start(t testing.TB, upstream string, args ...string) *running {
	t.Helper()
	return startAt(t, newVaultServer(t), upstream, args...)
}

func startAt(t testing.TB, vault *vaultServer, upstream string, args ...string) *running {
	t.Helper()
	r := &running{t: t, vault: vault, log: &locked{}}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Those of the test come last, and count.
	f := flags(t, append([]string{
		"-role", "orders", "-listen", "127.0.0.1:0", "-upstream", upstream, "-admin", "127.0.0.1:0", "-header", "X-API-Key",
		"-address", vault.URL, "-token-file", token, "-log-level", "debug",
	}, args...)...)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Serve(ctx, f, r.log, func(main, admin net.Addr) {
			r.main, r.admin = main, admin
			close(ready)
		})
	}()
	var once sync.Once
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	t.Cleanup(func() {
		_ = r.stop()
		if log := r.log.String(); strings.Contains(log, "the-key") || strings.Contains(log, "t0") {
			t.Errorf("the log holds a secret:\n%s", log)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("%v\n%s", err, r.log)
	}
	return r
}

func (r *running) url(path string) string { return "http://" + r.main.String() + path }

// says waits until the log says something.
func (r *running) says(wanted string) {
	r.t.Helper()
	r.until("the log says "+wanted, func() bool { return strings.Contains(r.log.String(), wanted) })
}

// until waits for something that happens soon.
func (r *running) until(what string, done func() bool) {
	r.t.Helper()
	for until := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(until) {
			r.t.Fatalf("it does not come that %s:\n%s", what, r.log)
		}
		runtime.Gosched()
	}
}

// do makes a request, and returns status and body.
func (r *running) do(req *http.Request) (int, string) {
	r.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (r *running) get(url string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(req)
}

// metric is the value of a line of the metrics, or "".
func (r *running) metric(name string) string {
	r.t.Helper()
	_, text := r.get("http://" + r.admin.String() + "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// upstream is an API that takes one key, and tells what it was asked.
type upstream struct {
	*httptest.Server
	mu    sync.Mutex
	takes string
	asked []*http.Request
	raw   []string // as they came
}

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{takes: keyOf(1)}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.asked = append(u.asked, r)
	takes := u.takes
	u.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.mu.Lock()
	u.raw = append(u.raw, fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body))
	u.mu.Unlock()
	if r.Header.Get("X-API-Key") != takes {
		http.Error(w, "not that key", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
}

func (u *upstream) takesOnly(version int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.takes = keyOf(version)
}

// seen are the requests that came since it was asked last.
func (u *upstream) seen() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := u.asked
	u.asked, u.raw = nil, nil
	return asked
}

func TestPassesOn(t *testing.T) {
	api := newUpstream(t)
	r := start(t, api.URL)
	status, text := r.get(r.url("/orders/7?page=2;x=%zz"))
	if status != 200 || text != "GET /orders/7?page=2;x=%zz " {
		t.Errorf("%d %s", status, text)
	}
	api.takesOnly(2)
	r.vault.rotate()
	req, err := http.NewRequest(http.MethodPost, r.url("/orders"), strings.NewReader("an order"))
	if err != nil {
		t.Fatal(err)
	}
	if status, text := r.do(req); status != 200 || text != "POST /orders an order" {
		t.Errorf("%d %s", status, text)
	}
	if got := r.metric("apikeys_proxy_retries_total"); got != "1" {
		t.Errorf("retries: %s", got)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404} {
		if got, text := r.get("http://" + r.admin.String() + path); got != want {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}
