// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// foreignKey is a random key of another system's form.
func foreignKey(t testing.TB, n int) string {
	t.Helper()
	raw := make([]byte, n)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(raw)[:n]
}

// importItems sends items and returns their results.
func (m *testMount) importItems(items ...map[string]any) []map[string]any {
	m.t.Helper()
	data, err := json.Marshal(items)
	if err != nil {
		m.t.Fatal(err)
	}
	var out []map[string]any
	for _, r := range m.write("import", map[string]any{"batch": string(data)})["results"].([]any) {
		out = append(out, r.(map[string]any))
	}
	return out
}

func sha(key string) string {
	sum := keyformat.Sum(key)
	return hex.EncodeToString(sum[:])
}

func TestImportByValue(t *testing.T) {
	m := newMount(t)
	key := foreignKey(t, 40)
	m.expectVerdict(key, "MALFORMED")
	item := map[string]any{"role": "customer", "key": key, "scopes": []string{"orders:read"}, "owner": "team-a", "metadata": map[string]any{"plan": "gold"}}
	got := m.importItems(item)[0]
	if got["result"] != "imported" || number(t, got["version"]) != 1 {
		t.Fatal(got)
	}
	verdict := m.write("verify", map[string]any{"key": key})
	if verdict["code"] != "VALID" || verdict["role"] != "customer" || verdict["metadata"].(map[string]string)["plan"] != "gold" {
		t.Fatal(verdict)
	}
	if m.read("creds/customer")["api_key"] != key {
		t.Fatal("creds hands out something else")
	}
	if got := m.importItems(item)[0]["result"]; got != "already_imported" {
		t.Fatal(got)
	}
	if p := number(t, m.read("roles/customer")["rotation_period"]); p != 0 {
		t.Fatalf("an imported role rotates by itself, every %d s", p)
	}
	// The next version, with a grace for this one.
	next := foreignKey(t, 32)
	got = m.importItems(map[string]any{"role": "customer", "key": next, "grace_period": "1h", "expires_at": m.clock.Now().Add(48 * time.Hour).Format(time.RFC3339)})[0]
	if got["result"] != "imported" || number(t, got["version"]) != 2 {
		t.Fatal(got)
	}
	m.expectVerdict(key, "VALID")
	m.clock.advance(time.Hour)
	m.expectVerdict(key, "RETIRED")
	m.expectVerdict(next, "VALID")
	m.clock.advance(47 * time.Hour)
	m.expectVerdict(next, "EXPIRED")
}

func TestImportByDigest(t *testing.T) {
	m := newMount(t)
	key := foreignKey(t, 24)
	if got := m.importItems(map[string]any{"role": "r", "sha256": strings.ToUpper(sha(key))})[0]; got["result"] != "imported" {
		t.Fatal(got)
	}
	m.expectVerdict(key, "VALID")
	m.refused(logical.ReadOperation, "creds/r", nil, "imported by digest")
	// By value it is the same key, and changes nothing.
	if got := m.importItems(map[string]any{"role": "r", "key": key})[0]["result"]; got != "already_imported" {
		t.Fatal(got)
	}
	if got := m.importItems(map[string]any{"role": "other", "key": key})[0]; got["result"] != "refused" {
		t.Fatal(got)
	}
	m.write("rotate/r", nil)
	m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
	m.expectVerdict(key, "VALID")
}

func TestImportOfOwnKeysFromAnotherMount(t *testing.T) {
	from, to := newMount(t), newMount(t)
	from.write("roles/r", nil)
	for range 2 {
		from.clock.advance(time.Minute)
		from.write("rotate/r", nil)
	}
	old := from.read("creds/r")
	got := to.importItems(map[string]any{"role": "r", "key": old["api_key"], "version": old["version"]})[0]
	if got["result"] != "imported" || got["key_id"] != old["key_id"] || number(t, got["version"]) != 3 {
		t.Fatal(got)
	}
	to.expectVerdict(old["api_key"], "VALID")
	if v := number(t, to.write("rotate/r", nil)["version"]); v != 4 {
		t.Fatalf("the version after it is %d", v)
	}

	third := newMount(t)
	got = third.importItems(map[string]any{"role": "r", "sha256": sha(old["api_key"].(string)), "key_id": old["key_id"]})[0]
	if got["result"] != "imported" {
		t.Fatal(got)
	}
	third.expectVerdict(old["api_key"], "VALID")
}

func TestImportSurvivesANewDigestSecret(t *testing.T) {
	m := newMount(t)
	a, b := foreignKey(t, 20), foreignKey(t, 20)
	m.importItems(map[string]any{"role": "a", "key": a})
	m.write("config/rotate-digest", nil)
	m.importItems(map[string]any{"role": "b", "key": b})
	m = m.restart()
	m.expectVerdict(a, "VALID")
	m.expectVerdict(b, "VALID")
	m.expectVerdict(foreignKey(t, 20), "NOT_FOUND")
	if got := m.importItems(map[string]any{"role": "c", "key": a})[0]["result"]; got != "refused" {
		t.Fatalf("one key in two roles: %v", got)
	}
	m.expectReport(a, "acted")
	m.expectVerdict(a, "REVOKED")
}

func TestImportRefusals(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.write("roles/s", map[string]any{"owner": "team-a"})
	key := foreignKey(t, 30)
	for _, c := range []struct {
		item map[string]any
		want string
	}{
		{map[string]any{"role": "Bad", "key": key}, "role: must be"},
		{map[string]any{"role": "r"}, "exactly one of key and sha256"},
		{map[string]any{"role": "r", "key": key, "sha256": sha(key)}, "exactly one"},
		{map[string]any{"role": "r", "sha256": "abc"}, "sha256"},
		{map[string]any{"role": "r", "key": "short"}, "less than 16"},
		{map[string]any{"role": "r", "key": strings.Repeat("ü", 20)}, "printable"},
		{map[string]any{"role": "r", "key": key, "colour": "red"}, "unknown field"},
		{map[string]any{"role": "d", "key": key}, "dynamic"},
		{map[string]any{"role": "s", "key": key, "owner": "team-b"}, "owner: the role exists"},
		{map[string]any{"role": "s", "key": key, "version": 1}, "version: 1"},
		{map[string]any{"role": "r", "key": key, "expires_at": "2020-01-01T00:00:00Z"}, "is over"},
		{map[string]any{"role": "r", "key": key, "grace_period": "later"}, "grace_period"},
	} {
		got := m.importItems(c.item, map[string]any{"role": "good", "sha256": sha("another " + foreignKey(t, 20))})
		text, _ := got[0]["error"].(string)
		if got[0]["result"] != "refused" || !strings.Contains(text, c.want) {
			t.Errorf("%v: %v, want %q", c.item["role"], got[0], c.want)
		}
		if strings.Contains(text, key) {
			t.Error("the refusal shows the key")
		}
		if got[1]["result"] != "imported" && got[1]["error"] != nil && !strings.Contains(got[1]["error"].(string), "10 of 10") {
			t.Errorf("one bad item harmed another: %v", got[1])
		}
	}
	m.expectVerdict(key, "NOT_FOUND")
}

// TestImportItemsAreReadStrictly: what an item says by accident is refused, in
// words that name the field, and nothing is made of it.
func TestImportItemsAreReadStrictly(t *testing.T) {
	m := newMount(t)
	m.write("roles/there", map[string]any{"rotation_period": "1h"})
	key := foreignKey(t, 30)
	item := func(rest string) string { return `{"role":"r","key":"` + key + `"` + rest + `}` }
	far := m.clock.Now().AddDate(100, 0, 1).Format(time.RFC3339)
	for _, c := range []struct{ item, want string }{
		{item(`,"colour":"red"`), "colour: unknown field"},
		{item(`,"scope":["a"]`), "scope: unknown field: did you mean scopes?"},
		{item(`,"ſcopes":["a"]`), "field: unknown field"},
		{item(`,"Owner":"x"`), "Owner: unknown field"},
		{item(`,"type":"static"`), "type: unknown field"},
		{item(`,"owner":"x","owner":"y"`), "owner: an item has this name twice"},
		{item(`,"metadata":{"a":"1","a":"2"}`), "batch: an item has a name twice"},
		{item(`,"role":"other"`), "role: an item has this name twice"},
		{item(`,"scopes":true`), `scopes: true: is not a list`},
		{item(`,"scopes":[7,{}]`), `scopes: [7,{}]: has an element that is not a text`},
		{item(`,"scopes":"a:"`), `scopes: "a:": must be segments`},
		{item(`,"owner":true`), "owner: true: is not a text"},
		{item(`,"metadata":"x"`), `metadata: "x": is not name=value`},
		{item(`,"version":"two"`), "version: \"two\": is not a whole number"},
		{item(`,"version":1.5`), "version: 1.5: is not a whole number"},
		{item(`,"version":0`), "version: 0: is not a version"},
		{item(`,"version":-1`), "version: -1: is not a version"},
		{item(`,"version":2147483648`), "version: 2147483648: is not a version"},
		{item(`,"version":""`), "version: is empty"},
		{item(`,"expires_at":""`), "expires_at: is empty"},
		{item(`,"expires_at":"0001-01-01T00:00:00Z"`), "expires_at: \"0001-01-01T00:00:00Z\": is no time that can come"},
		{item(`,"expires_at":"tomorrow"`), "expires_at: \"tomorrow\": is not a time"},
		{item(`,"expires_at":"24h"`), "expires_at: \"24h\": is not a time"},
		{item(`,"expires_at":1800000000`), "expires_at: 1800000000: is not the text of a time"},
		{item(`,"expires_at":"2027-01-01"`), "is not a time"},
		{item(`,"expires_at":"2020-01-01T00:00:00Z"`), "expires_at: \"2020-01-01T00:00:00Z\": is over"},
		{item(`,"expires_at":"` + stamp(m.clock.Now()) + `"`), "is over"},
		{item(`,"expires_at":"` + far + `"`), "expires_at: \"" + far + "\": is more than 100 years ahead"},
		{item(`,"expires_at":"9999-12-31T23:59:59Z"`), "is more than 100 years ahead"},
		{item(`,"grace_period":"900ms"`), "grace_period: \"900ms\": is not a whole number of seconds"},
		{item(`,"grace_period":""`), "grace_period: is empty"},
		{item(`,"grace_period":"401d"`), "grace_period"},
		{`{"role":"there","key":"` + key + `","grace_period":"10h"}`, "grace_period: 36000: is more than 9h (32400 seconds), nine times"},
		{item(`,"rotation_period":""`), "rotation_period: is empty"},
		{item(`,"disabled":""`), "disabled: is empty"},
		{item(`,"allowed_cidrs":""`), "allowed_cidrs: is empty"},
		{`{"role":"","key":"` + key + `"}`, "role: is empty"},
		{`{"role":null,"key":"` + key + `"}`, "role: must be 1 to 128"},
		{`{"role":"r","key":""}`, "key: is empty"},
		{`{"role":"r","key":null}`, "exactly one of key and sha256"},
		{`{"role":"r","key":["` + key + `"]}`, "key: is not a text"},
		{`{"role":"r","sha256":""}`, "sha256: is empty"},
		{`{"role":"r","sha256":"` + key + `"}`, "sha256: is not the hex form"},
		{`{"role":"r","key":"` + key + `","key_id":"abcdefghijkl"}`, "key_id: goes with sha256"},
		{`{"role":"r","sha256":"` + sha(key) + `","key_id":""}`, "key_id: is empty"},
		{`{"role":"r","sha256":"` + sha(key) + `","key_id":"` + key + `"}`, "key_id: is not the id"},
		{`7`, "batch: an item is not a JSON object"},
		{`"` + key + `"`, "batch: an item is not a JSON object"},
		{`{"role":"r"`, "batch: an item is not a JSON object"},
	} {
		before := dump(t, m.storage)
		result := m.write("import", map[string]any{"batch": c.item + "\n"})["results"].([]any)[0].(map[string]any)
		text, _ := result["error"].(string)
		if result["result"] != "refused" || !strings.Contains(text, c.want) {
			t.Errorf("%s: %v, want %q", strings.ReplaceAll(c.item, key, "KEY"), result, c.want)
		}
		if strings.Contains(text, key) {
			t.Errorf("%s: the refusal shows the key", c.want)
		}
		delete(before, prefixesPath)
		after := dump(t, m.storage)
		delete(after, prefixesPath)
		if !maps.Equal(before, after) {
			t.Errorf("%s: something was written", c.want)
		}
	}
	m.expectVerdict(key, "MALFORMED")
}

// TestImportTakesNullForAbsent: a null says nothing, above all nothing about rotation.
func TestImportTakesNullForAbsent(t *testing.T) {
	m := newMount(t)
	for i, rest := range []string{
		`,"rotation_period":null,"version":null,"expires_at":null,"grace_period":null,"sha256":null,"key_id":null,"owner":null`,
		`,"rotation_schedule":""`,
		``,
	} {
		role := fmt.Sprint("r", i)
		got := m.write("import", map[string]any{"batch": `{"role":"` + role + `","key":"` + foreignKey(t, 30) + `"` + rest + `}`})["results"].([]any)[0].(map[string]any)
		if got["result"] != "imported" {
			t.Fatal(got)
		}
		if p := number(t, m.read("roles/" + role)["rotation_period"]); p != 0 {
			t.Errorf("%s: the role rotates every %d seconds", rest, p)
		}
	}
	last := `{"role":"asked","key":"` + foreignKey(t, 30) + `","rotation_period":"30d","version":2147483647,"expires_at":"` + m.clock.Now().AddDate(100, 0, 0).Format(time.RFC3339) + `"}`
	if got := m.write("import", map[string]any{"batch": last})["results"].([]any)[0].(map[string]any); got["result"] != "imported" || number(t, got["version"]) != 2147483647 {
		t.Error(got)
	}
	if p := number(t, m.read("roles/asked")["rotation_period"]); p != 30*24*3600 {
		t.Errorf("the role rotates every %d seconds", p)
	}
}

func TestWeakImports(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"allow_weak_imports": true})
	weak := foreignKey(t, 8)
	m.expectVerdict(weak, "MALFORMED")
	if got := m.importItems(map[string]any{"role": "r", "key": weak})[0]; got["result"] != "imported" {
		t.Fatal(got)
	}
	m.expectVerdict(weak, "VALID")
}

// What came of a batch stands in one line, for people.
func TestImportTellsInOneLine(t *testing.T) {
	good := `{"role":"a","key":"sk-0123456789-from-elsewhere"}` + "\n"
	short := `{"role":"b","key":"short"}` + "\n"
	const why = "key: has less than 16 characters and can be guessed: rotate it where it is used; or set allow_weak_imports in the mount's config, knowingly"
	for batch, want := range map[string]string{
		good:                       "1 imported, 0 already imported, 0 refused",
		good + good + short + good: "1 imported, 2 already imported, 1 refused: item 3: " + why,
		strings.Repeat(short, 5):   "0 imported, 0 already imported, 5 refused: item 1: " + why + "; item 2: " + why + "; item 3: " + why + "; and 2 more",
	} {
		if got := newMount(t).write("import", map[string]any{"batch": batch})["summary"]; got != want {
			t.Errorf("the summary is %q, want %q", got, want)
		}
	}
}
