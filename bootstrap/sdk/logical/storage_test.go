// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
)

func fill(t *testing.T, s Storage, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.Put(context.Background(), &StorageEntry{Key: key, Value: []byte("value of " + key)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStorages(t *testing.T) {
	TestStorage(t, &InmemStorage{})
	TestStorage(t, NewStorageView(&InmemStorage{}, "view/"))
}

func TestInmemStorageList(t *testing.T) {
	s := &InmemStorage{}
	fill(t, s, "b", "a/y", "a", "a/x", "a/d/1", "a/d/2", "a-", "a0", "z/", "ü/x")
	for prefix, want := range map[string][]string{
		"":      {"a", "a-", "a/", "a0", "b", "z/", "ü/"},
		"a":     {"", "-", "/", "0"},
		"a/":    {"d/", "x", "y"},
		"a/d/":  {"1", "2"},
		"z/":    {""},
		"none/": nil,
	} {
		got, err := s.List(context.Background(), prefix)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", prefix, got, err, want)
		}
	}
}

func TestInmemStorageListEqualsTheObvious(t *testing.T) {
	s := &InmemStorage{}
	var keys []string
	for i := range 200 {
		keys = append(keys, strings.NewReplacer("0", "/", "1", "a", "2", "-").Replace(fmt.Sprint(i*7919%1000)))
	}
	fill(t, s, keys...)
	for _, prefix := range append(keys, "") {
		seen := map[string]bool{}
		for _, key := range keys {
			if rest, ok := strings.CutPrefix(key, prefix); ok {
				if slash := strings.Index(rest, "/"); slash >= 0 {
					rest = rest[:slash+1]
				}
				seen[rest] = true
			}
		}
		want := make([]string, 0, len(seen))
		for child := range seen {
			want = append(want, child)
		}
		sort.Strings(want)
		if got, err := s.List(context.Background(), prefix); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", prefix, got, err, want)
		}
	}
}

func TestInmemStorageEntries(t *testing.T) {
	ctx := context.Background()
	s := &InmemStorage{}
	if got, err := s.Get(ctx, "k"); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
	for _, value := range []string{"one", "two", ""} {
		if err := s.Put(ctx, &StorageEntry{Key: "k", Value: []byte(value), SealWrap: true}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(ctx, "k")
		if want := (&StorageEntry{Key: "k", Value: []byte(value)}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if keys, err := s.List(ctx, ""); err != nil || len(keys) != 1 {
			t.Errorf("keys are %q, %v", keys, err)
		}
	}
}

func TestInmemStorageFailures(t *testing.T) {
	ctx := context.Background()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	s := &InmemStorage{}
	fill(t, s, "k")
	ops := map[string]func(context.Context) error{
		"put":    func(ctx context.Context) error { return s.Put(ctx, &StorageEntry{Key: "k"}) },
		"get":    func(ctx context.Context) error { _, err := s.Get(ctx, "k"); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "k") },
		"list":   func(ctx context.Context) error { _, err := s.List(ctx, ""); return err },
	}
	switches := map[string]func(bool) *InmemStorage{"put": s.FailPut, "get": s.FailGet, "delete": s.FailDelete, "list": s.FailList}
	for name, fail := range switches {
		if fail(true) != s {
			t.Errorf("%s: another storage", name)
		}
		for other, op := range ops {
			if other == "delete" && name != "delete" {
				continue
			}
			if err := op(ctx); (err != nil) != (name == other) {
				t.Errorf("with %s failing %s gives %v", name, other, err)
			}
		}
		fail(false)
		if err := ops[name](cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := s.Get(ctx, "k"); err != nil || got == nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestInmemStorageConcurrently(t *testing.T) {
	ctx := context.Background()
	s := &InmemStorage{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 100 {
				key := fmt.Sprintf("%d/%d", i, j)
				if err := s.Put(ctx, &StorageEntry{Key: key, Value: []byte(key)}); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(ctx, key); err != nil || string(got.Value) != key {
					t.Errorf("got %v, %v", got, err)
				}
				if _, err := s.List(ctx, ""); err != nil {
					t.Error(err)
				}
				if j%2 == 0 {
					if err := s.Delete(ctx, key); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	if keys, err := CollectKeys(ctx, s); err != nil || len(keys) != 400 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestStorageEntryJSON(t *testing.T) {
	entry, err := StorageEntryJSON("k", map[string]interface{}{"n": 1})
	if want := (&StorageEntry{Key: "k", Value: []byte("{\"n\":1}\n")}); err != nil || !reflect.DeepEqual(entry, want) {
		t.Errorf("got %v, %v", entry, err)
	}
	for _, bad := range []interface{}{nil, func() {}} {
		if entry, err := StorageEntryJSON("k", bad); entry != nil || err == nil {
			t.Errorf("got %v, %v", entry, err)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	var compressed bytes.Buffer
	compressed.WriteByte('G')
	zip := gzip.NewWriter(&compressed)
	if _, err := zip.Write([]byte(`{"n":9007199254740993}`)); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{[]byte(`{"n":9007199254740993}`), compressed.Bytes()} {
		var out map[string]interface{}
		err := (&StorageEntry{Value: value}).DecodeJSON(&out)
		if err != nil || out["n"] != json.Number("9007199254740993") {
			t.Errorf("got %v, %v", out, err)
		}
	}
	for _, bad := range []string{"", "x", "G", "Gxx"} {
		var out interface{}
		if err := (&StorageEntry{Value: []byte(bad)}).DecodeJSON(&out); err == nil {
			t.Errorf("%q decodes to %v", bad, out)
		}
	}
	if err := (&StorageEntry{Value: []byte("1")}).DecodeJSON(nil); err == nil {
		t.Error("decoded into nothing")
	}
}

func TestScanAndClear(t *testing.T) {
	ctx := context.Background()
	s := &InmemStorage{}
	fill(t, s, "a", "b/c", "b/d/e", "b/d/f", "g/h")

	keys, err := CollectKeys(ctx, s)
	if want := []string{"a", "g/h", "b/c", "b/d/e", "b/d/f"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("got %q, %v, want %q", keys, err, want)
	}
	keys, err = CollectKeysWithPrefix(ctx, s, "b/d")
	if want := []string{"b/d/e", "b/d/f"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("got %q, %v, want %q", keys, err, want)
	}

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if keys, err := CollectKeys(cancelled, s); keys != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v", keys, err)
	}
	if err := ClearView(cancelled, s); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := ClearView(ctx, s.FailDelete(true)); err == nil {
		t.Error("cleared what cannot be deleted from")
	}
	s.FailDelete(false)
	if err := ScanView(ctx, s.FailList(true), func(string) {}); err == nil || !strings.Contains(err.Error(), `list failed at path ""`) {
		t.Errorf("got %v", err)
	}
	s.FailList(false)
	if keys, err := CollectKeys(ctx, s); err != nil || len(keys) != 5 {
		t.Errorf("keys are %q, %v", keys, err)
	}

	if err := ClearView(ctx, NewStorageView(s, "b/d/")); err != nil {
		t.Error(err)
	}
	if keys, err := CollectKeys(ctx, s); err != nil || len(keys) != 3 {
		t.Errorf("keys are %q, %v", keys, err)
	}
	if err := ClearView(ctx, s); err != nil {
		t.Error(err)
	}
	if keys, err := CollectKeys(ctx, s); err != nil || len(keys) != 0 {
		t.Errorf("keys are %q, %v", keys, err)
	}
	if err := ClearView(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestStorageView(t *testing.T) {
	ctx := context.Background()
	s := &InmemStorage{}
	v := NewStorageView(s, "p/").SubView("q/")
	if v.Prefix() != "p/q/" || v.ExpandKey("k") != "p/q/k" || v.TruncateKey("p/q/k") != "k" {
		t.Errorf("prefix is %q", v.Prefix())
	}
	fill(t, s, "outside")
	fill(t, v, "k", "d/e")

	if keys, err := s.List(ctx, "p/q/"); err != nil || !slices.Equal(keys, []string{"d/", "k"}) {
		t.Errorf("below are %q, %v", keys, err)
	}
	if keys, err := v.List(ctx, "d/"); err != nil || !slices.Equal(keys, []string{"e"}) {
		t.Errorf("keys are %q, %v", keys, err)
	}
	got, err := v.Get(ctx, "k")
	if want := (&StorageEntry{Key: "k", Value: []byte("value of k")}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := v.Get(ctx, "outside"); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if err := v.Delete(ctx, "k"); err != nil {
		t.Error(err)
	}
	if got, err := s.Get(ctx, "p/q/k"); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}

	if err := v.Put(ctx, nil); err == nil {
		t.Error("put nothing")
	}
	for _, key := range []string{"..", "../outside", "a/../b", "a..b"} {
		_, getErr := v.Get(ctx, key)
		_, listErr := v.List(ctx, key)
		for _, err := range []error{getErr, listErr, v.Delete(ctx, key), v.Put(ctx, &StorageEntry{Key: key})} {
			if err != ErrRelativePath {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
	s.FailGet(true)
	if _, err := v.Get(ctx, "k"); err == nil {
		t.Error("got what cannot be read")
	}
}

type recordingStorage struct {
	Storage
	put *StorageEntry
}

func (r *recordingStorage) Put(_ context.Context, entry *StorageEntry) error {
	r.put = entry
	return nil
}

func TestStorageViewKeepsSealWrap(t *testing.T) {
	r := &recordingStorage{}
	entry := &StorageEntry{Key: "k", Value: []byte("v"), SealWrap: true}
	if err := NewStorageView(r, "p/").Put(context.Background(), entry); err != nil {
		t.Fatal(err)
	}
	if want := (&StorageEntry{Key: "p/k", Value: []byte("v"), SealWrap: true}); !reflect.DeepEqual(r.put, want) {
		t.Errorf("put %v, want %v", r.put, want)
	}
	if entry.Key != "k" {
		t.Error("the caller's entry has changed")
	}
}
