// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reply is what a client got, and what the API has seen, if it was asked.
type reply struct {
	status int
	header http.Header
	body   string
	seen   *received
}

// do sends a request byte by byte, as a hostile client would.
func do(t *testing.T, g *gateway, method, target string, header http.Header) reply {
	t.Helper()
	conn, err := net.DialTimeout("tcp", g.addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: api.example\r\n", method, target)
	for name, values := range header {
		for _, value := range values {
			fmt.Fprintf(&text, "%s: %s\r\n", name, value)
		}
	}
	text.WriteString("\r\n")
	before := g.api.requests.Load()
	if _, err := io.WriteString(conn, text.String()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %s %s: %v", g.name, method, target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(body)}
	switch {
	case resp.StatusCode == http.StatusOK && method == http.MethodHead:
	case resp.StatusCode == http.StatusOK:
		r.seen = &received{}
		if err := json.Unmarshal(body, r.seen); err != nil {
			t.Fatalf("%s: %s %s: 200 that the API has not given: %s", g.name, method, target, body)
		}
	case g.api.requests.Load() != before:
		t.Errorf("%s: %s %s: %d, but the API was asked", g.name, method, target, resp.StatusCode)
	}
	return r
}

// with is a header with a key.
func with(k apikey, more ...string) http.Header {
	h := http.Header{"X-Api-Key": {k.secret}}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = append(h[more[i]], more[i+1])
	}
	return h
}

// TestAnswers holds what clients get, and what reaches the API.
func TestAnswers(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	e.write("apikeys/roles/orders", data{"scopes": []string{"orders:read", "orders:write"}})
	e.write("apikeys/roles/other", data{"scopes": []string{"invoices:read"}})
	e.write("apikeys/roles/slow", data{"scopes": []string{"orders:read"}, "rate_limit": 1})
	e.write("apikeys/roles/wide", data{"scopes": manyScopes()})
	good, poor, slow, wide := e.creds("orders"), e.creds("other"), e.creds("slow"), e.creds("wide")
	for _, g := range startAll(t, e) {
		g.edge.live()
		t.Run(g.name, func(t *testing.T) {
			t.Run("verdicts", func(t *testing.T) { verdicts(t, g, good, poor, slow) })
			t.Run("identity", func(t *testing.T) { identities(t, g, good, wide) })
			t.Run("tricks", func(t *testing.T) { tricks(t, g, good) })
			t.Run("connections", func(t *testing.T) { connections(t, g, good) })
			t.Run("edge away", func(t *testing.T) {
				g.edge.process.kill()
				r := do(t, g, "GET", "/orders/7", with(good))
				want := http.StatusServiceUnavailable
				if g.name == "traefik" {
					want = http.StatusInternalServerError
				}
				if r.status != want {
					t.Errorf("%d %s, want %d", r.status, r.body, want)
				}
			})
		})
		g.edge.process.kill()
	}
}

// manyScopes are more than fit into a header.
func manyScopes() []string {
	out := []string{"orders:read"}
	for i := range 127 {
		out = append(out, fmt.Sprintf("%s:%03d", strings.Repeat("long", 30), i))
	}
	return out
}

func verdicts(t *testing.T, g *gateway, good, poor, slow apikey) {
	forged := good.secret[:len(good.secret)-4] + "AAAA"
	for name, c := range map[string]struct {
		method, path string
		header       http.Header
		want         int
		challenge    string
		code         string
	}{
		"a good key":                {"GET", "/orders/7", with(good), 200, "", ""},
		"as a bearer":               {"HEAD", "/orders/7", http.Header{"Authorization": {"Bearer " + good.secret}}, 200, "", ""},
		"where no scope is needed":  {"POST", "/status", with(poor, "Content-Length", "0"), 200, "", ""},
		"an encoded path":           {"GET", "/orders/a%20b", with(good), 200, "", ""},
		"no key":                    {"GET", "/orders/7", nil, 401, "Bearer", "NO_KEY"},
		"a damaged key":             {"GET", "/orders/7", http.Header{"X-Api-Key": {forged}}, 401, `Bearer error="invalid_token"`, "MALFORMED"},
		"a key in two places":       {"GET", "/orders/7", with(good, "Authorization", "Bearer "+good.secret), 401, `Bearer error="invalid_token"`, "AMBIGUOUS_KEY"},
		"a key without the scope":   {"GET", "/orders/7", with(poor), 403, `Bearer error="insufficient_scope", scope="orders:read"`, "INSUFFICIENT_SCOPE"},
		"a path without a rule":     {"GET", "/invoices/7", with(good), 403, "", "NO_RULE"},
		"a method without a rule":   {"DELETE", "/orders/7", with(good), 403, "", "NO_RULE"},
		"the edge's own path":       {"GET", "/auth", with(good), 403, "", "NO_RULE"},
		"the edge's other own path": {"GET", "/self", with(good), 403, "", "NO_RULE"},
	} {
		t.Run(name, func(t *testing.T) {
			r := do(t, g, c.method, c.path, c.header)
			if r.status != c.want {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got := r.header.Values("WWW-Authenticate"); strings.Join(got, " | ") != c.challenge {
				t.Errorf("WWW-Authenticate %q, want %q", got, c.challenge)
			}
			if c.code != "" && !strings.Contains(r.body, `"code":"`+c.code+`"`) {
				t.Errorf("body %s", r.body)
			}
			if r.seen != nil && (r.seen.URI != c.path || r.seen.Method != c.method) {
				t.Errorf("the API has seen %s %s", r.seen.Method, r.seen.URI)
			}
		})
	}
	t.Run("too many requests", func(t *testing.T) {
		for range 30 {
			r := do(t, g, "GET", "/orders/7", with(slow))
			if r.status == http.StatusTooManyRequests {
				if r.header.Get("Retry-After") == "" || !strings.Contains(r.body, "RATE_LIMITED") {
					t.Errorf("%v %s", r.header, r.body)
				}
				return
			}
			if r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		t.Error("no 429 for 30 requests of a role that has one in a second")
	})
}

// identityHeaders are what the API may believe.
var identityHeaders = []string{"X-Apikey-Role", "X-Apikey-Key-Id", "X-Apikey-Version", "X-Apikey-Scopes", "X-Apikey-State", "X-Apikey-Ends", "X-Apikey-Code"}

// identities: what the client says about itself does not reach the API, what the edge
// says does, and the key does not.
func identities(t *testing.T, g *gateway, good, wide apikey) {
	h := with(good)
	for _, name := range identityHeaders {
		h[name] = []string{"admin", "root"}
	}
	r := do(t, g, "GET", "/orders/7", h)
	if r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	told := r.seen.Header
	for name, want := range map[string]string{
		"X-Apikey-Role": "orders", "X-Apikey-Key-Id": good.id, "X-Apikey-Version": "1", "X-Apikey-Scopes": "orders:read orders:write", "X-Apikey-State": "current",
		"X-Apikey-Ends": "", "X-Apikey-Code": "",
	} {
		if got := told.Values(name); len(got) > 1 || told.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if strings.Contains(r.body, good.secret) {
		t.Error("the key has reached the API")
	}
	// Another scheme in Authorization is no second key, and ends here too.
	r = do(t, g, "GET", "/orders/7", with(good, "Authorization", "Basic dTpw"))
	if r.status != http.StatusOK || r.seen.Header.Get("Authorization") != "" {
		t.Errorf("%d, the API has seen Authorization %q", r.status, r.seen.Header.Get("Authorization"))
	}
	r = do(t, g, "GET", "/orders/7", with(wide))
	if r.status != http.StatusOK {
		t.Fatalf("a role with many scopes: %d %s", r.status, r.body)
	}
	if got := r.seen.Header.Get("X-Apikey-Scopes"); !strings.HasPrefix(got, "orders:read ") || !strings.HasSuffix(got, " ...") {
		t.Errorf("scopes %q", got)
	}
}

// tricks are those with which gateways were passed in the past. None may reach the API,
// unless it arrives without what would have done harm.
func tricks(t *testing.T, g *gateway, good apikey) {
	for _, target := range []string{
		"/status/../orders/7", "/orders/../admin", "/orders/./7", "/orders/%2e%2e/admin", "/orders/.%2e/admin", "/orders/..%2fadmin", "/orders%2f7", "/orders%2F..%2Fadmin",
		"/orders/..;/admin", "/orders;x=1/7", "/orders/7;.json", "/orders%3b/7", "//orders/7", "/orders//7", "/orders/..%5cadmin", `/orders\..\admin`, "/orders/%252e%252e/admin", "/orders/%25", "/orders/%00", "/orders/7%0d%0aX-Apikey-Role:%20admin",
		"/orders/7#/../../admin", "/orders/7%23", "/orders/%ff", "/orders/%c0%ae%c0%ae/admin", "/orders/%zz",
	} {
		if r := do(t, g, "GET", target, with(good)); r.status != http.StatusForbidden && r.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", target, r.status, r.body)
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"} {
		if r := do(t, g, "GET", "/orders/7", with(good, name, "DELETE")); r.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	// Names that CGI, PHP and others take for ours.
	for _, name := range []string{"X_Apikey_Role", "X-Apikey_Role", "X.Apikey.Role", "X-Apikey.Scopes", "x_apikey_key_id", "X_API_Key", "X.API.Key", "X_HTTP_Method_Override", "X.Original.Url"} {
		r := do(t, g, "GET", "/orders/7", with(good, name, "admin"))
		switch {
		case r.status == http.StatusForbidden || r.status == http.StatusBadRequest:
		case r.status != http.StatusOK || !g.drops:
			t.Errorf("%s: %d", name, r.status)
		case strings.Contains(strings.ToLower(r.body), strings.ToLower(name)):
			t.Errorf("%s has reached the API", name)
		}
	}
	// What nobody can read is no fault of the edge.
	if r := do(t, g, "GET", "/orders/7", with(good, "X-Other", "a\x00b")); r.status != http.StatusForbidden && r.status != http.StatusBadRequest {
		t.Errorf("a control character: %d", r.status)
	}
	// A proxy takes out what Connection names.
	for _, names := range []string{"X-Apikey-Role", "close, x-apikey-scopes", "X-Api-Key", "Authorization"} {
		r := do(t, g, "GET", "/orders/7", with(good, "Connection", names))
		switch {
		case r.status == http.StatusForbidden || r.status == http.StatusBadRequest || r.status == http.StatusUnauthorized:
		case r.status != http.StatusOK:
			t.Errorf("Connection: %s: %d", names, r.status)
		case r.seen.Header.Get("X-Apikey-Role") != "orders" || r.seen.Header.Get("X-Apikey-Scopes") == "":
			t.Errorf("Connection: %s has taken the identity away", names)
		}
	}
	// An API that takes h2c would hand out a connection on which nobody asks the edge.
	for _, names := range []string{"h2c", "other, H2C"} {
		r := do(t, g, "GET", "/orders/7", with(good, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", names, "Http2-Settings", "AAMAAABkAAQAAP__"))
		if r.status != http.StatusOK || r.seen.Header.Get("Upgrade") != "" {
			t.Errorf("Upgrade: %s: %d, the API has seen %v", names, r.status, r.seen)
		}
	}
	// What comes after the verdict is no identity.
	switch r := do(t, g, "GET", "/orders/7", with(good, "Trailer", "X-Apikey-Role")); {
	case r.status == http.StatusForbidden || r.status == http.StatusBadRequest:
	case r.status != http.StatusOK || r.seen.Header.Get("X-Apikey-Role") != "orders":
		t.Errorf("Trailer: %d", r.status)
	}
	// What a client says in the gateway's place.
	for _, h := range []http.Header{
		with(good, "X-Original-Uri", "/status", "X-Original-Method", "GET"), with(good, "X-Forwarded-Uri", "/status", "X-Forwarded-Method", "GET"),
		with(good, "X-Forwarded-Prefix", "/status"), with(good, "Forwarded", "for=10.0.0.1;host=admin"), with(good, "X-Original-Url", "/status"), with(good, "X-Rewrite-Url", "/status"),
	} {
		if r := do(t, g, "GET", "/invoices/7", h); r.status != http.StatusForbidden {
			t.Errorf("%v: %d", h, r.status)
		}
	}
	// Two keys.
	for _, h := range []http.Header{{"X-Api-Key": {good.secret, good.secret}}, {"Authorization": {"Bearer " + good.secret, "Bearer " + good.secret}}} {
		switch r := do(t, g, "GET", "/orders/7", h); {
		case r.status == http.StatusUnauthorized || r.status == http.StatusBadRequest:
		case r.status == http.StatusOK && g.first && !strings.Contains(r.body, good.secret):
		default:
			t.Errorf("two keys: %d %s", r.status, r.body)
		}
	}
}

// connections: the gateway keeps those to the edge, whatever the verdict.
func connections(t *testing.T, g *gateway, good apikey) {
	client := &http.Client{Timeout: 10 * time.Second}
	before := g.line.accepted.Load()
	const requests = 60
	for n := range requests {
		secret := good.secret
		if n%3 == 1 {
			secret = "nonsense"
		}
		if _, err := present(client, g, secret, n%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	opened := g.line.accepted.Load() - before
	t.Logf("%d requests, %d new connections", requests, opened)
	if opened > requests/6 {
		t.Errorf("%d new connections to the edge for %d requests", opened, requests)
	}
}
