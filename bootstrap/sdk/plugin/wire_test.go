// SPDX-License-Identifier: MPL-2.0

package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"
)

func TestErrorsKeepTheirKind(t *testing.T) {
	p := launch(t, launchOpts{})
	b := p.mount(t, config(&logical.InmemStorage{}))

	want := map[string]error{
		"user":             errutil.UserError{Err: "your fault"},
		"internal":         errutil.InternalError{Err: "my fault"},
		"unsupported-op":   logical.ErrUnsupportedOperation,
		"unsupported-path": logical.ErrUnsupportedPath,
		"invalid-request":  logical.ErrInvalidRequest,
		"permission":       logical.ErrPermissionDenied,
		"multi-authz":      logical.ErrMultiAuthzPending,
		"unrecoverable":    logical.ErrUnrecoverable,
	}
	texts := map[string]string{
		"plain":        "it broke",
		"read-only":    "cannot write to readonly storage",
		"wrapped":      "around: permission denied",
		"user-pointer": "of no known kind",
		"coded":        "teapot",
		"bad-request":  "malformed",
	}
	for name := range probeErrors {
		req := &logical.Request{Operation: logical.ReadOperation, Path: "error/" + name}
		_, requestErr := b.HandleRequest(context.Background(), req)
		_, _, checkErr := b.HandleExistenceCheck(context.Background(), req)
		for _, err := range []error{requestErr, checkErr} {
			if sentinel, ok := want[name]; ok {
				if err != sentinel { //nolint:errorlint // identity is the rule
					t.Errorf("%s: got %#v", name, err)
				}
				continue
			}
			if err == nil || err.Error() != texts[name] {
				t.Errorf("%s: got %#v", name, err)
			}
			var coded logical.HTTPCodedError
			if isCoded := errors.As(err, &coded); isCoded != (name == "coded") || isCoded && coded.Code() != 418 {
				t.Errorf("%s: coded is %v", name, coded)
			}
			if _, isBad := err.(*logical.StatusBadRequest); isBad != (name == "bad-request") {
				t.Errorf("%s: got %T", name, err)
			}
		}
	}
}

func TestResponseAndErrorTogether(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))
	resp, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "both"})
	if !errors.Is(err, logical.ErrInvalidRequest) || resp.Data["error"] != "refused" {
		t.Fatalf("got %v, %v", resp, err)
	}
}

func TestRequestAndResponseRoundTrip(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))

	state, cert := tlsState(t)
	resp, err := b.HandleRequest(context.Background(), &logical.Request{
		ID: "rid", Operation: logical.UpdateOperation, Path: "echo", ReplicationCluster: "far",
		Data:        map[string]interface{}{"n": 5, "list": []string{"a"}, "nested": map[string]interface{}{}, "null": nil},
		Headers:     map[string][]string{"X-One": {"1", "2"}},
		ClientToken: "salted", ClientTokenAccessor: "acc", DisplayName: "dn",
		MountPoint: "apikeys/", MountType: "mt", MountAccessor: "ma",
		ClientTokenRemainingUses: 3, EntityID: "ent", PolicyOverride: true, Unauthenticated: true,
		Connection: &logical.Connection{RemoteAddr: "192.0.2.7", RemotePort: 4711, ConnState: state},
		WrapInfo:   &logical.RequestWrapInfo{TTL: time.Minute, Format: "f", SealWrap: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]interface{}{
		"id": "rid", "path": "echo", "operation": "update", "cluster": "far",
		"data":     map[string]interface{}{"n": 5.0, "list": []interface{}{"a"}, "nested": map[string]interface{}{}, "null": nil},
		"data_nil": false, "headers_nil": false,
		"headers":      map[string]interface{}{"X-One": []interface{}{"1", "2"}},
		"client_token": "salted", "accessor": "acc", "display_name": "dn",
		"mount_point": "apikeys/", "mount_type": "mt", "mount_accessor": "ma",
		"uses": 3.0, "entity_id": "ent", "policy_override": true, "unauthenticated": true, "storage_nil": false,
		"remote_addr": "192.0.2.7", "remote_port": 4711.0, "server_name": state.ServerName,
		"peer": cert.Subject.CommonName, "chain": 1.0,
		"wrap_ttl": "1m0s", "wrap_format": "f", "wrap_seal": true,
	}
	if !reflect.DeepEqual(resp.Data, want) {
		t.Errorf("got  %v\nwant %v", resp.Data, want)
	}
	if !reflect.DeepEqual(resp.Headers, map[string][]string{"X-Probe": {"a", "b"}}) ||
		!reflect.DeepEqual(resp.Warnings, []string{"first", "second"}) || resp.Redirect != "elsewhere" {
		t.Errorf("got %v", resp)
	}
}

func TestNilAndEmpty(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))

	if resp := read(t, b, "nothing", nil); resp != nil {
		t.Errorf("nil response became %v", resp)
	}
	if resp := read(t, b, "nil-data", nil); resp == nil || resp.Data != nil || len(resp.Warnings) != 1 {
		t.Errorf("nil data became %#v", resp)
	}
	if resp := read(t, b, "empty-data", nil); resp == nil || resp.Data == nil || len(resp.Data) != 0 {
		t.Errorf("empty data became %#v", resp)
	}
	for _, data := range []map[string]interface{}{nil, {}} {
		resp := read(t, b, "echo", data)
		if resp.Data["data_nil"] != (data == nil) {
			t.Errorf("data %#v: nil at the plugin is %v", data, resp.Data["data_nil"])
		}
		if resp.Data["headers_nil"] != true {
			t.Error("no headers are not nil at the plugin")
		}
	}
	_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "unencodable"})
	if err == nil || !strings.Contains(err.Error(), "json") {
		t.Errorf("data that is not JSON: %v", err)
	}
}

func TestSizes(t *testing.T) {
	storage := &logical.InmemStorage{}
	b := launch(t, launchOpts{}).mount(t, config(storage))

	// The second is over gRPC's default limit.
	for _, size := range []int{2 << 20, 6 << 20} {
		value := strings.Repeat("v", size)
		read(t, b, "storage", map[string]interface{}{"do": "put", "key": "big", "value": value})
		if got := read(t, b, "storage", map[string]interface{}{"key": "big"}).Data["value"]; got != value {
			t.Errorf("%d bytes came back as %d", size, len(got.(string)))
		}
		got := read(t, b, "bytes", map[string]interface{}{"size": size}).Data["value"].(string)
		if len(got) != size {
			t.Errorf("%d bytes were answered as %d", size, len(got))
		}
	}
}

func TestStorage(t *testing.T) {
	storage := &sealStorage{Storage: &logical.InmemStorage{}, seal: map[string]bool{}}
	b := launch(t, launchOpts{}).mount(t, config(storage))
	do := func(what, key string) *logical.Response {
		return read(t, b, "storage", map[string]interface{}{"do": what, "key": key, "value": "v-" + key, "seal": key == "d/x"})
	}

	if resp := do("get", "a"); resp != nil {
		t.Errorf("absent key: %v", resp)
	}
	for _, key := range []string{"c", "a", "b", "d/x", "d/y"} {
		do("put", key)
	}
	if resp := do("get", "d/x"); resp.Data["value"] != "v-d/x" || resp.Data["seal"] != true {
		t.Errorf("got %v", resp.Data)
	}
	if got := fmt.Sprint(do("list", "").Data["keys"]); got != "[a b c d/]" {
		t.Errorf("list: %v", got)
	}
	if got := fmt.Sprint(do("list", "d/").Data["keys"]); got != "[x y]" {
		t.Errorf("list: %v", got)
	}
	if got := fmt.Sprint(do("page", "").Data["keys"]); got != "[c d/]" {
		t.Errorf("page: %v", got)
	}
	do("delete", "a")
	if resp := do("get", "a"); resp != nil {
		t.Errorf("deleted key: %v", resp)
	}

	// Only the text of a storage error crosses, twice, unchanged.
	storage.err = logical.ErrReadOnly
	for _, what := range []string{"put", "delete", "list", "page", "get"} {
		_, err := b.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "storage",
			Data: map[string]interface{}{"do": what, "key": "a"},
		})
		if err == nil || err.Error() != logical.ErrReadOnly.Error() {
			t.Errorf("%s on read-only storage: %v", what, err)
		}
	}
}

// sealStorage remembers what the storage under it forgets, and fails on
// demand.
type sealStorage struct {
	logical.Storage

	mu   sync.Mutex
	seal map[string]bool
	err  error
}

func (s *sealStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Storage.List(ctx, prefix)
}

func (s *sealStorage) ListPage(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	keys, err := s.List(ctx, prefix)
	var page []string
	for _, key := range keys {
		if key > after && (limit <= 0 || len(page) < limit) {
			page = append(page, key)
		}
	}
	return page, err
}

func (s *sealStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	s.seal[entry.Key] = entry.SealWrap
	s.mu.Unlock()
	return s.Storage.Put(ctx, entry)
}

func (s *sealStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.err != nil {
		return nil, s.err
	}
	entry, err := s.Storage.Get(ctx, key)
	if entry != nil {
		s.mu.Lock()
		entry.SealWrap = s.seal[key]
		s.mu.Unlock()
	}
	return entry, err
}

func (s *sealStorage) Delete(ctx context.Context, key string) error {
	if s.err != nil {
		return s.err
	}
	return s.Storage.Delete(ctx, key)
}

func TestLeases(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))

	issued := read(t, b, "secret", nil).Secret
	if issued == nil || issued.TTL != time.Hour || issued.MaxTTL != 2*time.Hour || !issued.Renewable ||
		!issued.IssueTime.IsZero() || issued.LeaseID != "" {
		t.Fatalf("got %#v", issued)
	}
	internal := map[string]interface{}{"secret_type": "probe", "serial": 7.0}
	if !reflect.DeepEqual(issued.InternalData, internal) {
		t.Fatalf("got %v", issued.InternalData)
	}

	when := time.Date(2031, 2, 3, 4, 5, 6, 789012345, time.UTC)
	issued.IssueTime, issued.Increment = when, 90*time.Second
	for _, op := range []logical.Operation{logical.RenewOperation, logical.RevokeOperation} {
		if op == logical.RevokeOperation {
			issued.LeaseID, issued.Increment = "apikeys/creds/r/1", 0
		}
		resp, err := b.HandleRequest(context.Background(), &logical.Request{
			Operation: op, Path: "secret", Secret: issued, Data: map[string]interface{}{"name": "n"},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]interface{}{
			"operation": string(op), "internal": internal, "lease_id": issued.LeaseID,
			"issue_time": when.Format(time.RFC3339Nano), "issue_zero": false,
			"increment": issued.Increment.String(), "ttl": "1h0m0s",
			"data": map[string]interface{}{"name": "n"}, "data_nil": false,
		}
		if !reflect.DeepEqual(resp.Data, want) {
			t.Errorf("%s: got %v", op, resp.Data)
		}
		if resp.Secret.TTL != 3*time.Hour || !resp.Secret.IssueTime.Equal(when) ||
			!reflect.DeepEqual(resp.Secret.InternalData, internal) {
			t.Errorf("%s: secret came back as %#v", op, resp.Secret)
		}
	}
}

func TestAuth(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))
	a := read(t, b, "auth", nil).Auth
	if a == nil || a.TTL != time.Minute || !a.Renewable || a.InternalData["role"] != "r" ||
		!reflect.DeepEqual(a.Policies, []string{"default", "app"}) || a.Metadata["team"] != "blue" ||
		a.Alias.GetName() != "alice" || a.Alias.GetMetadata()["k"] != "v" || a.GroupAliases[0].GetName() != "devs" ||
		a.Period != time.Second || a.NumUses != 4 || a.TokenType != logical.TokenTypeBatch || a.BoundCIDRs != nil {
		t.Fatalf("got %#v", a)
	}
}

func TestOperations(t *testing.T) {
	b := launch(t, launchOpts{}).mount(t, config(&logical.InmemStorage{}))

	// Servers have operations that this SDK does not name.
	for _, op := range []logical.Operation{"scan", "recover", "rotate", "header", "made-up", ""} {
		_, err := b.HandleRequest(context.Background(), &logical.Request{Operation: op, Path: "echo"})
		if err != logical.ErrUnsupportedOperation { //nolint:errorlint // identity is the rule
			t.Errorf("%q: %v", op, err)
		}
	}

	// The periodic call carries next to nothing.
	resp, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation})
	if err != nil || resp.Data["path"] != "" || resp.Data["data_nil"] != true || resp.Data["id"] != "" {
		t.Errorf("rollback: %v, %v", resp, err)
	}
}

func TestExistenceCheck(t *testing.T) {
	storage := &logical.InmemStorage{}
	b := launch(t, launchOpts{}).mount(t, config(storage))
	if err := storage.Put(context.Background(), &logical.StorageEntry{Key: "objects/there", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]bool{
		"echo":           {false, false},
		"objects/there":  {true, true},
		"objects/absent": {true, false},
	} {
		found, exists, err := b.HandleExistenceCheck(context.Background(), &logical.Request{Operation: logical.UpdateOperation, Path: path})
		if err != nil || [2]bool{found, exists} != want {
			t.Errorf("%s: %v, %v, %v", path, found, exists, err)
		}
	}
}

func TestCancellationReachesThePlugin(t *testing.T) {
	storage := &logical.InmemStorage{}
	b := launch(t, launchOpts{}).mount(t, config(storage))

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := b.HandleRequest(ctx, &logical.Request{Operation: logical.ReadOperation, Path: "wait"})
		ended <- err
	}()
	eventually(t, "the request begins", func() bool { return stored(t, storage, "waiting") })
	cancel()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), "cancel") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the cancelled call did not return")
	}
	eventually(t, "the plugin notices", func() bool { return stored(t, storage, "wait-over") })
}
