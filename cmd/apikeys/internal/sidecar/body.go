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
//
// It is read in a goroutine of its own, when somebody waits for more: a client may take
// its time, and an attempt that is over must not be held by that.
type body struct {
	from   io.Reader
	length int64 // negative if nobody knows it

	mu      sync.Mutex
	news    sync.Cond // something of what follows has changed
	reading bool      // pump runs
	wanted  bool      // somebody waits for more
	kept    []byte    // what was read last: up to offset total
	total   int64
	whole   bool   // kept is all that was read
	err     error  // how the body ends
	current *pass  // nil at the end
	atEnd   func() // called once, before the end is first told
}

// pass is one reading of a body. When the next has begun, it gets nothing any more.
type pass struct {
	body   *body
	at     int64
	closed bool
}

var (
	errPassed  = errors.New("the body is not read by this attempt any more")
	errNotKept = errors.New("the body is too long to be sent again")
)

func newBody(from io.Reader, length int64) *body {
	b := &body{from: from, length: length, whole: true}
	b.news.L = &b.mu
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
	b.news.Broadcast()
	return b.current, nil
}

// end has nobody read any more.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = nil
	b.freeLocked()
	b.news.Broadcast()
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

// pump reads when more is wanted.
func (b *body) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && b.current != nil {
		if !b.wanted {
			b.news.Wait()
			continue
		}
		b.growLocked()
		free := b.kept[len(b.kept):min(cap(b.kept), len(b.kept)+maxRead)] // nobody else looks there
		b.mu.Unlock()
		n, err := b.from.Read(free)
		b.mu.Lock()
		b.kept = b.kept[:len(b.kept)+n]
		b.total += int64(n)
		b.whole = b.whole && b.total <= maxKept
		b.err = err
		b.wanted = false // not before: nothing is read ahead of who reads, where the buffer may begin anew
		b.news.Broadcast()
	}
	b.reading = false
	b.freeLocked()
}

// large is a buffer with room for all that is kept, and for a read that goes beyond.
type large [maxKept + maxRead]byte

var larges = sync.Pool{New: func() any { return new(large) }}

// minRead and maxRead bound the room for a read.
const minRead, maxRead = 512, 32 << 10

// growLocked makes room for a read.
func (b *body) growLocked() {
	room := cap(b.kept) - len(b.kept)
	if room >= minRead {
		return
	}
	size := 4 * cap(b.kept)
	if b.kept == nil {
		size = 4 << 10 // a stream may be of small messages, and live for long
		if b.length >= 0 {
			size = int(min(b.length, maxKept)) + minRead
		}
	}
	var next []byte
	if size > 16<<10 {
		next = larges.Get().(*large)[:0]
	} else {
		next = make([]byte, 0, size)
	}
	b.kept = append(next, b.kept...)
}

// freeLocked gives the buffer back when neither side looks at it any more.
func (b *body) freeLocked() {
	if b.current != nil || b.reading {
		return
	}
	if cap(b.kept) == len(large{}) {
		larges.Put((*large)(b.kept[:len(large{})]))
	}
	b.kept = nil
}

// Close ends this reading, not the body: another attempt may need the rest.
func (s *pass) Close() error {
	s.body.mu.Lock()
	defer s.body.mu.Unlock()
	s.closed = true
	s.body.news.Broadcast()
	return nil
}

func (s *pass) Read(p []byte) (int, error) {
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case b.current != s || s.closed:
			return 0, errPassed
		case s.at < b.total:
			n := copy(p, b.kept[int64(len(b.kept))-(b.total-s.at):])
			s.at += int64(n)
			if !b.whole && s.at == b.total {
				b.kept = b.kept[:0] // nobody reads that again
			}
			return n, nil
		case b.err != nil:
			return 0, b.toldLocked()
		case len(p) == 0:
			return 0, nil
		}
		if !b.reading {
			b.reading = true
			go b.pump()
		}
		b.wanted = true
		b.news.Broadcast()
		b.news.Wait()
	}
}

// toldLocked is how the body ends, as who reads now is told.
func (b *body) toldLocked() error {
	if errors.Is(b.err, io.EOF) && b.atEnd != nil {
		b.atEnd()
		b.atEnd = nil
	}
	return b.err
}
