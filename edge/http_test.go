// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

func TestMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("good", "r").facts = roleFacts{Role: "orders", Scopes: []string{"read"}}
		e.add("narrow", "n")
		e.add("revoked", "v", timeline.Entry{From: time.Now(), Code: "REVOKED", State: "revoked"})
		e.add("disabled", "d", timeline.Entry{From: time.Now(), Code: "DISABLED", State: "current"})
		e.add("elsewhere", "l").facts = roleFacts{AllowedCIDRs: []string{"10.0.0.0/8"}, Scopes: []string{"read"}}
		e.add("rated", "t").facts = roleFacts{RateLimit: 0.001, Scopes: []string{"read"}}
		v := e.start(t, Options{})
		var passed *http.Request
		handler := v.Handler(Guard{Scopes: []string{"read"}}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passed = r }))
		ask := func(header http.Header) (*httptest.ResponseRecorder, *http.Request) {
			passed = nil
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			for name, values := range header {
				r.Header[http.CanonicalHeaderKey(name)] = values
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if values := header["Authorization"]; len(values) > 0 && r.Header.Get("Authorization") != values[0] {
				t.Error("the caller's own request was changed")
			}
			return w, passed
		}
		bearer := func(key string) http.Header { return http.Header{"Authorization": {"Bearer " + key}} }
		_, _ = ask(bearer("rated"))
		for _, test := range []struct {
			name      string
			header    http.Header
			status    int
			challenge string
		}{
			{"good", bearer("good"), 200, ""},
			{"good in its own header", http.Header{"X-API-Key": {"good"}}, 200, ""},
			{"none", nil, 401, "Bearer"},
			{"two", http.Header{"X-API-Key": {"good"}, "Authorization": {"Bearer good"}}, 401, "Bearer"},
			{"unknown", bearer("other"), 401, `Bearer error="invalid_token"`},
			{"revoked", bearer("revoked"), 401, `Bearer error="invalid_token"`},
			{"narrow", bearer("narrow"), 403, `Bearer error="insufficient_scope", scope="read"`},
			{"disabled", bearer("disabled"), 403, ""},
			{"elsewhere", bearer("elsewhere"), 403, ""},
			{"rated", bearer("rated"), 429, ""},
		} {
			w, r := ask(test.header)
			if w.Code != test.status || w.Header().Get("WWW-Authenticate") != test.challenge || (r != nil) != (test.status == 200) {
				t.Errorf("%s: %d %q %v", test.name, w.Code, w.Header(), r)
			}
			if key := strings.TrimPrefix(test.header.Get("Authorization"), "Bearer "); key != "" && strings.Contains(w.Body.String(), key) {
				t.Errorf("%s: the answer shows the key: %s", test.name, w.Body)
			}
			if (w.Code == 429) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("%s: %v", test.name, w.Header())
			}
			if r == nil {
				continue
			}
			if r.Header.Get("Authorization")+r.Header.Get("X-API-Key") != "" {
				t.Errorf("%s: the key is handed on: %v", test.name, r.Header)
			}
			if verdict := FromContext(r.Context()); verdict == nil || verdict.Role != "orders" {
				t.Errorf("%s: %+v", test.name, verdict)
			}
		}
		if _, r := ask(http.Header{"X-API-Key": {"good"}, "Authorization": {"Basic x"}}); r == nil || r.Header.Get("Authorization") != "Basic x" {
			t.Error("another scheme is the application's")
		}
		e.set(func() { e.down = true })
		if w, r := ask(bearer("new")); w.Code != 503 || r != nil || strings.Contains(w.Body.String(), "new") || w.Header().Get("Retry-After") == "" {
			t.Errorf("while nobody can be asked: %d", w.Code)
		}
		if FromContext(t.Context()) != nil {
			t.Error("a verdict from nowhere")
		}
	})
}

func TestGuardTellsWhoAsks(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.RemoteAddr = "[2001:db8::1]:99"
	if req := (&Guard{}).request(r, "k"); req.RemoteAddr != netip.MustParseAddr("2001:db8::1") || req.Key != "k" || req.Client != "" {
		t.Errorf("%+v", req)
	}
	g := Guard{
		RemoteAddr: func(*http.Request) netip.Addr { return netip.MustParseAddr("10.0.0.1") },
		Client:     func(*http.Request) string { return "shop" },
	}
	if req := g.request(r, "k"); req.RemoteAddr != netip.MustParseAddr("10.0.0.1") || req.Client != "shop" {
		t.Errorf("%+v", req)
	}
}
