// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestVerifyBatchItems(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"scopes": "orders:read", "allowed_cidrs": "10.0.0.0/8"})
	m.write("roles/s", nil)
	r, s := m.read("creds/r"), m.read("creds/s")
	type item struct{ text, code, fault string }
	quoted := func(v any) string { return fmt.Sprintf("%q", v) }
	rKey, sKey := quoted(r["api_key"]), quoted(s["api_key"])
	items := []item{
		{`{"key":` + sKey + `}`, "VALID", ""},
		{`{"key": ` + rKey + ` , "remote_addr" : "10.1.1.1","scopes":["orders:read"]}`, "VALID", ""},
		{`{"key":` + rKey + `,"remote_addr":"10.1.1.1","scopes":["orders:read","orders:write"]}`, "INSUFFICIENT_SCOPE", ""},
		{`{"key":` + rKey + `,"scopes":["orders:read"]}`, "FORBIDDEN_IP", ""},
		{`{"key":` + rKey + `,"scopes":[]}`, "MALFORMED", "scopes: is empty"},
		{`{"key":` + rKey + `,"scopes":""}`, "MALFORMED", "scopes: is empty"},
		{`{"key":` + quoted(unknownKey(t)) + `}`, "NOT_FOUND", ""},
		{`{"key":"short"}`, "MALFORMED", ""},
		{`{"key_id":` + quoted(r["key_id"]) + `,"role_id":` + quoted(m.read("status/r")["role_id"]) + `}`, "STATE", ""},
		{`{"key":` + sKey + `,"client":"gateway \u0041"}`, "VALID", ""},
		{`{"key":null}`, "MALFORMED", "is missing"},
		{`{}`, "MALFORMED", "is missing"},
		{`null`, "MALFORMED", "not a JSON object"},
		{`{"key":17}`, "MALFORMED", ""},
		{`{"key":true}`, "MALFORMED", "key: is not a text"},
		{`{"key":[` + sKey + `]}`, "MALFORMED", "key: is not a text"},
		{`{"key":` + rKey + `,"remote_addr":"10.1.1.1","scopes":"orders:read,orders:write"}`, "INSUFFICIENT_SCOPE", ""},
		{`{"key":` + sKey + `,"other":1}`, "MALFORMED", "other: unknown field"},
		{`{"KEY":` + sKey + `}`, "MALFORMED", "KEY: unknown field"},
		{`{"key":` + sKey + `,"` + "ſcopes" + `":["x"]}`, "MALFORMED", "unknown field"},
		{`{"key":"short","key":` + sKey + `}`, "MALFORMED", "name twice"},
		{`{"key_id":` + sKey + `,"role_id":"x"}`, "MALFORMED", "is a whole key"},
		{`{"key":` + sKey + `,"client":"` + strings.Repeat("c", 65) + `"}`, "VALID", ""},
		{`"` + strings.Trim(sKey, `"`) + `"`, "MALFORMED", "not a JSON object"},
		{`{"key":` + sKey + `}`, "VALID", ""},
	}
	broken := []item{
		{`{"key":` + sKey, "MALFORMED", "not a JSON object"},
		{`{"key":` + sKey + `}}`, "MALFORMED", "not a JSON object"},
		{`{"key":` + sKey + `} {"key":` + sKey + `}`, "MALFORMED", "not a JSON object"},
		{strings.Trim(sKey, `"`), "MALFORMED", "not a JSON object"},
	}
	join := func(items []item, sep string) string {
		var texts []string
		for _, i := range items {
			texts = append(texts, i.text)
		}
		return strings.Join(texts, sep)
	}
	lines := append(append([]item{}, items...), broken...)
	for name, c := range map[string]struct {
		text string
		want []item
	}{
		"array":            {"[" + join(items, ",") + "]", items},
		"array with space": {" [ " + join(items, " ,\n ") + " ]\n", items},
		"lines":            {join(lines, "\n"), lines},
		"lines with CR":    {"\r\n" + join(lines, "\r\n\r\n") + "\r\n", lines},
	} {
		got := m.write("verify", map[string]any{"batch": c.text})
		expectFields(t, got, []string{"results"})
		results := got["results"].([]any)
		if len(results) != len(c.want) {
			t.Fatalf("%s: %d results for %d items", name, len(results), len(c.want))
		}
		for i, want := range c.want {
			res := results[i].(map[string]any)
			fault, _ := res["error"].(string)
			if res["code"] != want.code || res["valid"] != (want.code == "VALID") || (want.fault == "") != (fault == "") || !strings.Contains(fault, want.fault) {
				t.Errorf("%s, item %d (%s): %v", name, i, want.code, res)
			}
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{rKey, sKey} {
			if strings.Contains(string(text), strings.Trim(key, `"`)) {
				t.Errorf("%s: the answer shows a key", name)
			}
		}
	}
}

// What the quick reader takes, the thorough one reads the same.
func FuzzPlainObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"key":"a"}`, `{"key":"a","scopes":["x","y"]}`, `{"key":"a","key":"b"}`, `{"KEY":"a"}`, `{"key":"\u0041"}`, ` { "client" : "c" } `,
		`{"key":"a",}`, `{,}`, `{"scopes":[,]}`, `{"scopes":["a",]}`, `{"scopes":[]}`, `[]`, `{"key":"a"}x`, "{\"key\":\"\x7f\"}", `{"key":"é"}`, `{"a":{"b":1}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quick, plain := plainObject(text)
		if !plain {
			return
		}
		thorough, err := decodeObject(text)
		if err != nil {
			t.Fatalf("took %q, which is refused: %v", text, err)
		}
		if !reflect.DeepEqual(quick, thorough) {
			t.Fatalf("read %v, want %v", quick, thorough)
		}
	})
}
