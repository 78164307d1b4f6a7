// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"errors"
	"io"
	"sync"
)

// maxKept is how much of a request's body is kept, so that it can be sent again.
const maxKept = 64 << 10

// body is that of a request, which may be sent more than once. It is passed on as it
// comes. What was read of it is kept, up to maxKept; while that is all, it can be read
// again from its beginning, and goes on with what has not come yet.
type body struct {
	from io.Reader
	// turn is held by the one that reads: that may take as long as the client likes.
	turn chan struct{}

	mu      sync.Mutex
	kept    []byte // what was read last: up to offset total
	total   int64
	whole   bool // kept begins with the body
	err     error
	current *pass
	atEnd   func() // called once, before the end is first told
}

// pass is one reading of a body. When the next has begun, it gets nothing any more: an
// attempt to send a request may read on when it has long been answered.
type pass struct {
	body *body
	at   int64
}

var (
	errPassed  = errors.New("the body is read by another attempt")
	errNotKept = errors.New("the body is too long to be sent again")
)

func newBody(from io.Reader) *body {
	b := &body{from: from, turn: make(chan struct{}, 1), whole: true}
	b.current = &pass{body: b}
	return b
}

// again is the body from its beginning.
func (b *body) again() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.whole || b.current == nil {
		return nil, errNotKept
	}
	b.current = &pass{body: b}
	return b.current, nil
}

// end has nobody read any more.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current, b.kept = nil, nil
}

// failed is why the client's body cannot be read, if that is so.
func (b *body) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// Close does nothing: who sends a request closes its body, and another attempt may need
// the rest.
func (s *pass) Close() error { return nil }

func (s *pass) Read(p []byte) (int, error) {
	b := s.body
	if len(p) == 0 {
		return 0, nil
	}
	if n, err, ok := s.atHand(p); ok {
		return n, err
	}
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	// An attempt that was given up may have read meanwhile.
	if n, err, ok := s.atHand(p); ok {
		return n, err
	}
	n, err := b.from.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	b.total += int64(n)
	if b.whole || b.current != s {
		b.kept = append(b.kept, p[:n]...)
	}
	b.whole = b.whole && b.total <= maxKept
	if b.current != s {
		return 0, errPassed // and what was read waits for the one that reads now
	}
	s.at = b.total
	b.dropLocked()
	return n, b.toldLocked()
}

// atHand is what needs no reading.
func (s *pass) atHand(p []byte) (n int, err error, ok bool) {
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.current != s:
		return 0, errPassed, true
	case s.at < b.total:
		n = copy(p, b.kept[int64(len(b.kept))-(b.total-s.at):])
		s.at += int64(n)
		b.dropLocked()
		return n, nil, true
	case b.err != nil:
		return 0, b.toldLocked(), true
	}
	return 0, nil, false
}

// toldLocked is how the body ends, as who reads now is told.
func (b *body) toldLocked() error {
	if errors.Is(b.err, io.EOF) && b.atEnd != nil {
		b.atEnd()
		b.atEnd = nil
	}
	return b.err
}

// dropLocked lets go what nobody will read again.
func (b *body) dropLocked() {
	if !b.whole && b.current.at == b.total {
		b.kept = nil
	}
}
