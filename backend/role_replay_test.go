// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// TestRepeatedRevokeAll: the same all=true of the same caller answers the first result
// while that made the only version that lives; whatever differs kills.
func TestRepeatedRevokeAll(t *testing.T) {
	all := map[string]any{"all": true}
	with := func(more map[string]any) map[string]any {
		data := map[string]any{"all": true}
		for k, v := range more {
			data[k] = v
		}
		return data
	}
	for _, c := range []struct {
		name          string
		role          map[string]any
		first, second map[string]any
		between       func(m *testMount)
		replayed      bool
	}{
		{name: "the same", first: all, second: all, replayed: true},
		{name: "the same, spelt otherwise", first: all, second: map[string]any{"all": "true"}, replayed: true},
		{name: "the same, at the last moment", first: all, second: all, replayed: true, between: func(m *testMount) { m.clock.advance(revokeAllRepeat - time.Second) }},
		{name: "late", first: all, second: all, between: func(m *testMount) { m.clock.advance(revokeAllRepeat) }},
		{name: "the same, after a restart", first: all, second: all, replayed: true, between: func(m *testMount) { m.backend = m.restart().backend }},
		{name: "another caller", first: all, second: all, between: func(m *testMount) { m.request.ClientTokenAccessor = "accessor-2" }},
		{name: "another reason", first: all, second: with(map[string]any{"reason": "again"})},
		{name: "without replacement", first: all, second: with(map[string]any{"rotate": false})},
		{name: "with a request id", first: all, second: with(map[string]any{"request_id": "request-1"})},
		{name: "without the request id", first: with(map[string]any{"request_id": "request-1"}), second: all},
		{name: "another request id", first: with(map[string]any{"request_id": "request-1"}), second: with(map[string]any{"request_id": "request-2"})},
		{name: "the same request id", first: with(map[string]any{"request_id": "request-1"}), second: with(map[string]any{"request_id": "request-1"}), replayed: true},
		{name: "a rotation between", first: all, second: all, between: func(m *testMount) { m.write("rotate/r", nil) }},
		{name: "a rotation without grace between", first: all, second: all, between: func(m *testMount) { m.write("rotate/r", map[string]any{"grace_period": 0}) }},
		{name: "a staged version between", first: all, second: all, between: func(m *testMount) { m.write("rotate/r", map[string]any{"stage": true}) }},
		{name: "a rotation that is revoked between", first: all, second: all, between: func(m *testMount) {
			m.write("rotate/r", nil)
			m.write("revoke/r", map[string]any{"version": 3})
		}},
		{name: "the replacement revoked between", first: all, second: all, between: func(m *testMount) { m.write("revoke/r", map[string]any{"version": 2}) }},
		{name: "the first under a clock that was ahead", first: all, second: all, between: func(m *testMount) { m.clock.advance(-maxClockLead - time.Minute) }},
		{name: "dynamic", role: map[string]any{"type": "dynamic"}, first: all, second: all},
		{name: "dynamic, the same request id", role: map[string]any{"type": "dynamic"}, first: with(map[string]any{"request_id": "request-1"}), second: with(map[string]any{"request_id": "request-1"}), replayed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", c.role)
			key := func() string {
				if c.role != nil {
					return m.lease("r", nil).Data["api_key"].(string)
				}
				return current(m, "r")
			}
			old := key()
			first := m.write("revoke/r", c.first)
			m.expectVerdict(old, "REVOKED")
			held := key()
			if c.between != nil {
				c.between(m)
			}
			later := ""
			if m.record("r").Ring.Current(m.now()) != nil {
				later = key()
			}
			resp := m.writeResp("revoke/r", c.second)
			_, replayed := resp.Data["replayed"]
			if replayed != c.replayed {
				t.Fatalf("replayed %t: %v", replayed, resp.Data)
			}
			warned := strings.Contains(strings.Join(resp.Warnings, " "), "nothing was killed")
			if id := c.second["request_id"]; warned != (c.replayed && id == nil) {
				t.Errorf("warnings: %v", resp.Warnings)
			}
			if !c.replayed {
				for _, k := range []string{held, later} {
					if got := m.verdict(k); k != "" && got != "REVOKED" && got != "RETIRED" {
						t.Errorf("a key is %s after all were killed", got)
					}
				}
				return
			}
			m.expectVerdict(held, "VALID")
			m.expectVerdict(later, "VALID")
			if number(t, resp.Data["version"]) != number(t, first["version"]) {
				t.Errorf("%v, and first %v", resp.Data, first)
			}
			if cur := m.record("r").Ring.Current(m.now()); int(number(t, resp.Data["version"])) != cur.N {
				t.Errorf("the answer says version %v, the current one is %d", resp.Data["version"], cur.N)
			}
		})
	}
}

// TestRevokeAllWithoutReplacementIsRepeatable: what killed everything and left nothing
// answers the same again, until something lives.
func TestRevokeAllWithoutReplacementIsRepeatable(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	all := map[string]any{"all": true, "rotate": false}
	m.write("revoke/r", all)
	if again := m.write("revoke/r", all); again["replayed"] != true || len(again["revoked_versions"].([]any)) != 1 {
		t.Errorf("%v", again)
	}
	m.write("rotate/r", nil)
	key := current(m, "r")
	if again := m.write("revoke/r", all); again["replayed"] != nil {
		t.Errorf("%v", again)
	}
	m.expectVerdict(key, "REVOKED")
	if n := len(m.record("r").Requests); n != 1 {
		t.Errorf("%d answers are kept", n)
	}
}

// writeResp is write with the whole answer.
func (m *testMount) writeResp(path string, data map[string]any) *logical.Response {
	m.t.Helper()
	resp, err := m.do(logical.UpdateOperation, path, data)
	if err != nil || resp == nil || resp.IsError() {
		m.t.Fatalf("%s: %v %v", path, err, resp)
	}
	return resp
}
