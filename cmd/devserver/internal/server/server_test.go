// SPDX-License-Identifier: MPL-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
)

func text(v any) string { return fmt.Sprint(v) }

// wantStatus asserts that err is the answer with that status and returns its texts.
func wantStatus(t *testing.T, err error, status int) string {
	t.Helper()
	var re *api.ResponseError
	if !errors.As(err, &re) {
		t.Fatalf("error %v is no answer of the server, want status %d", err, status)
	}
	if re.StatusCode != status {
		t.Fatalf("status %d (%v), want %d", re.StatusCode, re.Errors, status)
	}
	return strings.Join(re.Errors, "; ")
}

func TestStatusEndpoints(t *testing.T) {
	f := newFixture(t)
	seal := must(f.client("").Sys().SealStatus())(t)
	if seal.Sealed || !seal.Initialized || seal.Version != Version {
		t.Errorf("seal status %+v", seal)
	}
	health := must(f.client("").Sys().Health())(t)
	if health.Sealed || health.Standby || health.ServerTimeUTC != f.clock.now().Unix() {
		t.Errorf("health %+v", health)
	}
	if leader := must(f.client("").Sys().Leader())(t); leader.HAEnabled || !leader.IsSelf {
		t.Errorf("leader %+v", leader)
	}
	if !must(f.client("").Sys().InitStatus())(t) {
		t.Error("not initialised")
	}
}

func TestCreateUpdateReadListDelete(t *testing.T) {
	f := newFixture(t)
	l := f.root.Logical()
	if got := must(l.Write("test/kv/b", map[string]any{"value": "1"}))(t).Data["operation"]; got != "create" {
		t.Errorf("first write was a %v", got)
	}
	if got := must(l.Write("test/kv/b", map[string]any{"value": "2"}))(t).Data["operation"]; got != "update" {
		t.Errorf("second write was a %v", got)
	}
	if got := must(l.JSONMergePatch(t.Context(), "test/kv/b", map[string]any{"value": "3"}))(t).Data["operation"]; got != "patch" {
		t.Errorf("patch was a %v", got)
	}
	s := must(l.Read("test/kv/b"))(t)
	if s.Data["value"] != "3" || s.RequestID == "" || s.LeaseID != "" || s.MountType != f.server.PluginName() {
		t.Errorf("read %+v", s)
	}
	for _, k := range []string{"a", "c", "d"} {
		must(l.Write("test/kv/"+k, map[string]any{"value": k}))(t)
	}
	if got := must(l.List("test/kv"))(t).Data["keys"]; !reflect.DeepEqual(got, []any{"a", "b", "c", "d"}) {
		t.Errorf("list %v", got)
	}
	page := must(l.ReadWithData("test/kv", map[string][]string{"list": {"true"}, "after": {"a"}, "limit": {"2"}}))(t)
	if got := page.Data["keys"]; !reflect.DeepEqual(got, []any{"b", "c"}) {
		t.Errorf("page %v", got)
	}
	must(l.Delete("test/kv/b"))(t)
	if s := must(l.Read("test/kv/b"))(t); s != nil {
		t.Errorf("read after delete: %+v", s)
	}
}

func TestErrorsAreAsVaultWritesThem(t *testing.T) {
	f := newFixture(t)
	cases := []struct {
		name, method, path, token, contentType, body string
		status                                       int
		text                                         string
	}{
		{"no token", "GET", "test/echo", "", "", "", 403, "permission denied"},
		{"bad token", "GET", "test/echo", "nope", "", "", 403, "invalid token"},
		{"no mount", "GET", "absent/x", rootToken, "", "", 404, `no handler for route "absent/x". route entry not found.`},
		{"no path", "GET", "test/absent", rootToken, "", "", 404, "1 error occurred:\\n\\t* unsupported path\\n\\n"},
		{"absent", "GET", "test/kv/absent", rootToken, "", "", 404, ""},
		{"empty list", "LIST", "test/kv", rootToken, "", "", 404, ""},
		{"wrong operation", "DELETE", "test/echo", rootToken, "", "", 405, "unsupported operation"},
		{"head", "HEAD", "test/kv/x", rootToken, "", "", 405, ""},
		{"method", "OPTIONS", "test/echo", rootToken, "", "", 405, ""},
		{"internal path", "GET", "sys/nothing", rootToken, "", "", 404, "unsupported path"},
		{"failure", "GET", "test/fail", rootToken, "", "", 500, "1 error occurred:\\n\\t* something broke\\n\\n"},
		{"array", "POST", "test/echo", rootToken, "", `[1]`, 400, "failed to decode JSON input"},
		{"no JSON", "POST", "test/echo", rootToken, "", `{`, 400, "failed to decode JSON input"},
		{"patch type", "PATCH", "test/kv/x", rootToken, "application/json", `{}`, 415, "application/merge-patch+json"},
		{"patch without type", "PATCH", "test/kv/x", rootToken, "", `{}`, 400, ""},
		{"list flag", "GET", "test/kv?list=maybe", rootToken, "", "", 400, ""},
		{"outside", "GET", "../elsewhere", rootToken, "", "", 400, "relative paths not supported"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			resp, body := f.do(t, c.method, c.path, c.token, c.body, "Content-Type", c.contentType)
			if resp.StatusCode != c.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			if c.method != "HEAD" && (!strings.HasPrefix(body, `{"errors":[`) || !strings.Contains(body, strings.ReplaceAll(c.text, `"`, `\"`))) {
				t.Errorf("body %s, want errors with %q", body, c.text)
			}
		})
	}
}

func (f *fixture) do(t *testing.T, method, path, token, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), method, f.http.URL+"/v1/"+path, strings.NewReader(body)))(t)
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp := must(http.DefaultTransport.RoundTrip(req))(t)
	defer resp.Body.Close()
	return resp, string(must(io.ReadAll(resp.Body))(t))
}

func TestJSONLimits(t *testing.T) {
	f := newFixture(t)
	object := func(strings_ int) string {
		var b strings.Builder
		b.WriteString(`{"list":[`)
		for i := range strings_ - 1 {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`"x"`)
		}
		return b.String() + `]}`
	}
	if resp, body := f.do(t, "POST", "test/echo", rootToken, object(1000)); resp.StatusCode != http.StatusOK {
		t.Errorf("1000 strings: %d %s", resp.StatusCode, body)
	}
	resp, body := f.do(t, "POST", "test/echo", rootToken, object(1001))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "exceeded maximum number of strings") {
		t.Errorf("1001 strings: %d %s", resp.StatusCode, body)
	}
	long := `{"batch":"` + strings.Repeat("x", 1<<20) + `"}`
	if resp, _ := f.do(t, "POST", "test/echo", rootToken, long); resp.StatusCode != http.StatusOK {
		t.Errorf("a string of 1 MiB: %d", resp.StatusCode)
	}
	if resp, _ := f.do(t, "POST", "test/echo", rootToken, strings.Replace(long, "x", "xx", 1)); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a string above 1 MiB: %d", resp.StatusCode)
	}
	if resp, _ := f.do(t, "POST", "test/echo", rootToken, strings.Repeat(`{"a":`, 301)+"1"+strings.Repeat("}", 301)); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("depth 301: %d", resp.StatusCode)
	}
	if resp, body := f.do(t, "POST", "test/echo", rootToken, `{"a":"`+strings.Repeat("x", 33<<20)+`"}`); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("33 MiB: %d %.100s", resp.StatusCode, body)
	}
}

func TestWhatReachesThePlugin(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "not-for-plugins")
	f := newFixture(t)
	one, two := "a", "b"
	if err := f.root.Sys().TuneMountAllowNil("test", api.TuneMountConfigInput{
		PassthroughRequestHeaders: &[]string{"X-Mine", "X-Vault-Token", "Authorization"}, AllowedResponseHeaders: &[]string{"X-Engine"},
		DefaultLeaseTTL: strPtr("10m"), MaxLeaseTTL: strPtr("1h"),
	}); err != nil {
		t.Fatal(err)
	}
	resp, body := f.do(t, "POST", "test/echo?in=query", rootToken, `{"n":12345678901,"s":"x"}`, "X-Mine", one, "X-Theirs", two, "Authorization", "Bearer "+rootToken)
	if resp.Header.Get("X-Engine") != "yes" || resp.Header.Get("X-Other") != "" {
		t.Errorf("response headers %v", resp.Header)
	}
	for _, want := range []string{
		`"data":{"n":12345678901,"s":"x"}`, `"headers":{"X-Mine":["a"]}`, `"display_name":"root"`, `"mount_point":"test/"`,
		`"operation":"update"`, `"remote_addr":"127.0.0.1"`, `"default_ttl":600`, `"max_ttl":3600`, `"server_token":""`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if strings.Contains(body, rootToken) {
		t.Error("the token itself reached the plugin")
	}
	_, body = f.do(t, "GET", "test/echo?a=1&b=2&b=3", rootToken, "")
	if !strings.Contains(body, `"data":{"a":"1","b":["2","3"]}`) {
		t.Errorf("query data: %s", body)
	}
	if resp, body := f.do(t, "GET", "test/open/this/here", "", ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"display_name":""`) {
		t.Errorf("unauthenticated path: %d %s", resp.StatusCode, body)
	}
	if resp, _ := f.do(t, "GET", "test/open/this/there", "", ""); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a path beside it: %d", resp.StatusCode)
	}
	resp, body = f.do(t, "GET", "test/raw", rootToken, "")
	if resp.StatusCode != http.StatusTeapot || body != "short and stout\n" || resp.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("raw answer: %d %q", resp.StatusCode, body)
	}
}

func strPtr(s string) *string { return &s }

func TestNamespacesAreRefused(t *testing.T) {
	f := newFixture(t)
	if resp, body := f.do(t, "GET", "test/echo", rootToken, "", "X-Vault-Namespace", "team"); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "no namespaces") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := f.do(t, "GET", "test/echo", rootToken, "", "X-Vault-Namespace", "root"); resp.StatusCode != http.StatusOK {
		t.Errorf("root namespace: %d", resp.StatusCode)
	}
}

func TestHelpAndOpenAPI(t *testing.T) {
	f := newFixture(t)
	help := must(f.root.Help("test/kv/x"))(t)
	if !strings.Contains(help.Help, "A stored value.") {
		t.Errorf("path help %q", help.Help)
	}
	if help = must(f.root.Help("test"))(t); !strings.Contains(help.Help, "A plugin for tests.") {
		t.Errorf("root help %q", help.Help)
	}
	if help = must(f.root.Help("sys/mounts"))(t); !strings.Contains(help.Help, "List mounts.") {
		t.Errorf("sys help %q", help.Help)
	}
	_, body := f.do(t, "GET", "sys/internal/specs/openapi", rootToken, "")
	for _, want := range []string{`"openapi":"3.0.2"`, `"/test/kv/{name}"`, `"/test/counters"`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the document", want)
		}
	}
}

func TestKilledPluginIsReplacedAndTheRequestRepeated(t *testing.T) {
	f := newFixture(t)
	must(f.root.Logical().Write("test/kv/a", map[string]any{"value": "kept"}))(t)
	m := f.server.mountAt("test/")
	for range 3 {
		pid := m.running.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := must(f.root.Logical().Read("test/kv/a"))(t).Data["value"]; got != "kept" {
			t.Fatalf("read after kill: %v", got)
		}
		if m.running.PID() == pid {
			t.Fatal("still the killed process")
		}
		if err := syscall.Kill(m.running.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// This write asks for existence first.
		if got := must(f.root.Logical().Write("test/kv/a", map[string]any{"value": "kept"}))(t).Data["operation"]; got != "update" {
			t.Fatalf("write after kill was a %v", got)
		}
	}
	if got := must(f.root.Logical().Read("test/die-once"))(t).Data["survived"]; got != true {
		t.Errorf("request that killed its process: %v", got)
	}
	if got := f.counter("starts"); got != "8" {
		t.Errorf("initialised %s times, want 8", got)
	}
}

func TestReloadCleansUp(t *testing.T) {
	f := newFixture(t)
	if err := f.server.Enable(t.Context(), &mountEntry{Path: "second", Type: f.server.PluginName()}); err != nil {
		t.Fatal(err)
	}
	first, second := f.server.mountAt("test/"), f.server.mountAt("second/")
	if first.running.PID() != second.running.PID() {
		t.Error("two mounts of one plugin run in two processes")
	}
	before := first.running.PID()
	if _, err := f.root.Sys().ReloadPlugin(&api.ReloadPluginInput{Mounts: []string{"test/"}}); err != nil {
		t.Fatal(err)
	}
	if first.running.PID() == before {
		t.Error("the process is the same after the reload")
	}
	if got := f.counter("cleanups"); got != "1" {
		t.Errorf("%s clean-ups", got)
	}
	// The other mount lost its process with the reload and comes back by itself.
	must(f.root.Logical().Read("second/counters"))(t)
	if _, err := f.root.Sys().ReloadPlugin(&api.ReloadPluginInput{Plugin: f.server.PluginName()}); err != nil {
		t.Fatal(err)
	}
	if got := f.counter("starts"); got != "3" {
		t.Errorf("%s starts", got)
	}
}

func TestSealAndUnseal(t *testing.T) {
	f := newFixture(t)
	must(f.root.Logical().Write("test/kv/a", map[string]any{"value": "kept"}))(t)
	f.server.Seal()
	_, err := f.root.Logical().Read("test/kv/a")
	if got := wantStatus(t, err, 503); !strings.Contains(got, "sealed") {
		t.Errorf("text %q", got)
	}
	if !must(f.root.Sys().SealStatus())(t).Sealed {
		t.Error("not reported as sealed")
	}
	if must(f.root.Sys().Unseal("anything"))(t).Sealed {
		t.Error("sealed after unseal")
	}
	if got := must(f.root.Logical().Read("test/kv/a"))(t).Data["value"]; got != "kept" {
		t.Errorf("value %v", got)
	}
	if got := f.counter("cleanups"); got != "1" {
		t.Errorf("%s clean-ups", got)
	}
}

func TestTickRunsThePeriodicCall(t *testing.T) {
	f := newFixture(t)
	f.server.Tick(t.Context())
	f.server.rollback.Wait()
	f.server.Tick(t.Context())
	f.server.rollback.Wait()
	if got := f.counter("ticks"); got != "2" {
		t.Errorf("%s periodic calls", got)
	}
}
