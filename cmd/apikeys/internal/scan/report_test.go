// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// engine answers reports as the engine does.
type engine struct {
	batches [][]reportItem
	answer  func(items []reportItem) (int, string)
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Batch string }
	if r.URL.Path != "/v1/keys/report" || r.Header.Get("X-Vault-Token") != "t0" || json.NewDecoder(r.Body).Decode(&body) != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var items []reportItem
	for line := range strings.Lines(body.Batch) {
		var one reportItem
		if json.Unmarshal([]byte(line), &one) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		items = append(items, one)
	}
	if len(items) > 1000 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.batches = append(e.batches, items)
	status, text := e.answer(items)
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

func acted(items []reportItem) (int, string) {
	results := make([]string, len(items))
	for i := range items {
		results[i] = "acted"
	}
	raw, _ := json.Marshal(map[string]any{"data": map[string]any{"results": results}, "warnings": []string{"a \x1b warning"}})
	return http.StatusOK, string(raw)
}

func TestReport(t *testing.T) {
	outside(t)
	e := &engine{answer: acted}
	server := httptest.NewServer(e)
	defer server.Close()
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "t0")
	dir := t.TempDir()
	t.Chdir(dir)
	a, b := mint(t, "ak"), mint(t, "ak")
	plant(t, dir, map[string]string{"f": "\n" + a.Reveal() + b.Reveal(), "g": a.Reveal(), "h": lookAlike(a)})

	r := runScan(t, "", "-report", "-mount", "keys", ".")
	if r.status != exitFound || len(e.batches) != 1 || len(e.batches[0]) != 2 {
		t.Fatalf("%d %s%s", r.status, r.out, r.errs)
	}
	for i, k := range []keyformat.Key{a, b} {
		if got, want := e.batches[0][i], (reportItem{k.Reveal(), "apikeys", "f", "apikeys scan"}); got != want {
			t.Errorf("reported %q of %q", got.URL, got.Source)
		}
		if !strings.Contains(r.errs, "reported "+k.ID()+": acted\n") {
			t.Errorf("%s", r.errs)
		}
	}
	if !strings.Contains(r.errs, `"a \x1b warning"`) || !strings.Contains(r.out, "f:2:1: key "+a.ID()) || strings.Contains(r.out, "reported") {
		t.Errorf("%s%s", r.out, r.errs)
	}
	if r := runScan(t, "", "-report", "-mount", "keys", "h"); r.status != exitNothing || len(e.batches) != 1 {
		t.Errorf("nothing to report: %d %s", r.status, r.errs)
	}

	many := map[string]string{}
	for i := range 2*maxReported + 1 {
		many[fmt.Sprint("many/", i)] = mint(t, "ak").Reveal()
	}
	plant(t, dir, many)
	e.batches = nil
	if r := runScan(t, "", "-report", "-mount", "keys", "many"); r.status != exitFound || len(e.batches) != 3 || strings.Count(r.errs, ": acted\n") != len(many) {
		t.Errorf("many: %d, %d requests", r.status, len(e.batches))
	}

	for what, answer := range map[string]func([]reportItem) (int, string){
		"403":               func([]reportItem) (int, string) { return http.StatusForbidden, `{"errors":["permission denied"]}` },
		"500":               func([]reportItem) (int, string) { return http.StatusInternalServerError, `{"errors":["x"]}` },
		"not JSON":          func([]reportItem) (int, string) { return http.StatusOK, "ok" },
		"too few results":   func([]reportItem) (int, string) { return http.StatusOK, `{"data":{"results":["acted"]}}` },
		"nothing in answer": func([]reportItem) (int, string) { return http.StatusOK, `{}` },
		"an empty answer":   func([]reportItem) (int, string) { return http.StatusNoContent, `` },
		"an answer that asks": func(items []reportItem) (int, string) {
			return http.StatusBadRequest, `{"errors":["` + items[0].Key + `"]}`
		},
	} {
		e.answer = answer
		r := runScan(t, "", "-report", "-mount", "keys", "f")
		if r.status != exitFailed || !strings.Contains(r.out, a.ID()) || !strings.Contains(r.errs, "apikeys scan: -report: ") || strings.Contains(r.errs, a.Reveal()) {
			t.Errorf("%s: %d %s", what, r.status, r.errs)
		}
	}
	server.Close()
	if r := runScan(t, "", "-report", "-mount", "keys", "f"); r.status != exitFailed || !strings.Contains(r.out, a.ID()) {
		t.Errorf("no server: %d %s", r.status, r.errs)
	}
}

// TestNoReportFromAHook: what a hook refuses has not leaked.
func TestNoReportFromAHook(t *testing.T) {
	outside(t)
	t.Setenv("VAULT_TOKEN", "t0")
	k := mint(t, "ak")
	for _, name := range []string{"GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "PRE_COMMIT"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "")
			if r := runScan(t, k.Reveal(), "-report", "-"); r.status != exitFailed || !strings.Contains(r.errs, "is not for a hook of git ("+name+" is set)") || r.out != "" {
				t.Errorf("%d %s%s", r.status, r.out, r.errs)
			}
			if r := runScan(t, k.Reveal(), "-"); r.status != exitFound {
				t.Errorf("without -report: %d", r.status)
			}
		})
	}
}
