// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/logging"
)

// TestRequest returns a request with empty data and storage of its own.
func TestRequest(t testing.TB, op Operation, path string) *Request {
	t.Helper()
	return &Request{
		Operation:  op,
		Path:       path,
		Data:       make(map[string]interface{}),
		Storage:    new(InmemStorage),
		Connection: &Connection{},
	}
}

// TestStorage checks that an empty Storage does what is expected of one.
func TestStorage(t testing.TB, s Storage) {
	t.Helper()
	ctx := context.Background()

	wantKeys := func(want ...string) {
		t.Helper()
		keys, err := s.List(ctx, "")
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if len(keys) != len(want) || (len(want) > 0 && !reflect.DeepEqual(keys, want)) {
			t.Fatalf("keys are %q, want %q", keys, want)
		}
	}

	wantKeys()
	entry := &StorageEntry{Key: "foo", Value: []byte("bar")}
	if err := s.Put(ctx, entry); err != nil {
		t.Fatalf("put: %v", err)
	}
	got, err := s.Get(ctx, "foo")
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if !reflect.DeepEqual(got, entry) {
		t.Fatalf("got %#v, want %#v", got, entry)
	}
	wantKeys("foo")
	if err := s.Delete(ctx, "foo"); err != nil {
		t.Fatalf("delete: %v", err)
	}
	wantKeys()
}

// TestSystemView returns a view with default TTL 24 hours and maximum 48.
func TestSystemView() *StaticSystemView {
	return &StaticSystemView{
		DefaultLeaseTTLVal: 24 * time.Hour,
		MaxLeaseTTLVal:     48 * time.Hour,
		VersionString:      "testVersionString",
	}
}

// TestBackendConfig returns a configuration without storage.
func TestBackendConfig() *BackendConfig {
	return &BackendConfig{
		Logger: logging.NewVaultLogger(hclog.Trace),
		System: TestSystemView(),
		Config: make(map[string]string),
	}
}
