// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// raw makes a request by hand, for what the client would not send or would hide.
func (e *env) raw(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	return e.rawAs(t, e.server.root(), method, path, body)
}

// rawAs is raw with a token of one's own.
func (e *env) rawAs(t *testing.T, token, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.client.Address()+"/v1/"+e.path(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

func wrongRequests(t *testing.T, e *env) {
	e.write("roles/r", nil)
	e.write("roles/d", data{"type": "dynamic"})
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "creds/absent", "", 404},
		{"GET", "status/absent", "", 404},
		{"GET", "roles/absent", "", 404},
		{"GET", "nothing", "", 404},
		{"GET", "creds/r/previous", "", 404},
		{"GET", "creds/a..b", "", 404},
		{"GET", "status/a..b", "", 404},
		{"POST", "rotate/a..b", "", 404},
		// An action has no state to read: 405, never 404, which would make Terraform write again.
		{"GET", "rotate/r", "", 405},
		{"GET", "promote/r", "", 405},
		{"GET", "rollback/r", "", 405},
		{"GET", "revoke/r", "", 405},
		{"GET", "verify", "", 405},
		{"GET", "verify/r", "", 405},
		{"DELETE", "creds/r", "", 405},
		{"DELETE", "status/r", "", 405},
		{"PATCH", "creds/r", "{}", 405},
		{"POST", "rotate/r", `{"grace_period":"soon"}`, 400},
		{"POST", "rotate/r", `{"grace_period":-1}`, 400},
		{"POST", "rotate/r", `{"typo":1}`, 400},
		{"POST", "rotate/r", `{"request_id":"short"}`, 400},
		{"POST", "rotate/r", `[1]`, 400},
		{"POST", "verify", `{}`, 400},
		{"POST", "config", `{"typo":1}`, 400},
		{"PATCH", "roles/r", `{"grace_period":"soon"}`, 400},
		{"PATCH", "roles/absent", `{"owner":"x"}`, 404},
	} {
		status, body := e.raw(t, c.method, c.path, c.body)
		if status != c.status {
			t.Errorf("%s %s %s: status %d, want %d: %s", c.method, c.path, c.body, status, c.status, body)
		}
		var refusal struct {
			Errors []string `json:"errors"`
		}
		if err := json.Unmarshal([]byte(body), &refusal); err != nil || status == 400 && len(refusal.Errors) == 0 {
			t.Errorf("%s %s %s: body %q", c.method, c.path, c.body, body)
		}
	}
	if got := e.creds("r").version; got != 1 {
		t.Errorf("refused requests led to version %d", got)
	}
}

// document is what the tests look at in the server's OpenAPI document.
type document struct {
	OpenAPI string                                `json:"openapi"`
	Paths   map[string]map[string]json.RawMessage `json:"paths"`
}

func (e *env) openAPI(t *testing.T) document {
	t.Helper()
	resp, err := e.client.Logical().ReadRaw("sys/internal/specs/openapi")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc document
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func helpAndOpenAPI(t *testing.T, e *env) {
	for _, path := range []string{
		"config", "roles", "roles/r", "creds/r", "creds/r/pending", "rotate/r", "promote/r", "rollback/r", "revoke/r", "status/r",
		"history/r", "keys/r", "inventory", "calendar", "verify", "verify/r", "report", "restore/x",
	} {
		help, err := e.client.Help(e.path(path))
		if err != nil {
			t.Errorf("help of %s: %v", path, err)
			continue
		}
		if strings.Contains(help.Help, "<no synopsis>") || strings.Contains(help.Help, "<no description>") {
			t.Errorf("help of %s has gaps:\n%s", path, help.Help)
		}
	}
	help, err := e.client.Help(strings.TrimSuffix(e.path(""), "/"))
	if err != nil || !strings.Contains(help.Help, "rotate") {
		t.Errorf("help of the mount: %v, %v", help, err)
	}
	doc := e.openAPI(t)
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		t.Errorf("version %q", doc.OpenAPI)
	}
	for path, method := range map[string]string{"roles/{name}": "delete", "creds/{name}": "get", "rotate/{name}": "post", "verify": "post"} {
		if _, ok := doc.Paths["/"+e.path(path)][method]; !ok {
			t.Errorf("no %s of %s in the document", method, path)
		}
	}
}

func policiesBind(t *testing.T, e *env) {
	e.write("roles/mine", nil)
	e.write("roles/other", nil)
	mine, other := e.creds("mine"), e.creds("other")
	app := e.tokenFor(t, `
path "`+e.mount+`/creds/mine"  { capabilities = ["read"] }
path "`+e.mount+`/verify/mine" { capabilities = ["update"] }`)
	if s, err := app.Logical().Read(e.path("creds/mine")); err != nil || e.keyOf(s).secret != mine.secret {
		t.Errorf("its own key: %v", err)
	}
	for _, path := range []string{"creds/other", "creds/mine/previous", "roles/mine", "status/mine", "config"} {
		_, err := app.Logical().Read(e.path(path))
		e.refused(err, 403)
	}
	for _, path := range []string{"rotate/mine", "verify", "verify/other", "roles/new"} {
		_, err := app.Logical().Write(e.path(path), data{"key": mine.secret})
		e.refused(err, 403)
	}
	for k, want := range map[string]string{mine.secret: "VALID current", other.secret: "NOT_FOUND"} {
		s, err := app.Logical().Write(e.path("verify/mine"), data{"key": k})
		if err != nil {
			t.Fatal(err)
		}
		if got := verdict(s.Data); got != want {
			t.Errorf("verify/mine says %s, want %s", got, want)
		}
	}
}
