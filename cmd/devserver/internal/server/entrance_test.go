// SPDX-License-Identifier: MPL-2.0

package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestWhatIsNoTextIsRefused holds every entrance to the same answer: the plugin's protocol carries UTF-8 only,
// so that what slips through is a failure of the server.
func TestWhatIsNoTextIsRefused(t *testing.T) {
	f := newFixture(t)
	const form, patch = "application/x-www-form-urlencoded", "application/merge-patch+json"
	for _, c := range []struct{ method, path, body, header, value string }{
		{method: "GET", path: "test/kv/a%ff"},
		{method: "GET", path: "test/kv/a%c3%28"},
		{method: "GET", path: "test/kv/%ed%a0%80"},
		{method: "LIST", path: "test/kv/%ff"},
		{method: "HELP", path: "test/kv/%ff"},
		{method: "GET", path: "test/kv/%ff?help=1"},
		{method: "DELETE", path: "test/kv/%ff"},
		{method: "POST", path: "test/kv/%ff", body: `{"value":"a"}`},
		{method: "PATCH", path: "test/kv/%ff", body: `{"value":"a"}`, header: "Content-Type", value: patch},
		{method: "GET", path: "%ff/x"},
		{method: "GET", path: "sys/%ff"},
		{method: "POST", path: "sys/mounts/a%ff", body: `{"type":"x"}`},
		{method: "PUT", path: "sys/leases/revoke-prefix/test/%ff", body: `{}`},
		{method: "GET", path: "../%ff"},
		{method: "GET", path: "test/echo?a=%ff"},
		{method: "GET", path: "test/echo?%ff=a"},
		{method: "GET", path: "test/kv?list=true&after=%ff"},
		{method: "DELETE", path: "test/kv/a?x=%ff"},
		{method: "POST", path: "test/echo?x=%ff", body: `{}`},
		{method: "GET", path: "sys/health?x=%ff"},
		{method: "POST", path: "test/echo", body: "{\"a\":\"\xff\"}"},
		{method: "POST", path: "test/echo", body: "{\"\xff\":1}"},
		{method: "POST", path: "test/echo", body: "{\"a\":[{\"b\":\"\xc3\x28\"}]}"},
		{method: "POST", path: "test/echo", body: "{\"a\":1}\xff"},
		{method: "PATCH", path: "test/kv/a", body: "{\"value\":\"\xff\"}", header: "Content-Type", value: patch},
		{method: "POST", path: "sys/leases/lookup", body: "{\"lease_id\":\"\xff\"}"},
		{method: "POST", path: "sys/unseal", body: "{\"key\":\"\xff\"}"},
		{method: "POST", path: "test/echo", body: "a=%ff", header: "Content-Type", value: form},
		{method: "POST", path: "test/echo", body: "%ff=a", header: "Content-Type", value: form},
		{method: "POST", path: "test/echo", body: "a=\xff", header: "Content-Type", value: form},
		{method: "GET", path: "test/echo", header: "X-Mine", value: "\xff"},
	} {
		resp, body := f.do(t, c.method, c.path, rootToken, c.body, c.header, c.value)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "not UTF-8") {
			t.Errorf("%s %s %q %q: %d %s", c.method, c.path, c.body, c.value, resp.StatusCode, body)
		}
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "test/echo?a=%c3%a9", ""},
		{"POST", "test/echo", `{"a":"é\ufffd"}`},
	} {
		if resp, body := f.do(t, c.method, c.path, rootToken, c.body); resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s %q: %d %s", c.method, c.path, c.body, resp.StatusCode, body)
		}
	}
}

func TestPathsThatARealServerRefuses(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ method, path, want string }{
		{"GET", "test/kv/a%00b", "cannot be printed"},
		{"GET", "test/kv/a%0ab", "cannot be printed"},
		{"GET", "test/kv/a%7f", "cannot be printed"},
		{"GET", "test/kv/a%c2%a0", "cannot be printed"},
		{"GET", "test/kv/a%e2%80%ae", "cannot be printed"},
		{"GET", "sys/health%0d", "cannot be printed"},
		{"GET", "%09/x", "cannot be printed"},
		{"GET", "test/../sys/mounts", "relative"},
		{"GET", "test/%2e%2e/sys/mounts", "relative"},
		{"GET", "test%2f..%2fsys/mounts", "relative"},
		{"GET", "test/./kv/a", "relative"},
		{"GET", "test/kv/..", "relative"},
		{"POST", "test/kv/a/", "ending in '/'"},
		{"PATCH", "test/kv/a/", "ending in '/'"},
		{"POST", "sys/mounts/x/", "ending in '/'"},
	} {
		resp, body := f.do(t, c.method, c.path, rootToken, `{}`, "Content-Type", mergePatchFormat)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, want %q", c.method, c.path, resp.StatusCode, body, c.want)
		}
	}
	for path, want := range map[string]int{"test/a..b": 404, "test/...": 404, "test/kv/a%20b": 404, "test/kv/%c3%a9": 404} {
		if resp, body := f.do(t, "GET", path, rootToken, ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestForeignPagesAreRefused makes the requests that a browser makes for a page of somebody else.
func TestForeignPagesAreRefused(t *testing.T) {
	f := newFixture(t)
	ask := func(path, host string, headers ...string) int {
		t.Helper()
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, f.http.URL+path, nil))(t)
		req.Host = host
		req.Header.Set("X-Vault-Token", rootToken)
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		resp := must(http.DefaultTransport.RoundTrip(req))(t)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	paths := []string{"/v1/test/echo", "/v1/sys/health", "/v1/sys/internal/ui/mounts"}
	for _, host := range []string{
		"localhost", "LocalHost:8200", "localhost:1", "127.0.0.1", "127.0.0.1:8200", "127.8.9.10:1", "[::1]", "[::1]:8200",
	} {
		for _, path := range paths {
			if got := ask(path, host); got != http.StatusOK {
				t.Errorf("host %s at %s: %d", host, path, got)
			}
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:8200", "localhost.evil.example", "evil.localhost:8200", "127.0.0.1.evil.example", "192.0.2.1:8200",
		"0.0.0.0:8200", "[::]:8200", "[2001:db8::1]:8200", "128.0.0.1", "2130706433", "0x7f000001", "127.1:8200", "localhost@evil.example",
	} {
		for _, path := range append(paths, "/elsewhere") {
			if got := ask(path, host); got != http.StatusForbidden {
				t.Errorf("host %s at %s: %d", host, path, got)
			}
		}
	}
	for _, c := range []struct {
		headers []string
		want    int
	}{
		{[]string{"Origin", "http://localhost:3000"}, 200},
		{[]string{"Origin", "https://127.0.0.1"}, 200},
		{[]string{"Origin", "http://[::1]:8200", "Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Sec-Fetch-Site", "none"}, 200},
		{[]string{"Sec-Fetch-Site", "same-site"}, 200},
		{[]string{"Origin", "http://evil.example"}, 403},
		{[]string{"Origin", "https://localhost.evil.example"}, 403},
		{[]string{"Origin", "http://localhost@evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Origin", ""}, 403},
		{[]string{"Origin", "localhost:3000"}, 403},
		{[]string{"Origin", "file://localhost"}, 403},
		{[]string{"Origin", "http://localhost", "Origin", "http://evil.example"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "anything"}, 403},
		{[]string{"Origin", "http://localhost", "Sec-Fetch-Site", "cross-site"}, 403},
	} {
		for _, path := range paths {
			if got := ask(path, "localhost", c.headers...); got != c.want {
				t.Errorf("%q at %s: %d, want %d", c.headers, path, got, c.want)
			}
		}
	}
}

// TestMountPaths tries every way to a mount: the flag's, sys/mounts and sys/remount.
func TestMountPaths(t *testing.T) {
	f := newFixture(t)
	body := string(must(json.Marshal(map[string]string{"type": f.server.PluginName()}))(t))
	for path, want := range map[string]string{
		"../x": "relative", "..": "relative", ".": "relative", "./a": "relative", "a/..": "relative", "a/../b": "relative", "a/./b": "relative",
		"": "empty", "/": "empty", "//": "empty", "//a": "empty", "a//": "empty", "a//b": "empty", " ": "space", " a": "space", "a ": "space", "a /": "space",
		"a\x00b": "printed", "a\nb": "printed", "a\x7f": "printed", "a\u00a0b": "printed", "a\u202eb": "printed", "a\xffb": "printed",
		"sys": "reserved", "/sys/": "reserved", "sys/x": "reserved", "auth/x": "reserved", "auth": "reserved", "audit": "reserved", "identity/x": "reserved", "cubbyhole": "reserved",
		"test": "in use", "/test/": "in use", "test/deeper": "in use",
	} {
		if want != "in use" {
			if err := f.server.EnsureMounted(t.Context(), path, f.server.PluginName()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("flag %q: %v, want %q", path, err, want)
			}
		}
		if err := f.server.Enable(t.Context(), &mountEntry{Path: path, Type: f.server.PluginName()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mount at %q: %v, want %q", path, err, want)
		}
		if resp, answer := f.do(t, "POST", "sys/mounts/"+url.PathEscape(path), rootToken, body); resp.StatusCode < 400 || resp.StatusCode > 405 {
			t.Errorf("sys/mounts/%q: %d %s", path, resp.StatusCode, answer)
		}
		move := string(must(json.Marshal(map[string]string{"from": "test", "to": path}))(t))
		// JSON has no way to write what is no text.
		move = strings.ReplaceAll(move, `\ufffd`, "\xff")
		if resp, answer := f.do(t, "POST", "sys/remount", rootToken, move); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("remount to %q: %d %s", path, resp.StatusCode, answer)
		}
	}
	if got := len(f.server.mounts()); got != 1 {
		t.Errorf("%d mounts after refusals only", got)
	}
	for _, path := range []string{"/lead", "trail/", "/both/", "a..b", "...", "sysx", "team/sys", "é", "a b"} {
		if err := f.server.EnsureMounted(t.Context(), path, f.server.PluginName()); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		own := strings.Trim(path, "/") + "/"
		if f.server.mountAt(own) == nil {
			t.Errorf("%q is not at %s", path, own)
		}
		// What is there already is left alone, however it is spelled.
		if err := f.server.EnsureMounted(t.Context(), own, f.server.PluginName()); err != nil {
			t.Errorf("%q again: %v", path, err)
		}
	}
}

// TestErrorsInTheLogNameNoPath is for errors that no request sees, such as that of a lease whose mount is gone.
func TestErrorsInTheLogNameNoPath(t *testing.T) {
	const lost = "creds/sk-foreign-\"key\"-of-somebody"
	err := fmt.Errorf("failed to revoke entry: %w", errors.Join(errors.New("first"), routed(noRoute(lost))))
	got := errForLog(err)
	if strings.Contains(got, "sk-foreign") || !strings.Contains(got, "first") || !strings.Contains(got, "no handler for route") {
		t.Errorf("for the log: %s", got)
	}
	if text := noRoute(lost).Error(); text != `no handler for route "creds/sk-foreign-\"key\"-of-somebody". route entry not found.` {
		t.Errorf("for the client: %s", text)
	}
}
