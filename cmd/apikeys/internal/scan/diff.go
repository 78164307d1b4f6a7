// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// stdin is the path of standard input.
const stdin = "-"

// scanInput looks at standard input. A unified diff is known by its first line.
func scanInput(in io.Reader, all *findings) {
	count := &counter{Reader: in}
	r := bufio.NewReaderSize(count, 64<<10)
	var err error
	if begin, _ := r.Peek(4096); isDiff(begin) {
		err = newDiff(all).read(r)
	} else {
		s := newSearch(func(k keyformat.Key, line, column int) { all.add(where{path: stdin}, k, line, column) })
		_, err = s.readFrom(r)
	}
	if err != nil {
		all.problem(stdin, err)
	}
	all.looked(1, 0, count.n)
}

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// isDiff reports whether a text begins as a unified diff, or the output of git that has
// one in it. In what is wrongly taken for one only lines are passed over that stand after
// a line of hunk form and begin as removed ones.
func isDiff(begin []byte) bool {
	line, rest, _ := bytes.Cut(begin, newline)
	for _, prefix := range []string{"diff ", "Index: "} {
		if bytes.HasPrefix(line, []byte(prefix)) {
			return true
		}
	}
	return bytes.HasPrefix(line, []byte("--- ")) && bytes.HasPrefix(rest, []byte("+++ ")) || mailOrLog.Match(line)
}

// mailOrLog is how git format-patch, git log and git show begin.
var mailOrLog = regexp.MustCompile(`\A(From|commit) [0-9a-f]{40,64}\b`)

// diff goes through a unified diff. Added lines are looked at as the text of the new file
// that they are; what is around the hunks, such as the message of a commit, as a text of
// its own; removed lines and those that were there before are not.
type diff struct {
	all    *findings
	search *search
	at     where // of what the search is in

	line   int // of the diff
	file   string
	git    bool   // the names have a/ and b/ in front
	to     string // of a renamed or copied file: its name, with nothing in front
	hunk   hunk
	inside kind   // of the text that the search is in
	held   []byte // a line that may be the first of two with the names
}

// kind is what a line of a diff is.
type kind int

const (
	none   kind = iota // looked at by nobody
	added              // of the new file
	around             // of what is not the diff proper
)

// hunk is what is left of one.
type hunk struct {
	old  []int // lines, for each of the old files
	left int   // lines of the new file
	line int   // the next one's number
}

func (h *hunk) open() bool {
	for _, n := range h.old {
		if n > 0 {
			return true
		}
	}
	return h.left > 0
}

func newDiff(all *findings) *diff {
	d := &diff{all: all, file: stdin}
	d.search = newSearch(func(k keyformat.Key, line, column int) { all.add(d.at, k, line, column) })
	return d
}

func (d *diff) read(r *bufio.Reader) error {
	begins, now := true, none
	for {
		piece, err := r.ReadSlice('\n')
		if begins && len(piece) > 0 {
			d.line++
			now = d.begin(piece)
		} else if now != none {
			_, _ = d.search.Write(piece) // the rest of a long line
		}
		switch {
		case err == nil:
			begins = true
		case errors.Is(err, bufio.ErrBufferFull):
			begins = false
		default:
			d.release()
			d.search.end()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

// begin takes a line, or the beginning of a long one, and tells what it is.
func (d *diff) begin(line []byte) kind {
	if d.hunk.open() {
		if k, ok := d.inHunk(line); ok {
			return k
		}
		d.hunk = hunk{} // it was none
	}
	if d.held != nil {
		if bytes.HasPrefix(line, []byte("+++ ")) {
			d.held = nil
			d.newName(string(line[4:]))
			return d.enter(none, 0, "")
		}
		d.release()
	}
	switch text := string(line[:min(len(line), 4096)]); {
	case strings.HasPrefix(text, "--- ") && len(line) < 4096:
		d.held = bytes.Clone(line)
		return d.enter(none, 0, "")
	case strings.HasPrefix(text, "diff --git "):
		// Without a/ and b/ both names are the same.
		names := strings.TrimRight(text[len("diff --git "):], "\r\n")
		d.git, d.file = names[:len(names)/2] != names[(len(names)+1)/2:], stdin
		d.to = ""
		return d.enter(none, 0, "")
	case strings.HasPrefix(text, "diff --cc "), strings.HasPrefix(text, "diff --combined "):
		d.git, d.file, d.to = true, stdin, ""
		return d.enter(none, 0, "")
	case strings.HasPrefix(text, "rename from "), strings.HasPrefix(text, "copy from "), strings.HasPrefix(text, `\ `):
		return d.enter(none, 0, "")
	case d.startHunk(text):
		return d.enter(none, 0, "")
	case strings.HasPrefix(text, "rename to "), strings.HasPrefix(text, "copy to "):
		_, name, _ := strings.Cut(text, " to ")
		d.to = nameOf(name)
	}
	return d.put(around, d.line, stdin, line)
}

// release looks at the line that was held.
func (d *diff) release() {
	if held := d.held; held != nil {
		d.held = nil
		d.put(around, d.line-1, stdin, held)
	}
}

// put gives a line to the search.
func (d *diff) put(k kind, line int, path string, text []byte) kind {
	d.enter(k, line, path)
	_, _ = d.search.Write(text)
	return k
}

// enter begins another text, if that is another one than the search is in.
func (d *diff) enter(k kind, line int, path string) kind {
	if k != d.inside || k != none && d.at.path != path {
		d.search.end()
		d.search.from(line)
		d.inside, d.at = k, where{path: path}
	}
	return k
}

// inHunk takes a line of a hunk, and reports whether it is one.
func (d *diff) inHunk(line []byte) (kind, bool) {
	h, marks := &d.hunk, len(d.hunk.old)
	if line[0] == '\\' {
		return d.enter(none, 0, ""), true
	}
	if blank := len(bytes.TrimRight(line, "\r\n")) == 0; blank { // mail programs cut spaces
		line = []byte(strings.Repeat(" ", marks))
	}
	if len(line) < marks {
		return none, false
	}
	plus, minus := false, false
	for _, c := range line[:marks] {
		plus, minus = plus || c == '+', minus || c == '-'
		if c != '+' && c != '-' && c != ' ' {
			return none, false
		}
	}
	for i, c := range line[:marks] {
		if minus == (c == '-') && c != '+' {
			h.old[i]--
		}
	}
	if minus {
		return d.enter(none, 0, ""), true
	}
	number := h.line
	h.left--
	h.line++
	if !plus {
		return d.enter(none, 0, ""), true
	}
	return d.put(added, number, d.file, line[marks:]), true
}

var hunkHead = regexp.MustCompile(`\A(@@+)((?: -\d+(?:,\d+)?)+) \+(\d+)(?:,(\d+))? (@@+)`)

// startHunk reports whether a line begins a hunk.
func (d *diff) startHunk(line string) bool {
	if !strings.HasPrefix(line, "@@") {
		return false
	}
	m := hunkHead.FindStringSubmatch(line)
	if m == nil || m[1] != m[5] {
		return false
	}
	ranges := strings.Fields(m[2])
	if len(ranges) != len(m[1])-1 {
		return false
	}
	h := hunk{}
	for _, r := range ranges {
		_, n, ok := strings.Cut(r, ",")
		h.old = append(h.old, number(n, ok))
	}
	h.left, h.line = number(m[4], m[4] != ""), number(m[3], true)
	d.hunk = h
	return true
}

// number is a count of lines; where it is left out it is 1.
func number(text string, given bool) int {
	if !given {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// newName takes the name after +++.
func (d *diff) newName(text string) {
	name := nameOf(text)
	if name == "/dev/null" {
		d.file = stdin
		return
	}
	if d.to != "" {
		name = d.to // whatever is in front of it here
	} else if d.git && len(name) > 2 && name[1] == '/' { // b/, or i/ and w/
		name = name[2:]
	}
	d.file = name
	d.all.addName(where{path: name})
}

// nameOf is a name at the end of a line.
func nameOf(text string) string {
	name := strings.TrimRight(text, "\r\n")
	if unquoted, ok := unquote(name); ok {
		return unquoted
	}
	name, _, _ = strings.Cut(name, "\t")
	return name
}

// unquote is a name in quotes, as git writes one with odd characters.
func unquote(text string) (string, bool) {
	if len(text) < 2 || text[0] != '"' {
		return "", false
	}
	var out []byte
	for i := 1; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			return string(out), true
		case c != '\\' || i+1 == len(text):
			out = append(out, c)
			continue
		}
		i++
		if at := strings.IndexByte(`abtnvfr"\`, text[i]); at >= 0 {
			out = append(out, "\a\b\t\n\v\f\r\"\\"[at])
			continue
		}
		if i+3 > len(text) {
			return "", false
		}
		n, err := strconv.ParseUint(text[i:i+3], 8, 8)
		if err != nil {
			return "", false
		}
		out = append(out, byte(n))
		i += 2
	}
	return "", false
}
