// SPDX-License-Identifier: MPL-2.0

package vaultlogin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
)

// server is a server that issues tokens; in a bubble it is reached without a network.
type server struct {
	mu     sync.Mutex
	good   map[string]bool // tokens
	ttl    int
	issued int
	failed int // logins that fail before one succeeds
	renews int
	noMore bool // renewals add nothing
	logins []map[string]any
	paths  []string
	spaces map[string]bool
}

func newServer() *server { return &server{good: map[string]bool{}, spaces: map[string]bool{}} }

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, r.Context().Err()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spaces[r.Header.Get("X-Vault-Namespace")] = true
	token := r.Header.Get("X-Vault-Token")
	ttl := s.ttl
	switch {
	case r.URL.Path == "/v1/auth/token/renew-self" && s.good[token]:
		s.renews++
		if s.noMore {
			ttl = 1
		}
	case filepath.Base(r.URL.Path) == "login":
		s.paths = append(s.paths, r.URL.Path)
		body := map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.logins = append(s.logins, body)
		if token != "" {
			http.Error(w, `{"errors": ["a login with a token"]}`, http.StatusBadRequest)
			return
		}
		if s.failed > 0 {
			s.failed--
			http.Error(w, `{"errors": ["no"]}`, http.StatusForbidden)
			return
		}
		s.issued++
		token = fmt.Sprint("token", s.issued)
		s.good[token] = true
	case r.URL.Path == "/v1/thing" && s.good[token]:
		fmt.Fprint(w, token)
		return
	default:
		http.Error(w, `{"errors": ["permission denied"]}`, http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, `{"auth": {"client_token": %q, "lease_duration": %d, "renewable": true}}`, token, ttl)
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) client(t testing.TB) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = "http://server.invalid"
	config.HttpClient = &http.Client{Transport: s}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.ClearToken()
	client.SetNamespace("team")
	return client
}

func start(t testing.TB, opt Options) *Session {
	t.Helper()
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	opt.Log = slog.New(slog.DiscardHandler)
	s, err := Start(ctx, &done, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get makes a call, and returns the token that it was made with.
func get(s *Session) (string, error) {
	body, err := s.Do(context.Background(), func(c *api.Client) (*api.Response, error) {
		return c.RawRequest(c.NewRequest(http.MethodGet, "/v1/thing")) //nolint:staticcheck // as the edge calls it
	})
	return string(body), err
}

func TestOwnToken(t *testing.T) {
	srv := newServer()
	client := srv.client(t)
	client.SetToken("mine")
	s := start(t, Options{Client: client})
	if _, err := get(s); err == nil {
		t.Error("a token that the server does not know was taken")
	}
	srv.good["mine"] = true
	if token, err := get(s); token != "mine" || err != nil {
		t.Error(token, err)
	}
	if len(srv.spaces) != 1 || !srv.spaces["team"] {
		t.Errorf("asked in the namespaces %v", srv.spaces)
	}
}

func TestTokenFile(t *testing.T) {
	srv := newServer()
	srv.good["one"], srv.good["two"] = true, true
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string, when time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, when, when); err != nil {
			t.Fatal(err)
		}
	}
	var done sync.WaitGroup
	if _, err := Start(t.Context(), &done, Options{Client: srv.client(t), TokenFile: file}); err == nil {
		t.Error("there is no file")
	}
	began := time.Now()
	write("one\n", began)
	s := start(t, Options{Client: srv.client(t), TokenFile: file})
	check := func(want string) {
		t.Helper()
		if token, err := get(s); token != want || err != nil {
			t.Errorf("%q, %v; want %q", token, err, want)
		}
	}
	check("one")
	write("", began.Add(time.Second)) // half written
	check("one")
	write("two", began.Add(2*time.Second))
	check("two")
	// Changed without a trace: a refusal has it read again.
	write("one", began.Add(2*time.Second))
	srv.set(func() { delete(srv.good, "two") })
	check("one")
	srv.set(func() { delete(srv.good, "one") })
	var refused *api.ResponseError
	if _, err := get(s); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	srv.set(func() { srv.good["one"] = true })
	check("one")
	if len(srv.spaces) != 1 || !srv.spaces["team"] {
		t.Errorf("asked in the namespaces %v", srv.spaces)
	}
}

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer()
		srv.ttl, srv.failed = 600, 1
		s := start(t, Options{Client: srv.client(t), Auth: AppRole("", "r", "")})
		check := func(want string) {
			t.Helper()
			if token, err := get(s); token != want || err != nil {
				t.Errorf("%q, %v; want %q", token, err, want)
			}
		}
		synctest.Wait()
		time.Sleep(retry + time.Second) // the first login failed
		check("token1")

		// Renewed ahead of its end.
		time.Sleep(10 * time.Minute)
		check("token1")
		if srv.renews != 1 || srv.issued != 1 {
			t.Errorf("%d renewals, %d logins", srv.renews, srv.issued)
		}
		// Replaced where it cannot be renewed for long.
		srv.set(func() { srv.noMore = true })
		time.Sleep(5 * time.Minute)
		check("token2")
		if srv.issued != 2 {
			t.Errorf("%d logins", srv.issued)
		}
		// Refused: all calls share one login, and are made once more.
		srv.set(func() { clear(srv.good) })
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { check("token3") })
		}
		wg.Wait()
		// Refused again with the new token: that is no matter of the token.
		_, err := s.Do(context.Background(), func(c *api.Client) (*api.Response, error) {
			return c.RawRequest(c.NewRequest(http.MethodGet, "/v1/other")) //nolint:staticcheck // as the edge calls it
		})
		var refused *api.ResponseError
		if !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
			t.Error(err)
		}
		// Each login leaves a token at the server: there are few for it.
		issued := srv.issued
		for range 600 {
			_, _ = s.Do(context.Background(), func(c *api.Client) (*api.Response, error) {
				return c.RawRequest(c.NewRequest(http.MethodGet, "/v1/other")) //nolint:staticcheck // as the edge calls it
			})
			time.Sleep(time.Second)
		}
		if n := srv.issued - issued; n < 10 || n > 16 {
			t.Errorf("%d logins in ten minutes of refusals", n)
		}
		// A token that is refused is still replaced within a minute, and at once later.
		for _, limit := range []time.Duration{time.Minute, 0} {
			srv.set(func() { clear(srv.good) })
			time.Sleep(limit)
			check(fmt.Sprint("token", srv.issued+1))
		}
		if len(srv.spaces) != 1 || !srv.spaces["team"] {
			t.Errorf("asked in the namespaces %v", srv.spaces)
		}
	})
}

func TestMethods(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method api.AuthMethod
		path   string
		want   map[string]any
	}{
		{AppRole("", "r", file), "approle", map[string]any{"role_id": "r", "secret_id": "first"}},
		{AppRole("team/approle/", "r", ""), "team/approle", map[string]any{"role_id": "r"}},
		{Kubernetes("", "r", file), "kubernetes", map[string]any{"role": "r", "jwt": "first"}},
		{Kubernetes("k8s", "r", file), "k8s", map[string]any{"role": "r", "jwt": "first"}},
		{JWT("", "r", file), "jwt", map[string]any{"role": "r", "jwt": "first"}},
	} {
		srv := newServer()
		secret, err := test.method.Login(t.Context(), srv.client(t))
		if err != nil || secret.Auth.ClientToken != "token1" {
			t.Errorf("%+v, %v", secret, err)
			continue
		}
		if fmt.Sprint(srv.logins[0]) != fmt.Sprint(test.want) || srv.paths[0] != "/v1/auth/"+test.path+"/login" {
			t.Errorf("%s %v, want %s %v", srv.paths[0], srv.logins[0], test.path, test.want)
		}
	}
	// The file is read at each login.
	srv, m := newServer(), JWT("", "r", file)
	for _, text := range []string{"second", "third"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Login(t.Context(), srv.client(t)); err != nil {
			t.Fatal(err)
		}
	}
	if srv.logins[1]["jwt"] != "third" {
		t.Errorf("%v", srv.logins)
	}
	for _, text := range []string{" \n", ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Login(t.Context(), srv.client(t)); err == nil {
			t.Errorf("logged in with the file %q", text)
		}
	}
	if _, err := JWT("", "r", filepath.Join(dir, "absent")).Login(t.Context(), srv.client(t)); err == nil {
		t.Error("logged in without a file")
	}
	if m, ok := Kubernetes("", "r", "").(*method); !ok || m.file != KubernetesToken {
		t.Error("a pod's token is not found")
	}
}

// After a time-out the next call uses a connection of its own.
func TestReconnect(t *testing.T) {
	var mu sync.Mutex
	from := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		from[r.RemoteAddr+" "+r.Header.Get("X-Vault-Token")+" "+r.Header.Get("X-Vault-Namespace")] = true
	}))
	defer srv.Close()
	config := api.DefaultConfig()
	config.Address = srv.URL
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("mine")
	client.SetNamespace("team")
	s := start(t, Options{Client: client})
	for range 3 {
		_, _ = get(s)
	}
	if len(from) != 1 {
		t.Fatalf("%v", from)
	}
	s.Reconnect()
	_, _ = get(s)
	if len(from) != 2 {
		t.Errorf("%v", from)
	}
	for id := range from {
		if !strings.HasSuffix(strings.TrimSuffix(id, "/"), " mine team") {
			t.Errorf("%q: the token and the namespace are lost", id)
		}
	}
}

// Over TLS calls share a connection. Where one hangs there, the next has another all the
// same, and again after that.
func TestReconnectWhileACallHangs(t *testing.T) {
	var mu sync.Mutex
	from := map[string]bool{}
	hangs := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		if r.ProtoMajor != 2 {
			t.Error(r.Proto)
		}
		if r.URL.Path == "/v1/hang" {
			close(hangs)
			<-r.Context().Done()
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	config := api.DefaultConfig()
	config.Address = srv.URL
	if err := config.ConfigureTLS(&api.TLSConfig{Insecure: true}); err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("mine")
	s := start(t, Options{Client: client})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	done.Go(func() {
		_, _ = s.Do(ctx, func(c *api.Client) (*api.Response, error) {
			return c.RawRequestWithContext(ctx, c.NewRequest(http.MethodGet, "/v1/hang")) //nolint:staticcheck // as the edge calls it
		})
	})
	<-hangs
	for want := 1; want < 4; want++ {
		for range 2 {
			if _, err := get(s); err != nil || len(from) != want {
				t.Errorf("%v, from %v; want %d connections", err, from, want)
			}
		}
		s.Reconnect()
	}
}
