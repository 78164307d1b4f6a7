// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestCandidates(t *testing.T) {
	const key = "sk-live/9f8a+7b6c=="
	own := mint(t, "ak").Reveal()
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" ", nil},
		{key, []string{key}},
		{"x", []string{"x"}},
		{" " + key, []string{key}},
		{"\ufeff" + key + "\r\n", []string{key}},
		{"\u00a0" + key + "\u200b\x00", []string{key}},
		{`"` + key + `"`, []string{`"` + key + `"`, key}},
		{"'" + key + "'\n", []string{"'" + key + "'", key}},
		{"`" + key + "`", []string{"`" + key + "`", key}},
		{"“" + key + "”", []string{key}},
		{"„" + key + "“", []string{key}},
		{"« " + key + " »", []string{key}},
		{`\"` + key + `\"`, []string{`\"` + key + `\"`, key}},
		{`"a\b\"`, []string{`"a\b\"`, `a\b\`}},
		{`"` + key, []string{`"` + key, key}},
		{key + `"`, []string{key + `"`, key}},
		{key + `\"`, []string{key + `\"`, key}},
		{`"a"b"`, []string{`"a"b"`, `a"b`}},
		{`"`, []string{`"`}},
		{`""`, []string{`""`}},
		{`"",`, []string{`"",`, `""`}},
		{key + ";", []string{key + ";", key}},
		{"Bearer " + key, []string{"Bearer " + key, key}},
		{"bearer\t" + key, []string{key}},
		{"ApiKey " + key, []string{"ApiKey " + key, key}},
		{"TOKEN:" + key, []string{"TOKEN:" + key, key}},
		{"Key: " + key, []string{"Key: " + key, key}},
		{"Api-Key  " + key, []string{"Api-Key  " + key, key}},
		{"Basic dXNlcg==", []string{"Basic dXNlcg=="}},
		{"Bearer", []string{"Bearer"}},
		{"Bearer ", []string{"Bearer"}},
		{"Bearer:", []string{"Bearer:"}},
		{"keyless", []string{"keyless"}},
		{"API_KEY=" + key, []string{"API_KEY=" + key, key}},
		{"API_KEY = " + key, []string{"API_KEY = " + key, key}},
		{"api-key: " + key, []string{"api-key: " + key, key}},
		{"export API_KEY='" + key + "'", []string{"export API_KEY='" + key + "'", "'" + key + "'", key}},
		{`$env:API_KEY = "` + key + `"`, []string{`$env:API_KEY = "` + key + `"`, `"` + key + `"`, key}},
		{"set API_KEY=" + key, []string{"set API_KEY=" + key, key}},
		{"const key := `" + key + "`;", []string{"const key := `" + key + "`;", "const key := `" + key + "`", "`" + key + "`", key}},
		{`"api_key": "` + key + `",`, []string{`"api_key": "` + key + `",`, `"api_key": "` + key + `"`, `"` + key + `"`, key}},
		{`'key' => '` + key + `'`, []string{`'key' => '` + key + `'`, `'` + key + `'`, key}},
		{"--api-key=" + key, []string{"--api-key=" + key, key}},
		{"--api-key " + key, []string{"--api-key " + key, key}},
		{`-H "X-API-Key: ` + key + `"`, []string{`-H "X-API-Key: ` + key + `"`, `"X-API-Key: ` + key + `"`, "X-API-Key: " + key, key}},
		{`-H'X-API-Key:` + key + `'`, []string{`-H'X-API-Key:` + key + `'`, `'X-API-Key:` + key + `'`, "X-API-Key:" + key, key}},
		{"Authorization: Bearer " + key + "\r\n", []string{"Authorization: Bearer " + key, "Bearer " + key, key}},
		{"Token token=" + key, []string{"Token token=" + key, "token=" + key, key}},
		{"user:secret", []string{"user:secret", "secret"}},
		{`"c2VjcmV0=""`, []string{`"c2VjcmV0=""`, `c2VjcmV0="`, "c2VjcmV0="}},
		{"2fa=" + key, []string{"2fa=" + key}},
		{"a == b", []string{"a == b"}},
		{"https://example.com/", []string{"https://example.com/"}},
		{"-----BEGIN KEY", []string{"-----BEGIN KEY"}},
		{"- " + key, []string{"- " + key}},
		{"--a/b " + key, []string{"--a/b " + key}},
		{url.QueryEscape(key), []string{url.QueryEscape(key), key}},
		{"Bearer%20" + key, []string{"Bearer%20" + key, "Bearer " + key, key}},
		{"k=" + url.QueryEscape(key), []string{"k=" + url.QueryEscape(key), url.QueryEscape(key), "k=" + key, key}},
		{"100%", []string{"100%"}},
		{"100%2", []string{"100%2"}},
		{"100%zz", []string{"100%zz"}},
		{"schlüssel", nil},
		{"k=schlüssel", nil},
		{own, nil},
		{"Bearer " + own, []string{"Bearer " + own}},
		{strings.Repeat("a", 8192), []string{strings.Repeat("a", 8192)}},
		{strings.Repeat("a", 8193), nil},
		{"k=" + strings.Repeat("a", 8192), []string{strings.Repeat("a", 8192)}},
		// More than eight layers: what was pasted and what is inside stay.
		{`  -H "Authorization: a=b=c=d=e=f=g=h='"` + key + `"'"`, nil},
		{"a=b=c=d=e%3Df=g=h", []string{"a=b=c=d=e%3Df=g=h", "b=c=d=e%3Df=g=h", "d=e%3Df=g=h", "e%3Df=g=h", "a=b=c=d=e=f=g=h", "b=c=d=e=f=g=h", "g=h", "h"}},
	} {
		got := keyformat.Candidates(c.text)
		if c.want == nil && strings.HasPrefix(c.text, "  -H") {
			if len(got) != 8 || got[0] != strings.TrimSpace(c.text) || !slices.Contains(got, key) {
				t.Errorf("%d for ten layers: %q", len(got), got)
			}
			continue
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("of %q:\n got  %q\n want %q", c.text, got, c.want)
		}
	}
	// The number of layers is bounded, whatever they are.
	if got := keyformat.Candidates(strings.Repeat(`"`, 1<<20)); len(got) > 8 {
		t.Errorf("%d", len(got))
	}
}

// TestCandidatesProperty: in whatever a key is wrapped, it is among the
// candidates; they are distinct, and all could be keys.
func TestCandidatesProperty(t *testing.T) {
	const printable = base62 + "-_./+!#~"
	wraps := []func(string) string{
		func(s string) string { return s },
		func(s string) string { return " " + s + "\n" },
		func(s string) string { return `"` + s + `"` },
		func(s string) string { return "'" + s + "'" },
		func(s string) string { return "“" + s + "”" },
		func(s string) string { return "Bearer " + s },
		func(s string) string { return "token: " + s },
		func(s string) string { return "export API_KEY=" + s },
		func(s string) string { return "X-API-Key: " + s },
		func(s string) string { return s + "," },
	}
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		b.WriteByte(base62[rapid.IntRange(0, 61).Draw(t, "first")])
		for range rapid.IntRange(15, 60).Draw(t, "length") {
			b.WriteByte(printable[rapid.IntRange(0, len(printable)-1).Draw(t, "character")])
		}
		key := b.String() + rapid.SampledFrom([]string{"", "=", "=="}).Draw(t, "padding")
		text := key
		if rapid.Bool().Draw(t, "encoded") {
			text = url.QueryEscape(text)
		}
		for range rapid.IntRange(0, 3).Draw(t, "wraps") {
			text = rapid.SampledFrom(wraps).Draw(t, "wrap")(text)
		}
		got := keyformat.Candidates(text)
		if !slices.Contains(got, key) {
			t.Fatalf("%q is not among %q", key, got)
		}
		checkCandidates(t, text, got)
	})
}

func checkCandidates(t interface{ Fatalf(string, ...any) }, text string, got []string) {
	if len(got) > 8 {
		t.Fatalf("%d candidates", len(got))
	}
	for i, s := range got {
		form := keyformat.Classify(s)
		if weak := form == keyformat.Invalid && len(s) < keyformat.MinForeignLen && len(s) > 0; form != keyformat.Foreign && !weak {
			t.Fatalf("%q is %s", s, form)
		}
		if slices.Contains(got[:i], s) {
			t.Fatalf("%q comes twice", s)
		}
		if s == text && i > 0 {
			t.Fatalf("the exact string is number %d", i)
		}
	}
}

func TestHint(t *testing.T) {
	s := mint(t, "acme_live").Reveal()
	other := mint(t, "ak").Reveal()
	const foreign = "sk-live-9f8a7b6c5d4e"
	const (
		empty    = "the key is empty"
		several  = "this holds more than one key"
		space    = "there is white space or a line break at an end of the key"
		quotes   = "there are quotes around the key"
		name     = "there is a name in front of the key, as in API_KEY=…"
		scheme   = "there is a scheme in front of the key, as in Bearer …"
		encoded  = "the key is percent-encoded or escaped"
		checksum = "this looks like a key of this engine, but the checksum is wrong: a typing error, or a damaged copy"
		part     = "this looks like a part of a key of this engine: the end is missing"
		handle   = "this is the public name of a key, not the key"
		tooLong  = "this looks like a key of this engine, but it is too long"
		inside   = "there is white space or a line break inside the key"
		around   = "there is other text around the key"
		longer   = "this is longer than any key"
	)
	typo := "acme_live_" + strings.Repeat("0", 61)
	for _, c := range []struct{ text, want string }{
		{"", empty},
		{" \n", empty},
		{s, ""},
		{foreign, ""},
		{"x", ""},
		{"user:pass-9f8a7b6c", ""},
		{strings.Repeat("eyJhbGciOiJFUzUxMiJ9.", 390), ""},
		{s + " ", space},
		{"\n" + s, space},
		{"\ufeff" + s, space},
		{foreign + "\r\n", space},
		{" Bearer " + s, space},
		{s + "\n" + other, several},
		{"A=" + s + "&B=" + strings.ReplaceAll(other, "_", "%5F"), several},
		{s + " " + s, around},
		{`"` + s + `"`, quotes},
		{"“" + foreign + "”", quotes},
		{"'" + typo + "'", quotes},
		{"Bearer " + s, scheme},
		{"apikey " + foreign, scheme},
		{"Token\t" + typo, scheme},
		{"API_KEY=" + s, name},
		{"anything=" + s, name},
		{"anything=" + foreign, ""},
		{"export ACME_API_KEY='" + foreign + "'", name},
		{`-H "X-API-Key: ` + foreign + `"`, name},
		{"Authorization: Bearer " + s, name},
		{"my_secret_name:" + foreign, name},
		{strings.ReplaceAll(s, "_", "%5f"), encoded},
		{strings.ReplaceAll(s, "_", `\u005f`), encoded},
		{strings.ReplaceAll(s, "_", `&#95;`), encoded},
		{url.QueryEscape("a/b+c" + foreign), encoded},
		{"100%25 of/" + foreign, ""},
		{typo, checksum},
		{s[:len(s)-1] + "~", ""},
		{s[:len(s)-1], part},
		{s[:30], part},
		{s[:len("acme_live_")+12], handle},
		{s[:len("acme_live_")+12] + "…", handle},
		{s[:len("acme_live_")+12] + "...", handle},
		{s[len("acme_live_"):][:12], handle},
		{s[:len("acme_live_")+11], ""},
		{"_" + strings.Repeat("0", 61), ""},
		{s + "0", around},
		{"see " + s, around},
		{typo + "0", tooLong},
		{typo + strings.Repeat("0", 200), ""},
		{s[:20] + "\n" + s[20:], inside},
		{s[:20] + " \t" + s[20:40] + "\r\n  " + s[40:], inside},
		{"a b " + strings.Repeat("c", 100), ""},
		{"a b", ""},
		{strings.Repeat("~", 8193), longer},
		{strings.Repeat("~", 2000) + s, ""},
	} {
		if got := keyformat.Hint(c.text); got != c.want {
			t.Errorf("of %q: %q, want %q", strings.ReplaceAll(c.text[:min(len(c.text), 120)], s, "<key>"), got, c.want)
		}
		if n := testing.AllocsPerRun(20, func() { keyformat.Hint(c.text) }); n > 0 {
			t.Errorf("of %d characters: %v allocations", len(c.text), n)
		}
	}
}

func FuzzPaste(f *testing.F) {
	for _, x := range readVectors(f).Malformed {
		f.Add(x.String)
	}
	for _, s := range []string{`-H "X-API-Key: 'a%20b'",`, `export A="Bearer b\"`, "“a: b”;", "$env:a := \\\"b\\\"", "ak_\nExampleKey01"} {
		f.Add(s)
	}
	hints := map[string]bool{}
	f.Fuzz(func(t *testing.T, text string) {
		checkCandidates(t, text, keyformat.Candidates(text))
		h := keyformat.Hint(text)
		if own := keyformat.Classify(text) == keyformat.Own; own && h != "" {
			t.Fatal("a key has a hint")
		}
		if hints[h] = true; len(hints) > 15 {
			t.Fatal("the hints are not fixed")
		}
	})
}
