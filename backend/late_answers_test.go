// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A promote whose answer was lost and that is repeated activates nothing that was
// staged since.
func TestRepeatedPromoteActivatesNothingNew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data    map[string]any
		refused bool
	}{
		"no name":      {nil, true},
		"cas":          {map[string]any{"cas": 1}, true},
		"version":      {map[string]any{"version": 2}, false},
		"request id":   {map[string]any{"request_id": "release-41"}, false},
		"with another": {map[string]any{"version": 7}, true},
	} {
		m := newMount(t)
		m.write("roles/a", map[string]any{"rotation_period": 0})
		m.write("rotate/a", map[string]any{"stage": true})
		m.clock.advance(time.Second)
		first := c.data
		if name == "with another" {
			first = nil
		}
		m.write("promote/a", first)
		m.clock.advance(time.Second)
		m.write("rotate/a", map[string]any{"stage": true})
		if c.refused {
			m.refused(logical.UpdateOperation, "promote/a", c.data)
		} else if got := m.write("promote/a", c.data); got["version"] != 2 && number(t, got["version"]) != 2 {
			t.Errorf("%s: %v", name, got)
		}
		if got := m.read("creds/a")["version"]; got != 2 {
			t.Errorf("%s: version %v is current", name, got)
		}
		if got := m.write("promote/a", map[string]any{"version": 3})["version"]; got != 3 {
			t.Errorf("%s: %v", name, got)
		}
	}

	// Another caller, or a later moment, means what is pending now.
	for _, prepare := range []func(m *testMount){
		func(m *testMount) { m.request.DisplayName = "token-another" },
		func(m *testMount) { m.clock.advance(promotedLately) },
	} {
		m := newMount(t)
		m.write("roles/a", map[string]any{"rotation_period": 0})
		m.write("rotate/a", map[string]any{"stage": true})
		m.clock.advance(time.Second)
		m.write("promote/a", nil)
		m.clock.advance(time.Second)
		m.write("rotate/a", map[string]any{"stage": true})
		prepare(m)
		if got := m.write("promote/a", nil)["version"]; got != 3 {
			t.Errorf("version %v", got)
		}
	}
}

// A dynamic key that expired before somebody revoked it was not revoked, and the
// answer and the history do not say so.
func TestRevokeOfAnExpiredDynamicKeySaysSo(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/a", map[string]any{"type": "dynamic", "ttl": 60})
	id := m.read("creds/a")["key_id"]
	m.clock.advance(2 * time.Minute)
	for range 2 {
		resp, err := m.do(logical.UpdateOperation, "revoke/a", map[string]any{"key_id": id})
		if err != nil || resp.IsError() {
			t.Fatal(resp, err)
		}
		if ids := resp.Data["revoked_key_ids"].([]string); len(ids) != 0 || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "expired at") {
			t.Errorf("%v %v", ids, resp.Warnings)
		}
	}
	for _, e := range m.record("a").History {
		if e.Kind == "revoked" {
			t.Error("the history says that it was revoked")
		}
	}
}

// A reading of a key that is handed out once, overtaken by a rotation, hands out the
// new current version, and the old one is not used up.
func TestRevealOnceOvertakenByARotation(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": 0})
	r, err := m.look(context.Background(), m.storage, "a")
	if err != nil {
		t.Fatal(err)
	}
	m.write("rotate/a", nil)
	req := m.request
	req.Storage = m.storage
	if _, settled, err := m.currentKey(context.Background(), &req, r); settled || err != nil {
		t.Fatalf("the superseded version was handed out as current: %v", err)
	}
	if v := m.record("a").Ring.Get(1); !v.Revealed.IsZero() {
		t.Error("the superseded version is used up")
	}
	if got := m.read("creds/a")["version"]; got != 2 {
		t.Errorf("version %v", got)
	}
	if got := m.read("creds/a/previous")["version"]; got != 1 {
		t.Errorf("version %v", got)
	}
}

// An import of the key of a purged role and the pass that removes what that role
// left: whichever comes first, the new role's current key verifies.
func TestImportAgainstTidyOfAPurgedRole(t *testing.T) {
	t.Parallel()
	for _, path := range []string{keyPrefix, rolePrefix} {
		for n := 1; n <= 3; n++ {
			for _, importFirst := range []bool{false, true} {
				s := &before{Storage: &logical.InmemStorage{}, prefix: "none"}
				m := mountOn(t, s, newFakeClock())
				m.write("config", map[string]any{"delete_recovery": 0})
				m.write("roles/old", map[string]any{"rotation_period": 0})
				key := m.read("creds/old")["api_key"].(string)
				m.must(logical.DeleteOperation, "roles/old", nil)
				m.clock.advance(3 * time.Hour)
				m.tick()
				m.write("roles/new", map[string]any{"rotation_period": 0})
				m.clock.advance(2 * time.Hour)
				item := encoded(t, []map[string]any{{"role": "new", "key": key}})
				imported := func() {
					m.do(logical.UpdateOperation, "import", map[string]any{"batch": string(item)}) //nolint:errcheck // looked at below
				}
				passed := func() { m.do(logical.UpdateOperation, "tidy", nil) } //nolint:errcheck // ditto
				outer, inner := passed, imported
				if importFirst {
					outer, inner = imported, passed
				}
				done := make(chan struct{})
				seen := 0
				s.prefix, s.times = path, n
				s.do = func() {
					if seen++; seen != n {
						return
					}
					// In another goroutine: it may wait for a lock that is held here.
					started := make(chan struct{})
					go func() { defer close(done); close(started); inner() }()
					<-started
				}
				outer()
				if seen == n {
					<-done
				}
				imported()
				m.clock.advance(2 * time.Hour)
				for range 3 {
					m.tick()
					passed()
				}
				got := m.write("verify", map[string]any{"key": key})
				if got["valid"] != true || got["role"] != "new" {
					t.Errorf("%s, call %d, import first %v: %v", path, n, importFirst, got)
				}
				if now := m.read("creds/new"); now["api_key"] != key {
					t.Errorf("%s, call %d, import first %v: another key is current", path, n, importFirst)
				}
			}
		}
	}
}
