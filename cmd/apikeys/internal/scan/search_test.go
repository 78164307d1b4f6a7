// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// small is a search with a small window.
func small(size, overlap int, found func(k keyformat.Key, line, column int)) *search {
	s := newSearch(found)
	s.buf, s.overlap = s.buf[:size:size], overlap
	return s
}

// whole is what a text holds, by line and column, looked at in one piece.
func whole(text string) []string {
	var all []string
	locate([]byte(text), maxEncoded, func(k keyformat.Key, start, _ int) {
		line := 1 + strings.Count(text[:start], "\n")
		all = append(all, fmt.Sprint(line, ":", start-strings.LastIndex(text[:start], "\n"), k.Reveal()))
	})
	slices.Sort(all)
	return all
}

func sorted(all *[]string) func(k keyformat.Key, line, column int) {
	return func(k keyformat.Key, line, column int) {
		*all = append(*all, fmt.Sprint(line, ":", column, k.Reveal()))
	}
}

// TestBorders puts keys at every place around the borders of the window, in words that
// can be cut and in such as cannot.
func TestBorders(t *testing.T) {
	a, b := mint(t, "ak").Reveal(), mint(t, "acme_live").Reveal()
	spelled := strings.ReplaceAll(b, "_", "%5F") + " " + base64.URLEncoding.EncodeToString([]byte("x"+a))
	for _, filler := range []string{"a b\n", "aaaa", "\n", " ", "0_%", "\x00", "a+"} {
		for at := range 600 {
			text := strings.Repeat(filler, 1+at/len(filler))[:at] + "," + a + "\n"
			glued := strings.Repeat(filler, 1+at/len(filler))[:at] + "_" + spelled + strings.Repeat(filler, 300) + a
			for _, text := range []string{text, glued} {
				var got []string
				s := small(512, 200, sorted(&got))
				if n, err := s.readFrom(strings.NewReader(text)); err != nil || n != int64(len(text)) {
					t.Fatalf("%d bytes, %v", n, err)
				}
				if slices.Sort(got); !slices.Equal(got, whole(text)) {
					t.Fatalf("%q, %d bytes before a key: %d found, want %d", filler, at, len(got), len(whole(text)))
				}
			}
		}
	}
}

// TestBase64: a key is found in base64, of both alphabets, wherever in it the key begins,
// whatever stands before it, and in base64 of base64.
func TestBase64(t *testing.T) {
	for _, prefix := range []string{"ak", "acme_live", "abcdefghijklmno_abcdefghijklmnop"} {
		k := mint(t, prefix).Reveal()
		for before := range 5 {
			for after := range 4 {
				for name, enc := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw": base64.RawStdEncoding} {
					once := enc.EncodeToString([]byte("~?>~"[:min(before, 4)] + k + "\xff\xfe>?"[:after]))
					twice := enc.EncodeToString([]byte(`{"auth":"` + once + `"}`))
					for _, text := range []string{once, "key: " + once, "x" + once, "a-b" + once, twice, "data:;base64," + enc.EncodeToString([]byte(twice))} {
						var got []string
						if _, err := newSearch(sorted(&got)).readFrom(strings.NewReader("\n" + text)); err != nil || len(got) == 0 || !strings.HasSuffix(got[0], k) || !strings.HasPrefix(got[0], "2:") {
							t.Errorf("%s, %d before, %d after: %d found", name, before, after, len(got))
						}
					}
				}
			}
		}
	}
	k := mint(t, "ak")
	for _, none := range []string{base64.StdEncoding.EncodeToString([]byte(lookAlike(k))), base64.StdEncoding.EncodeToString([]byte(k.Reveal()[:63])), strings.Repeat("QUJD", 1000)} {
		var got []string
		if _, _ = newSearch(sorted(&got)).readFrom(strings.NewReader(none)); len(got) > 0 {
			t.Error("something is found in what holds no key")
		}
	}
	for before, column := range []int{4, 5, 6, 8, 9, 10, 12} {
		var at []string
		_, _ = newSearch(sorted(&at)).readFrom(strings.NewReader("k: " + base64.StdEncoding.EncodeToString([]byte("123456"[:before]+k.Reveal()))))
		if len(at) != 1 || !strings.HasPrefix(at[0], fmt.Sprint("1:", column, "ak")) {
			t.Errorf("%d before: the place is another", before)
		}
	}
}

func TestSearchOfOneByteAtATime(t *testing.T) {
	k := mint(t, "ak").Reveal()
	text := strings.Repeat("line\n", 100) + "é " + k + " " + k + "\n" + k
	var got []string
	s := small(512, 200, sorted(&got))
	if _, err := s.readFrom(iotest.OneByteReader(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, whole(text)) || len(got) != 3 || !strings.HasPrefix(got[0], "101:4") {
		t.Errorf("%d found", len(got))
	}
	got = nil
	if _, err := s.readFrom(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(k)))); err == nil || len(got) != 0 {
		t.Error("an error of the reader is not told")
	}
	if _, err := s.readFrom(iotest.ErrReader(io.ErrNoProgress)); err == nil {
		t.Error("an error of the reader is not told")
	}
}

// TestWhatWasReadBeforeAnErrorCounts: the beginning of a file that breaks off is looked at.
func TestWhatWasReadBeforeAnErrorCounts(t *testing.T) {
	k := mint(t, "ak").Reveal()
	var got []string
	_, err := newSearch(sorted(&got)).readFrom(io.MultiReader(strings.NewReader(k), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err == nil || len(got) != 1 {
		t.Errorf("%d found, %v", len(got), err)
	}
}

// FuzzBorders holds the search in pieces to the search of the whole text.
func FuzzBorders(f *testing.F) {
	k := mint(f, "ak").Reveal()
	encoded := base64.StdEncoding.EncodeToString([]byte("key: " + k))
	f.Add([]byte("KEY"), uint16(100), uint8(3))
	f.Add([]byte("aaaaaaaaaaaaaa%20KEY=\r\nKEY\x00KEY\\\n_KEY"), uint16(300), uint8(50))
	f.Add([]byte("ENC+ENC KEY"), uint16(70), uint8(7))
	f.Add([]byte("%4BEY \nKEY\n\n"), uint16(0), uint8(255))
	f.Fuzz(func(t *testing.T, raw []byte, before uint16, step uint8) {
		// KEY stands for a key, since no fuzzer makes a checksum right.
		text := strings.Repeat("x", int(before)%1000) + strings.NewReplacer("KEY", k, "ENC", encoded).Replace(string(raw))
		var got []string
		s := small(2048, 1024, sorted(&got))
		for rest := text; rest != ""; {
			n := min(len(rest), int(step)+1)
			_, _ = s.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		s.end()
		slices.Sort(got)
		for _, one := range got {
			if !slices.Contains(whole(text), one) {
				t.Fatalf("%q: found in pieces only", text)
			}
		}
		// A spelling that is longer than the overlap may be cut.
		long := false
		locate([]byte(text), maxEncoded, func(_ keyformat.Key, start, end int) { long = long || end-start > 1024 })
		if !long && !slices.Equal(got, whole(text)) {
			t.Fatalf("%q: %d found, want %d", text, len(got), len(whole(text)))
		}
	})
}

func BenchmarkSearch(b *testing.B) {
	text := strings.NewReader(strings.Repeat("\tif err := s.read(ctx, ids); err != nil {\n\t\treturn err\n\t}\n", 1<<18))
	s := newSearch(func(keyformat.Key, int, int) {})
	b.SetBytes(text.Size())
	for b.Loop() {
		_, _ = text.Seek(0, io.SeekStart)
		_, _ = s.readFrom(text)
	}
}
