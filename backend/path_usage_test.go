// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// reportUse reports accepted uses of a key, as an instance of a cache does.
func (m *testMount) reportUse(sequence int, keyID any, accepted int) map[string]any {
	m.t.Helper()
	now := m.clock.Now().Format(time.RFC3339)
	return m.write("usage", map[string]any{
		"instance": "edge-1", "sequence": sequence,
		"batch": fmt.Sprintf(`{"key_id":%q,"accepted":%d,"refused":{"RATE_LIMITED":2},"first":%q,"last":%q,"client":"pod-1"}`, keyID, accepted, now, now),
	})
}

func reportedIn(t *testing.T, m *testMount, role string) string {
	t.Helper()
	return usageLine(usageIn(t, m, role, 1)["reported"].(map[string]any))
}

func TestReportedUsageIsApart(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	creds := m.read("creds/r")
	m.ask(creds["api_key"])
	got := m.reportUse(1, creds["key_id"], 40)
	if got["applied"] != true || number(t, got["sequence"]) != 1 {
		t.Fatal(got)
	}
	for _, m := range []*testMount{m, m.afterCleanup()} {
		if got := usageLine(usageIn(t, m, "r", 1)); got != "1" {
			t.Errorf("seen: %s", got)
		}
		if got := reportedIn(t, m, "r"); got != "40 RATE_LIMITED=2 [pod-1 40 RATE_LIMITED=2]" {
			t.Errorf("reported: %s", got)
		}
	}
}

func (m *testMount) afterCleanup() *testMount {
	m.t.Helper()
	m.Cleanup(m.t.Context())
	return m.restart()
}

// A report counts once, as long as the node lives.
func TestRepeatedReports(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	id := m.read("creds/r")["key_id"]
	m.reportUse(3, id, 10)
	for _, sequence := range []int{3, 2, 1} {
		got := m.reportUse(sequence, id, 10)
		if got["applied"] != false || number(t, got["sequence"]) != 3 || len(got["results"].([]any)) != 0 {
			t.Errorf("repeat %d: %v", sequence, got)
		}
	}
	m.reportUse(4, id, 1)
	want := "11 RATE_LIMITED=4 [pod-1 11 RATE_LIMITED=4]"
	if got := reportedIn(t, m, "r"); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	// Another caller's, and another instance's, sequences are their own.
	m.request.EntityID = "entity-2"
	m.reportUse(1, id, 1)
	m.write("usage", map[string]any{"instance": "edge-2", "sequence": 1, "batch": fmt.Sprintf(`{"key_id":%q,"accepted":1,"last":%d}`, id, m.clock.Now().Unix())})
	if got := reportedIn(t, m, "r"); got != "13 RATE_LIMITED=6 [pod-1 12 RATE_LIMITED=6]" {
		t.Errorf("others: %s", got)
	}
}

// What was reported is kept in memory, beside what was counted: after a restart a
// repeat counts again, and what an instance reports next counts as ever.
func TestRepeatedReportsAfterARestart(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	id := m.read("creds/r")["key_id"]
	m.reportUse(4, id, 10)
	m = m.afterCleanup()
	for _, sequence := range []int{4, 4, 5} {
		m.reportUse(sequence, id, 10)
	}
	if got, want := reportedIn(t, m, "r"), "30 RATE_LIMITED=6 [pod-1 30 RATE_LIMITED=6]"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	if left := m.under(reportersPath); len(left) != 0 {
		t.Errorf("stored: %v", left)
	}
}

// One caller with many instances forgets its own sequences and no other's.
func TestReportersOfOneCaller(t *testing.T) {
	m := newMount(t)
	report := func(instance string) bool {
		return m.write("usage", map[string]any{"instance": instance, "sequence": 1, "batch": "{}"})["applied"].(bool)
	}
	report("mine")
	me := m.request.EntityID
	m.request.EntityID = "entity-2"
	for i := range usage.MaxInstances + 1 {
		report(fmt.Sprint("flood-", i))
	}
	if !report("flood-0") {
		t.Error("the caller's instances are not bounded")
	}
	m.request.EntityID = me
	if report("mine") {
		t.Error("another caller's instances pushed out this one's")
	}
}

func TestRefusedReportItems(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.write("roles/gone", nil)
	goneID := m.read("creds/gone")["key_id"]
	m.must(logical.DeleteOperation, "roles/gone", nil)
	made := m.clock.Now()
	m.clock.advance(time.Hour)
	now := m.clock.Now()
	creds := m.read("creds/r")
	id := creds["key_id"]
	item := func(more string) string {
		return fmt.Sprintf(`{"key_id":%q,"first":%d,"last":%d%s}`, id, now.Add(-time.Minute).Unix(), now.Unix(), more)
	}
	times := func(first, last time.Time) string {
		return fmt.Sprintf(`{"key_id":%q,"accepted":1,"first":%q,"last":%q}`, id, first.Format(time.RFC3339), last.Format(time.RFC3339))
	}
	for name, c := range map[string]struct{ item, fault string }{
		"good":                   {item(`,"accepted":1`), ""},
		"at the bound":           {item(`,"accepted":1000000000`), ""},
		"right role id":          {item(`,"accepted":1,"role_id":"` + m.roleID("r") + `"`), ""},
		"negative":               {item(`,"accepted":-1`), "accepted"},
		"absurd":                 {item(`,"accepted":1000000001`), "accepted"},
		"negative refusals":      {item(`,"refused":{"REVOKED":-1}`), "refused"},
		"absurd refusals":        {item(`,"refused":{"REVOKED":1000000001}`), "refused"},
		"unknown code":           {item(`,"refused":{"NOT_FOUND":1}`), "refused"},
		"a fraction":             {item(`,"accepted":1.5`), "not a whole number"},
		"other role id":          {item(`,"accepted":1,"role_id":"x"`), "not known"},
		"unknown key":            {`{"key_id":"abcdefghijkl","accepted":1,"last":1}`, "not known"},
		"a key":                  {fmt.Sprintf(`{"key_id":%q,"accepted":1,"last":1}`, creds["api_key"]), "not known"},
		"deleted role":           {fmt.Sprintf(`{"key_id":%q,"accepted":1,"last":%d}`, goneID, now.Unix()), "not known"},
		"a label that is cut":    {item(`,"accepted":1,"client":"` + strings.Repeat("ü", 65) + `"`), ""},
		"a label that is none":   {item(`,"accepted":1,"client":true`), ""},
		"a name twice":           {item(`,"accepted":1,"accepted":2`), "name twice"},
		"a name in capitals":     {item(`,"Accepted":1`), "unknown field"},
		"beyond two to the 53":   {item(`,"accepted":9007199254740993`), "beyond 2^53"},
		"a label at the bound":   {item(`,"accepted":1,"client":"` + strings.Repeat("ü", 64) + `"`), ""},
		"no refusals":            {item(`,"accepted":0,"refused":{"REVOKED":0}`), ""},
		"no time":                {fmt.Sprintf(`{"key_id":%q,"accepted":1}`, id), "last"},
		"backwards":              {times(now, now.Add(-time.Second)), "before first"},
		"slightly in the future": {times(now, now.Add(10*time.Minute)), ""},
		"in the future":          {times(now, now.Add(10*time.Minute+time.Second)), "in the future"},
		"slightly too early":     {times(made.Add(-10*time.Minute), now), ""},
		"too early":              {times(made.Add(-10*time.Minute-time.Second), now), "before the key was made"},
		"no JSON":                {`{"key_id":` + creds["api_key"].(string), "not a JSON object"},
		"another field":          {item(`,"accepted":1,"valid":true`), "valid: unknown field"},
	} {
		got := m.write("usage", map[string]any{
			"instance": strings.ReplaceAll(name, " ", "-"), "sequence": 1, "batch": item(`,"accepted":0`) + "\n" + c.item,
		})
		results := got["results"].([]any)
		if results[0].(map[string]any)["ok"] != true {
			t.Errorf("%s: its neighbour failed too: %v", name, results)
		}
		res := results[1].(map[string]any)
		fault, _ := res["error"].(string)
		if (c.fault == "") != (res["ok"] == true) || !strings.Contains(fault, c.fault) {
			t.Errorf("%s: %v", name, res)
		}
		if text, err := json.Marshal(got); err != nil || strings.Contains(string(text), creds["api_key"].(string)) {
			t.Errorf("%s: the answer shows the key", name)
		}
	}
	use := usageIn(t, m, "r", 1)["reported"].(map[string]any)
	if use["accepted"] != int64(1000000007) || len(use["refused"].(map[string]any)) != 0 {
		t.Errorf("counted %s", usageLine(use))
	}
	// What clocks that differ explain is cut off.
	expectAnswer(t, use, map[string]any{"first_use": stamp(made), "last_use": stamp(now)})
}

func TestRefusedReports(t *testing.T) {
	m := newMount(t)
	for name, data := range map[string]map[string]any{
		"no instance":   {"sequence": 1, "batch": "{}"},
		"odd instance":  {"instance": "a b", "sequence": 1, "batch": "{}"},
		"no sequence":   {"instance": "a", "batch": "{}"},
		"sequence zero": {"instance": "a", "sequence": 0, "batch": "{}"},
		"huge sequence": {"instance": "a", "sequence": usage.MaxSequence + 1, "batch": "{}"},
		"no batch":      {"instance": "a", "sequence": 1},
		"too many":      {"instance": "a", "sequence": 1, "batch": strings.Repeat("{}\n", 1001)},
	} {
		resp, err := m.do(logical.UpdateOperation, "usage", data)
		if status, text := httpStatus(resp, err); status != 400 {
			t.Errorf("%s: status %d (%s)", name, status, text)
		}
	}
	for _, sequence := range []int{1, usage.MaxSequence} {
		if got := m.write("usage", map[string]any{"instance": "a", "sequence": sequence, "batch": "{}"}); got["applied"] != true {
			t.Errorf("refused reports used up the sequence: %v", got)
		}
	}
}

// usage/<role> knows the keys of that role only, whatever the role was called before.
func TestUsageOfOneRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.write("roles/other", nil)
	mine, others := m.read("creds/r")["key_id"], m.read("creds/other")["key_id"]
	now := m.clock.Now().Unix()
	sequence := 0
	report := func(role string, wantMine bool) {
		t.Helper()
		sequence++
		got := m.write("usage/"+role, map[string]any{
			"instance": "edge-1", "sequence": sequence,
			"batch": fmt.Sprintf("{\"key_id\":%q,\"accepted\":2,\"last\":%d}\n{\"key_id\":%q,\"accepted\":3,\"last\":%d}", mine, now, others, now),
		})["results"].([]any)
		if got[0].(map[string]any)["ok"] != wantMine || got[1].(map[string]any)["ok"] == true {
			t.Errorf("usage/%s: %v", role, got)
		}
		if fault := fmt.Sprint(got[1].(map[string]any)["error"]); !strings.Contains(fault, "not known") || strings.Contains(fault, "other") {
			t.Errorf("usage/%s tells of another role's key: %s", role, fault)
		}
	}
	report("r", true)
	report("absent", false)
	if got := reportedIn(t, m, "r"); got != "2" {
		t.Errorf("counted %s", got)
	}
	if got := reportedIn(t, m, "other"); got != "0" {
		t.Errorf("counted of another role: %s", got)
	}
	// The sequence is the instance's, whichever path it comes by.
	if got := m.reportUse(sequence, mine, 1); got["applied"] != false {
		t.Errorf("a repeat by the other path: %v", got)
	}
}
