// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// percent is a text with every byte percent-encoded.
func percent(text string) string {
	var out strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&out, "%%%02X", text[i])
	}
	return out.String()
}

// spellings are texts that hold a key, as people and scanners send them.
var spellings = map[string]func(key string) string{
	"alone":           func(key string) string { return key },
	"a line":          func(key string) string { return key + "\n" },
	"quoted":          func(key string) string { return `"` + key + `",` },
	"scheme":          func(key string) string { return "Bearer " + key },
	"assigned":        func(key string) string { return "export API_KEY='" + key + "'\r\n" },
	"percent-encoded": percent,
}

// embedded are texts in which only keys of this engine's form are found.
var embedded = map[string]func(key string) string{
	"file": func(key string) string { return "# settings\nurl=https://x.example\nkey=" + key + "\nuser=me\n" },
	"query": func(key string) string {
		return "https://x.example/?key=" + strings.ReplaceAll(key, "_", "%5F") + "&x=1"
	},
	"JSON":         func(key string) string { return `{"a":"b\n` + strings.ReplaceAll(key, "_", `\u005f`) + `"}` },
	"glued":        func(key string) string { return "xx" + key + "yy" },
	"double":       func(key string) string { return percent(percent(key)) },
	"with another": func(key string) string { return "wrong " + key[:len(key)-1] + "- right " + key },
}

// keysOfAllKinds are the keys of roles s, f and d.
func (m *testMount) keysOfAllKinds() map[string]string {
	m.t.Helper()
	m.write("roles/s", nil)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h"})
	foreign := foreignKey(m.t, 40)
	if got := m.importItems(map[string]any{"role": "f", "key": foreign})[0]; got["result"] != importDone {
		m.t.Fatal(got)
	}
	return map[string]string{
		"s": m.read("creds/s")["api_key"].(string), "f": foreign, "d": m.lease("d", nil).Data["api_key"].(string),
	}
}

// TestPastedKeys: a key is found as it was pasted, at every entrance that closes or
// asks; verify takes it exactly as it is.
func TestPastedKeys(t *testing.T) {
	t.Parallel()
	entrances := map[string]func(m *testMount, role, text, id string){
		"report": func(m *testMount, _, text, id string) {
			got := m.write("report", map[string]any{"key": text})
			found := got["found"].([]any)
			if got["result"] != leakActed || len(found) != 1 || found[0].(map[string]any)["key_id"] != id || found[0].(map[string]any)["result"] != leakActed {
				m.t.Fatal(got)
			}
		},
		"matches": func(m *testMount, _, text, id string) {
			got := m.write("report", map[string]any{"matches": []any{map[string]any{"token": "nothing of ours"}, map[string]any{"token": text, "score": 3}}})
			found := got["found"].([]any)
			if fmt.Sprint(got["results"]) != "[unknown acted]" || len(found) != 1 || found[0].(map[string]any)["key_id"] != id || found[0].(map[string]any)["item"] != 2 {
				m.t.Fatal(got)
			}
		},
		"batch": func(m *testMount, _, text, _ string) {
			got := m.write("report", map[string]any{"batch": jsonText(m.t, map[string]any{"key": text, "more": []any{1}})})
			if fmt.Sprint(got["results"]) != "[acted]" {
				m.t.Fatal(got)
			}
		},
		"revoke": func(m *testMount, role, text, id string) {
			resp, err := m.do(logical.UpdateOperation, "revoke/"+role, map[string]any{"key_id": text})
			if err != nil || fmt.Sprint(resp.Data["revoked_key_ids"]) != "["+id+"]" || !strings.Contains(fmt.Sprint(resp.Warnings), "may have been logged") {
				m.t.Fatal(resp, err)
			}
		},
		"lookup": func(m *testMount, role, text, id string) {
			if got := m.write("lookup", map[string]any{"key": text}); got["role"] != role || got["key_id"] != id {
				m.t.Fatal(got)
			}
		},
	}
	for entrance, ask := range entrances {
		for _, role := range []string{"s", "f", "d"} {
			texts := map[string]func(string) string{}
			for name, spell := range spellings {
				texts[name] = spell
			}
			if role != "f" {
				for name, spell := range embedded {
					texts[name] = spell
				}
			}
			for name, spell := range texts {
				t.Run(strings.Join([]string{entrance, role, name}, "/"), func(t *testing.T) {
					t.Parallel()
					m := newMount(t)
					keys := m.keysOfAllKinds()
					text := spell(keys[role])
					if text != keys[role] {
						if got := m.verdict(text); got == "VALID" {
							t.Fatal("verify takes a key with something around it")
						}
					}
					ask(m, role, text, m.keyIDOf(keys[role]))
					for other, key := range keys {
						want := "VALID"
						if other == role && entrance != "lookup" {
							want = "REVOKED"
						}
						if got := m.verdict(key); got != want {
							t.Errorf("the key of %s is %s, want %s", other, got, want)
						}
					}
				})
			}
		}
	}
}

// TestReportOfATextWithManyKeys acts on each.
func TestReportOfATextWithManyKeys(t *testing.T) {
	m := newMount(t)
	keys := m.keysOfAllKinds()
	m.write("roles/e", nil)
	ended := m.read("creds/e")["api_key"].(string)
	m.write("revoke/e", map[string]any{"version": 1})
	text := strings.Join([]string{unknownKey(t), percent(keys["s"]), ended, keys["d"], keys["s"]}, "\n")
	got := m.write("report", map[string]any{"key": text})
	var results []string
	for _, found := range got["found"].([]any) {
		results = append(results, found.(map[string]any)["result"].(string))
	}
	if got["result"] != leakActed || !slices.Equal(results, []string{leakUnknown, leakActed, leakRecorded, leakActed}) {
		t.Fatal(got)
	}
	for role, key := range keys {
		want := "REVOKED"
		if role == "f" { // another form, and not named
			want = "VALID"
		}
		m.expectVerdict(key, want)
	}
	m.expectReport(unknownKey(t)+" "+ended, leakRecorded)
	m.expectReport("nothing that is a key", leakUnknown)
}

// TestResultsOfATextByPrecedence: one word stands for all keys of a text.
func TestResultsOfATextByPrecedence(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 1})
	var keys []string
	for _, role := range []string{"a", "b"} {
		m.write("roles/"+role, nil)
		keys = append(keys, m.read("creds/" + role)["api_key"].(string))
	}
	got := m.write("report", map[string]any{"key": strings.Join(keys, " ")})
	if got["result"] != leakDeferred || fmt.Sprint(got["found"]) != fmt.Sprintf("[map[key_id:%s result:acted] map[key_id:%s result:deferred]]", m.idOf(keys[0]), m.idOf(keys[1])) {
		t.Fatal(got)
	}
	m.expectVerdict(keys[0], "REVOKED")
	m.expectVerdict(keys[1], "VALID")
}

// TestReportOfTooManyKeys acts on the first hundred, and says so.
func TestReportOfTooManyKeys(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 1000})
	m.write("roles/d", map[string]any{"type": "dynamic"})
	var keys []string
	for range maxPasted + 2 {
		keys = append(keys, m.lease("d", nil).Data["api_key"].(string))
	}
	text := strings.Join(keys, "\n")
	resp, err := m.do(logical.UpdateOperation, "report", map[string]any{"key": text})
	if err != nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "more than 100 keys") || len(resp.Data["found"].([]any)) != maxPasted {
		t.Fatal(resp.Warnings, err)
	}
	for i, key := range keys {
		want := "REVOKED"
		if i >= maxPasted {
			want = "VALID"
		}
		m.expectVerdict(key, want)
	}
	m.refused(logical.UpdateOperation, "lookup", map[string]any{"key": text}, "more than one key: "+m.idOf(keys[0])+", ", " and others")
}

// TestSeveralKeysWhereOneIsMeant change nothing, and are told by their ids.
func TestSeveralKeysWhereOneIsMeant(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.write("roles/s", nil)
	a, b := m.lease("d", nil).Data["api_key"].(string), m.read("creds/s")["api_key"].(string)
	for _, text := range []string{a + "\n" + b, percent(a) + " " + b} {
		for path, field := range map[string]string{"lookup": "key", "revoke/d": "key_id", "revoke/s": "key_id"} {
			m.unchanged(func() {
				resp, err := m.do(logical.UpdateOperation, path, map[string]any{field: text})
				status, said := httpStatus(resp, err)
				if status != 400 || !strings.Contains(said, m.idOf(a)+", "+m.idOf(b)) || keyformat.Redact(said) != said {
					t.Errorf("%s: %d %s", path, status, said)
				}
			})
		}
	}
	// The same key twice is one key.
	m.write("revoke/s", map[string]any{"key_id": b + " " + percent(b)})
	m.expectVerdict(b, "REVOKED")
}

// TestRevokeWhatLooksLikeAnID: forty hexadecimal digits are an id where there is
// one, and else a key that may have been imported.
func TestRevokeWhatLooksLikeAnID(t *testing.T) {
	m := newMount(t)
	keys := m.keysOfAllKinds()
	id := m.keyIDOf(keys["f"])
	if !keyformat.ValidID(id) || !keyformat.ValidID(keys["f"]) {
		t.Fatal("this tests nothing")
	}
	for _, text := range []string{foreignKey(t, 40), "not a key at all", "zzzzzzzzzzzz", strings.Repeat("x", 20)} {
		resp, err := m.do(logical.UpdateOperation, "revoke/f", map[string]any{"key_id": text})
		if status, said := httpStatus(resp, err); status != 404 || !keyformat.ValidID(text) && strings.Contains(said, text) {
			t.Errorf("%d %s", status, said)
		}
	}
	resp, err := m.do(logical.UpdateOperation, "revoke/f", map[string]any{"key_id": "  " + id + "\n", "rotate": false})
	if err != nil || len(resp.Warnings) != 0 || fmt.Sprint(resp.Data["revoked_key_ids"]) != "["+id+"]" {
		t.Fatal(resp, err)
	}
	m.expectVerdict(keys["f"], "REVOKED")
}

// TestReplayByKeyAndID: the id and the whole key are the same request, and of the
// key nothing is kept, not even a sum that guesses could be held against.
func TestReplayByKeyAndID(t *testing.T) {
	m := newMount(t)
	for role, key := range m.keysOfAllKinds() {
		data := map[string]any{"key_id": key, "request_id": "pipeline-" + role, "reason": "seen"}
		m.write("revoke/"+role, data)
		for _, text := range []string{m.keyIDOf(key), `"` + key + `"`} {
			data["key_id"] = text
			if again := m.write("revoke/"+role, data); again["replayed"] != true {
				t.Errorf("%s: %v", role, again)
			}
		}
		data["reason"] = "other"
		m.refused(logical.UpdateOperation, "revoke/"+role, data, "with other parameters")
	}
}

// TestRevocationOfADynamicKeyObeysCAS changes nothing where the current version is
// another than expected.
func TestRevocationOfADynamicKeyObeysCAS(t *testing.T) {
	m := newMount(t)
	keys := m.keysOfAllKinds()
	id := m.keyIDOf(keys["d"])
	m.unchanged(func() {
		m.refused(logical.UpdateOperation, "revoke/d", map[string]any{"key_id": id, "cas": 7}, "the current version is 1")
	})
	m.write("revoke/d", map[string]any{"key_id": id, "cas": 1})
	m.expectVerdict(keys["d"], "REVOKED")
}

// TestBadItemsOfAReport: they are unknown, a warning says why, and the others are
// acted on.
func TestBadItemsOfAReport(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		item any
		want string // of the warning; empty: the item is good
	}{
		"text":             {"a text", "not an object"},
		"number":           {3, "not an object"},
		"null":             {nil, "not an object"},
		"array":            {[]any{}, "not an object"},
		"nothing":          {map[string]any{}, "exactly one of key and token"},
		"no key":           {map[string]any{"url": "https://x.example"}, "exactly one of key and token"},
		"null key":         {map[string]any{"token": nil}, "exactly one of key and token"},
		"both":             {map[string]any{"token": "$KEY", "key": "$KEY"}, "exactly one of key and token"},
		"empty":            {map[string]any{"token": ""}, "token: is empty"},
		"boolean":          {map[string]any{"token": true}, "token: is not a text"},
		"list":             {map[string]any{"key": []any{"$KEY"}}, "key: is not a text"},
		"other case":       {map[string]any{"Token": "$KEY"}, "exactly one of key and token"},
		"unknown members":  {map[string]any{"token": "$KEY", "score": 1, "deep": map[string]any{"a": []any{}}}, ""},
		"null elsewhere":   {map[string]any{"token": "$KEY", "url": nil, "type": nil}, ""},
		"empty elsewhere":  {map[string]any{"token": "$KEY", "url": "", "source": " "}, ""},
		"wrong elsewhere":  {map[string]any{"token": "$KEY", "url": []any{"x"}, "source": map[string]any{}, "type": true}, "url: was left out"},
		"number elsewhere": {map[string]any{"token": "$KEY", "type": 3}, ""},
		"long elsewhere":   {map[string]any{"token": "$KEY", "type": strings.Repeat("x", 1000)}, "type: control characters"},
		"control":          {map[string]any{"token": "$KEY", "source": "a\x00b"}, "source: control characters"},
	} {
		for _, form := range []string{"matches", "batch"} {
			t.Run(name+"/"+form, func(t *testing.T) {
				t.Parallel()
				m := newMount(t)
				m.write("roles/a", nil)
				m.write("roles/b", nil)
				a, b := m.read("creds/a")["api_key"].(string), m.read("creds/b")["api_key"].(string)
				items := []any{c.item, map[string]any{"token": b}}
				text := strings.ReplaceAll(jsonText(t, items), "$KEY", a)
				var data map[string]any
				if form == "batch" {
					data = map[string]any{"batch": text}
				} else {
					var list []any
					if err := decodeJSON(text, &list); err != nil {
						t.Fatal(err)
					}
					data = map[string]any{"matches": list}
				}
				resp, err := m.do(logical.UpdateOperation, "report", data)
				if err != nil {
					t.Fatal(err)
				}
				good := c.want == "" || strings.Contains(name, "elsewhere") || name == "control"
				want, verdict := []string{leakUnknown, leakActed}, "VALID"
				if good {
					want, verdict = []string{leakActed, leakActed}, "REVOKED"
				}
				if got := resp.Data["results"].([]string); !slices.Equal(got, want) {
					t.Errorf("%v", got)
				}
				m.expectVerdict(a, verdict)
				m.expectVerdict(b, "REVOKED")
				said := strings.Join(resp.Warnings, "\n")
				if c.want == "" && said != "" || !strings.Contains(said, c.want) || c.want != "" && !strings.HasPrefix(said, "item 1: ") {
					t.Errorf("warned of %q", said)
				}
				if keyformat.Redact(said) != said {
					t.Error("a warning holds a key")
				}
			})
		}
	}
}

// TestBadBatches: lines that are no objects, and batches that are none.
func TestBadBatches(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"].(string)
	lines := strings.Join([]string{`{"token":`, `not JSON`, `{"token":"x","token":"y"}`, jsonText(t, map[string]any{"token": key})}, "\n")
	resp, err := m.do(logical.UpdateOperation, "report", map[string]any{"batch": lines})
	if err != nil || fmt.Sprint(resp.Data["results"]) != "[unknown unknown unknown acted]" || len(resp.Warnings) != 3 || !strings.HasPrefix(resp.Warnings[2], "item 3: ") {
		t.Fatal(resp, err)
	}
	m.write("roles/a", nil)
	key = m.read("creds/a")["api_key"].(string)
	for _, data := range []map[string]any{
		{},
		{"key": nil},
		{"key": ""},
		{"key": key, "batch": "{}"},
		{"key": key, "matches": []any{map[string]any{"token": key}}},
		{"batch": "  "},
		{"batch": `[{"token":"` + key},
		{"matches": []any{}},
		{"matches": key},
		{"matches": ""},
		{"matches": 3},
		{"key": key, "other": 1},
		{"key": []any{key}},
		{"key": true},
	} {
		m.unchanged(func() {
			resp, err := m.do(logical.UpdateOperation, "report", data)
			if status, said := httpStatus(resp, err); status != 400 || keyformat.Redact(said) != said {
				t.Errorf("%v: %d %s", sortedKeys(data), status, said)
			}
		})
	}
	m.expectVerdict(key, "VALID")
}

// TestWhereIsIgnoredBesideItems, with a warning.
func TestWhereIsIgnoredBesideItems(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	resp, err := m.do(logical.UpdateOperation, "report", map[string]any{"matches": []any{map[string]any{"token": key}}, "source": "github"})
	if err != nil || len(resp.Warnings) != 1 || !strings.HasPrefix(resp.Warnings[0], "source: is ignored") {
		t.Fatal(resp, err)
	}
	m.expectVerdict(key, "REVOKED")
}

// holds says where in the storage a key stands, in whatever spelling, but for the
// plaintexts.
func (m *testMount) holds(key string) (paths []string) {
	m.t.Helper()
	for path, value := range dump(m.t, m.storage) {
		if !strings.HasPrefix(path, secretPrefix) && keyformat.Scrub(value, key) != value {
			paths = append(paths, path)
		}
	}
	return paths
}

// TestNothingOfAReportIsKept: what was reported is cut out of everything that came
// with it, whichever key of the request it is.
func TestNothingOfAReportIsKept(t *testing.T) {
	t.Parallel()
	for name, spell := range map[string]func(string) string{
		"plain": func(k string) string { return k }, "encoded": percent, "half encoded": func(k string) string { return percent(k[:4]) + k[4:] },
		"twice": func(k string) string { return percent(percent(k)) }, "escaped": func(k string) string { return strings.ReplaceAll(k, k[2:3], fmt.Sprintf(`\u%04x`, k[2])) },
		"spaced": func(k string) string { return strings.Join(strings.Split(k, ""), "\x00") },
		"cut":    func(k string) string { return strings.Repeat("x", maxSeenURL-40) + k },
	} {
		for _, shown := range []string{"s", "f", "d"} {
			for _, deferred := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " ", shown, " ", deferred), func(t *testing.T) {
					t.Parallel()
					m := newMount(t)
					keys := m.keysOfAllKinds()
					m.reportShowing(keys, spell(keys[shown]), deferred)
					for role, key := range keys {
						m.expectVerdict(key, "REVOKED")
						if paths := m.holds(key); len(paths) > 0 {
							t.Errorf("the key of %s is kept in %v", role, paths)
						}
					}
					history := fmt.Sprint(m.read("history/s"), m.read("history/f"), m.read("history/d"))
					for _, key := range keys {
						if strings.Contains(history, key[:20]) {
							t.Error("a part of a key is left over")
						}
					}
					if !strings.Contains(history, "git.example") && name != "spaced" {
						t.Errorf("nobody is told where: %s", history)
					}
				})
			}
		}
	}
}

// reportShowing reports the keys, with a text about where that was.
func (m *testMount) reportShowing(keys map[string]string, text string, deferred bool) {
	m.t.Helper()
	if deferred {
		m.write("config", map[string]any{"max_leak_actions": 0})
	}
	var items []any
	for _, role := range sortedKeys(keys) {
		items = append(items, map[string]any{
			"token": keys[role], "source": "in " + text, "type": text + " it is", "url": "https://git.example/" + text + "/x?" + text,
		})
	}
	want := leakActed
	if deferred {
		want = leakDeferred
	}
	got := m.write("report", map[string]any{"batch": jsonText(m.t, items)})["results"].([]string)
	if !slices.Equal(got, []string{want, want, want}) {
		m.t.Fatal(got)
	}
	if !deferred {
		return
	}
	var ids []string
	for role, key := range keys {
		ids = append(ids, m.keyIDOf(key))
		if paths := m.holds(key); len(paths) > 0 {
			m.t.Errorf("the key of %s waits in %v", role, paths)
		}
	}
	m.write("report/release", map[string]any{"key_ids": ids, "reason": "it was " + percent(keys["s"]) + keys["d"]})
}

// TestNothingOfARevocationIsKept: the key that was given, in its reason.
func TestNothingOfARevocationIsKept(t *testing.T) {
	for name, spell := range map[string]func(string) string{
		"plain": func(k string) string { return k }, "encoded": percent, "cut": func(k string) string { return strings.Repeat("x", maxReason-30) + k },
	} {
		m := newMount(t)
		for role, key := range m.keysOfAllKinds() {
			m.write("revoke/"+role, map[string]any{"key_id": key, "reason": "found " + spell(key)})
			m.expectVerdict(key, "REVOKED")
			if paths := m.holds(key); len(paths) > 0 {
				t.Errorf("%s: the key of %s is kept in %v", name, role, paths)
			}
			if history := fmt.Sprint(m.read("history/" + role)); !strings.Contains(history, "found") || strings.Contains(history, key[:20]) {
				t.Errorf("%s: %s", name, history)
			}
		}
	}
}

// TestNoReasonKeepsAKey, whatever it is the reason of.
func TestNoReasonKeepsAKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	for _, step := range []struct {
		path string
		data map[string]any
	}{{"rotate/r", map[string]any{"stage": true}}, {"promote/r", map[string]any{}}, {"rollback/r", map[string]any{}}, {"revoke/r", map[string]any{"version": 1}}} {
		step.data["reason"] = "because of " + percent(key)
		m.write(step.path, step.data)
	}
	if paths := m.holds(key); len(paths) > 0 {
		t.Errorf("the key is kept in %v", paths)
	}
	if history := fmt.Sprint(m.read("history/r")); !strings.Contains(history, "because of [key ") {
		t.Error(history)
	}
}

func TestURLsAreKeptWithoutWhatMayBeSecret(t *testing.T) {
	key := unknownKey(t)
	id := keyformat.Redact(key)
	foreign := "foreign-secret-0001"
	for text, want := range map[string]string{
		"":                                        "",
		"https://git.example/a/b":                 "https://git.example/a/b",
		"https://git.example/a%20b/%2Fc":          "https://git.example/a%20b/%2Fc",
		"https://u:p@git.example:8443/a?b=c#d":    "https://git.example:8443/a",
		"https://git.example/?":                   "https://git.example/",
		"https://git.example/" + key:              "https://git.example/" + id,
		"https://git.example/" + percent(key):     "https://git.example/" + id,
		"https://" + key + ".example/x":           "https://" + id + ".example/x",
		"https://git.example/a b/" + foreign:      "https://git.example/a b/[key]",
		"https://git.example/" + percent(foreign): "https://git.example/[key]",
		"mailto:" + key:                           "(a URL that does not parse)",
		"git.example/" + key:                      "(a URL that does not parse)",
		"https://git.example/\x00":                "(a URL that does not parse)",
		"//git.example/" + url.PathEscape(key):    "//git.example/" + id,
	} {
		if got, _ := (&sighting{url: text}).where([]string{foreign}); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// failing is a storage whose writes of some records fail.
type failing struct {
	logical.Storage
	bad func(key string) bool
}

func (s *failing) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.bad != nil && s.bad(e.Key) {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

// TestOneFailingKeyStopsNoOther: neither in a text, nor among items, nor among
// those that are released; the error comes after.
func TestOneFailingKeyStopsNoOther(t *testing.T) {
	t.Parallel()
	ids := func(m *testMount, keys []string) (all []string) {
		for _, key := range keys {
			all = append(all, m.idOf(key))
		}
		return all
	}
	for name, send := range map[string]func(m *testMount, keys []string) (string, map[string]any){
		"text": func(_ *testMount, keys []string) (string, map[string]any) {
			return "report", map[string]any{"key": strings.Join(keys, " ")}
		},
		"matches": func(_ *testMount, keys []string) (string, map[string]any) {
			var items []any
			for _, key := range keys {
				items = append(items, map[string]any{"token": key})
			}
			return "report", map[string]any{"matches": items}
		},
		"release": func(m *testMount, keys []string) (string, map[string]any) {
			m.write("config", map[string]any{"max_leak_actions": 0})
			m.write("report", map[string]any{"key": strings.Join(keys, " ")})
			return "report/release", map[string]any{"key_ids": ids(m, keys)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &failing{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			var keys []string
			for _, role := range []string{"a", "b", "c"} {
				m.write("roles/"+role, nil)
				keys = append(keys, m.read("creds/" + role)["api_key"].(string))
			}
			path, data := send(m, keys)
			s.bad = func(key string) bool { return key == rolePath("a") }
			resp, err := m.do(logical.UpdateOperation, path, data)
			status, said := httpStatus(resp, err)
			if status != 500 || !strings.Contains(said, m.idOf(keys[0])) || keyformat.Redact(said) != said {
				t.Fatalf("%d %s", status, said)
			}
			m.expectVerdict(keys[0], "VALID")
			m.expectVerdict(keys[1], "REVOKED")
			m.expectVerdict(keys[2], "REVOKED")
			s.bad = nil
			m.write(path, data)
			m.expectVerdict(keys[0], "REVOKED")
			if got := m.under(deferredPrefix); len(got) != 0 {
				t.Errorf("%v still wait", got)
			}
		})
	}
}

// TestReleaseOfWhatIsNoID acts on the others.
func TestReleaseOfWhatIsNoID(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 0})
	keys := m.keysOfAllKinds()
	for _, key := range keys {
		m.expectReport(key, leakDeferred)
	}
	resp, err := m.do(logical.UpdateOperation, "report/release", map[string]any{
		"key_ids": []any{"not an id", m.keyIDOf(keys["f"]), keys["s"], "abcdefghijkl", percent(keys["d"])}, "reason": []any{"x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{m.keyIDOf(keys["f"]): leakActed, m.idOf(keys["s"]): leakActed, m.idOf(keys["d"]): leakActed, "abcdefghijkl": leakUnknown}
	if fmt.Sprint(resp.Data["results"]) != fmt.Sprint(want) {
		t.Errorf("%v", resp.Data)
	}
	said := strings.Join(resp.Warnings, "\n")
	for _, part := range []string{"number 1 is not the id", "number 3 is a whole key", "number 5 is a whole key", "reason: was left out"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not said: %s", part, said)
		}
	}
	for role, key := range keys {
		m.expectVerdict(key, "REVOKED")
		if strings.Contains(said, key) {
			t.Errorf("the key of %s is shown", role)
		}
	}
	for _, data := range []map[string]any{{}, {"key_ids": ""}, {"key_ids": []any{}}, {"key_ids": nil}, {"key_ids": strings.Repeat("a,", 1000) + "a"}} {
		m.refused(logical.UpdateOperation, "report/release", data, "key_ids")
	}
}

// TestTheFirstDeferredReportWaits.
func TestTheFirstDeferredReportWaits(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 0})
	for role, key := range m.keysOfAllKinds() {
		for _, source := range []string{"first", "second"} {
			m.write("report", map[string]any{"key": key, "source": source})
		}
		rec, err := getRecord[deferredLeak](context.Background(), m.storage, deferredPrefix+m.keyIDOf(key))
		if err != nil || rec == nil || rec.Seen != "first" || rec.Role != role {
			t.Errorf("%+v %v", rec, err)
		}
	}
}
