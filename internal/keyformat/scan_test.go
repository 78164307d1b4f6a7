// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestClassify(t *testing.T) {
	own := mint(t, "ak").Reveal()
	for _, c := range []struct {
		s    string
		want keyformat.Form
	}{
		{own, keyformat.Own},
		{own[:len(own)-1], keyformat.Foreign},
		{own + "x", keyformat.Foreign},
		{strings.Repeat("a", 16), keyformat.Foreign},
		{strings.Repeat("~", 8192), keyformat.Foreign},
		{"two words and more", keyformat.Foreign},
		{strings.Repeat("a", 15), keyformat.Invalid},
		{strings.Repeat("a", 8193), keyformat.Invalid},
		{"", keyformat.Invalid},
		{own + "\n", keyformat.Invalid},
		{" " + own, keyformat.Invalid},
		{own + " ", keyformat.Invalid},
		{strings.Repeat("a", 15) + "\x7f", keyformat.Invalid},
		{strings.Repeat("a", 15) + "\x00", keyformat.Invalid},
		{strings.Repeat("ä", 16), keyformat.Invalid},
	} {
		if got := keyformat.Classify(c.s); got != c.want {
			t.Errorf("%d characters: %v, want %v", len(c.s), got, c.want)
		}
	}
}

// TestRedactFindsKeysAnywhere puts keys of several prefixes between what may
// stand around them in logs, addresses, code and file names.
func TestRedactFindsKeysAnywhere(t *testing.T) {
	around := []string{
		"", " ", "\n", "'", "\"", "=", ":", "/", "_", "__", "-", ".", "x", "X", "9", "ak", "ak_", "my_", "é", "\xff",
		"%3D", "\\n", "a_b_c_d_e_f_g_h_", strings.Repeat("long_prefix_", 5), strings.Repeat("0", 61), strings.Repeat("a", 100),
	}
	for _, prefix := range []string{"ak", "acme_live", "abcdefghijklmno_abcdefghijklmnop"} {
		k := mint(t, prefix)
		for _, before := range around {
			for _, after := range around {
				got := keyformat.Redact(before + k.Reveal() + after + k.Reveal())
				if want := before + "[key " + k.ID() + "]" + after + "[key " + k.ID() + "]"; got != want {
					t.Errorf("prefix %s between %q and %q: %q", prefix, before, after, strings.ReplaceAll(got, k.Reveal(), "<key>"))
				}
			}
		}
	}
}

func TestRedactLeavesTheRest(t *testing.T) {
	s := mint(t, "acme_live").Reveal()
	for _, text := range []string{
		"", "_", "nothing here", strings.Repeat("_", 500), strings.Repeat("ab_", 500), strings.Repeat("0", 500),
		"ak_" + strings.Repeat("0", 61), s[:len(s)-1], s[1:len(s)-1] + "!", strings.Replace(s, "_", "-", 2),
		strings.ToUpper(s), "[key ExampleKey01]",
	} {
		if got := keyformat.Redact(text); got != text {
			t.Errorf("%d characters of harmless text were changed", len(text))
		}
	}
	for i := range len(s) {
		near := s[:i] + "!" + s[i+1:]
		if got := keyformat.Redact(near); got != near {
			t.Errorf("a near miss at %d was changed", i)
		}
	}
}

func TestRedactTwiceIsOnce(t *testing.T) {
	once := keyformat.Redact("a " + mint(t, "ak").Reveal() + " b")
	if twice := keyformat.Redact(once); twice != once {
		t.Errorf("%q, then %q", once, twice)
	}
}

// FuzzRedact compares with the obvious way to look for keys.
func FuzzRedact(f *testing.F) {
	for _, x := range readVectors(f).Redaction {
		f.Add(x.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		redacted := keyformat.Redact(text)
		keys, _ := keyformat.Find(text, 1)
		if (redacted != text) != (len(keys) > 0) {
			t.Fatal("changed without a key, or not changed with one")
		}
		if holdsKey(text) && len(keys) == 0 {
			t.Fatal("a plain key is not found")
		}
		everyReading(redacted, 2, func(s string) {
			if holdsKey(s) {
				t.Fatal("a key is left")
			}
		})
		if keyformat.Redact(redacted) != redacted {
			t.Fatal("twice is not once")
		}
	})
}

// hostile are texts that look like keys all over, as plain ones and in ways of
// their own.
var hostile = map[string]string{
	"plain":       "abcdefghijklmno_abcdefghijklmnop_" + strings.Repeat("0", 61),
	"spelled":     "%61bcdefghijklmno_abcdefghijklmnop_" + strings.Repeat("0", 61),
	"many starts": strings.Repeat(`\u005cu006a`, 31) + "_" + strings.Repeat("0", 61),
	"references":  "&aaaaaaaaaaaaaaaa",
	"numbers":     "&#0000000",
	"backslashes": `\`,
	"blanks":      "\x00",
	"breaks":      "=\r\n",
	"every kind":  `%5c=5C&#92;\u005c`,
	"ampersands":  "&amp;amp;",
	"underscores": "%5F",
	"secret":      "aaaa%61",
}

// BenchmarkScrub shows the cost per byte of hostile text; it must not depend on
// the length.
func BenchmarkScrub(b *testing.B) {
	secret := strings.Repeat("a", 4000) + "b"
	for name, unit := range hostile {
		for _, n := range []int{10_000, 1_000_000} {
			text := strings.Repeat(unit, n/len(unit))
			b.Run(name+"/"+strconv.Itoa(n), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					keyformat.Scrub(text, secret)
				}
			})
		}
	}
}

func TestPattern(t *testing.T) {
	for _, prefix := range []string{"ak", "acme_live"} {
		re := regexp.MustCompile(keyformat.Pattern(prefix))
		s := mint(t, prefix).Reveal()
		for _, text := range []string{
			s, " " + s + " ", "KEY=" + s + "\n", `"` + s + `"`, `\n` + s + `\n`, "%3D" + s + "&x", "my_" + s + "_old", s + "," + s,
		} {
			found := re.FindAllStringSubmatch(text, -1)
			if len(found) != strings.Count(text, s) {
				t.Errorf("prefix %s: %d found in %q", prefix, len(found), strings.ReplaceAll(text, s, "<key>"))
			}
			for _, m := range found {
				if m[1] != s {
					t.Errorf("prefix %s: found something else than the key", prefix)
				}
			}
		}
		for _, text := range []string{s[:len(s)-1], s + "0", strings.ToUpper(s), strings.Replace(s, "_", "-", 1), mint(t, "other").Reveal()} {
			if re.MatchString(text) {
				t.Errorf("prefix %s: near miss of %d characters found", prefix, len(text))
			}
		}
	}
}
