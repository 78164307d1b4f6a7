// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// unwelcomeRunes are the first, the last and some of every range, and how a
// refusal names them.
var unwelcomeRunes = map[rune]string{
	0: "a control character (U+0000)", 1: "a control character (U+0001)", '\b': "a control character (U+0008)", '\v': "a control character (U+000B)",
	'\r': "a line break (U+000D)", 0x1B: "a control character (U+001B)", 0x1F: "a control character (U+001F)",
	0x7F: "a control character (U+007F)", 0x80: "a control character (U+0080)", 0x85: "a line break (U+0085)", 0x9F: "a control character (U+009F)",
	0x2028: "a line break (U+2028)", 0x2029: "a line break (U+2029)",
	0x061C: "a mark that changes the direction of text (U+061C)", 0x200E: "a mark that changes the direction of text (U+200E)", 0x200F: "a mark that changes the direction of text (U+200F)",
	0x202A: "a mark that changes the direction of text (U+202A)", 0x202C: "a mark that changes the direction of text (U+202C)", 0x202E: "a mark that changes the direction of text (U+202E)",
	0x2066: "a mark that changes the direction of text (U+2066)", 0x2069: "a mark that changes the direction of text (U+2069)",
}

func TestCheckTextTakesWhatPeopleWrite(t *testing.T) {
	for _, text := range []string{
		"", " ", "~", "team payments", "Zahlungen – Köln", "支付", "שלום", "نص", "👩‍💻", "a\u00a0b", "\u00ad", "\u200b", "\ufffd", "\ufeff", "\u202f", "\u2065", "\u206a", "\u2010", "\u2027",
		strings.Repeat("o", 40), strings.Repeat("ü", 40), strings.Repeat("👍", 40),
	} {
		for _, lines := range []bool{false, true} {
			if err := CheckText("owner", text, 40, lines); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			if clean, changed := CleanText(text, 40, lines); clean != text || changed {
				t.Errorf("%q is cleaned to %q", text, clean)
			}
		}
	}
	for _, text := range []string{"a\nb", "\t", "ä\n\tb\n"} {
		if err := CheckText("reason", text, 40, true); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if clean, changed := CleanText(text, 40, true); clean != text || changed {
			t.Errorf("%q is cleaned to %q", text, clean)
		}
	}
}

func TestCheckTextRefusals(t *testing.T) {
	for r, what := range unwelcomeRunes {
		for _, lines := range []bool{false, true} {
			wantRefusal(t, CheckText("label", "ab"+string(r)+"c", 10, lines), "label", what+", as character 3: remove it")
		}
	}
	for text, want := range map[string]string{
		"\n":                    `label: "\n": holds a line break (U+000A), as character 1: remove it`,
		"ä\tb":                  `label: "ä\tb": holds a control character (U+0009), as character 2: remove it`,
		"a\xffb":                `label: "a\xffb": is not valid UTF-8: send text in UTF-8`,
		"\xed\xa0\x80":          `label: "\xed\xa0\x80": is not valid UTF-8: send text in UTF-8`,
		"ü":                     "",
		strings.Repeat("o", 11): "label: 11: has more than 10 characters: shorten it",
		strings.Repeat("ü", 11): "label: 11: has more than 10 characters: shorten it",
		strings.Repeat("ü", 10): "",
		"gpj.\u202eexe":         `label: "gpj.\u202eexe": holds a mark that changes the direction of text (U+202E), as character 5: remove it`,
	} {
		err := CheckText("label", text, 10, false)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		wantRefusal(t, err, "label")
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	k := someKey(t)
	err := CheckText("label", k.Reveal()+"\x00", 500, false)
	wantRefusal(t, err, "label", k.ID())
	if strings.Contains(err.Error(), k.Reveal()) {
		t.Error("a refusal tells the key")
	}
}

func TestCleanText(t *testing.T) {
	k := someKey(t)
	redacted := "[key " + k.ID() + "]"
	for _, c := range []struct {
		text    string
		limit   int
		lines   bool
		want    string
		changed bool
	}{
		{"a\nb\tc", 10, false, "a b c", true},
		{"a\r\nb", 10, false, "a b", true},
		{"a\r\nb", 10, true, "a\nb", true},
		{"a\rb", 10, true, "a b", true},
		{"a\x00\x1b[31mb", 20, true, "a  [31mb", true},
		{"a\u2028b\u0085c", 20, true, "a b c", true},
		{"gpj.\u202eexe\u2069", 20, false, "gpj.exe", true},
		{"a\xff\xfeb\xc3", 20, false, "a b ", true},
		{"a\ufffdb", 20, false, "a\ufffdb", false},
		{"0123456789", 10, false, "0123456789", false},
		{"0123456789a", 10, false, "0123456789", true},
		{"üüü", 3, false, "üüü", false},
		{"üüü", 2, false, "üü", true},
		{"üü\x00ü", 3, false, "üü ", true},
		{"a", 0, false, "", true},
		{"", 0, false, "", false},
		// Redaction is no change to warn of.
		{"see " + k.Reveal(), 80, false, "see " + redacted, false},
		// No part of a key is left by a cut, and none comes together by cleaning.
		{strings.Repeat("-", 30) + k.Reveal(), 50, false, strings.Repeat("-", 30) + redacted, false},
		{strings.Repeat("-", 30) + k.Reveal(), 40, false, strings.Repeat("-", 30) + redacted[:10], true},
		{k.Reveal()[:30] + "\u200e" + k.Reveal()[30:], 80, false, redacted, true},
	} {
		got, changed := CleanText(c.text, c.limit, c.lines)
		if got != c.want || changed != c.changed {
			t.Errorf("%q, %d characters: %q, %v; want %q, %v", c.text, c.limit, got, changed, c.want, c.changed)
		}
	}
	for r := range unwelcomeRunes {
		got, changed := CleanText("a"+string(r)+"b", 10, true)
		if (got != "a b" && got != "ab") || !changed {
			t.Errorf("%U is cleaned to %q", r, got)
		}
	}
}

// What was cleaned is accepted, whatever it was, and stays as it is.
func TestCleanTextIsAcceptable(t *testing.T) {
	alphabet := append([]rune("ab_\n\t \\u%20üß\u2060👍"), 0xFFFD)
	for r := range unwelcomeRunes {
		alphabet = append(alphabet, r)
	}
	key := someKey(t).Reveal()
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(
			rapid.StringOf(rapid.RuneFrom(alphabet)),
			rapid.Custom(func(rt *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(rt, "bytes")) }),
			rapid.Map(rapid.StringOf(rapid.RuneFrom(alphabet)), func(s string) string { return s + key + s }),
		).Draw(rt, "text")
		limit, lines := rapid.IntRange(0, 100).Draw(rt, "limit"), rapid.Bool().Draw(rt, "lines")
		clean, changed := CleanText(text, limit, lines)
		if err := CheckText("reason", clean, limit, lines); err != nil {
			rt.Fatal(err)
		}
		if again, changed := CleanText(clean, limit, lines); again != clean || changed {
			rt.Fatalf("%q, then %q", clean, again)
		}
		if strings.Contains(clean, key) {
			rt.Fatal("a key is left")
		}
		if err := CheckText("reason", text, limit, lines); (err == nil) != (!changed && utf8.RuneCountInString(text) <= limit) && !strings.Contains(text, key) {
			rt.Fatalf("%q: cleaned: %v, and yet %v", text, changed, err)
		}
		if err := CheckText("reason", text, limit, lines); err != nil {
			wantRefusal(rt, err, "reason")
		}
	})
}

// Text comes with every verification.
func TestPlainTextCostsNothing(t *testing.T) {
	text := strings.Repeat("team-payments orders_api ", 5)
	if n := testing.AllocsPerRun(100, func() {
		if _, changed := CleanText(text, 128, false); changed {
			t.Error("changed")
		}
		if err := CheckText("client", text, 128, false); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A store may hold what an earlier build took: to write it back is no mistake,
// and to change something else beside it neither.
func TestStoredTextIsNeverRefused(t *testing.T) {
	stored := &Policy{
		Description: "old\r\nlines\x00", Owner: strings.Repeat("o", 600), RotationSchedule: "0\u00853 * * *",
		Metadata:     map[string]string{"a\nb": "\u202ex", strings.Repeat("n", 70): "v", " ": "blank", "plain": "p\x1b"},
		Scopes:       []string{"a b"},
		AllowedCIDRs: []string{"10.0.0.0/99"},
	}
	view := asGiven(shown(t, stored, Static, mount))
	p := must(t, stored, view, Static)
	for _, name := range []string{"description", "owner", "metadata", "scopes", "allowed_cidrs", "rotation_schedule"} {
		if !SameField(name, stored, p) {
			t.Errorf("%s has changed", name)
		}
	}
	p = must(t, stored, map[string]any{"metadata": map[string]any{"new": "n", "plain": nil}}, Static)
	if p.Metadata["a\nb"] != "\u202ex" || p.Metadata["new"] != "n" || len(p.Metadata) != 4 {
		t.Errorf("merged: %q", p.Metadata)
	}
	for field, value := range map[string]any{
		"description": "old\r\nlines\x00 ", "owner": strings.Repeat("o", 601), "scopes": []string{"a b", "c"}, "rotation_schedule": "0\u00853 * * 1",
		"allowed_cidrs": []string{"10.0.0.0/99", "::1"},
	} {
		_, _, err := stored.With(map[string]any{field: value})
		wantRefusal(t, err, field)
	}
	for _, patch := range []map[string]any{{"a\nb": "\u202ey"}, {"a\nc": "\u202ex"}, {"  ": "blank"}, {"plain": "q\x1b"}} {
		_, _, err := stored.With(map[string]any{"metadata": patch})
		wantRefusal(t, err, "metadata")
	}
	// Not refused is not untouched: what can be found in it is still replaced.
	k := someKey(t)
	p, _, err := (&Policy{Owner: "\x00" + k.Reveal()}).With(map[string]any{"owner": "\x00" + k.Reveal()})
	if err != nil || strings.Contains(p.Owner, k.Reveal()) {
		t.Errorf("%q %v", refusal.Shown(p.Owner), err)
	}
}
