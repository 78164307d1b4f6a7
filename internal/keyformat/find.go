// SPDX-License-Identifier: MPL-2.0

package keyformat

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Find returns the distinct keys in text, in order of their first appearance, at
// most limit of them, and reports whether there are more. A key is found in every
// spelling that a text can have: glued to something on either side,
// percent-encoded, escaped as in JSON, HTML, mail or a shell, wholly or in part,
// one inside another up to three deep. The time is linear in the length of text.
func Find(text string, limit int) (keys []Key, more bool) {
	firsts := map[string]found{}
	visit(text, func(f found) {
		s := string(f.key[:f.len])
		if first, ok := firsts[s]; !ok || f.start < first.start {
			firsts[s] = f
		}
	})
	all := slices.SortedFunc(maps.Values(firsts), func(a, b found) int { return cmp.Compare(a.start, b.start) })
	for _, f := range all {
		if len(keys) >= limit {
			return keys, true
		}
		s := string(f.key[:f.len])
		keys = append(keys, Key{&s, f.prefixLen})
	}
	return keys, false
}

// Redact replaces every key in text, however it is spelled, by "[key <id>]". What
// looks like a key but has a wrong checksum stays. The time is linear in the
// length of text, and where there is nothing to replace, text itself comes back.
func Redact(text string) string {
	var marks []mark
	visit(text, func(f found) { marks = append(marks, mark{f.start, f.end, f.id()}) })
	return replace(text, marks)
}

// Scrub makes text fit for being kept: it is Redact, and each of the secrets, keys
// that were made elsewhere, is replaced by "[key]", in every spelling too. One of
// less than four characters is replaced only where it is the whole text: it may
// be a part of any.
func Scrub(text string, secrets ...string) string {
	var marks []mark
	visit(text, func(f found) { marks = append(marks, mark{f.start, f.end, f.id()}) })
	for _, s := range secrets {
		if s == text && s != "" {
			return replace(text, []mark{{0, len(text), ""}})
		}
	}
	return replace(text, append(marks, markSecrets(text, secrets)...))
}

// mark is a part of a text that is to be replaced.
type mark struct {
	start, end int
	id         string // of the key; "" for a secret
}

func replace(text string, marks []mark) string {
	if len(marks) == 0 {
		return text
	}
	// Of those that begin at the same place the one that says more comes first.
	slices.SortFunc(marks, func(a, b mark) int {
		return cmp.Or(cmp.Compare(a.start, b.start), -cmp.Compare(a.id, b.id), -cmp.Compare(a.end, b.end))
	})
	var out strings.Builder
	done, secret := 0, false
	for _, m := range marks {
		if m.end <= done {
			continue
		}
		// Secrets that overlap are shown as one.
		if again := m.start < done && secret && m.id == ""; !again {
			out.WriteString(text[done:max(done, m.start)])
			out.WriteString("[key")
			if m.id != "" {
				out.WriteByte(' ')
				out.WriteString(m.id)
			}
			out.WriteByte(']')
		}
		done, secret = m.end, m.id == ""
	}
	out.WriteString(text[done:])
	return out.String()
}

// found is a key in a text: what it is and where its spelling stands.
type found struct {
	start, end int
	key        [maxKeyLen]byte
	len        int
	prefixLen  int
}

func (f found) id() string {
	at := f.prefixLen + 1
	return string(f.key[at : at+IDLen])
}

// Kinds of bytes in a text.
const (
	apart   = iota // never within a key
	within         // may stand in the spelling of a key
	strange        // and makes it another than the plain one
)

var kinds = func() (t [256]uint8) {
	for i := range len(alphabet) {
		t[alphabet[i]] = within
	}
	for _, c := range []byte("_#;\r\n") {
		t[c] = within
	}
	for _, c := range []byte("%=\\&\x00") {
		t[c] = strange
	}
	return t
}()

// visit calls yield for every key in text, some of them several times, where
// they can be read in several ways. Keys may overlap: of one the body, of the next
// the prefix. The same body may even follow two prefixes, both with the right
// checksum, if somebody took the trouble.
func visit(text string, yield func(found)) {
	for start, end := nextWord(text, 0); start < end; start, end = nextWord(text, end) {
		visitWord(text[start:end], start, yield)
	}
}

// visitWord is visit for what nextWord found at offset.
func visitWord(word string, offset int, yield func(found)) {
	if holdsStrange(word) {
		visitSpelled(word, offset, yield)
	} else {
		visitPlain(word, offset, yield)
	}
}

// nextWord is the next part of text from i on that is long enough for a key and
// holds only what can stand in the spelling of one; i is where text or the word
// before it begins or ends. At the end of the text it is empty.
func nextWord[T string | []byte](text T, i int) (start, end int) {
	for i+minKeyLen <= len(text) {
		if text[i] == 0 { // no key begins with it, and there may be very many
			i++
			continue
		}
		// Most of a text is in words too short. Where one of the first bytes that a
		// key must have stands apart no key begins before it, so going backwards
		// most bytes are never looked at.
		j := i + minKeyLen - 1
		for j >= i && kinds[text[j]] != apart {
			j--
		}
		if j >= i {
			i = j + 1
			continue
		}
		if end = wordEnd(text, i); end-i >= minKeyLen {
			return i, end
		}
		i = end
	}
	return len(text), len(text)
}

// wordEnd is where the word that begins at i ends: before what stands apart, or
// more zero bytes in a row than a key is read over.
func wordEnd[T string | []byte](text T, i int) int {
	zeros := 0
	for ; i < len(text) && kinds[text[i]] != apart; i++ {
		if text[i] != 0 {
			zeros = 0
		} else if zeros++; zeros > maxBlanks {
			return i + 1 - zeros
		}
	}
	return i
}

// visitPlain is visit for a word that has no other reading. It begins at offset.
func visitPlain(word string, offset int, yield func(found)) {
	// Everything before i is known to hold no separator that a key could have
	// before its body.
	for i := 0; ; {
		j := strings.IndexByte(word[i:], separator)
		sep := i + j
		end := sep + 1 + bodyLen
		if j < 0 || end > len(word) {
			return
		}
		i = sep + 1
		if !isBase62(word[i:end]) {
			continue
		}
		i = end
		// In running text several beginnings can be a prefix; the checksum covers
		// the prefix, so it decides.
		for start := max(0, sep-maxPrefixLen); start <= sep-minPrefixLen; start++ {
			if isPrefix(word[start:sep]) && checksumMatches(word[start:end]) {
				f := found{start: offset + start, end: offset + end, len: end - start, prefixLen: sep - start}
				copy(f.key[:], word[start:end])
				yield(f)
			}
		}
	}
}

// visitSpelled is visit for a word that may read differently than it stands there.
func visitSpelled(word string, offset int, yield func(found)) {
	var room [2048]glyph
	l := readingsOf(word, room[:])
	for r, last := l.next(); r != nil; r, last = l.next() {
		if !last {
			continue
		}
		r.measure()
		for p := range r {
			if r[p].d <= minPrefixLen || !isLetter(r[p].c) {
				continue
			}
			if f, ok := r.key(p); ok {
				f.start += offset
				f.end += offset
				yield(f)
			}
		}
	}
}

// measure sets d of each glyph: 0, or one more than the distance to a separator
// with a body after it, over nothing but what can be in a prefix.
func (r reading) measure() {
	// First: how much of a body begins here, or that this is such a separator.
	const sep = 0xff
	for p := len(r) - 1; p >= 0; p-- {
		n := uint8(0) // of the body that goes on after p
		if q := r.over(p + int(r[p].n)); q < len(r) && r[q].d != sep {
			n = r[q].d
		}
		switch c := r[p].c; {
		case isDigit[c]:
			r[p].d = min(n+1, bodyLen)
		case c == separator && n == bodyLen:
			r[p].d = sep
		}
	}
	for p := len(r) - 1; p >= 0; p-- {
		c, d := r[p].c, uint8(0)
		if r[p].d == sep {
			d = 1
		} else if c == separator || isNumeral(c) || c >= 'a' && c <= 'z' {
			if q := r.over(p + int(r[p].n)); q < len(r) && r[q].d > 0 && r[q].d <= maxPrefixLen {
				d = r[q].d + 1
			}
		}
		r[p].d = d
	}
}

// key is the key that begins at p, where measure saw that one might.
func (r reading) key(p int) (f found, ok bool) {
	f = found{start: p, prefixLen: int(r[p].d) - 1}
	f.len = f.prefixLen + 1 + bodyLen
	f.end = p
	for i := range f.len {
		f.key[i], f.end = r.next(f.end)
	}
	return f, isKey(f.key[:f.len], f.prefixLen)
}

// isKey is check for bytes, of which those after the separator are as many as a
// body has. A string of them all would cost an allocation; one of a prefix is
// short enough to need none.
func isKey(b []byte, prefixLen int) bool {
	if b[prefixLen] != separator || !isPrefix(string(b[:prefixLen])) {
		return false
	}
	for _, c := range b[prefixLen+1:] {
		if !isDigit[c] {
			return false
		}
	}
	covered := len(b) - ChecksumLen
	c := ^uint32(0)
	for _, b := range b[:covered] {
		c = crcStep(c, b)
	}
	var sum [ChecksumLen]byte
	appendChecksum(sum[:0], ^c)
	return bytes.Equal(sum[:], b[covered:])
}
