// SPDX-License-Identifier: MPL-2.0

package keyformat

import "strings"

// Locate calls yield for every key in text, with where its spelling begins and ends.
// It finds what Find finds, each as often as it stands there.
func Locate(text []byte, yield func(k Key, start, end int)) {
	for start, end := nextWord(text, 0); start < end; start, end = nextWord(text, end) {
		type place struct {
			start int
			key   string
		}
		var seen map[place]bool // what can be read in several ways comes several times
		visitWord(string(text[start:end]), start, func(f found) {
			s := string(f.key[:f.len])
			p := place{f.start, s}
			if seen[p] {
				return
			}
			if seen == nil {
				seen = map[place]bool{}
			}
			seen[p] = true
			yield(Key{&s, f.prefixLen}, f.start, f.end)
		})
	}
}

// LastBreak is a place at which text can be cut without cutting through a key, however
// that is spelled: the last one after a byte that is no part of any spelling. It is 0
// where there is none.
func LastBreak(text []byte) int {
	for i := len(text); i > 0; i-- {
		if kinds[text[i-1]] == apart {
			return i
		}
	}
	return 0
}

// holdsStrange reports whether a word may read differently than it stands there.
func holdsStrange(word string) bool { return strings.ContainsAny(word, "%=\\&\x00") }
