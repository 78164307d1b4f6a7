// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
)

// testMount is the engine on a storage, with a clock of its own.
type testMount struct {
	*backend
	t       testing.TB
	clock   *fakeClock
	storage logical.Storage
	// request is what every request carries.
	request logical.Request
	// asksFresh: costOf asks for fresh answers.
	asksFresh bool
	// before, if set, is called when a request has come in.
	before func()
}

func (m *testMount) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if m.before != nil {
		m.before()
	}
	return m.backend.HandleRequest(ctx, req)
}

// newMount starts the engine on an empty in-memory storage.
func newMount(t testing.TB) *testMount {
	t.Helper()
	return mountOn(t, &logical.InmemStorage{}, newFakeClock())
}

// writingSystem is the server of a node that may write.
func writingSystem() logical.SystemView {
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
	return sys
}

// mountOn starts the engine on what is stored, as a restart or failover does.
func mountOn(t testing.TB, s logical.Storage, c *fakeClock) *testMount {
	t.Helper()
	m := &testMount{
		backend: newBackend(c, rand.Reader), t: t, clock: c, storage: s,
		request: logical.Request{
			ClientTokenAccessor: "accessor-1", DisplayName: "token-operator", MountPoint: "apikeys/",
			Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
		},
	}
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: s, BackendUUID: "test"}
	if err := m.Setup(context.Background(), conf); err != nil {
		t.Fatal(err)
	}
	if err := m.Initialize(context.Background(), &logical.InitializationRequest{Storage: s}); err != nil {
		t.Fatal(err)
	}
	return m
}

// do sends a request. Answers are checked against the schema that the path
// declares for them.
func (m *testMount) do(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	req := m.request
	req.Operation, req.Path, req.Data, req.Storage = op, path, data, m.storage
	if op == logical.UpdateOperation {
		// As a server does: what exists is updated, what does not is created.
		found, exists, err := m.HandleExistenceCheck(context.Background(), &req)
		if err == nil && found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := m.HandleRequest(context.Background(), &req)
	if err == nil && resp != nil && !resp.IsError() {
		m.checkSchema(req.Operation, path, resp)
	}
	return resp, err
}

func (m *testMount) checkSchema(op logical.Operation, path string, resp *logical.Response) {
	m.t.Helper()
	route := m.Route(path)
	if route == nil || route.Operations[op] == nil {
		return
	}
	declared := route.Operations[op].Properties().Responses[200]
	if len(declared) == 0 {
		m.t.Errorf("%s %s answers data that it does not declare", op, path)
		return
	}
	if t, ok := m.t.(*testing.T); ok {
		schema.ValidateResponse(t, &declared[0], resp, true)
	}
}

// must sends a request that has to succeed and returns its data.
func (m *testMount) must(op logical.Operation, path string, data map[string]any) map[string]any {
	m.t.Helper()
	resp, err := m.do(op, path, data)
	if err != nil || resp.IsError() {
		m.t.Fatalf("%s %s: %v %v", op, path, err, resp)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

func (m *testMount) read(path string) map[string]any {
	m.t.Helper()
	return m.must(logical.ReadOperation, path, nil)
}

func (m *testMount) write(path string, data map[string]any) map[string]any {
	m.t.Helper()
	return m.must(logical.UpdateOperation, path, data)
}

// refused sends a request that has to be refused as the caller's mistake, with
// a text that contains each of the parts.
func (m *testMount) refused(op logical.Operation, path string, data map[string]any, parts ...string) {
	m.t.Helper()
	resp, err := m.do(op, path, data)
	status, text := httpStatus(resp, err)
	if status != 400 {
		m.t.Fatalf("%s %s: status %d (%s), want 400", op, path, status, text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			m.t.Errorf("%s %s: refused with %q, want it to say %q", op, path, text, part)
		}
	}
}

// httpStatus is the HTTP status and error text that a server makes of an answer.
func httpStatus(resp *logical.Response, err error) (int, string) {
	req := &logical.Request{Operation: logical.ReadOperation}
	if resp != nil || err != nil {
		req.Operation = logical.UpdateOperation
	}
	status, respErr := logical.RespondErrorCommon(req, resp, err)
	if respErr != nil {
		logical.AdjustErrorStatusCode(&status, respErr)
		text := respErr.Error()
		if resp != nil && resp.IsError() {
			text = resp.Error().Error()
		}
		return status, text
	}
	if status == 0 {
		status = 200
	}
	return status, ""
}

// tick runs the periodic function as a server does.
func (m *testMount) tick() {
	m.t.Helper()
	req := &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage}
	if resp, err := m.HandleRequest(context.Background(), req); err != nil || resp.IsError() {
		m.t.Fatalf("tick: %v %v", err, resp)
	}
}

// run lets time pass, with a tick every minute.
func (m *testMount) run(d time.Duration) {
	m.t.Helper()
	for end := m.clock.Now().Add(d); m.clock.Now().Before(end); {
		m.clock.advance(min(time.Minute, end.Sub(m.clock.Now())))
		m.tick()
	}
}

// restart is the engine anew on the same storage.
func (m *testMount) restart() *testMount {
	m.t.Helper()
	return mountOn(m.t, m.storage, m.clock)
}

// number reads a number of an answer, whatever type it came as.
func number(t testing.TB, v any) int64 {
	t.Helper()
	switch n := v.(type) {
	case int:
		return int64(n)
	case int64:
		return n
	case float64:
		return int64(n)
	case json.Number:
		i, err := n.Int64()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	t.Fatalf("%v (%T) is not a number", v, v)
	return 0
}

var _ = framework.TypeString
