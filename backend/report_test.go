// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func (m *testMount) expectReport(key any, want string) {
	m.t.Helper()
	if got := m.write("report", map[string]any{"key": key})["result"]; got != want {
		m.t.Fatalf("report says %v, want %s", got, want)
	}
}

func TestReportRevokesAndReplaces(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	m.expectReport(key, "acted")
	m.expectVerdict(key, "REVOKED")
	m.expectStates("r", "revoked current")
	m.expectReport(key, "recorded")
	m.expectStates("r", "revoked current")
	m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
}

func TestReportActsOnTheVersionPresented(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": "12h"})
	first := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	m.expectReport(first, "acted")
	m.expectStates("r", "revoked current")

	m.write("rotate/r", map[string]any{"stage": true})
	m.expectReport(m.read("creds/r/pending")["api_key"], "acted")
	m.expectStates("r", "revoked current revoked")
}

func TestReportRotatesOncePerKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "30m", "grace_period": "12h", "max_grace_period": "48h"})
	key := m.read("creds/r")["api_key"]
	m.expectReport(key, "acted")
	m.expectStates("r", "previous current")
	for range 3 {
		m.clock.advance(2 * time.Minute)
		m.expectReport(key, "recorded")
	}
	m.expectStates("r", "previous current")
	// Nothing prolongs it.
	m.refused(logical.UpdateOperation, "rollback/r", nil, "reported as leaked")
	m.run(23 * time.Minute)
	m.expectVerdict(key, "VALID")
	m.clock.advance(time.Minute)
	m.expectVerdict(key, "RETIRED")
	m.expectStates("r", "retired current")
}

func TestReportAlertOnlyRecords(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"on_leak": "alert", "grace_period": "1h"})
	key := m.read("creds/r")["api_key"]
	m.expectReport(key, "recorded")
	m.expectVerdict(key, "VALID")
	m.write("rotate/r", nil)
	m.refused(logical.UpdateOperation, "rollback/r", nil, "reported as leaked")
	// A stricter policy later acts on the next report.
	m.write("roles/r", map[string]any{"on_leak": "revoke"})
	m.expectReport(key, "acted")
	m.expectVerdict(key, "REVOKED")
}

func TestReportOfDynamicKeysSparesTheirSiblings(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "2h"})
	a, b := m.lease("d", nil).Data["api_key"], m.lease("d", nil).Data["api_key"]
	m.expectReport(a, "acted")
	m.expectVerdict(a, "REVOKED")
	m.expectVerdict(b, "VALID")
	m.write("roles/d", map[string]any{"on_leak": "rotate", "leak_grace_period": "10m"})
	m.expectReport(b, "acted")
	m.expectReport(b, "recorded")
	m.expectVerdict(b, "VALID")
	m.clock.advance(10 * time.Minute)
	m.expectVerdict(b, "RETIRED")
	m.expectStates("d", "current")
}

func TestReportForms(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.write("roles/s", nil)
	a, b := m.read("creds/r")["api_key"].(string), m.read("creds/s")["api_key"].(string)
	got := m.write("report", map[string]any{"matches": []any{
		map[string]any{"token": a, "type": "acme_key", "url": "https://user:pw@git.example/x?token=1#L2", "source": "content"},
		map[string]any{"token": "nothing we know of at all", "type": "acme_key", "url": "", "source": ""},
	}})
	if got := got["results"].([]string); got[0] != "acted" || got[1] != "unknown" {
		t.Fatal(got)
	}
	line, err := json.Marshal(map[string]any{"token": b, "type": "t", "url": "https://h.example/" + b, "source": "commit"})
	if err != nil {
		t.Fatal(err)
	}
	m.write("report", map[string]any{"batch": string(line)})
	text, err := json.Marshal([]any{m.read("history/r"), m.read("history/s")})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{a, b, "user:pw", "token=1"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the history holds %q", secret)
		}
	}
	if !strings.Contains(string(text), "https://git.example/x") {
		t.Errorf("the history does not say where the key was found: %s", text)
	}
	m.refused(logical.UpdateOperation, "report", nil, "exactly one of key, matches and batch")
}

func TestReportFloodIsDeferred(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 2})
	keys := []any{}
	for _, r := range []string{"a", "b", "c"} {
		m.write("roles/"+r, nil)
		keys = append(keys, m.read("creds/" + r)["api_key"])
	}
	m.expectReport(keys[0], "acted")
	m.expectReport(keys[1], "acted")
	m.expectReport(keys[2], "deferred")
	m.expectReport(keys[2], "deferred")
	m.expectVerdict(keys[2], "VALID")
	got := m.must(logical.ListOperation, "report/deferred/", nil)
	ids := got["keys"].([]string)
	if len(ids) != 1 || got["key_info"].(map[string]any)[ids[0]].(map[string]any)["role"] != "c" {
		t.Fatal(got)
	}
	released := m.write("report/release", map[string]any{"key_ids": ids[0], "reason": "looked at it"})
	if released["results"].(map[string]any)[ids[0]] != "acted" {
		t.Fatal(released)
	}
	m.expectVerdict(keys[2], "REVOKED")
	if text := fmt.Sprint(m.read("history/c")); !strings.Contains(text, "looked at it") {
		t.Fatal("the history does not say why it was released")
	}
	if got := m.must(logical.ListOperation, "report/deferred/", nil); got["keys"] != nil {
		t.Fatal("a released report still waits")
	}

	m.write("roles/d", nil)
	last := m.read("creds/d")["api_key"]
	m.clock.advance(leakWindow)
	m.expectReport(last, "acted")
}
