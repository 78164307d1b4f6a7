// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

const (
	// window is how much of a text is in memory at once.
	window = 256 << 10
	// overlap is how much of it is looked at twice where no place to cut it is found. A
	// key is 94 characters at most; only where each of them is spelled by hundreds, and
	// nothing stands apart for a whole window, can one be longer.
	overlap = 32 << 10
)

// search looks for keys in a text that comes in pieces of any size, in bounded memory. It
// finds what stands across the pieces' borders too.
type search struct {
	found func(k keyformat.Key, line, column int)

	buf     []byte // the window
	n       int    // of it is filled
	overlap int
	known   int // up to here the buffer was looked at before
	// Where the buffer begins, counted from 1; columns count bytes.
	line, column int
}

func newSearch(found func(k keyformat.Key, line, column int)) *search {
	return &search{found: found, buf: make([]byte, window), overlap: overlap, line: 1, column: 1}
}

// from begins another text, at that line of it.
func (s *search) from(line int) { s.n, s.known, s.line, s.column = 0, 0, line, 1 }

// readFrom looks at all of r, as one text.
func (s *search) readFrom(r io.Reader) (int64, error) {
	s.from(1)
	var all int64
	for idle := 0; ; {
		n, err := r.Read(s.buf[s.n:])
		s.n += n
		all += int64(n)
		if s.n == len(s.buf) {
			s.look()
		}
		if err != nil {
			s.end()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, err
		}
		if idle++; n > 0 {
			idle = 0
		} else if idle > 100 {
			s.end()
			return all, io.ErrNoProgress
		}
	}
}

// Write takes a piece of the text.
func (s *search) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := copy(s.buf[s.n:], rest)
		s.n += n
		rest = rest[n:]
		if s.n == len(s.buf) {
			s.look()
		}
	}
	return len(p), nil
}

// end looks at what is left of the text.
func (s *search) end() {
	s.locate(s.n)
	s.forget(s.n)
}

// look makes room in a full buffer.
func (s *search) look() {
	if end := keyformat.LastBreak(s.buf[:s.n]); end > s.n/2 {
		s.locate(end)
		s.forget(end)
		return
	}
	// What reads as one word for so long is cut anywhere, and its end is kept. A key that
	// is found in the beginning of a text is found in all of it, so nothing is found in
	// what is kept that has not been found by now.
	s.locate(s.n)
	s.known = s.n
	s.forget(s.n - s.overlap)
}

func (s *search) locate(end int) {
	text := s.buf[:end]
	at, line, lineStart := 0, s.line, -(s.column - 1)
	locate(text, maxEncoded, func(k keyformat.Key, start, end int) {
		if end <= s.known {
			return
		}
		if start < at {
			at, line, lineStart = 0, s.line, -(s.column - 1)
		}
		between := text[at:start]
		if n := bytes.Count(between, newline); n > 0 {
			line += n
			lineStart = at + bytes.LastIndexByte(between, '\n') + 1
		}
		at = start
		s.found(k, line, start-lineStart+1)
	})
}

var newline = []byte("\n")

// forget drops the first n bytes of the buffer.
func (s *search) forget(n int) {
	gone := s.buf[:n]
	if lines := bytes.Count(gone, newline); lines > 0 {
		s.line += lines
		s.column = n - bytes.LastIndexByte(gone, '\n')
	} else {
		s.column += n
	}
	s.n = copy(s.buf, s.buf[n:s.n])
	s.known = max(0, s.known-n)
}

// problem is something that could not be looked at.
type problem struct {
	where string
	err   error
}

func (p problem) String() string { return fmt.Sprintf("%s: %s", shown(p.where), shown(p.text())) }
