// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// receiver is an endpoint that keeps what it was sent.
type receiver struct {
	*httptest.Server

	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	got    chan struct{}
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{got: make(chan struct{}, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.bodies, r.heads = append(r.bodies, string(body)), append(r.heads, req.Header)
		r.mu.Unlock()
		r.got <- struct{}{}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

// An event of a rotation reaches an endpoint on this machine.
func TestEventReachesAnEndpoint(t *testing.T) {
	r := newReceiver(t)
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := entrusted(t, &logical.InmemStorage{}, newFakeClock())
	m.write("config", map[string]any{"egress_allow": "127.0.0.0/8:" + u.Port()})
	made := m.write("events/ops", map[string]any{"url": r.URL + "/apikeys", "types": "key.*"})
	if made["signing_secret"] == "" {
		t.Fatal("no signing secret")
	}
	m.write("roles/r", nil)
	if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.got:
	case <-time.After(5 * time.Second):
		t.Fatalf("nothing arrives: %v", m.read("events/ops/status"))
	}
	var body struct {
		Type string         `json:"type"`
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(r.bodies[0]), &body); err != nil || body.Type != "key.activated" || body.Data["role"] != "r" {
		t.Errorf("got %s (%v)", r.bodies[0], err)
	}
	t.Log(r.bodies[0], r.heads[0])
	if got := m.write("events/ops/test", nil); got["delivered"] != true {
		t.Errorf("a test comes to %v", got)
	}
	if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
		t.Fatal(err)
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("left in the outbox: %q", left)
	}
}
