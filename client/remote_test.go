// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// vaultServer is a server whose answers are fn's; it notes what it was asked.
func vaultServer(t *testing.T, fn func(w http.ResponseWriter, r *http.Request)) (client *api.Client, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		all = append(all, strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("X-Vault-Token"), " ", string(body))))
		mu.Unlock()
		fn(w, r)
	}))
	t.Cleanup(server.Close)
	config := api.DefaultConfig()
	config.Address = server.URL
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("t1")
	return client, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

func TestWhatTheServerIsAsked(t *testing.T) {
	client, asked := vaultServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/team/keys/creds/orders":
			fmt.Fprint(w, `{"lease_id": "l1", "lease_duration": 3600, "renewable": true, "data": {"api_key": "v", "key_id": "k1", "version": 3, "role": "orders", "scopes": ["a"]}}`)
		case "/v1/auth/token/lookup-self":
			fmt.Fprint(w, `{"data": {"ttl": 60}}`)
		case "/v1/sys/leases/renew":
			fmt.Fprint(w, `{"lease_id": "l1", "lease_duration": 1800}`)
		}
	})
	s, err := New(Options{Client: client, Mount: "/team/keys/", Role: "orders", Scopes: []string{"orders:read", "a b"}, TTL: time.Hour, KeyLabel: "shop & co", Instance: "x"})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.succeeded(h)
	s.free(h)
	if h.ID != "k1" || h.Value != "v" || h.Version != 3 || h.Role != "orders" || h.lease != "l1" || h.life != time.Hour || !h.renewable || h.token != "t1" || h.tokenLife != time.Minute {
		t.Errorf("%+v", h)
	}
	if life, err := s.remote.renew(t.Context(), "l1"); err != nil || life != 30*time.Minute {
		t.Errorf("%v %v", life, err)
	}
	s.Close()
	got := asked()
	for i, want := range []string{
		"GET /v1/team/keys/creds/orders?label=shop+%26+co&repeatable=true&scopes=orders%3Aread%2Ca+b&ttl=3600 t1",
		"GET /v1/auth/token/lookup-self t1",
		`PUT /v1/sys/leases/renew t1 {"lease_id":"l1"}`,
		`PUT /v1/team/keys/usage/orders t1 {"batch":"[{\"key_id\":\"k1\",\"accepted\":1,`,
		`PUT /v1/sys/leases/revoke t1 {"lease_id":"l1"}`,
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("%d: not asked: %s\nasked: %s", i, want, strings.Join(got, "\n"))
		}
	}
}

func TestAnswersThatAreErrors(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		final  bool
		want   string
	}{
		{400, `{"errors": ["repeatable: true: hands out each version once"]}`, true, "hands out each version once"},
		{403, `{"errors": ["permission denied"]}`, true, "permission denied"},
		{404, `{"errors": []}`, true, "404"},
		{429, `{"errors": ["slow"]}`, false, "slow"},
		{503, `{"errors": ["Vault is sealed"]}`, false, "sealed"},
		{500, `{"errors": ["internal"]}`, false, "internal"},
		{200, `{"data": {"password": "x"}}`, true, "holds no api_key"},
		{200, `{"lease_id": "l1", "data": {"api_key": "v", "key_id": "k1"}}`, true, "holds no api_key"},
		{200, `<html>`, false, "the answer of apikeys/creds/orders"},
	} {
		client, _ := vaultServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		})
		s, err := New(Options{Client: client, Mount: "apikeys", Role: "orders", NoReports: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.remote.read(t.Context())
		if err == nil || final(err) != test.final || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d %s: final %v: %v", test.status, test.body, final(err), err)
		}
		s.Close()
	}
}

// The times of a report are the server's, whatever this machine's clock shows.
func TestReportsAreInTheServersTime(t *testing.T) {
	reports := make(chan string, 10)
	client, _ := vaultServer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/usage/") {
			reports <- r.URL.Path
		}
		fmt.Fprint(w, `{"data": {"api_key": "v", "key_id": "k1", "ttl": 300, "last_vault_rotation": "2026-01-02T03:04:05Z"}}`)
	})
	back := func() (wall, mono int64) {
		wall, mono = systemClock()
		return wall - int64(3*time.Hour), mono
	}
	s, err := New(Options{Client: client, Mount: "apikeys", Role: "orders", Clock: back})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	has(t, s, "k1")
	wall, _ := back()
	s.usage.used("k1", wall)
	var items []usageItem
	if err := json.Unmarshal([]byte(s.usage.collect("", "k1")), &items); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, items[0].Last)
	if off := time.Since(at); err != nil || off < -2*time.Second || off > 2*time.Second {
		t.Errorf("reported at %s, off by %v", items[0].Last, off)
	}
}

// The token is refused while a key is read: another login, and the key is that of the new
// token.
func TestAKeyIsThatOfTheTokenThatReadIt(t *testing.T) {
	client, asked := vaultServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch token := r.Header.Get("X-Vault-Token"); {
		case strings.HasPrefix(r.URL.Path, "/v1/auth/approle/login"):
			fmt.Fprint(w, `{"auth": {"client_token": "t2", "lease_duration": 3600, "renewable": true}}`)
		case token != "t2":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors": ["permission denied"]}`)
		case strings.HasSuffix(r.URL.Path, "/creds/orders"):
			fmt.Fprint(w, `{"lease_id": "l1", "lease_duration": 3600, "data": {"api_key": "v", "key_id": "k1"}}`)
		default:
			fmt.Fprint(w, `{"data": {"ttl": 3600}}`)
		}
	})
	s, err := New(Options{Client: client, Mount: "apikeys", Role: "orders", Auth: AppRole("", "r", "")})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.current(t.Context())
	if err != nil || h.token != "t2" {
		t.Fatalf("%v %v", h, err)
	}
	s.free(h)
	s.Close()
	if got := asked(); !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, "PUT /v1/auth/token/revoke-self t2") }) {
		t.Errorf("its login was not ended: %s", strings.Join(got, "\n"))
	}
}

func TestFinal(t *testing.T) {
	for err, want := range map[error]bool{
		errNoKey: true, errAway: false, context.Canceled: false, fmt.Errorf("x: %w", refusal(400, "x")): true, errors.Join(refusal(503, "x"), errAway): false,
	} {
		if final(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
