// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// maxPlaces is how many places of a key in one file are told one by one.
const maxPlaces = 100

// maxFound is how many findings there can be: anybody can make keys whose checksum is
// right, as many as fit into a file.
const maxFound = 100_000

var errTooMany = fmt.Errorf("there are more than %d finds: the rest is not told", maxFound)

// where is a text that was looked at.
type where struct {
	path string // of a file; "-" is standard input
	// In the history of a repository: an object, and the commit that brought it. A message
	// is that of a commit or a tag, which then is the object.
	object, commit string
	message        bool
}

// place is where in a text a key stands; line 0 is the name of the file.
type place struct{ line, column int }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column))
}

// finding is one key in one text.
type finding struct {
	where
	key    keyformat.Key
	count  int
	places []place // the first ones
}

// findings are what was found and what could not be looked at. Many may add to them.
type findings struct {
	prefixes []string // all, if empty
	except   []string // ids

	mu                    sync.Mutex
	found                 map[spot]*finding
	full                  bool
	problems              []problem
	files, objects, bytes int64
}

type spot struct {
	where
	key string
}

func newFindings(prefixes, except []string) *findings {
	return &findings{prefixes: prefixes, except: except, found: map[spot]*finding{}}
}

func (f *findings) add(w where, k keyformat.Key, line, column int) {
	if len(f.prefixes) > 0 && !slices.Contains(f.prefixes, k.Prefix()) || slices.Contains(f.except, k.ID()) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := spot{w, k.Reveal()}
	one := f.found[s]
	if one == nil {
		if len(f.found) >= maxFound {
			if !f.full {
				f.full, f.problems = true, append(f.problems, problem{w.path, errTooMany})
			}
			return
		}
		one = &finding{where: w, key: k}
		f.found[s] = one
	}
	one.count++
	// A text is read from its beginning, but one word of it may be read several times.
	p := place{line, column}
	i, _ := slices.BinarySearchFunc(one.places, p, place.compare)
	if one.places = slices.Insert(one.places, i, p); len(one.places) > maxPlaces {
		one.places = one.places[:maxPlaces]
	}
}

// addName looks at the name of a file.
func (f *findings) addName(w where) {
	keys, _ := keyformat.Find(w.path, maxPlaces)
	for _, k := range keys {
		f.add(w, k, 0, 0)
	}
}

func (f *findings) problem(where string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, problem{where, err})
}

// looked counts what was looked at.
func (f *findings) looked(files, objects, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files += files
	f.objects += objects
	f.bytes += bytes
}

// sorted are the findings in an order that does not depend on who was faster.
func (f *findings) sorted() []*finding {
	return slices.SortedFunc(maps.Values(f.found), func(a, b *finding) int {
		return cmp.Or(
			cmp.Compare(a.path, b.path), a.places[0].compare(b.places[0]),
			cmp.Compare(a.commit, b.commit), cmp.Compare(a.object, b.object), cmp.Compare(a.key.Reveal(), b.key.Reveal()),
		)
	})
}

// keys are the distinct keys found, each with one of its findings.
func (f *findings) keys() []*finding {
	seen := map[string]bool{}
	var all []*finding
	for _, one := range f.sorted() {
		if s := one.key.Reveal(); !seen[s] {
			seen[s] = true
			all = append(all, one)
		}
	}
	return all
}

// sortedProblems are the problems in order.
func (f *findings) sortedProblems() []problem {
	return slices.SortedFunc(slices.Values(f.problems), func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.where, b.where), cmp.Compare(a.text(), b.text()))
	})
}

// text says what went wrong, without the path.
func (p problem) text() string {
	if pe, ok := errors.AsType[*fs.PathError](p.err); ok {
		return pe.Err.Error()
	}
	return p.err.Error()
}

// shown is text from elsewhere, fit for a terminal and a log: no key in it, and what
// cannot be seen or drives a terminal is written as in a string of Go, in quotes.
func shown(text string) string {
	text = keyformat.Redact(text)
	if quoted := strconv.Quote(text); quoted[1:len(quoted)-1] != text {
		return quoted
	}
	return text
}

// plain is shown for where quotes and escapes are somebody else's: it only has no key in
// it, and bytes that are no UTF-8 are written \xff.
func plain(text string) string {
	text = keyformat.Redact(text)
	if utf8.ValidString(text) {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 {
			out.WriteString(`\x` + strconv.FormatUint(uint64(text[0]), 16))
		} else {
			out.WriteString(text[:n])
		}
		text = text[n:]
	}
	return out.String()
}

// short is a commit or an object, as people write it.
func short(id string) string { return id[:min(len(id), 12)] }

// String is the text, as git names what is in its history.
func (w where) String() string {
	switch {
	case w.message:
		return short(w.object) + ":(message)"
	case w.commit != "":
		return short(w.commit) + ":" + shown(w.path)
	case w.object != "":
		return short(w.object)
	default:
		return shown(w.path)
	}
}

// addAll adds a finding as it is.
func (f *findings) addAll(one *finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found[spot{one.where, one.key.Reveal()}] = one
}
