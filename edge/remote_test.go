// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// asked is what a server was asked.
type asked struct {
	path, token, namespace string
	body                   map[string]any
}

// serve answers every call with that, and tells what was asked.
func serve(t *testing.T, opt Options, status int, text string) (remote, func() asked) {
	t.Helper()
	var mu sync.Mutex
	var last asked
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		last = asked{path: r.Method + " " + r.URL.Path, token: r.Header.Get("X-Vault-Token"), namespace: r.Header.Get("X-Vault-Namespace")}
		_ = json.Unmarshal(raw, &last.body)
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(srv.Close)
	config := api.DefaultConfig()
	config.Address = srv.URL
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("token")
	client.SetNamespace("team")
	opt.Client = client
	var done sync.WaitGroup
	r, err := newRemote(t.Context(), &done, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r, func() asked {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func TestChangesCall(t *testing.T) {
	r, last := serve(t, Options{Mount: "/keys/"}, 200, `{"data": {"notices": [{"role_id": "r", "position": 7, "closing": true}, {"key_id": "k", "position": 8}],
		"cursor": "e.8", "reset": true, "now": "2030-01-01T00:00:00.5Z", "mount": "m", "max_staleness": 60, "feed_wait": 3}}`)
	a, err := r.changes(t.Context(), "e.6", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got := last()
	if got.path != "PUT /v1/keys/changes" || got.token != "token" || strings.Trim(got.namespace, "/") != "team" ||
		got.body["since"] != "e.6" || got.body["wait"] != "2s" {
		t.Errorf("asked %+v", got)
	}
	if len(a.Notices) != 2 || a.Notices[0].RoleID != "r" || !a.Notices[0].Closing || a.Notices[1].KeyID != "k" || a.Notices[1].Position != 8 ||
		a.Cursor != "e.8" || !a.Reset || !a.Now.Equal(time.Date(2030, 1, 1, 0, 0, 0, 5e8, time.UTC)) || a.MaxStaleness != 60 || a.FeedWait != 3 {
		t.Errorf("%+v", a)
	}
}

func TestVerifyCall(t *testing.T) {
	const answer = `{"data": {"cursor": "e.8", "roles": {"r": {"role": "orders", "scopes": ["a", "b"], "allowed_cidrs": ["10.0.0.0/8"], "metadata": {"m": "1"}, "rate_limit": 1.5}},
		"results": [{"code": "VALID", "role_id": "r", "key_id": "k", "version": 3, "lease": true, "scopes": ["a"], "timeline": [{"from": "2030-01-01T00:00:00Z", "code": "VALID", "state": "current"}]},
			{"code": "NOT_FOUND", "hint": "no"}]}}`
	for _, role := range []string{"", "orders"} {
		r, last := serve(t, Options{Mount: "keys", Role: role}, 200, answer)
		a, err := r.verify(t.Context(), []question{{key: "the key"}, {keyID: "k", roleID: "r"}})
		if err != nil {
			t.Fatal(err)
		}
		got := last()
		path := "PUT /v1/keys/verify"
		if role != "" {
			path += "/orders"
		}
		var items []map[string]any
		if err := json.Unmarshal([]byte(got.body["batch"].(string)), &items); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint([]map[string]any{{"key": "the key", "timeline": float64(timeline.Schema)}, {"key_id": "k", "role_id": "r", "timeline": float64(timeline.Schema)}})
		if got.path != path || fmt.Sprint(items) != want {
			t.Errorf("%s %v, want %s %s", got.path, items, path, want)
		}
		if len(a.Results) != 2 || a.Results[1].Hint != "no" || !a.Results[0].Lease || a.Results[0].Version != 3 {
			t.Fatalf("%+v", a)
		}
		f, err := a.factsOf(&a.Results[0])
		if err != nil || fmt.Sprint(f.scopes) != "[a]" || len(f.networks) != 1 || f.anyone || f.rateLimit != 1.5 || f.metadata["m"] != "1" {
			t.Errorf("%+v, %v", f, err)
		}
		if _, err := a.factsOf(&a.Results[1]); err == nil {
			t.Error("facts of a role that the answer does not tell")
		}
	}
}

func TestReportCall(t *testing.T) {
	for role, path := range map[string]string{"": "PUT /v1/keys/usage", "orders": "PUT /v1/keys/usage/orders"} {
		r, last := serve(t, Options{Mount: "keys", Role: role}, 204, "")
		if err := r.report(t.Context(), "i", 3, "[]"); err != nil {
			t.Fatal(err)
		}
		if got := last(); got.path != path || got.body["instance"] != "i" || got.body["sequence"] != 3.0 || got.body["batch"] != "[]" {
			t.Errorf("%+v", got)
		}
	}
}

// Whatever a server answers amiss is an error; none holds the key.
func TestAnswersAmiss(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		text   string
	}{
		"no answer":        {200, ""},
		"no JSON":          {200, "<html>"},
		"no data":          {200, "{}"},
		"of another shape": {200, `{"data": {"results": 3, "notices": 4, "cursor": []}}`},
		"refused":          {403, `{"errors": ["permission denied"]}`},
		"failed":           {500, `{"errors": ["cannot"]}`},
		"sealed":           {503, `{"errors": ["sealed"]}`},
	} {
		r, _ := serve(t, Options{Mount: "keys"}, test.status, test.text)
		_, err := r.verify(t.Context(), []question{{key: "presented"}})
		if err == nil || strings.Contains(err.Error(), "presented") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.changes(t.Context(), "", 0); err == nil {
			t.Errorf("%s: changes", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, _ := serve(t, Options{Mount: "keys"}, 200, "")
	if _, err := r.verify(ctx, nil); err == nil {
		t.Error("a call with a context that has ended")
	}
}

func TestFactsAreShared(t *testing.T) {
	ask := func() *facts {
		a := &answers{Roles: map[string]roleFacts{"r": {Scopes: []string{"same"}, Metadata: map[string]string{"a": "b"}}}}
		f, err := a.factsOf(&answer{RoleID: "r"})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if first, second := ask(), ask(); first != second {
		t.Error("roles that say the same do not share their facts")
	}
	bad := &answers{Roles: map[string]roleFacts{"r": {AllowedCIDRs: []string{"10.0.0.0"}}}}
	if _, err := bad.factsOf(&answer{RoleID: "r"}); err == nil {
		t.Error("a network that is none was taken: it would admit nobody, or everybody")
	}
}

func TestOptions(t *testing.T) {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]Options{
		"no client":         {Mount: "keys"},
		"no mount":          {Client: client},
		"two tokens":        {Client: client, Mount: "keys", TokenFile: "x", Auth: AppRole("", "r", "")},
		"state without key": {Client: client, Mount: "keys", StateFile: "x"},
		"key without state": {Client: client, Mount: "keys", StateKeyFile: "x"},
		"no token file":     {Client: client, Mount: "keys", TokenFile: "/nonexistent"},
	} {
		if v, err := New(opt); err == nil {
			_ = v.Close()
			t.Errorf("%s: taken", name)
		}
	}
}
