// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"html"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// glue is what stands next to keys in logs, addresses, code and file names, and
// what could be taken for the beginning of an escape together with a key.
var glue = []string{
	"", " ", "\n", "'", "\"", "=", ":", "/", "_", "__", "-", ".", "x", "X", "9", "ak", "ak_", "my_", "é", "\xff", "\x00",
	"%", "%2", "%3D", "%25", "%a", "\\", "\\n", "\\u", "\\u0", "\\u000a", "\\x", "\\x4", "&", "&#", "&#x", "&#9", "&amp;", "&a", "=4", "=\r\n", "\\\n", "+", "%20",
	"a_b_c_d_e_f_g_h_", strings.Repeat("long_prefix_", 5), strings.Repeat("0", 61), strings.Repeat("a", 100), strings.Repeat("%", 100),
}

func reveal(keys []keyformat.Key) string {
	var all []string
	for _, k := range keys {
		all = append(all, k.Reveal())
	}
	return strings.Join(all, " ")
}

func TestFindSpellings(t *testing.T) {
	k := mint(t, "acme_live")
	s := k.Reveal()
	each := func(f func(c byte) string) string {
		var out strings.Builder
		for i := range len(s) {
			out.WriteString(f(s[i]))
		}
		return out.String()
	}
	percent := each(func(c byte) string { return layers[0].spell(c, 0) })
	for name, text := range map[string]string{
		"plain":                    s,
		"underscores":              strings.ReplaceAll(s, "_", "%5F"),
		"underscores, lower case":  strings.ReplaceAll(s, "_", "%5f"),
		"all of it":                percent,
		"twice":                    strings.ReplaceAll(percent, "%", "%25"),
		"three times":              strings.ReplaceAll(percent, "%", "%2525"),
		"once and twice":           "%2561" + strings.ReplaceAll(s[1:], "e", "%65"),
		"in a form":                "token=x+y&key=" + strings.ReplaceAll(s, "_", "%5F") + "+z%20",
		"JSON":                     `{"key":"` + each(func(c byte) string { return layers[1].spell(c, 0) }) + `"}`,
		"JSON, escaped in front":   `{"text":"a line\n` + s + `\n"}`,
		"JSON in JSON":             `"{\"key\":\"\\u0061` + s[1:] + `\"}"`,
		"Markdown":                 strings.ReplaceAll(s, "_", `\_`),
		"HTML, decimal":            strings.ReplaceAll(s, "_", "&#95;"),
		"HTML, hexadecimal":        strings.ReplaceAll(s, "_", "&#x5f;"),
		"HTML, with zeros":         strings.ReplaceAll(s, "_", "&#0000095;"),
		"HTML, by name":            strings.ReplaceAll(s, "_", "&lowbar;"),
		"HTML, by the other name":  strings.ReplaceAll(s, "_", "&UnderBar;"),
		"HTML, escaped":            strings.ReplaceAll(s, "_", "&amp;#95;"),
		"HTML, in JSON":            strings.ReplaceAll(s, "_", `\u0026#95;`),
		"quoted-printable":         "key=3D" + s[:20] + "=\r\n" + s[20:] + "=\r\n",
		"quoted-printable, LF":     s[:20] + "=\n" + s[20:],
		"quoted-printable URL":     strings.ReplaceAll(s[:30], "_", "%5=\r\nF") + s[30:],
		"quoted-printable in JSON": s[:20] + `=\r\n` + s[20:],
		"continued lines":          s[:20] + "\\\n" + s[20:40] + "\\\r\n" + s[40:],
		"C":                        strings.ReplaceAll(s, "_", `\x5f`),
		"UTF-16":                   each(func(c byte) string { return string([]byte{c, 0}) }),
		"UTF-32":                   each(func(c byte) string { return string([]byte{0, 0, 0, c}) }),
		"after a percent sign":     "100%" + strings.ReplaceAll(s, "_", "%5F"),
		"after half an escape":     "%2" + strings.ReplaceAll(s, "_", "%5F"),
		"after a JSON escape":      `\u00e` + strings.ReplaceAll(s, "_", `\u005f`),
		"after the end of another": mint(t, "ak").Reveal() + s,
	} {
		t.Run(name, func(t *testing.T) {
			keys, more := keyformat.Find(text, 10)
			if more || len(keys) == 0 || keys[len(keys)-1].Reveal() != s {
				t.Errorf("found %d, more: %t", len(keys), more)
			}
			if last := keys[len(keys)-1]; last.Prefix() != "acme_live" || last.ID() != k.ID() {
				t.Errorf("found %s", last)
			}
			if got := keyformat.Redact(text); !strings.Contains(got, "[key "+k.ID()+"]") {
				t.Error("not redacted")
			} else if left, _ := keyformat.Find(got, 1); len(left) > 0 {
				t.Error("a key is left")
			}
		})
	}
}

func TestFindNot(t *testing.T) {
	s := mint(t, "acme_live").Reveal()
	for name, text := range map[string]string{
		"nothing":            "",
		"another checksum":   strings.ReplaceAll(s[:len(s)-1], "_", "%5F") + "!",
		"a wrong character":  "%62" + s[1:],
		"a space inside":     s[:20] + "%20" + s[20:],
		"a line break":       s[:20] + "\r\n" + s[20:],
		"an escaped letter":  s[:20] + `\` + s[20:] + "%",
		"cut":                strings.ReplaceAll(s[:len(s)-1], "_", "%5F"),
		"four times encoded": strings.ReplaceAll(s, "_", "%2525255F"),
		"beyond ASCII":       `\u0161` + s[1:],
		"beyond ASCII, HTML": "&#353;" + s[1:],
		"a long reference":   "&#000000097;" + s[1:],
		"no semicolon":       "&#97" + s[1:],
		"an empty reference": "&#;" + s[1:],
		"a wrong digit":      "&#9a;" + s[1:],
		"an unknown name":    strings.ReplaceAll(s, "_", "&underscore;"),
		"a long name":        strings.ReplaceAll(s, "_", "&lowbarlowbarlowbar;"),
		"an open name":       strings.ReplaceAll(s, "_", "&lowbar"),
		"an open end":        s[:len(s)-1] + "%4",
	} {
		t.Run(name, func(t *testing.T) {
			if keys, more := keyformat.Find(text, 10); len(keys) > 0 || more {
				t.Error("found")
			}
			if keyformat.Redact(text) != text {
				t.Error("redacted")
			}
		})
	}
}

func TestFindLimit(t *testing.T) {
	a, b, c := mint(t, "ak").Reveal(), mint(t, "acme_live").Reveal(), mint(t, "k9").Reveal()
	for _, x := range []struct {
		text  string
		limit int
		want  string
		more  bool
	}{
		{"", 0, "", false},
		{a, 0, "", true},
		{a, -1, "", true},
		{a + " " + a, 1, a, false},
		{a + " " + b, 1, a, true},
		{b + " " + a + "," + b + strings.ReplaceAll(a, "_", "%5f") + c, 3, b + " " + a + " " + c, false},
		{b + " " + strings.ReplaceAll(a, "_", "%5f") + b + "=" + c, 2, b + " " + a, true},
		{a + b + c, 10, a + " " + b + " " + c, false},
	} {
		keys, more := keyformat.Find(x.text, x.limit)
		if got := reveal(keys); got != x.want || more != x.more {
			t.Errorf("at most %d: found %d, more: %t, want %d, %t", x.limit, len(keys), more, strings.Count(x.want, " ")+1, x.more)
		}
	}
}

// TestFindOverlapping: the end of a key may be the prefix of the next one.
func TestFindOverlapping(t *testing.T) {
	var first, second string
	for i := 0; second == ""; i++ {
		body := "ak_ExampleKey01" + strings.Repeat("0", 40) + string([]byte{base62[i/3844], base62[i/62%62], base62[i%62]})
		sum := keyformat.Checksum(body)
		if p := sum[4:]; keyformat.ValidPrefix(p) == nil {
			first = body + sum
			rest := p + "_ExampleKey02" + strings.Repeat("1", 43)
			second = rest + keyformat.Checksum(rest)
		}
	}
	text := first + second[2:]
	keys, _ := keyformat.Find(text, 10)
	if reveal(keys) != first+" "+second {
		t.Fatalf("found %d", len(keys))
	}
	for _, text := range []string{text, strings.ReplaceAll(text, "_", "%5F")} {
		if got, want := keyformat.Redact("<"+text+">"), "<[key ExampleKey01][key ExampleKey02]>"; got != want {
			t.Errorf("got %q", got)
		}
	}
}

// TestFindProperty: whatever stands around keys, and through whatever layers,
// they are found, in order, and nothing is left of them in any reading.
func TestFindProperty(t *testing.T) {
	prefixes := []string{"ak", "acme_live", "f00_e1", "abcdefghijklmno_abcdefghijklmnop"}
	pool := map[string][]string{}
	for _, p := range prefixes {
		for range 3 {
			pool[p] = append(pool[p], mint(t, p).Reveal())
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func() string { return rapid.SampledFrom(glue).Draw(t, "glue") }
		var text, want strings.Builder
		seen := map[string]bool{}
		for range rapid.IntRange(1, 3).Draw(t, "keys") {
			k := rapid.SampledFrom(pool[rapid.SampledFrom(prefixes).Draw(t, "prefix")]).Draw(t, "key")
			if !seen[k] {
				want.WriteString(" " + k)
			}
			seen[k] = true
			text.WriteString(draw())
			if rapid.Bool().Draw(t, "with what is around it") {
				text.WriteString(drawSpelling(t, draw()+k+draw(), 3))
			} else {
				text.WriteString(drawSpelling(t, k, 3))
			}
			text.WriteString(draw())
		}
		keys, more := keyformat.Find(text.String(), 10)
		if " "+reveal(keys) != want.String() || more {
			t.Fatalf("%d of %d keys found in %q", len(keys), len(seen), text.String())
		}
		redacted := keyformat.Redact(text.String())
		everyReading(redacted, 3, func(s string) {
			if holdsKey(s) {
				t.Fatalf("a key is left in %q of %q", redacted, text.String())
			}
		})
		if again := keyformat.Redact(redacted); again != redacted {
			t.Fatalf("%q, then %q", redacted, again)
		}
	})
}

// holdsKey is the obvious way to look for keys, at every place and with every
// length.
func holdsKey(s string) bool {
	for start := range len(s) {
		for n := 64; n <= 94 && start+n <= len(s); n++ {
			if _, err := keyformat.Parse(s[start : start+n]); err == nil {
				return true
			}
		}
	}
	return false
}

// TestEntities: what the standard library makes of the names of ASCII characters,
// Find does too.
func TestEntities(t *testing.T) {
	s := mint(t, "ak").Reveal()
	for _, name := range []string{
		"excl", "QUOT", "quot", "num", "dollar", "percnt", "AMP", "amp", "apos", "lpar", "rpar", "ast", "midast", "plus", "comma", "period", "sol",
		"colon", "semi", "LT", "lt", "equals", "GT", "gt", "quest", "commat", "lbrack", "lsqb", "bsol", "rbrack", "rsqb", "Hat", "lowbar", "UnderBar",
		"DiacriticalGrave", "grave", "lbrace", "lcub", "verbar", "vert", "VerticalLine", "rbrace", "rcub", "Tab", "NewLine",
	} {
		ref := "&" + name + ";"
		c := html.UnescapeString(ref)
		if len(c) != 1 {
			t.Fatalf("%s: %q", ref, c)
		}
		secret := "begin-" + c + "-end"
		if got := keyformat.Scrub("<begin-"+ref+"-end>", secret); got != "<[key]>" {
			t.Errorf("%s: %q", ref, got)
		}
		if got := keyformat.Redact(strings.Replace(s, "_", ref, 1)); (got[0] == '[') != (c == "_") {
			t.Errorf("%s in the place of a separator: %q", ref, got)
		}
	}
}
