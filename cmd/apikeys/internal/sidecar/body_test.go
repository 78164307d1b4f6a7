// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// text is different everywhere.
func text(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprint(&b, i, " ")
	}
	return b.String()[:size]
}

func reads(t *testing.T, r io.Reader) string {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// What was read up to the limit can be read again, and goes on with the rest.
func TestBodyAgain(t *testing.T) {
	for _, test := range []struct {
		size, read int // of the body; before it is read again
		again      bool
	}{
		{0, 0, true},
		{1, 0, true},
		{1, 1, true},
		{maxKept, maxKept, true},
		{maxKept + 1, maxKept, true},
		{maxKept + 1, maxKept + 1, false},
		{10 * maxKept, 0, true},
		{10 * maxKept, 100, true},
		{10 * maxKept, 2 * maxKept, false},
	} {
		want := text(test.size)
		b := newBody(strings.NewReader(want), int64(test.size))
		first := b.current
		if got := reads(t, io.LimitReader(first, int64(test.read))); got != want[:test.read] {
			t.Errorf("%+v: another text at first", test)
		}
		for range 2 { // as often as anybody likes
			next, err := b.again()
			if (err == nil) != test.again {
				t.Fatalf("%+v: %v", test, err)
			}
			if !test.again {
				next = first
				want = want[test.read:]
				if got := reads(t, next); got != want {
					t.Errorf("%+v: another rest", test)
				}
				break
			}
			if test.size <= maxKept {
				if got := reads(t, next); got != want {
					t.Errorf("%+v: another text", test)
				}
			}
			if n, err := first.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errPassed) {
				t.Errorf("%+v: who was passed reads %d, %v", test, n, err)
			}
		}
		if test.again {
			if got := reads(t, b.current); test.size > maxKept && got != want {
				t.Errorf("%+v: another text at last", test)
			}
		}
		if len(b.kept) > 0 && test.size > maxKept {
			t.Errorf("%+v: %d bytes are still kept", test, len(b.kept))
		}
		b.end()
		if _, err := b.again(); err == nil {
			t.Errorf("%+v: it is read again after the end", test)
		}
	}
}

// A reader that is passed while it reads loses nothing for the one after it, also where
// the limit is passed by that.
func TestBodyIsPassedWhileRead(t *testing.T) {
	for _, size := range []int{100, maxKept, maxKept + 7, 3 * maxKept} {
		from, to := io.Pipe()
		want := text(size)
		entered := make(chan struct{}, 100)
		b := newBody(telling{from, entered}, -1)
		first := b.current
		wrote := make(chan struct{})
		go func() {
			_, _ = io.WriteString(to, want[:50])
			close(wrote)
		}()
		half := make([]byte, 50)
		if _, err := io.ReadFull(first, half); err != nil {
			t.Fatal(err)
		}
		<-wrote
		<-entered
		stale := make(chan error)
		go func() {
			_, err := first.Read(make([]byte, 2*maxKept))
			stale <- err
		}()
		<-entered // now it is read for the first
		next, err := b.again()
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			raw, _ := io.ReadAll(next)
			got <- string(raw)
		}()
		_, _ = io.WriteString(to, want[50:])
		_ = to.Close()
		if text := <-got; text != want {
			t.Errorf("%d: %d bytes of %d", size, len(text), len(want))
		}
		if err := <-stale; !errors.Is(err, errPassed) {
			t.Errorf("%d: the first one is told %v", size, err)
		}
	}
}

func TestBodyErrors(t *testing.T) {
	broken := errors.New("broken")
	b := newBody(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), 7)
	for range 2 {
		if raw, err := io.ReadAll(b.current); string(raw) != "abc" || !errors.Is(err, broken) {
			t.Errorf("%s, %v", raw, err)
		}
		if !errors.Is(b.failed(), broken) {
			t.Error(b.failed())
		}
		if _, err := b.again(); err != nil {
			t.Fatal(err)
		}
	}
	ends := 0
	b = newBody(iotest.DataErrReader(strings.NewReader("abc")), -1)
	b.atEnd = func() { ends++ }
	for range 2 {
		if got := reads(t, b.current); got != "abc" || b.failed() != nil {
			t.Errorf("%s, %v", got, b.failed())
		}
		if _, err := b.again(); err != nil {
			t.Fatal(err)
		}
	}
	if ends != 1 {
		t.Errorf("the end is told %d times", ends)
	}
}

// telling tells of each read.
type telling struct {
	io.Reader

	entered chan struct{}
}

func (r telling) Read(p []byte) (int, error) {
	r.entered <- struct{}{}
	return r.Reader.Read(p)
}

// Closing ends a read that waits for the client, and nothing else.
func TestBodyClose(t *testing.T) {
	from, to := io.Pipe()
	b := newBody(from, -1)
	first := b.current
	told := make(chan error)
	go func() {
		_, err := first.Read(make([]byte, 1))
		told <- err
	}()
	_ = first.Close()
	if err := <-told; !errors.Is(err, errPassed) {
		t.Errorf("a read that was closed: %v", err)
	}
	next, err := b.again()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(to, "text")
		_ = to.Close()
	}()
	if got := reads(t, next); got != "text" {
		t.Errorf("%q", got)
	}
}

// Whoever reads last reads all of it, whatever those before him do meanwhile.
func TestBodyRaces(t *testing.T) {
	for range 50 {
		want := []byte(text(rand.IntN(maxKept)))
		b := newBody(iotest.OneByteReader(bytes.NewReader(want[:min(len(want), 500)])), int64(len(want)))
		want = want[:min(len(want), 500)]
		var wg sync.WaitGroup
		for range 4 {
			s := b.current
			wg.Go(func() { _, _ = io.Copy(io.Discard, s) })
			if _, err := b.again(); err != nil {
				t.Fatal(err)
			}
		}
		if got := reads(t, b.current); got != string(want) {
			t.Errorf("%d bytes of %d", len(got), len(want))
		}
		wg.Wait()
	}
}

// slow lets others go on before it reads.
type slow struct{ io.Reader }

func (r slow) Read(p []byte) (int, error) {
	for range 100 {
		runtime.Gosched()
	}
	return r.Reader.Read(p)
}

// Whoever is woken without need has nothing read ahead of it, where the buffer begins
// anew.
func TestBodyIsReadOnDemand(t *testing.T) {
	want := text(4 * maxKept)
	b := newBody(slow{strings.NewReader(want)}, -1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				b.mu.Lock()
				b.news.Broadcast()
				b.mu.Unlock()
			}
		}
	})
	if got := reads(t, b.current); got != want {
		t.Errorf("another text, of %d bytes", len(got))
	}
	close(stop)
	wg.Wait()
}
