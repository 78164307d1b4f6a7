// SPDX-License-Identifier: MPL-2.0

package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func since(t *testing.T, f *Feed, cursor string, wait time.Duration) Answer {
	t.Helper()
	a, err := f.Since(t.Context(), cursor, wait)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSince(t *testing.T) {
	f := New(4)
	for _, cursor := range []string{"", "x", ".", "other.0", f.epoch + ".1", f.epoch + ".-1", f.epoch} {
		if a := since(t, f, cursor, time.Hour); !a.Reset || len(a.Notices) > 0 || a.Cursor != f.epoch+".0" {
			t.Errorf("since %q: %+v", cursor, a)
		}
	}
	start := f.Cursor()
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Publish(Notice{RoleID: "a", Closing: true, At: at})
	f.Publish(Notice{RoleID: "b"})
	f.Publish(Notice{RoleID: "a"})
	f.Publish(Notice{KeyID: "a"})
	a := since(t, f, start, time.Hour)
	if !a.Oldest.Equal(at) {
		t.Errorf("the first was decided at %v", a.Oldest)
	}
	want := "[{a 3 true} {b 2 false} {a 4 false}]"
	var got []string
	for _, n := range a.Notices {
		got = append(got, fmt.Sprint("{", n.RoleID, n.KeyID, " ", n.Position, " ", n.Closing, "}"))
	}
	if fmt.Sprint(got) != want || a.Reset || a.Cursor != f.epoch+".4" {
		t.Errorf("%+v, want %s", a, want)
	}
	if a := since(t, f, a.Cursor, 0); a.Reset || len(a.Notices) > 0 || !a.Oldest.IsZero() {
		t.Errorf("up to date: %+v", a)
	}
	// One more, and the first is forgotten.
	f.Publish(Notice{RoleID: "c"})
	if a := since(t, f, start, 0); !a.Reset {
		t.Errorf("too old: %+v", a)
	}
	if a := since(t, f, f.epoch+".1", 0); a.Reset || len(a.Notices) != 4 {
		t.Errorf("just young enough: %+v", a)
	}
	// A new epoch knows nothing of what was told before.
	f.Renew()
	start = f.Cursor()
	f.Publish(Notice{RoleID: "d"})
	if a := since(t, f, start, 0); len(a.Notices) != 1 || a.Notices[0] != (Notice{RoleID: "d", Position: 1}) || a.Reset || a.Cursor != f.epoch+".1" {
		t.Errorf("a new epoch: %+v", a)
	}
}

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(8)
		cursor := f.Cursor()
		began := time.Now()
		if a := since(t, f, cursor, 2*time.Second); time.Since(began) != 2*time.Second || len(a.Notices) > 0 || a.Cursor != cursor {
			t.Errorf("%+v after %v", a, time.Since(began))
		}

		// A burst is one answer.
		began = time.Now()
		go func() {
			for range 3 {
				time.Sleep(150 * time.Millisecond)
				f.Publish(Notice{RoleID: time.Since(began).String()})
			}
		}()
		a := since(t, f, cursor, 2*time.Second)
		if took := time.Since(began); took != 150*time.Millisecond+Collect || len(a.Notices) != 3 {
			t.Errorf("%d notices after %v", len(a.Notices), took)
		}

		// One that comes at the last moment does not prolong the wait.
		began, cursor = time.Now(), f.Cursor()
		go func() {
			time.Sleep(1900 * time.Millisecond)
			f.Publish(Notice{RoleID: "late"})
		}()
		if a := since(t, f, cursor, 2*time.Second); time.Since(began) != 2*time.Second || len(a.Notices) != 1 {
			t.Errorf("%+v after %v", a, time.Since(began))
		}

		// A caller that goes is let go, also while it collects.
		for _, after := range []time.Duration{time.Millisecond, 100 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			cursor, began = f.Cursor(), time.Now()
			go func() {
				time.Sleep(50 * time.Millisecond)
				f.Publish(Notice{RoleID: "x"})
			}()
			if _, err := f.Since(ctx, cursor, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != after {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			cancel()
			time.Sleep(time.Second)
		}
		// More than is remembered is a reset for who waits, too.
		cursor = f.Cursor()
		go func() {
			time.Sleep(time.Second)
			for range 9 {
				f.Publish(Notice{RoleID: "x"})
			}
		}()
		if a := since(t, f, cursor, 2*time.Second); !a.Reset || len(a.Notices) > 0 {
			t.Errorf("overrun: %+v", a)
		}
		// A new epoch is a reset for who waits, and for who comes later.
		cursor = f.Cursor()
		go func() {
			time.Sleep(time.Second)
			f.Renew()
		}()
		a = since(t, f, cursor, 2*time.Second)
		was, _, _ := ParseCursor(cursor)
		if is, _, _ := ParseCursor(a.Cursor); !a.Reset || is == was {
			t.Errorf("a new epoch: %+v, after %s", a, cursor)
		}
		if a := since(t, f, cursor, 2*time.Second); !a.Reset {
			t.Errorf("of the epoch before: %+v", a)
		}
		if f.Waiters() != 0 {
			t.Errorf("%d waiters are left", f.Waiters())
		}
	})
}

// Whoever goes on from cursor to cursor misses nothing that is not told as a reset.
func TestNothingIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(64)
		const count = 1000
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				var last uint64
				cursor := f.Cursor()
				for last < count {
					a, err := f.Since(t.Context(), cursor, 2*time.Second)
					if err != nil || a.Reset {
						t.Errorf("%+v, %v", a, err)
						return
					}
					for _, n := range a.Notices {
						if n.Position != last+1 {
							t.Errorf("notice %d after %d", n.Position, last)
						}
						last = n.Position
					}
					cursor = a.Cursor
				}
			})
		}
		synctest.Wait()
		for i := range count {
			f.Publish(Notice{RoleID: fmt.Sprint(i)})
			if i%7 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		wg.Wait()
	})
}
