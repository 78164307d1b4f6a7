// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Every field of every path is given every odd value, and the table says what
// comes of it: a field that is added has to be given a row, and nobody can make a
// path read a value by rules of its own without this test noticing.

// oddValues are what a field is given, in the order of the letters of a row.
var oddValues = []struct {
	name  string
	value any
}{
	{"absent", nil},
	{"null", nil},
	{"empty", ""},
	{"blank", " \t"},
	{"fraction", json.Number("1.5")},
	{"boolean", true},
	{"octal", "010"},
	{"negative", json.Number("-1")},
	{"huge", json.Number("1e300")},
	{"list with a gap", []any{"a", ""}},
	{"object", map[string]any{"a": []any{true}}},
}

// What comes of it.
const (
	outcomeTaken   = 't' // the request is answered
	outcomeRefused = 'R' // a 400 that names the field, and nothing changed
	outcomeOther   = 'o' // a 400 about something else, and nothing changed
	outcomeAbsent  = '4' // a 404
)

// tableWorld is a mount on which every path can be asked for something.
func tableWorld(t testing.TB) (m *testMount, ids map[string]string) {
	m = newMount(t)
	ids = map[string]string{}
	m.write("roles/s", map[string]any{"scopes": "orders:read", "owner": "team", "metadata": map[string]any{"env": "prod"}})
	m.write("rotate/s", nil)
	m.write("roles/p", nil)
	m.write("rotate/p", map[string]any{"stage": true})
	m.write("roles/d", map[string]any{"type": "dynamic", "scopes": "orders:*"})
	m.write("roles/gone", nil)
	ids["role_id"] = m.must(logical.DeleteOperation, "roles/gone", nil)["role_id"].(string)
	creds := m.read("creds/s")
	ids["key"], ids["key_id"] = creds["api_key"].(string), creds["key_id"].(string)
	ids["own_role_id"] = m.roleID("s")
	m.write("events/e", map[string]any{"url": "https://hooks.example.com/e"})
	ids["job"] = m.write("bulk", map[string]any{"action": "disable", "owner": "nobody", "dry_run": false})["job"].(string)
	return m, ids
}

// tableBases are the operations, with what makes a good request of each where
// nothing but the field under test is added. A base may depend on that field.
func tableBases() map[string]func(ids map[string]string, field string) (logical.Operation, string, map[string]any) {
	type request = func(ids map[string]string, field string) (logical.Operation, string, map[string]any)
	plain := func(op logical.Operation, path string, data map[string]any) request {
		return func(map[string]string, string) (logical.Operation, string, map[string]any) {
			return op, path, maps.Clone(data)
		}
	}
	const update = logical.UpdateOperation
	return map[string]request{
		"create roles":          plain(logical.CreateOperation, "roles/new", nil),
		"update roles":          plain(update, "roles/s", nil),
		"patch roles":           plain(logical.PatchOperation, "roles/s", nil),
		"read roles":            plain(logical.ReadOperation, "roles/s", nil),
		"delete roles":          plain(logical.DeleteOperation, "roles/s", nil),
		"list roles":            plain(logical.ListOperation, "roles/", nil),
		"update config":         plain(update, "config", nil),
		"patch config":          plain(logical.PatchOperation, "config", nil),
		"read config":           plain(logical.ReadOperation, "config", nil),
		"read changes":          plain(logical.ReadOperation, "changes", nil),
		"update changes":        plain(update, "changes", nil),
		"update rotate-digest":  plain(update, "config/rotate-digest", nil),
		"update rotate":         plain(update, "rotate/s", nil),
		"update promote":        plain(update, "promote/p", nil),
		"update rollback":       plain(update, "rollback/s", nil),
		"update grace":          plain(update, "grace/s", map[string]any{"valid_until": "2h"}),
		"read creds static":     plain(logical.ReadOperation, "creds/s", nil),
		"read creds":            plain(logical.ReadOperation, "creds/d", nil),
		"update creds":          plain(update, "creds/d", nil),
		"read creds other":      plain(logical.ReadOperation, "creds/s/previous", nil),
		"read status":           plain(logical.ReadOperation, "status/s", nil),
		"read history":          plain(logical.ReadOperation, "history/s", nil),
		"list history":          plain(logical.ListOperation, "history/s/", nil),
		"list versions":         plain(logical.ListOperation, "versions/s/", nil),
		"read metrics":          plain(logical.ReadOperation, "metrics", nil),
		"list problems":         plain(logical.ListOperation, "problems/", nil),
		"list keys":             plain(logical.ListOperation, "keys/d/", nil),
		"list inventory":        plain(logical.ListOperation, "inventory/", nil),
		"read calendar":         plain(logical.ReadOperation, "calendar", nil),
		"list calendar":         plain(logical.ListOperation, "calendar/", nil),
		"create events":         plain(logical.CreateOperation, "events/new", map[string]any{"url": "https://hooks.example.com/e"}),
		"update events":         plain(update, "events/e", nil),
		"patch events":          plain(logical.PatchOperation, "events/e", nil),
		"read events":           plain(logical.ReadOperation, "events/e", nil),
		"delete events":         plain(logical.DeleteOperation, "events/e", nil),
		"list events":           plain(logical.ListOperation, "events/", nil),
		"read events status":    plain(logical.ReadOperation, "events/e/status", nil),
		"update events test":    plain(update, "events/e/test", nil),
		"update events secret":  plain(update, "events/e/rotate-secret", nil),
		"update tidy":           plain(update, "tidy", nil),
		"list restore":          plain(logical.ListOperation, "restore/", nil),
		"read key-format":       plain(logical.ReadOperation, "key-format", nil),
		"list report/deferred":  plain(logical.ListOperation, "report/deferred/", nil),
		"list bulk":             plain(logical.ListOperation, "bulk/", nil),
		"update report/release": plain(update, "report/release", map[string]any{"key_ids": "abcdefghijkl"}),
		"update import":         plain(update, "import", map[string]any{"batch": `{"role":"i","key":"sk-0123456789-from-elsewhere"}`}),
		"update usage": func(ids map[string]string, _ string) (logical.Operation, string, map[string]any) {
			return update, "usage", map[string]any{"instance": "a", "sequence": 1, "batch": `{"key_id":"` + ids["key_id"] + `","accepted":0,"last":1}`}
		},
		"update usage role": func(ids map[string]string, _ string) (logical.Operation, string, map[string]any) {
			return update, "usage/s", map[string]any{"instance": "a", "sequence": 1, "batch": `{"key_id":"` + ids["key_id"] + `","accepted":0,"last":1}`}
		},
		"update restore": func(ids map[string]string, _ string) (logical.Operation, string, map[string]any) {
			return update, "restore/" + ids["role_id"], nil
		},
		"read bulk": func(ids map[string]string, _ string) (logical.Operation, string, map[string]any) {
			return logical.ReadOperation, "bulk/" + ids["job"], nil
		},
		"delete bulk": func(ids map[string]string, _ string) (logical.Operation, string, map[string]any) {
			return logical.DeleteOperation, "bulk/" + ids["job"], nil
		},
		"update revoke": func(_ map[string]string, field string) (logical.Operation, string, map[string]any) {
			if field == "version" || field == "key_id" || field == "all" {
				return update, "revoke/s", map[string]any{}
			}
			return update, "revoke/s", map[string]any{"version": 1}
		},
		"update lookup": func(ids map[string]string, field string) (logical.Operation, string, map[string]any) {
			if field == "key_id" || field == "key" {
				return update, "lookup", map[string]any{}
			}
			return update, "lookup", map[string]any{"key_id": ids["key_id"]}
		},
		"update verify": func(ids map[string]string, field string) (logical.Operation, string, map[string]any) {
			switch field {
			case "key", "batch":
				return update, "verify", map[string]any{}
			case "key_id":
				return update, "verify", map[string]any{"role_id": ids["own_role_id"]}
			case "role_id":
				return update, "verify", map[string]any{"key_id": ids["key_id"]}
			}
			return update, "verify", map[string]any{"key": ids["key"]}
		},
		"update verify role": func(ids map[string]string, field string) (logical.Operation, string, map[string]any) {
			switch field {
			case "key", "batch":
				return update, "verify/s", map[string]any{}
			case "key_id":
				return update, "verify/s", map[string]any{"role_id": ids["own_role_id"]}
			case "role_id":
				return update, "verify/s", map[string]any{"key_id": ids["key_id"]}
			}
			return update, "verify/s", map[string]any{"key": ids["key"]}
		},
		"update report": func(_ map[string]string, field string) (logical.Operation, string, map[string]any) {
			if field == "key" || field == "matches" || field == "batch" {
				return update, "report", map[string]any{}
			}
			return update, "report", map[string]any{"key": "a text that is no key of this mount"}
		},
		"update bulk": func(_ map[string]string, field string) (logical.Operation, string, map[string]any) {
			base := map[string]any{"action": "revoke", "name_prefix": "s"}
			switch field {
			case "grace_period":
				base["action"] = "rotate"
			case "issued_to":
				base["name_prefix"] = "d"
			case "action":
				delete(base, "action")
			case "name_prefix", "owner", "metadata", "scope", "roles":
				delete(base, "name_prefix")
			}
			return update, "bulk", base
		},
	}
}

// outcomeOf asks, and says what came of it. What is refused must change nothing.
func outcomeOf(t *testing.T, base func(map[string]string, string) (logical.Operation, string, map[string]any), field string, odd int) byte {
	t.Helper()
	m, ids := tableWorld(t)
	op, path, data := base(ids, field)
	if data == nil {
		data = map[string]any{}
	}
	if odd > 0 {
		data[field] = oddValues[odd].value
	} else {
		delete(data, field)
	}
	before := dump(t, m.storage)
	resp, err := m.do(op, path, data)
	status, text := httpStatus(resp, err)
	switch {
	case status == 200 || status == 204, err == nil && resp == nil && op != logical.ReadOperation:
		return outcomeTaken
	case status == 404:
		return outcomeAbsent
	case status != 400:
		t.Errorf("%s %s, %s %s: status %d (%s)", op, path, field, oddValues[odd].name, status, text)
		return '?'
	}
	if !maps.Equal(before, dump(t, m.storage)) {
		t.Errorf("%s %s, %s %s: refused, and yet something changed", op, path, field, oddValues[odd].name)
	}
	if strings.HasPrefix(text, field+": ") || strings.HasPrefix(text, field+" ") {
		return outcomeRefused
	}
	return outcomeOther
}

// TestEveryFieldByEveryOddValue is the table.
func TestEveryFieldByEveryOddValue(t *testing.T) {
	bases := tableBases()
	asked := map[string]bool{} // operation and pattern
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(bases)) {
		m, ids := tableWorld(t)
		op, path, _ := bases[name](ids, "")
		spec := m.specOf(path)
		if spec == nil {
			t.Errorf("%s: %s has no declaration", name, path)
			continue
		}
		asked[string(op)+" "+spec.pattern] = true
		fields := spec.inBody
		if !hasBody(op) {
			fields = spec.inQuery
		}
		for _, field := range sortedKeys(fields) {
			row := make([]byte, len(oddValues))
			for odd := range oddValues {
				row[odd] = outcomeOf(t, bases[name], field, odd)
			}
			lines = append(lines, fmt.Sprintf("%-22s %-26s %s", name, field, row))
		}
		// What the path does not know is refused, whatever it is.
		for _, unknown := range []string{"unknown_field", "Name", "ſcopes", ids["key"]} {
			resp, err := m.do(op, path, map[string]any{unknown: "x"})
			status, text := httpStatus(resp, err)
			if status != 400 || strings.Contains(text, ids["key"]) {
				t.Errorf("%s: an unknown field is answered with %d (%s)", name, status, text)
			}
		}
	}
	m, _ := tableWorld(t)
	for _, spec := range m.specs {
		for op := range spec.ops {
			if !asked[string(op)+" "+spec.pattern] {
				t.Errorf("%s %s is not in the table", op, spec.pattern)
			}
		}
	}
	got := strings.Join(lines, "\n") + "\n"
	want, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	if text := withoutComments(string(want)); text != got {
		reportLines(t, text, got)
	}
}

// withoutComments drops the lines that explain the file.
func withoutComments(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func reportLines(t *testing.T, want, got string) {
	t.Helper()
	inWant, inGot := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, line := range inGot {
		if !slices.Contains(inWant, line) {
			t.Errorf("is:     %s", line)
		}
	}
	for _, line := range inWant {
		if !slices.Contains(inGot, line) {
			t.Errorf("was to be: %s", line)
		}
	}
}
