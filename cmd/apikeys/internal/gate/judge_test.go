// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// knower knows some keys, and what it was asked.
type knower struct {
	mu    sync.Mutex
	keys  map[string]edge.Verdict
	down  bool
	asked []edge.Request
}

var errAway = fmt.Errorf("away: %w", edge.ErrUnavailable)

func (k *knower) Verify(_ context.Context, req edge.Request) (edge.Verdict, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, req)
	if k.down {
		return edge.Verdict{}, errAway
	}
	v, ok := k.keys[req.Key]
	if !ok {
		return edge.Verdict{Code: "NOT_FOUND", Hint: "odd"}, nil
	}
	if v.Valid && len(req.Scopes) > 0 && req.Scopes[0] != "orders:read" {
		v.Valid, v.Code = false, "INSUFFICIENT_SCOPE"
	}
	return v, nil
}

func (k *knower) last() edge.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.asked) == 0 {
		return edge.Request{}
	}
	return k.asked[len(k.asked)-1]
}

func newKnower() *knower {
	good := edge.Verdict{
		Valid: true, Code: "VALID", Role: "orders", RoleID: "r", KeyID: "k1", Version: 3, State: "current", Scopes: []string{"orders:read", "x"},
		Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	previous := good
	previous.State, previous.ExpiresAt = "previous", time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	dead := edge.Verdict{Code: "REVOKED", Role: "orders", KeyID: "k2", State: "revoked", Reason: "leaked"}
	fast := edge.Verdict{Code: "RATE_LIMITED", Role: "orders", KeyID: "k3", State: "current"}
	return &knower{keys: map[string]edge.Verdict{"good": good, "previous": previous, "dead": dead, "fast": fast, "a,b": good}}
}

func rule(t testing.TB, methods, path string, scopes ...string) *Rule {
	t.Helper()
	r, err := NewRule(names(methods), path, scopes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// names are those in a text; none is nil, as in a configuration.
func names(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Fields(text)
}

func testRules(t testing.TB) []*Rule {
	return []*Rule{
		rule(t, "GET", "/orders/**", "orders:read"),
		rule(t, "POST", "/orders/**", "orders:write"),
		rule(t, "", "/status"),
	}
}

type testGate struct {
	*Gate
	*knower
	logged *strings.Builder
}

func newTestGate(t testing.TB, keys Keys) *testGate {
	t.Helper()
	if keys.Headers == nil {
		keys.Headers = DefaultHeaders
	}
	k, logged := newKnower(), &strings.Builder{}
	log := slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	metrics := NewMetrics(prometheus.NewRegistry(), func() edge.Stats { return edge.Stats{} })
	return &testGate{New(k, testRules(t), keys, metrics, log), k, logged}
}

// ask sends a question as a gateway of that kind does: the client's method, target and
// header.
func (g *testGate) ask(t testing.TB, preset, method, target string, header ...string) *http.Response {
	t.Helper()
	h, err := g.Auth(preset, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/auth", http.NoBody)
	r.RemoteAddr = "127.0.0.1:4711"
	set := presets[preset]
	if set.uri == "" {
		r.Method, r.RequestURI = method, AuthPath+target
	} else {
		r.Header.Set(set.method, method)
		r.Header.Set(set.uri, target)
	}
	for i := 0; i < len(header); i += 2 {
		switch header[i] {
		case "-":
			r.Header.Del(header[i+1])
		case "peer":
			r.RemoteAddr = header[i+1]
		case "socket":
			r.RemoteAddr = header[i+1]
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Name: "auth.sock", Net: "unix"}))
		case "path":
			r.RequestURI = header[i+1]
		default:
			r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

const (
	apiKey = "X-Api-Key"
	authz  = "Authorization"
)

// What each gateway is answered.
func TestAnswers(t *testing.T) {
	for preset, set := range presets {
		g := newTestGate(t, Keys{})
		for _, test := range []struct {
			name, method, target string
			header               []string
			status               int
			code                 string
		}{
			{"a good key", "GET", "/orders/7", []string{apiKey, "good"}, 200, ""},
			{"as bearer", "GET", "/orders/7?x=1", []string{authz, "bearer good"}, 200, ""},
			{"beside another scheme", "GET", "/orders/7", []string{authz, "Basic eDp5", apiKey, "good"}, 200, ""},
			{"without a scope to ask for", "PUT", "/status", []string{apiKey, "good"}, 200, ""},
			{"a scope is lacking", "POST", "/orders/7", []string{apiKey, "good"}, 403, "INSUFFICIENT_SCOPE"},
			{"no rule", "DELETE", "/orders/7", []string{apiKey, "good"}, 403, "NO_RULE"},
			{"no rule for the path", "GET", "/other", []string{apiKey, "good"}, 403, "NO_RULE"},
			{"no key", "GET", "/orders/7", nil, 401, "NO_KEY"},
			{"an empty key", "GET", "/orders/7", []string{apiKey, ""}, 401, "AMBIGUOUS_KEY"},
			{"an empty bearer", "GET", "/orders/7", []string{authz, "Bearer "}, 401, "AMBIGUOUS_KEY"},
			{"two keys", "GET", "/orders/7", []string{apiKey, "good", apiKey, "good"}, 401, "AMBIGUOUS_KEY"},
			{"two places", "GET", "/orders/7", []string{apiKey, "good", authz, "Bearer good"}, 401, "AMBIGUOUS_KEY"},
			{"two authorizations", "GET", "/orders/7", []string{authz, "Bearer good", authz, "Basic x"}, 401, "AMBIGUOUS_KEY"},
			{"in the query", "GET", "/orders/7?api_key=good", nil, 401, "NO_KEY"},
			{"unknown", "GET", "/orders/7", []string{apiKey, "other"}, 401, "NOT_FOUND"},
			{"revoked", "GET", "/orders/7", []string{apiKey, "dead"}, 401, "REVOKED"},
			{"too many", "GET", "/orders/7", []string{apiKey, "fast"}, 429, "RATE_LIMITED"},
			{"ambiguous path", "GET", "/orders/%2e%2e/status", []string{apiKey, "good"}, 403, "AMBIGUOUS_REQUEST"},
			{"a method in the header", "GET", "/orders/7", []string{apiKey, "good", "X-Http-Method-Override", "DELETE"}, 403, "AMBIGUOUS_REQUEST"},
			{"another", "GET", "/orders/7", []string{apiKey, "good", "X-Method-Override", "DELETE"}, 403, "AMBIGUOUS_REQUEST"},
			{"and another", "GET", "/orders/7", []string{apiKey, "good", "X-Http-Method", "DELETE"}, 403, "AMBIGUOUS_REQUEST"},
			{"an alias of it", "GET", "/orders/7", []string{apiKey, "good", "X_http_method_override", "DELETE"}, 403, "AMBIGUOUS_REQUEST"},
			{"another alias", "GET", "/orders/7", []string{apiKey, "good", "X-Method.override", "DELETE"}, 403, "AMBIGUOUS_REQUEST"},
			{"a path in the header", "GET", "/orders/7", []string{apiKey, "good", "X-Original-Url", "/admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"another path", "GET", "/orders/7", []string{apiKey, "good", "X-Rewrite-Url", "/admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"its alias", "GET", "/orders/7", []string{apiKey, "good", "X_rewrite_url", "/admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"a trailer", "GET", "/orders/7", []string{apiKey, "good", "Trailer", "expires, X-Apikey-Role"}, 403, "AMBIGUOUS_REQUEST"},
			{"another trailer", "GET", "/orders/7", []string{apiKey, "good", "Trailer", "expires"}, 200, ""},
			{"an alias of identity", "GET", "/orders/7", []string{apiKey, "good", "X_apikey_role", "admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"with dots", "GET", "/orders/7", []string{apiKey, "good", "X.apikey.scopes", "admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"mixed", "GET", "/orders/7", []string{apiKey, "good", "X-Apikey_key.id", "admin"}, 403, "AMBIGUOUS_REQUEST"},
			{"an alias of the key", "GET", "/orders/7", []string{apiKey, "good", "X_api_key", "other"}, 403, "AMBIGUOUS_REQUEST"},
			{"identity that was sent is overwritten", "GET", "/orders/7", []string{apiKey, "good", "X-Apikey-Role", "admin"}, 200, ""},
			{"connection", "GET", "/orders/7", []string{apiKey, "good", "Connection", "close, X-Apikey-Role"}, 403, "AMBIGUOUS_REQUEST"},
			{"connection's alias", "GET", "/orders/7", []string{apiKey, "good", "Connection", "x_apikey_role"}, 403, "AMBIGUOUS_REQUEST"},
			{"connection of the key", "GET", "/orders/7", []string{apiKey, "good", "Connection", "authorization"}, 403, "AMBIGUOUS_REQUEST"},
			{"connection of others", "GET", "/orders/7", []string{apiKey, "good", "Connection", "keep-alive, Upgrade"}, 200, ""},
			{"not from a proxy", "GET", "/orders/7", []string{apiKey, "good", "peer", "192.0.2.1:1"}, 403, "UNTRUSTED_PROXY"},
			{"through a socket", "GET", "/orders/7", []string{apiKey, "good", "socket", "@"}, 200, ""},
			{"through a socket with a name", "GET", "/orders/7", []string{apiKey, "good", "socket", "/run/gateway.sock"}, 200, ""},
			{"from nobody", "GET", "/orders/7", []string{apiKey, "good", "peer", "@"}, 403, "UNTRUSTED_PROXY"},
			{"forwarded is ignored", "GET", "/orders/7", []string{apiKey, "good", "Forwarded", "for=10.0.0.1", "X-Forwarded-Prefix", "/admin", "X-Forwarded-Port", "1"}, 200, ""},
		} {
			resp := g.ask(t, preset, test.method, test.target, test.header...)
			want := test.status
			if want == 429 && !set.tooMany {
				want = 403
			}
			if resp.StatusCode != want || resp.Header.Get(headerCode) != test.code {
				t.Errorf("%s: %s: %d %s, want %d %s", preset, test.name, resp.StatusCode, resp.Header.Get(headerCode), want, test.code)
			}
			if (resp.StatusCode == http.StatusOK || set.silent) != (resp.ContentLength <= 0 && resp.Header.Get("Content-Type") == "") {
				t.Errorf("%s: %s: a body of %d bytes", preset, test.name, resp.ContentLength)
			}
			if (resp.StatusCode == http.StatusUnauthorized || test.code == "INSUFFICIENT_SCOPE") != strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: %s: challenged by %q", preset, test.name, resp.Header.Get("WWW-Authenticate"))
			}
			if (resp.Header.Get("Retry-After") != "") != (test.status == http.StatusTooManyRequests) {
				t.Errorf("%s: %s: to be asked again after %q", preset, test.name, resp.Header.Get("Retry-After"))
			}
			if scope := `, scope="orders:write"`; (test.code == "INSUFFICIENT_SCOPE") != strings.HasSuffix(resp.Header.Get("WWW-Authenticate"), scope) {
				t.Errorf("%s: %s: challenged by %q", preset, test.name, resp.Header.Get("WWW-Authenticate"))
			}
			if resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %s: may be stored", preset, test.name)
			}
			for _, name := range identity[:6] {
				if _, there := resp.Header[name]; there != (resp.StatusCode == http.StatusOK) {
					t.Errorf("%s: %s: %s is there: %t", preset, test.name, name, there)
				}
			}
		}
		for _, name := range []string{"method", "uri"} {
			if set.uri == "" {
				continue
			}
			header := map[string]string{"method": set.method, "uri": set.uri}[name]
			for what, change := range map[string][]string{"missing": {"-", header}, "twice": {header, "/status"}} {
				if resp := g.ask(t, preset, "GET", "/orders/7", append(change, apiKey, "good")...); resp.StatusCode != http.StatusForbidden {
					t.Errorf("%s: %s %s: %d", preset, name, what, resp.StatusCode)
				}
			}
		}
		g.set(func() { g.down = true })
		if resp := g.ask(t, preset, "GET", "/orders/7", apiKey, "good"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: nobody can be asked: %d", preset, resp.StatusCode)
		}
		if strings.Contains(g.logged.String(), "api_key=") || strings.Contains(g.logged.String(), "good") {
			t.Errorf("%s: the log holds %s", preset, g.logged)
		}
	}
}

// What the gateways are known to do: how they ask, and which answers they pass on.
func TestPresets(t *testing.T) {
	type known struct {
		method, uri, address string
		list, silent         bool
		tooMany              int
	}
	original, forwarded := known{"X-Original-Method", "X-Original-Uri", "X-Real-Ip", false, true, 403}, known{"X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-For", true, false, 429}
	haproxy, envoy := original, forwarded
	haproxy.tooMany = 429
	envoy.method, envoy.uri = "", ""
	want := map[string]known{"nginx": original, "haproxy": haproxy, "caddy": forwarded, "traefik": forwarded, "apisix": forwarded, "envoy": envoy}
	if len(want) != len(presets) {
		t.Errorf("%d presets, %d are known", len(presets), len(want))
	}
	for name, w := range want {
		p := presets[name]
		if p.method != w.method || p.uri != w.uri || p.address != w.address || p.forwarded != w.list {
			t.Errorf("%s asks with %+v", name, p)
		}
		g := newTestGate(t, Keys{})
		resp := g.ask(t, name, "GET", "/orders/7", apiKey, "fast", w.address, "192.0.2.7")
		if resp.StatusCode != w.tooMany || (resp.Header.Get("Content-Type") == "") != w.silent {
			t.Errorf("%s: %d %s", name, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		if got := g.last().RemoteAddr.String(); got != "192.0.2.7" {
			t.Errorf("%s: asked from %s", name, got)
		}
	}
}

func (k *knower) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// No path of the listener answers 200 without a verdict.
func TestNoOtherPaths(t *testing.T) {
	for preset := range presets {
		g := newTestGate(t, Keys{})
		for _, path := range []string{"/", "/auth/x", "/authx", "/auth%2f", "/healthz", "/metrics", "/ping", "*", "/self/", "//auth", "/x/../auth", "/AUTH"} {
			if presets[preset].uri == "" && strings.HasPrefix(path, "/auth/") {
				continue
			}
			resp := g.ask(t, preset, "GET", "/orders/7", apiKey, "good", "path", path, "User-Agent", "kube-probe/1.31")
			if resp.StatusCode == http.StatusOK {
				t.Errorf("%s: %s: 200", preset, path)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	g := newTestGate(t, Keys{})
	resp := g.ask(t, "nginx", "GET", "/orders/7", apiKey, "previous")
	for name, want := range map[string]string{
		headerRole: "orders", headerKeyID: "k1", headerVersion: "3", headerState: "previous", headerScopes: "orders:read x", headerEnds: "2030-01-02T00:00:00Z",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if resp := g.ask(t, "nginx", "GET", "/orders/7", apiKey, "good"); resp.Header.Get(headerEnds) != "" {
		t.Errorf("a current key ends at %q", resp.Header.Get(headerEnds))
	}
	if resp := g.ask(t, "envoy", "GET", "/orders/7", apiKey, "good"); resp.Header.Get("X-Envoy-Auth-Headers-To-Remove") != "authorization,x-apikey-code,x-api-key" {
		t.Errorf("removed: %q", resp.Header.Get("X-Envoy-Auth-Headers-To-Remove"))
	}

	// Whatever a role says: ASCII, and short.
	for _, scopes := range [][]string{
		nil,
		{"é\n"},
		{strings.Repeat("s", 5000)},
		strings.Split(strings.Repeat("scope:read ", 300), " ")[:300],
		{strings.Repeat("a", 1000), strings.Repeat("b", 1000), strings.Repeat("c", 1000)},
	} {
		v := edge.Verdict{Valid: true, Code: "VALID", Role: "rôle", KeyID: strings.Repeat("k", 40), Version: 1 << 30, State: "current", Scopes: scopes}
		size, got := 0, ""
		for _, p := range identityOf(&v) {
			size += len(p.name) + len(p.value)
			for i := range len(p.value) {
				if p.value[i] < ' ' || p.value[i] > '~' {
					t.Errorf("%s is %q", p.name, p.value)
				}
			}
			if p.name == headerScopes {
				got = p.value
			}
		}
		if size > maxIdentity {
			t.Errorf("%d bytes of identity", size)
		}
		told := strings.Fields(strings.TrimSuffix(got, cut))
		if (len(told) == len(scopes)) == strings.HasSuffix(got, cut) || size < maxIdentity/2 && len(told) < len(scopes) && len(scopes[len(told)]) < 900 {
			t.Errorf("%d scopes of %d, ending with %.10q", len(told), len(scopes), got)
		}
	}
	if printable("rôle %") != "r%C3%B4le%20%25" {
		t.Error(printable("rôle %"))
	}
}

// Who the client is only proxies of ours say.
func TestClients(t *testing.T) {
	g := newTestGate(t, Keys{})
	for _, test := range []struct {
		preset string
		header []string
		want   string
	}{
		{"nginx", []string{"X-Real-Ip", "192.0.2.7"}, "192.0.2.7"},
		{"nginx", []string{"X-Real-Ip", "2001:db8::7", "X-Forwarded-For", "10.0.0.1"}, "2001:db8::7"},
		{"nginx", nil, ""},
		{"nginx", []string{"X-Forwarded-For", "192.0.2.7"}, ""},
		{"nginx", []string{"X-Real-Ip", "192.0.2.7", "X-Real-Ip", "192.0.2.8"}, ""},
		{"nginx", []string{"X-Real-Ip", "nobody"}, ""},
		{"caddy", []string{"X-Forwarded-For", "192.0.2.7"}, "192.0.2.7"},
		{"caddy", []string{"X-Forwarded-For", "10.9.9.9, 192.0.2.7"}, "192.0.2.7"},
		{"traefik", []string{"X-Forwarded-For", "10.9.9.9, 192.0.2.7, 127.0.0.1"}, "192.0.2.7"},
		{"traefik", []string{"X-Forwarded-For", "10.9.9.9", "X-Forwarded-For", "192.0.2.7"}, "192.0.2.7"},
		{"envoy", []string{"X-Forwarded-For", "127.0.0.1"}, "127.0.0.1"},
		{"envoy", []string{"X-Forwarded-For", "192.0.2.7:1234"}, "192.0.2.7"},
		{"envoy", []string{"X-Forwarded-For", "[2001:db8::7]:1234"}, "2001:db8::7"},
		{"apisix", []string{"X-Forwarded-For", "192.0.2.7, nobody"}, ""},
		{"apisix", []string{"X-Forwarded-For", ""}, ""},
	} {
		g.ask(t, test.preset, "GET", "/orders/7", append(test.header, apiKey, "good")...)
		got := ""
		if addr := g.last().RemoteAddr; addr.IsValid() {
			got = addr.String()
		}
		if got != test.want {
			t.Errorf("%s %v: %q, want %q", test.preset, test.header, got, test.want)
		}
	}
}

func TestOtherPlacesOfKeys(t *testing.T) {
	g := newTestGate(t, Keys{Headers: []string{"x-token"}, Query: []string{"api_key"}})
	for _, test := range []struct {
		target string
		header []string
		status int
	}{
		{"/orders/7", []string{"X-Token", "good"}, 200},
		{"/orders/7", []string{authz, "Bearer good"}, 200},
		{"/orders/7", []string{apiKey, "good"}, 401},
		{"/orders/7?api_key=good", nil, 200},
		{"/orders/7?api_key=good&api_key=good", nil, 401},
		{"/orders/7?api_key=good", []string{"X-Token", "good"}, 401},
		{"/orders/7?a;b", nil, 401},
		{"/orders/7", []string{"X-Token", "good", "X_token", "x"}, 403},
	} {
		if resp := g.ask(t, "nginx", "GET", test.target, test.header...); resp.StatusCode != test.status {
			t.Errorf("%s %v: %d, want %d", test.target, test.header, resp.StatusCode, test.status)
		}
	}
	if log := g.logged.String(); !strings.Contains(log, "path=/orders/7") || !strings.Contains(log, "key_id=k1") || strings.Contains(log, "api_key") || strings.Contains(log, "good") {
		t.Errorf("the log holds %s", log)
	}
}

func TestSelf(t *testing.T) {
	g := newTestGate(t, Keys{})
	for _, test := range []struct {
		key    string
		status int
		want   string
	}{
		{"good", 200, "code:VALID expires_at: key_id:k1 now:2030-01-01T00:00:00Z reason: state:current version:3"},
		{"previous", 200, "code:VALID expires_at:2030-01-02T00:00:00Z key_id:k1 now:2030-01-01T00:00:00Z reason: state:previous version:3"},
		{"dead", 401, "code:REVOKED expires_at: key_id:k2 now:0001-01-01T00:00:00Z reason:leaked state:revoked version:0"},
		{"other", 401, "code:NOT_FOUND hint:odd now:0001-01-01T00:00:00Z"},
	} {
		resp := g.ask(t, "nginx", "", "", apiKey, test.key, "path", "/self")
		var body map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(body), "map["), "]"); got != test.want || resp.StatusCode != test.status {
			t.Errorf("%s: %d %s, want %d %s", test.key, resp.StatusCode, got, test.status, test.want)
		}
		if resp.Header.Get(headerRole) != "" {
			t.Error("a client is told its role in a header")
		}
	}
	for name, header := range map[string][]string{
		"NO_KEY": nil, "AMBIGUOUS_KEY": {apiKey, "good", apiKey, "good"},
	} {
		resp := g.ask(t, "nginx", "", "", append([]string{"path", "/self"}, header...)...)
		if got := resp.Header.Get(headerCode); resp.StatusCode != http.StatusUnauthorized || got != name {
			t.Errorf("%d %s, want %s", resp.StatusCode, got, name)
		}
	}
	for want, header := range map[int][]string{
		401: {"path", "/self"},
		403: {"path", "/self", apiKey, "good", "X_api_key", "x"},
	} {
		if resp := g.ask(t, "nginx", "", "", header...); resp.StatusCode != want {
			t.Errorf("%v: %d, want %d", header, resp.StatusCode, want)
		}
	}
	g.ask(t, "nginx", "", "", apiKey, "good", "path", "/self", "peer", "192.0.2.9:1", "X-Real-Ip", "10.0.0.1")
	if got := g.last().RemoteAddr; got != netip.MustParseAddr("192.0.2.9") {
		t.Errorf("asked from %v", got)
	}
	g.set(func() { g.down = true })
	resp := g.ask(t, "nginx", "", "", apiKey, "good", "path", "/self")
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusServiceUnavailable || body["code"] != "UNAVAILABLE" {
		t.Errorf("away: %d %v %v", resp.StatusCode, body, err)
	}
	if !errors.Is(errAway, edge.ErrUnavailable) {
		t.Error("the test's own error")
	}
}

// A key in a path, or a part of one, does not get into a log.
func TestLogsHoldNoKey(t *testing.T) {
	made, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := made.Reveal()
	text := short("/" + strings.Repeat("a", 170) + "/" + key)
	if strings.Contains(text, key[20:30]) {
		t.Error(text)
	}
}
