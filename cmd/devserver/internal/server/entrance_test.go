// SPDX-License-Identifier: MPL-2.0

package server

import (
	"net/http"
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
