// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPublicPaths holds what the READMEs say about a path that needs no key: it is public
// alone, nobody writes identities there, and keys do not get through.
func TestPublicPaths(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	e.write("apikeys/roles/orders", data{"scopes": []string{"orders:read"}})
	good := e.creds("orders")
	for _, k := range []kind{
		{"nginx", "nginx", func(t testing.TB, g *gateway) {
			dir := t.TempDir()
			g.addr = freeAddress(t)
			public := strings.Replace(told(t, "nginx", "location = /health {"), "http://api/", "http://"+g.api.addr+"/", 1)
			put(t, dir, "nginx", "nginx.conf", "127.0.0.1:9090", g.line.addr, "127.0.0.1:8000", g.api.addr, "127.0.0.1:8080", g.addr, "location / {", public+"\nlocation / {")
			put(t, dir, "nginx", "identity.conf")
			g.run(t, dir, programs.nginx, "-p", dir, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;")
		}},
		{"haproxy", "haproxy", func(t testing.TB, g *gateway) {
			dir := t.TempDir()
			g.addr = freeAddress(t)
			ask := "http-request lua.apikeys http://127.0.0.1:9090/auth"
			put(t, dir, "haproxy", "haproxy.cfg", "127.0.0.1:8000", g.api.addr, "127.0.0.1:8080", g.addr,
				ask, told(t, "haproxy", "http-request del-header ^(")+"\n    "+strings.Replace(ask, "127.0.0.1:9090", g.line.addr, 1)+" unless { path /health }",
				"unless { var(txn.apikeys_verdict) -m int 200 }", "unless { var(txn.apikeys_verdict) -m int 200 } || { path /health }")
			put(t, dir, "haproxy", "apikeys.lua")
			g.run(t, dir, programs.haproxy, "-f", "haproxy.cfg", "-db")
		}},
	} {
		g := startOne(t, e, k, e.addr)
		g.edge.live()
		lies := http.Header{}
		for _, name := range []string{"X-Apikey-Role", "X_Apikey_Scopes", "X.Apikey.Key.Id", "X-API-Key", "x_api_key", "Authorization"} {
			lies[name] = []string{"admin"}
		}
		r := do(t, g, "GET", "/health?now", lies)
		if r.status != http.StatusOK || r.seen.URI != "/health?now" || strings.Contains(r.body, "admin") {
			t.Errorf("%s: %d %s", g.name, r.status, r.body)
		}
		for _, target := range []string{"/orders/7", "/healthy", "/health/7", "/HEALTH", "/orders/7%2f..%2f..%2fhealth", "/orders/../health", "/health/..;/orders/7", "/health%2f..%2forders", "//health"} {
			if r := do(t, g, "GET", target, nil); r.status == http.StatusOK && r.seen.URI != "/health" {
				t.Errorf("%s: %s is public: the API has seen %s", g.name, target, r.seen.URI)
			}
		}
		if r := do(t, g, "GET", "/orders/7", with(good)); r.status != http.StatusOK || r.seen.Header.Get("X-Apikey-Role") != "orders" {
			t.Errorf("%s: beside it: %d %s", g.name, r.status, r.body)
		}
	}
}

// told is the line of a README that begins with a text.
func told(t testing.TB, gateway, text string) string {
	raw, err := os.ReadFile(filepath.Join(shipped, gateway, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, text) {
			return line
		}
	}
	t.Fatalf("the README of %s has no line that begins with %s", gateway, text)
	return ""
}
