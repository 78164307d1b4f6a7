// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// tidings is one message that an endpoint got.
type tidings struct {
	host, id, kind, role string
	seq                  int64
	data                 map[string]any
	body                 string
	head                 http.Header
	failed               bool
}

// outside is everybody that events are sent to.
type outside struct {
	mu      sync.Mutex
	got     []tidings
	flights sync.WaitGroup
	// answers is what the endpoint of a host answers; without one it is content.
	answers map[string]func(n tidings) (*egress.Answer, error)
}

// eventMount is a mount on which a worker is, with endpoints that are functions.
type eventMount struct {
	*testMount
	*outside
}

func newEventMount(t testing.TB) *eventMount {
	return eventMountOn(t, &logical.InmemStorage{}, newFakeClock(), nil)
}

func eventMountOn(t testing.TB, s logical.Storage, c *fakeClock, out *outside) *eventMount {
	t.Helper()
	if out == nil {
		out = &outside{answers: map[string]func(tidings) (*egress.Answer, error){}}
	}
	m := &eventMount{testMount: mountOn(t, s, c), outside: out}
	m.worker.running = true
	m.entrust(s)
	m.outbox.spawn = func(fn func()) { m.flights.Go(fn) }
	m.courier = func(req *http.Request, _ string) (*egress.Answer, error) { return out.take(req) }
	return m
}

func (o *outside) take(req *http.Request) (*egress.Answer, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	n := tidings{host: req.URL.Host, id: req.Header.Get("webhook-id"), body: string(body), head: req.Header}
	var event struct {
		Type string         `json:"type"`
		Data map[string]any `json:"data"`
	}
	if json.Unmarshal(body, &event) == nil {
		n.kind, n.data = event.Type, event.Data
		n.role, _ = event.Data["role"].(string)
		seq, _ := event.Data["sequence"].(float64)
		n.seq = int64(seq)
	}
	o.mu.Lock()
	answers := o.answers[n.host]
	o.mu.Unlock()
	answer := &egress.Answer{Status: http.StatusNoContent, Header: http.Header{}, Complete: true}
	if answers != nil {
		answer, err = answers(n)
	}
	n.failed = err != nil || answer.Class() != ""
	o.mu.Lock()
	o.got = append(o.got, n)
	o.mu.Unlock()
	return answer, err
}

// answering is an endpoint that answers so.
func answering(status int, head http.Header) func(tidings) (*egress.Answer, error) {
	if head == nil {
		head = http.Header{}
	}
	return func(tidings) (*egress.Answer, error) { return &egress.Answer{Status: status, Header: head}, nil }
}

func (o *outside) answer(host string, fn func(tidings) (*egress.Answer, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers[host] = fn
}

// endpoint makes one whose host is its name.
func (m *eventMount) endpoint(name string, more map[string]any) map[string]any {
	m.t.Helper()
	data := map[string]any{"url": "https://" + name + ".example.com/hook", "pace": 10000}
	for k, v := range more {
		data[k] = v
	}
	return m.write("events/"+name, data)
}

// deliver has the worker do steps until nothing is on its way and it wants none at once.
func (m *eventMount) deliver() {
	m.t.Helper()
	m.entrust(m.storage)
	for range 10000 {
		next, err := m.step(m.clock.Now(), stepBudget)
		if err != nil {
			m.t.Fatalf("a step: %v", err)
		}
		m.flights.Wait()
		if soon := m.wake.wanted(); soon.After(m.clock.Now()) && soon.Sub(m.clock.Now()) <= collectFor {
			m.clock.set(soon)
			continue
		}
		if next.After(m.clock.Now()) && m.wake.wanted().After(m.clock.Now()) || m.wake.wanted().IsZero() && next.After(m.clock.Now()) {
			return
		}
	}
	m.t.Fatal("the worker never rests")
}

// heardBy is what was delivered to the endpoint since the last call, and forgets it.
func (m *eventMount) heardBy(name string) []tidings {
	m.outside.mu.Lock()
	defer m.outside.mu.Unlock()
	var all, rest []tidings
	for _, n := range m.got {
		switch {
		case n.host != name+".example.com":
			rest = append(rest, n)
		case !n.failed:
			all = append(all, n)
		}
	}
	m.got = rest
	return all
}

// kinds are the types of what was delivered, in the order of sequences.
func kinds(all []tidings) string {
	slices.SortStableFunc(all, func(a, b tidings) int { return int(a.seq - b.seq) })
	var text []string
	for _, n := range all {
		text = append(text, n.kind)
	}
	return strings.Join(text, " ")
}

// An event reaches an endpoint on this machine, through the real way out.
func TestEventReachesAnEndpoint(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(body))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := newEventMount(t)
	m.courier = func(req *http.Request, ca string) (*egress.Answer, error) { return m.egress.Do(req, ca, maxAnswer) }
	m.write("config", map[string]any{"egress_allow": "127.0.0.0/8:" + u.Port()})
	made := m.write("events/ops", map[string]any{"url": server.URL + "/apikeys", "types": "key.*"})
	if !strings.HasPrefix(made["signing_secret"].(string), "whsec_") {
		t.Fatal("no signing secret")
	}
	m.write("roles/r", nil)
	m.deliver()
	if got := m.write("events/ops/test", nil); got["delivered"] != true {
		t.Errorf("a test comes to %v", got)
	}
	m.deliver()
	if len(bodies) != 2 || !strings.Contains(bodies[0], `"type":"key.activated"`) || !strings.Contains(bodies[1], `"type":"test"`) {
		t.Errorf("it got %q", bodies)
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("left in the outbox: %q", left)
	}
	st := m.read("events/ops/status")
	if st["state"] != "ok" || number(t, st["backlog"]) != 0 || st["last_success"] == "" {
		t.Errorf("the status is %v", st)
	}
	m.write("config", map[string]any{"egress_allow": []any{}})
	m.write("rotate/r", nil)
	m.deliver()
	if st := m.read("events/ops/status"); st["state"] != "failing" || st["last_error"] != "forbidden" {
		t.Errorf("what nothing lets leave: %v", st)
	}
}

// What each transition tells, and nothing else.
func TestEachTransitionTells(t *testing.T) {
	t.Parallel()
	type steps = func(m *eventMount)
	does := func(path string, data map[string]any) steps { return func(m *eventMount) { m.write(path, data) } }
	waits := func(d time.Duration) steps { return func(m *eventMount) { m.clock.advance(d) } }
	removes := func(m *eventMount) { m.must(logical.DeleteOperation, "roles/r", nil) }
	role := does("roles/r", map[string]any{"rotation_period": 0})
	for name, c := range map[string]struct {
		before, then []steps
		want         string
	}{
		"a static role is made":          {then: []steps{role}, want: "role.created key.activated"},
		"a dynamic role is made":         {then: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, want: "role.created key.activated"},
		"a role is changed":              {before: []steps{role}, then: []steps{does("roles/r", map[string]any{"owner": "team"})}, want: "role.updated"},
		"a role is written as it is":     {before: []steps{role}, then: []steps{does("roles/r", map[string]any{"rotation_period": 0})}, want: ""},
		"a rotation":                     {before: []steps{role}, then: []steps{does("rotate/r", nil)}, want: "key.activated"},
		"a rotation without grace":       {before: []steps{role}, then: []steps{does("rotate/r", map[string]any{"grace_period": 0})}, want: "key.retired key.activated"},
		"the end of a grace":             {before: []steps{role, does("rotate/r", map[string]any{"grace_period": "2h"})}, then: []steps{waits(3 * time.Hour)}, want: "key.retired"},
		"staging":                        {before: []steps{role}, then: []steps{does("rotate/r", map[string]any{"stage": true})}, want: "key.staged"},
		"staging with a date":            {before: []steps{role}, then: []steps{does("rotate/r", map[string]any{"activate_at": "1h"})}, want: "key.staged"},
		"an activation":                  {before: []steps{role, does("rotate/r", map[string]any{"activate_at": "1h"})}, then: []steps{waits(2 * time.Hour)}, want: "key.activated"},
		"a promotion":                    {before: []steps{role, does("rotate/r", map[string]any{"stage": true})}, then: []steps{does("promote/r", nil)}, want: "key.activated"},
		"a promotion with a date":        {before: []steps{role, does("rotate/r", map[string]any{"stage": true})}, then: []steps{does("promote/r", map[string]any{"activate_at": "1h"})}, want: "key.staged"},
		"a lapse":                        {before: []steps{role, does("rotate/r", map[string]any{"stage": true})}, then: []steps{waits(8 * 24 * time.Hour)}, want: "key.retired"},
		"a rotation over a pending one":  {before: []steps{role, does("rotate/r", map[string]any{"stage": true})}, then: []steps{does("rotate/r", nil)}, want: "key.revoked key.activated"},
		"a rollback":                     {before: []steps{role, does("rotate/r", nil)}, then: []steps{does("rollback/r", nil)}, want: "key.activated"},
		"the end of what was taken back": {before: []steps{role, does("rotate/r", nil), does("rollback/r", map[string]any{"grace_period": "1h"})}, then: []steps{waits(2 * time.Hour)}, want: "key.retired"},
		"a revocation":                   {before: []steps{role}, then: []steps{does("revoke/r", map[string]any{"version": 1})}, want: "key.revoked key.activated"},
		"a revocation, no replacement":   {before: []steps{role}, then: []steps{does("revoke/r", map[string]any{"version": 1, "rotate": false})}, want: "key.revoked"},
		"a revocation again":             {before: []steps{role, does("revoke/r", map[string]any{"version": 1})}, then: []steps{does("revoke/r", map[string]any{"version": 1})}, want: ""},
		"all are revoked":                {before: []steps{role, does("rotate/r", nil)}, then: []steps{does("revoke/r", map[string]any{"all": true})}, want: "key.revoked key.revoked key.activated"},
		"an end that is set":             {before: []steps{role, does("rotate/r", nil)}, then: []steps{does("grace/r", map[string]any{"valid_until": "2h"})}, want: ""},
		"an end at once":                 {before: []steps{role, does("rotate/r", nil)}, then: []steps{does("grace/r", map[string]any{"valid_until": 0})}, want: "key.retired"},
		"an expiry":                      {before: []steps{does("roles/r", map[string]any{"rotation_period": 0, "ttl": "2h"})}, then: []steps{waits(3 * time.Hour)}, want: "key.retired"},
		"an expiry with the role":        {before: []steps{does("roles/r", map[string]any{"valid_until": "2026-03-02T12:00:00Z"})}, then: []steps{waits(4 * time.Hour)}, want: "key.retired"},
		"a deletion":                     {before: []steps{role}, then: []steps{removes}, want: "role.deleted"},
		"a restoration": {before: []steps{role, removes}, then: []steps{func(m *eventMount) {
			m.write("restore/"+m.roleIDGone("r"), nil)
		}}, want: "role.restored"},
		"a rename": {before: []steps{role, removes}, then: []steps{func(m *eventMount) {
			m.write("restore/"+m.roleIDGone("r"), map[string]any{"name": "q"})
		}}, want: "role.restored"},
		"a purge": {before: []steps{role, removes}, then: []steps{waits(30 * time.Hour)}, want: ""},
		"a report": {before: []steps{role}, then: []steps{func(m *eventMount) {
			m.write("report", map[string]any{"key": m.read("creds/r")["api_key"]})
		}}, want: "key.reported key.revoked key.activated"},
		"a report that alerts": {before: []steps{does("roles/r", map[string]any{"on_leak": "alert"})}, then: []steps{func(m *eventMount) {
			m.write("report", map[string]any{"key": m.read("creds/r")["api_key"]})
		}}, want: "key.reported"},
		"a report that rotates": {before: []steps{does("roles/r", map[string]any{"on_leak": "rotate"})}, then: []steps{func(m *eventMount) {
			m.write("report", map[string]any{"key": m.read("creds/r")["api_key"]})
		}}, want: "key.reported key.activated"},
		"an import": {then: []steps{does("import", map[string]any{"batch": `{"role":"r","key":"sk-0123456789-from-elsewhere"}`})}, want: "role.created key.activated"},
		"a dynamic key is issued": {before: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, then: []steps{func(m *eventMount) {
			m.lease("r", nil)
		}}, want: ""},
		"a dynamic key is revoked": {before: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, then: []steps{func(m *eventMount) {
			m.write("revoke/r", map[string]any{"key_id": m.lease("r", nil).Data["key_id"]})
		}}, want: "key.revoked"},
		"a lease is given back": {before: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, then: []steps{func(m *eventMount) {
			if _, err := m.onLease(logical.RevokeOperation, m.lease("r", nil), 0); err != nil {
				m.t.Fatal(err)
			}
		}}, want: ""},
		"a dynamic key is reported": {before: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, then: []steps{func(m *eventMount) {
			m.write("report", map[string]any{"key": m.lease("r", nil).Data["api_key"]})
		}}, want: "key.reported key.revoked"},
		"keys are revoked by whom they were issued to": {before: []steps{does("roles/r", map[string]any{"type": "dynamic"})}, then: []steps{func(m *eventMount) {
			for range 3 {
				m.lease("r", nil)
			}
			m.write("bulk", map[string]any{"action": "revoke", "issued_to": "token-operator", "dry_run": false, "pace": 0, "reason": "x"})
		}}, want: "key.revoked"},
		"a bulk job revokes": {before: []steps{role}, then: []steps{
			does("bulk", map[string]any{"action": "revoke", "roles": "r", "dry_run": false, "pace": 0, "reason": "x"}),
		}, want: "key.revoked key.activated"},
		"an automatic rotation": {before: []steps{does("roles/r", map[string]any{"rotation_period": "24h"})}, then: []steps{waits(24*time.Hour + time.Minute)}, want: "key.activated"},
		"it stages":             {before: []steps{does("roles/r", map[string]any{"rotation_period": "24h"})}, then: []steps{waits(24*time.Hour - 5*time.Minute)}, want: "key.staged"},
		"an ended key is used": {before: []steps{role, func(m *eventMount) { m.request.DisplayName = m.read("creds/r")["api_key"].(string) }, does("revoke/r", map[string]any{"version": 1})}, then: []steps{func(m *eventMount) {
			for range 3 {
				m.write("verify", map[string]any{"key": m.request.DisplayName})
			}
		}}, want: "key.ended_used"},
		"a grace ends in use": {before: []steps{role, func(m *eventMount) { m.request.DisplayName = m.read("creds/r")["api_key"].(string) }, does("rotate/r", map[string]any{"grace_period": "24h"})}, then: []steps{
			waits(15 * time.Hour), func(m *eventMount) { m.write("verify", map[string]any{"key": m.request.DisplayName}) }, waits(4 * time.Hour),
		}, want: "key.ending"},
		"a grace ends unused":            {before: []steps{role, does("rotate/r", map[string]any{"grace_period": "24h"})}, then: []steps{waits(19 * time.Hour)}, want: ""},
		"nobody comes for the successor": {before: []steps{does("roles/r", map[string]any{"reveal": "once"}), does("rotate/r", map[string]any{"grace_period": "24h"})}, then: []steps{waits(13 * time.Hour)}, want: "key.ending"},
		"a key is about to expire":       {before: []steps{does("roles/r", map[string]any{"rotation_period": 0, "ttl": "30d"})}, then: []steps{waits(23*24*time.Hour + time.Minute)}, want: "key.expiring"},
		"it is about to expire again":    {before: []steps{does("roles/r", map[string]any{"rotation_period": 0, "ttl": "30d"}), waits(23*24*time.Hour + time.Minute)}, then: []steps{waits(6 * 24 * time.Hour)}, want: "key.expiring"},
		"a key that is replaced in time": {before: []steps{does("roles/r", map[string]any{"rotation_period": "10d", "ttl": "30d"})}, then: []steps{waits(5 * 24 * time.Hour)}, want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newEventMount(t)
			m.endpoint("all", nil)
			for _, step := range c.before {
				step(m)
				m.deliver()
			}
			m.heardBy("all")
			for _, step := range c.then {
				step(m)
				m.deliver()
			}
			m.clock.advance(time.Second)
			m.deliver()
			got := m.heardBy("all")
			if kinds(got) != c.want {
				t.Errorf("tells %q, want %q", kinds(got), c.want)
			}
			for _, n := range got {
				for _, name := range sortedKeys(n.data) {
					if !slices.Contains(payloadNames, name) {
						t.Errorf("%s has %s, which payloadNames lacks", n.kind, name)
					}
				}
			}
			for path := range dump(t, m.storage) {
				if strings.HasPrefix(path, outboxPrefix) && !strings.Contains(path, "/used") {
					t.Errorf("left in the outbox: %s", path)
				}
			}
		})
	}
}

// roleIDGone is the id of the role of that name that was deleted.
func (m *testMount) roleIDGone(name string) string {
	m.t.Helper()
	for _, path := range m.under(deletedPrefix) {
		rec, err := getRecord[roleRecord](m.t.Context(), m.storage, path)
		if err == nil && rec != nil && rec.Name == name {
			return rec.ID
		}
	}
	m.t.Fatal("no such deleted role")
	return ""
}

var _ = fmt.Sprint
