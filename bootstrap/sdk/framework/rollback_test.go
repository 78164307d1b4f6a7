// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestWAL(t *testing.T) {
	ctx := context.Background()
	s := &logical.InmemStorage{}

	if ids, err := ListWAL(ctx, s); err != nil || len(ids) != 0 {
		t.Errorf("list: %v, %v", ids, err)
	}
	before := time.Now().Unix()
	id, err := PutWAL(ctx, s, "kind", map[string]interface{}{"n": 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	other, err := PutWAL(ctx, s, "kind", nil)
	if err != nil || other == id {
		t.Fatal("second entry", other, err)
	}
	entry, err := GetWAL(ctx, s, id)
	if err != nil {
		t.Fatal(err)
	}
	if entry.CreatedAt < before || entry.CreatedAt > time.Now().Unix() {
		t.Errorf("created at %d", entry.CreatedAt)
	}
	want := &WALEntry{ID: id, Kind: "kind", Data: map[string]interface{}{"n": json.Number("1152921504606846976")}, CreatedAt: entry.CreatedAt}
	if !reflect.DeepEqual(entry, want) {
		t.Errorf("got %#v, want %#v", entry, want)
	}

	stored, err := s.Get(ctx, WALPrefix+id)
	if err != nil || stored == nil {
		t.Fatal("not under the prefix", err)
	}
	var fields map[string]interface{}
	if err := stored.DecodeJSON(&fields); err != nil {
		t.Fatal(err)
	}
	if len(fields) != 3 || fields["type"] != "kind" || fields["data"] == nil || fields["created_at"] == nil {
		t.Errorf("stored as %s", stored.Value)
	}

	if err := DeleteWAL(ctx, s, id); err != nil {
		t.Fatal(err)
	}
	if entry, err := GetWAL(ctx, s, id); entry != nil || err != nil {
		t.Errorf("got %v, %v", entry, err)
	}
	if ids, err := ListWAL(ctx, s); err != nil || !slices.Equal(ids, []string{other}) {
		t.Errorf("list: %v, %v", ids, err)
	}

	if id, err := PutWAL(ctx, s.FailPut(true), "kind", nil); id == "" || err == nil {
		t.Errorf("failed put gives %q, %v", id, err)
	}
	if _, err := PutWAL(ctx, s, "kind", func() {}); err == nil {
		t.Error("stored a function")
	}
}

func TestRollback(t *testing.T) {
	for name, c := range map[string]struct {
		age, minAge time.Duration
		immediate   bool
		periodic    error
		undo        error
		fail        func(*logical.InmemStorage)

		undone, left bool
		err, text    string
	}{
		"old":                      {age: 11 * time.Minute, undone: true},
		"young":                    {age: 9 * time.Minute, left: true},
		"young but immediate":      {age: 0, immediate: true, undone: true},
		"old enough":               {age: 2 * time.Minute, minAge: time.Minute, undone: true},
		"not old enough":           {age: 20 * time.Minute, minAge: time.Hour, left: true},
		"periodic function failed": {age: 11 * time.Minute, periodic: errors.New("late"), undone: true, err: "late"},
		"undo failed":              {age: 11 * time.Minute, undo: errors.New("stuck"), undone: true, left: true, text: `error rolling back "kind" entry: stuck`},
		"delete failed":            {age: 11 * time.Minute, undone: true, left: true, fail: func(s *logical.InmemStorage) { s.FailDelete(true) }, text: "delete operations disabled"},
		"get failed":               {age: 11 * time.Minute, left: true, fail: func(s *logical.InmemStorage) { s.FailGet(true) }, text: "get operations disabled"},
		"list failed":              {age: 11 * time.Minute, left: true, fail: func(s *logical.InmemStorage) { s.FailList(true) }, text: "list operations disabled"},
		"both failed":              {age: 11 * time.Minute, periodic: errors.New("late"), undo: errors.New("stuck"), undone: true, left: true, err: "late", text: "stuck"},
	} {
		ctx := context.Background()
		s := &logical.InmemStorage{}
		entry, err := logical.StorageEntryJSON(WALPrefix+"id", &WALEntry{Kind: "kind", Data: "d", CreatedAt: time.Now().Add(-c.age).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, entry); err != nil {
			t.Fatal(err)
		}
		if c.fail != nil {
			c.fail(s)
		}
		var calls []string
		b := &Backend{
			PeriodicFunc: func(context.Context, *logical.Request) error {
				calls = append(calls, "periodic")
				return c.periodic
			},
			WALRollback: func(_ context.Context, _ *logical.Request, kind string, data interface{}) error {
				calls = append(calls, kind+" "+data.(string))
				return c.undo
			},
			WALRollbackMinAge: c.minAge,
		}
		req := logical.RollbackRequest("")
		req.Storage = s
		if c.immediate {
			req.Data["immediate"] = false
		}
		resp, err := b.HandleRequest(ctx, req)

		want := []string{"periodic"}
		if c.undone {
			want = append(want, "kind d")
		}
		if !slices.Equal(calls, want) {
			t.Errorf("%s: calls are %q, want %q", name, calls, want)
		}
		if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error is %v, want %q", name, err, c.err)
		}
		if c.text == "" && resp != nil {
			t.Errorf("%s: response is %v", name, resp)
		}
		if c.text != "" && (!resp.IsError() || !strings.Contains(resp.Error().Error(), c.text)) {
			t.Errorf("%s: response is %v, want %q", name, resp, c.text)
		}
		s.FailGet(false)
		if stored, err := s.Get(ctx, WALPrefix+"id"); err != nil || (stored != nil) != c.left {
			t.Errorf("%s: left is %v, %v", name, stored, err)
		}
	}
}

func TestOneEntryDoesNotHoldUpTheOthers(t *testing.T) {
	ctx := context.Background()
	s := &logical.InmemStorage{}
	old := time.Now().Add(-time.Hour).Unix()
	for id, entry := range map[string]interface{}{
		"1": "not an entry",
		"2": &WALEntry{Kind: "young", Data: "2", CreatedAt: time.Now().Unix()},
		"3": &WALEntry{Kind: "stuck", Data: "3", CreatedAt: old},
		"4": &WALEntry{Kind: "fine", Data: "4", CreatedAt: old},
		"5": &WALEntry{Kind: "fine", Data: "5", CreatedAt: old},
	} {
		stored, err := logical.StorageEntryJSON(WALPrefix+id, entry)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, stored); err != nil {
			t.Fatal(err)
		}
	}
	var undone []string
	b := &Backend{WALRollback: func(_ context.Context, _ *logical.Request, kind string, data interface{}) error {
		if kind == "stuck" {
			return errors.New(kind)
		}
		undone = append(undone, data.(string))
		return nil
	}}
	req := logical.RollbackRequest("")
	req.Storage = s
	resp, err := b.HandleRequest(ctx, req)
	if err != nil || !resp.IsError() || !strings.HasPrefix(resp.Error().Error(), "2 errors occurred:") {
		t.Errorf("got %v, %v", resp, err)
	}
	if want := []string{"4", "5"}; !slices.Equal(undone, want) {
		t.Errorf("undone are %q, want %q", undone, want)
	}
	if left, err := ListWAL(ctx, s); err != nil || !slices.Equal(left, []string{"1", "2", "3"}) {
		t.Errorf("left are %q, %v", left, err)
	}
}

func TestRollbackWithoutFunctions(t *testing.T) {
	req := logical.RollbackRequest("")
	req.Data = nil
	req.Storage = (&logical.InmemStorage{}).FailList(true)
	if resp, err := (&Backend{}).HandleRequest(context.Background(), req); resp != nil || err != nil {
		t.Errorf("got %v, %v", resp, err)
	}
	b := &Backend{PeriodicFunc: func(context.Context, *logical.Request) error { return nil }}
	if resp, err := b.HandleRequest(context.Background(), req); resp != nil || err != nil {
		t.Errorf("got %v, %v", resp, err)
	}
}
