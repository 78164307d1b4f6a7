// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

func (g *testGate) post(t testing.TB, body string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	g.Gate.Verify().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/verify", strings.NewReader(body)))
	var data map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &data); err != nil && w.Code != http.StatusMethodNotAllowed {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Code, data
}

// meeting answers when so many have asked.
type meeting struct{ left sync.WaitGroup }

func (m *meeting) Verify(context.Context, edge.Request) (edge.Verdict, error) {
	m.left.Done()
	m.left.Wait()
	return edge.Verdict{Valid: true, Code: "VALID"}, nil
}

// The questions of a batch are asked at once: keys that are not held cost one call.
func TestVerifyAsksAtOnce(t *testing.T) {
	m := &meeting{}
	m.left.Add(maxBatch)
	g := New(m, testRules(t), Keys{}, nil, slog.New(slog.DiscardHandler))
	items := strings.Repeat(`{"key":"a"},`, maxBatch)
	w := httptest.NewRecorder()
	g.Verify().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/verify", strings.NewReader(`{"batch": [`+strings.TrimSuffix(items, ",")+`]}`)))
	if strings.Count(w.Body.String(), `"VALID"`) != maxBatch {
		t.Errorf("%d %.200s", w.Code, w.Body)
	}
}

// The engine's own questions and answers.
func TestVerify(t *testing.T) {
	g := newTestGate(t, Keys{})
	status, data := g.post(t, `{"key": "good", "scopes": ["orders:read"], "any_scope": "x, y", "remote_addr": "192.0.2.7", "client": "shop"}`)
	if status != 200 || data["valid"] != true || data["code"] != "VALID" || data["role"] != "orders" || data["version"] != 3.0 || fmt.Sprint(data["scopes"]) != "[orders:read x]" {
		t.Errorf("%d %v", status, data)
	}
	asked := g.last()
	if fmt.Sprintf("%v %v %v %v", asked.Scopes, asked.AnyScope, asked.RemoteAddr, asked.Client) != "[orders:read] [x y] 192.0.2.7 shop" {
		t.Errorf("asked %+v", asked)
	}
	if status, data := g.post(t, `{"key": "dead"}`); status != 200 || fmt.Sprint(data["scopes"]) != "[]" || fmt.Sprint(data["metadata"]) != "map[]" || data["valid"] != false || data["code"] != "REVOKED" || data["reason"] != "leaked" {
		t.Errorf("%d %v", status, data)
	}
	if status, data := g.post(t, `{"key": ""}`); status != 200 || data["valid"] != false || data["hint"] != "odd" || data["role"] != nil {
		t.Errorf("%d %v", status, data)
	}
	for _, batch := range []string{
		`[{"key": "good"}, {"key": "dead"}, {"ky": "good"}]`,
		`"[{\"key\": \"good\"}, {\"key\": \"dead\"}, {\"ky\": \"good\"}]"`,
		`"{\"key\": \"good\"}\n{\"key\": \"dead\"}\n\n{\"ky\": \"good\"}\n"`,
	} {
		status, data := g.post(t, `{"batch": `+batch+`}`)
		results, _ := data["results"].([]any)
		var codes []string
		for _, r := range results {
			codes = append(codes, r.(map[string]any)["code"].(string))
		}
		if status != 200 || strings.Join(codes, " ") != "VALID REVOKED MALFORMED" {
			t.Errorf("%s: %d %v", batch, status, data)
		}
	}
	for body, want := range map[string]int{
		``:                                    400,
		`[]`:                                  400,
		`{}`:                                  400,
		`{"key": 7}`:                          400,
		`{"key": "good", "scope": "x"}`:       400,
		`{"key": "good", "scopes": []}`:       400,
		`{"key": "good", "scopes": ""}`:       400,
		`{"key": "good", "any_scope": [""]}`:  400,
		`{"key": "good", "remote_addr": "x"}`: 400,
		`{"batch": []}`:                       400,
		`{"batch": 7}`:                        400,
		`{"batch": "x"}`:                      200, // an item that cannot be read
		`{"batch": [], "key": "good"}`:        400,
		`{"key": "good"} {"key": "good"}`:     400,
		`{"batch": [` + strings.Repeat(`{"key":"a"},`, 1000) + `{"key":"a"}]}`: 400,
		`{"key": "` + strings.Repeat("x", maxQuestion) + `"}`:                  413,
	} {
		status, data := g.post(t, body)
		if status != want {
			t.Errorf("%.60s: %d %v, want %d", body, status, data, want)
		}
		if status == 400 && strings.Contains(fmt.Sprint(data), "good") {
			t.Errorf("the answer holds the key: %v", data)
		}
	}
	if status, data := g.post(t, `{"batch": "{\"key\": \"good\"} {\"key\": \"good\"}"}`); status != 200 || !strings.Contains(fmt.Sprint(data), "code:MALFORMED") {
		t.Errorf("two questions on a line: %d %v", status, data)
	}
	page := httptest.NewRequest(http.MethodPost, "/verify", strings.NewReader(`{"key": "good"}`))
	page.Header.Set("Origin", "http://page.example")
	answer := httptest.NewRecorder()
	if g.Gate.Verify().ServeHTTP(answer, page); answer.Code != http.StatusForbidden {
		t.Errorf("a page in a browser: %d %s", answer.Code, answer.Body)
	}
	g.set(func() { g.down = true })
	if status, data := g.post(t, `{"key": "good"}`); status != 503 || data["valid"] != nil {
		t.Errorf("%d %v", status, data)
	}
	if status, data := g.post(t, `{"batch": [{"key": "good"}]}`); status != 200 || !strings.Contains(fmt.Sprint(data), "code:UNAVAILABLE") {
		t.Errorf("%d %v", status, data)
	}
	w := httptest.NewRecorder()
	g.Gate.Verify().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/verify?key=good", http.NoBody))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}
