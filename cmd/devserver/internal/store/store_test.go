// SPDX-License-Identifier: MPL-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"pgregory.net/rapid"
)

func stores(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("memory", func(t *testing.T) { f(t, NewMemory()) })
	t.Run("file", func(t *testing.T) {
		s, err := OpenFile(filepath.Join(t.TempDir(), "db"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f(t, s)
	})
}

func TestGetPutDelete(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		value := []byte("v")
		if err := s.Apply(Write{"a/b", value}, Write{"a", []byte{}}); err != nil {
			t.Fatal(err)
		}
		value[0] = 'x'
		if got, err := s.Get("a/b"); err != nil || string(got) != "v" {
			t.Errorf("get %q, %v", got, err)
		}
		if got, err := s.Get("a"); err != nil || got == nil || len(got) != 0 {
			t.Errorf("empty value came back as %v, %v", got, err)
		}
		if got, err := s.Get("a/c"); err != nil || got != nil {
			t.Errorf("absent key: %v, %v", got, err)
		}
		if err := s.Apply(Write{Key: "a/b"}, Write{Key: "absent/x"}); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Get("a/b"); got != nil {
			t.Errorf("deleted key: %q", got)
		}
	})
}

func TestRefusedWritesChangeNothing(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		for name, bad := range map[string]Write{
			"empty":     {"", []byte("x")},
			"directory": {"a/", []byte("x")},
			"value":     {"big", make([]byte, MaxValue+1)},
			"key":       {strings.Repeat("k", MaxKey+1), []byte("x")},
		} {
			if err := s.Apply(Write{"good", []byte("x")}, bad); err == nil {
				t.Errorf("%s: accepted", name)
			}
			if got, _ := s.Get("good"); got != nil {
				t.Errorf("%s: the write beside it was made", name)
			}
		}
		if err := s.Apply(Write{"big", make([]byte, MaxValue)}); err != nil {
			t.Errorf("largest value: %v", err)
		}
	})
}

// TestListAgreesWithAModel compares List with a plain computation over all keys.
func TestListAgreesWithAModel(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		model := map[string]bool{}
		segment := rapid.SampledFrom([]string{"a", "b", "a-b", "a0", "a.b", "z"})
		rapid.Check(t, func(rt *rapid.T) {
			key := strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(rt, "key"), "/")
			w := Write{Key: key}
			if rapid.Bool().Draw(rt, "put") {
				w.Value = []byte("x")
			}
			if err := s.Apply(w); err != nil {
				rt.Fatal(err)
			}
			delete(model, key)
			if w.Value != nil {
				model[key] = true
			}
			prefix := rapid.SampledFrom([]string{"", "a/", "a/a/", "b/a-b/", "a", "a/b", "q/"}).Draw(rt, "prefix")
			after := rapid.SampledFrom([]string{"", "a", "a/", "a0", "a-b/", "b"}).Draw(rt, "after")
			limit := rapid.IntRange(-1, 3).Draw(rt, "limit")
			want := []string{}
			for k := range model {
				rest, ok := strings.CutPrefix(k, prefix)
				if !ok {
					continue
				}
				if i := strings.IndexByte(rest, '/'); i >= 0 {
					rest = rest[:i+1]
				}
				if (after == "" || rest > after) && !slices.Contains(want, rest) {
					want = append(want, rest)
				}
			}
			slices.Sort(want)
			if limit > 0 && len(want) > limit {
				want = want[:limit]
			}
			got, err := s.List(prefix, after, limit)
			if err != nil {
				rt.Fatal(err)
			}
			if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
				rt.Fatalf("List(%q, %q, %d) = %v, want %v of %v", prefix, after, limit, got, want, model)
			}
		})
	})
}

func TestFileKeepsWhatWasApplied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := OpenFile(path); err == nil {
		other.Close()
		t.Error("the file was opened twice")
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := s.Apply(Write{fmt.Sprintf("k/%d", i), []byte("v")}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(Write{"late", []byte("x")}); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if s, err = OpenFile(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	keys, err := s.List("k/", "", -1)
	if err != nil || len(keys) != 200 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestViewIsAStorage(t *testing.T) {
	stores(t, func(t *testing.T, s Store) {
		ctx := context.Background()
		v, other := NewView(s, "one/"), NewView(s, "two/")
		logical.TestStorage(t, v)
		if err := other.Put(ctx, &logical.StorageEntry{Key: "mine", Value: []byte("x"), SealWrap: true}); err != nil {
			t.Fatal(err)
		}
		for i := range 1200 {
			if err := v.Put(ctx, &logical.StorageEntry{Key: fmt.Sprintf("deep/%d/x/%d", i%7, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if e, err := v.Get(ctx, "deep/0/x/0"); err != nil || e == nil || e.Key != "deep/0/x/0" || !bytes.Equal(e.Value, nil) {
			t.Errorf("get %+v, %v", e, err)
		}
		if err := v.Clear(ctx); err != nil {
			t.Fatal(err)
		}
		if keys, _ := v.List(ctx, ""); len(keys) != 0 {
			t.Errorf("left %v", keys)
		}
		if e, _ := other.Get(ctx, "mine"); e == nil {
			t.Error("the neighbour was cleared too")
		}
	})
}

func TestViewRefusals(t *testing.T) {
	ctx := context.Background()
	v := NewView(NewMemory(), "one/")
	if err := v.Put(ctx, &logical.StorageEntry{Key: "a..b", Value: []byte("x")}); !errors.Is(err, logical.ErrRelativePath) {
		t.Errorf("two dots: %v", err)
	}
	if err := v.Put(ctx, nil); err == nil {
		t.Error("nil entry accepted")
	}
	v.Refuse(logical.ErrSetupReadOnly)
	if err := v.Put(ctx, &logical.StorageEntry{Key: "a", Value: []byte("x")}); !errors.Is(err, logical.ErrSetupReadOnly) {
		t.Errorf("write while refused: %v", err)
	}
	if _, err := v.Get(ctx, "a"); err != nil {
		t.Errorf("read while refused: %v", err)
	}
	v.Refuse(nil)
	if err := v.Put(ctx, &logical.StorageEntry{Key: "a", Value: []byte("x")}); err != nil {
		t.Error(err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := v.Get(done, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
