// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// located is what Locate finds in text, as "key@start-end".
func located(text string) []string {
	var all []string
	keyformat.Locate([]byte(text), func(k keyformat.Key, start, end int) {
		all = append(all, fmt.Sprintf("%s@%d-%d", k.Reveal(), start, end))
	})
	slices.Sort(all)
	return all
}

func TestLocate(t *testing.T) {
	a, b := mint(t, "ak").Reveal(), mint(t, "acme_live").Reveal()
	spelled := strings.ReplaceAll(b, "_", "%5F")
	zeros := strings.Repeat("\x00", 1000)
	text := "x " + a + "," + zeros + spelled + zeros + "\n" + a + "%20"
	want := []string{
		fmt.Sprintf("%s@%d-%d", a, 2, 2+len(a)),
		fmt.Sprintf("%s@%d-%d", a, strings.LastIndex(text, a), strings.LastIndex(text, a)+len(a)),
		fmt.Sprintf("%s@%d-%d", b, strings.Index(text, spelled), strings.Index(text, spelled)+len(spelled)),
	}
	slices.Sort(want)
	if got := located(text); !slices.Equal(got, want) {
		t.Errorf("found %d of %d places", len(got), len(want))
	}
}

// TestZerosBetween: zero bytes within a key are read over, up to sixteen in a row, and
// after more of them another key may begin.
func TestZerosBetween(t *testing.T) {
	k := mint(t, "ak").Reveal()
	for zeros := range 40 {
		apart := strings.Join(strings.Split(k, ""), strings.Repeat("\x00", zeros))
		if found := len(located(apart)) == 1; found != (zeros <= 16) {
			t.Errorf("%d zeros between the characters of a key: found %t", zeros, found)
		}
		for _, lead := range []string{"", "a", "%", "\\"} {
			if n := len(located(lead + strings.Repeat("\x00", zeros) + k + strings.Repeat("\x00", zeros) + k)); n != 2 {
				t.Errorf("%q and %d zeros before each of two keys: %d found", lead, zeros, n)
			}
		}
	}
}

// TestLocateProperty: what Find finds, Locate does, also in the parts that a text is cut
// into at its breaks, and the places hold the keys.
func TestLocateProperty(t *testing.T) {
	pool := []string{mint(t, "ak").Reveal(), mint(t, "acme_live").Reveal(), mint(t, "abcdefghijklmno_abcdefghijklmnop").Reveal()}
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "parts") {
			text.WriteString(rapid.SampledFrom(append(glue, strings.Repeat("\x00", 15), strings.Repeat("\x00", 20), " ", "(")).Draw(t, "glue"))
			k := rapid.SampledFrom(pool).Draw(t, "key")
			text.WriteString(drawSpelling(t, k[:rapid.SampledFrom([]int{len(k), len(k), len(k) - 1}).Draw(t, "cut")], 2))
		}
		all := text.String()
		whole := located(all)
		distinct := map[string]bool{}
		for _, one := range whole {
			key, at, _ := strings.Cut(one, "@")
			distinct[key] = true
			var start, end int
			_, _ = fmt.Sscanf(at, "%d-%d", &start, &end)
			if keys, _ := keyformat.Find(all[start:end], 5); !strings.Contains(" "+reveal(keys), " "+key) {
				t.Fatalf("no key at %s", at)
			}
		}
		keys, _ := keyformat.Find(all, 100)
		if len(keys) != len(distinct) {
			t.Fatalf("Find finds %d keys, Locate %d", len(keys), len(distinct))
		}
		var parts []string
		for rest := all; rest != ""; {
			cut := keyformat.LastBreak([]byte(rest))
			for _, one := range located(rest[cut:]) {
				key, at, _ := strings.Cut(one, "@")
				var start, end int
				_, _ = fmt.Sscanf(at, "%d-%d", &start, &end)
				parts = append(parts, fmt.Sprintf("%s@%d-%d", key, cut+start, cut+end))
			}
			if cut == 0 {
				break
			}
			rest = rest[:cut-1]
		}
		if slices.Sort(parts); !slices.Equal(parts, whole) {
			t.Fatalf("cut at its breaks %q holds %d, as a whole %d", all, len(parts), len(whole))
		}
	})
}

func TestLastBreak(t *testing.T) {
	for text, want := range map[string]int{"": 0, "ab_c": 0, " ": 1, "a b": 2, "a b\r\n\x00%": 2, "a:": 2, "é_": 2, "\xffé": 3} {
		if got := keyformat.LastBreak([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// BenchmarkLocate shows the cost per byte of ordinary text, and of what looks like keys
// all over.
func BenchmarkLocate(b *testing.B) {
	texts := map[string]string{
		"prose": "The quick brown fox jumps over the lazy dog, and then some.\n",
		"code":  "\tif err := s.read(ctx, ids, func(one object) error { return nil }); err != nil {\n\t\treturn err\n\t}\n",
		"words": "hello\nworld\n",
		"zeros": strings.Repeat("\x00", 1000),
	}
	for name, unit := range hostile {
		texts["hostile "+name] = unit
	}
	for name, unit := range texts {
		text := []byte(strings.Repeat(unit, 1+(256<<10)/len(unit)))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				keyformat.Locate(text, func(keyformat.Key, int, int) {})
			}
		})
	}
}
