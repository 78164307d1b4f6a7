// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Who means to read again is refused by a role that hands out its keys once, and
// nothing is used up; every other role answers as if nothing had been asked.
func TestRepeatableReads(t *testing.T) {
	prepare := func(m *testMount, role string, fields map[string]any) {
		m.write("roles/"+role, fields)
		m.write("rotate/"+role, nil)
		m.write("rotate/"+role, map[string]any{"stage": true})
	}
	m := newMount(t)
	prepare(m, "once", map[string]any{"reveal": "once"})
	prepare(m, "always", nil)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
	const get, post = logical.ReadOperation, logical.UpdateOperation
	yes, no := map[string]any{"repeatable": "true"}, map[string]any{"repeatable": "false"}
	reads := []struct {
		op   logical.Operation
		path string
	}{{get, ""}, {post, ""}, {get, "/pending"}, {get, "/previous"}, {get, "/1"}, {get, "/2"}, {get, "/3"}}
	for _, r := range reads {
		m.unchanged(func() {
			m.refused(r.op, "creds/once"+r.path, yes, "repeatable: true: role once", "nothing was handed out", "reveal=always")
		})
		plain, asked := m.must(r.op, "creds/always"+r.path, nil), m.must(r.op, "creds/always"+r.path, yes)
		if plain["api_key"] == nil || fmt.Sprint(plain) != fmt.Sprint(asked) {
			t.Errorf("%s always%s: another answer to a reader that comes again", r.op, r.path)
		}
	}
	if m.must(get, "creds/d", yes)["api_key"] == nil {
		t.Error("a dynamic role issues no key")
	}
	for _, path := range []string{"", "/pending", "/previous"} {
		if m.must(get, "creds/once"+path, no)["api_key"] == nil {
			t.Errorf("creds/once%s hands out nothing", path)
		}
		m.refused(get, "creds/once"+path, no, "was handed out at")
		m.refused(get, "creds/once"+path, yes, "repeatable")
	}
	m.refused(get, "creds/once", map[string]any{"repeatable": ""}, "repeatable: is empty")
}

// A role may become one that hands out once while it is read.
func TestRepeatableReadsOfARoleThatChanges(t *testing.T) {
	s := &before{Storage: &logical.InmemStorage{}, prefix: secretPrefix}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", nil)
	other := mountOn(t, s.Storage, m.clock)
	s.times, s.do = 1, func() {
		other.write("revoke/a", map[string]any{"version": 1})
		other.write("roles/a", map[string]any{"reveal": "once"})
	}
	m.refused(logical.ReadOperation, "creds/a", map[string]any{"repeatable": true}, "repeatable")
	if s.times != 0 || !m.record("a").Ring.Get(2).Revealed.IsZero() {
		t.Error("the version was used up, or nothing came between")
	}
}

// Every way in which a role becomes one that hands out once leaves it without
// automatic rotation, unless the same write says otherwise.
func TestHandedOutOnceIsNotRotatedUnasked(t *testing.T) {
	once := map[string]any{"reveal": "once"}
	for name, c := range map[string]struct {
		do   func(m *testMount)
		want int
	}{
		"created":           {func(m *testMount) { m.write("roles/a", once) }, 0},
		"created, a period": {func(m *testMount) { m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": "48h"}) }, 172800},
		"updated":           {func(m *testMount) { m.write("roles/a", nil); m.write("roles/a", once) }, 0},
		"updated, a period": {func(m *testMount) {
			m.write("roles/a", nil)
			m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": "48h"})
		}, 172800},
		"patched": {func(m *testMount) { m.write("roles/a", nil); m.must(logical.PatchOperation, "roles/a", once) }, 0},
		"replaced": {func(m *testMount) {
			m.write("roles/a", nil)
			m.write("roles/a", map[string]any{"reveal": "once", "replace": true})
		}, 0},
		"replaced again": {func(m *testMount) {
			m.write("roles/a", once)
			m.write("roles/a", map[string]any{"reveal": "once", "replace": true})
		}, 0},
		"its period reset": {func(m *testMount) {
			m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": "48h"})
			m.must(logical.PatchOperation, "roles/a", map[string]any{"rotation_period": nil})
		}, 0},
		"imported": {func(m *testMount) {
			m.write("import", map[string]any{"batch": `{"role":"a","key":"sk-0123456789-from-elsewhere","reveal":"once"}`})
		}, 0},
		"imported, a period": {func(m *testMount) {
			m.write("import", map[string]any{"batch": `{"role":"a","key":"sk-0123456789-from-elsewhere","reveal":"once","rotation_period":"48h"}`})
		}, 172800},
	} {
		m := newMount(t)
		c.do(m)
		if got := number(t, m.read("roles/a")["rotation_period"]); got != int64(c.want) {
			t.Errorf("%s: rotation_period is %d, want %d", name, got, c.want)
		}
		if next := m.read("status/a")["next_rotation"]; (next == "") != (c.want == 0) {
			t.Errorf("%s: next rotation %q", name, next)
		}
	}

	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_schedule": "0 3 * * *"})
	resp, err := m.do(logical.UpdateOperation, "roles/a", once)
	if err != nil || len(resp.Warnings) != 1 || !strings.HasPrefix(resp.Warnings[0], "reveal: rotation is by hand only from now on") {
		t.Errorf("rotation was turned off and the answer says %v, %v", resp, err)
	}
	if resp, err := m.do(logical.UpdateOperation, "roles/a", once); err != nil || resp != nil {
		t.Errorf("written again: %v, %v", resp, err)
	}

	// What an older build stored goes on.
	rec := m.record("a").clone()
	rec.Policy.RotationPeriod = nil
	if err := writeAt(t.Context(), m.storage, rolePath("a"), encoded(t, rec)); err != nil {
		t.Fatal(err)
	}
	m = m.restart()
	m.write("roles/a", map[string]any{"reveal": "once", "owner": "team"})
	if got := number(t, m.read("roles/a")["rotation_period"]); got != 90*24*3600 {
		t.Errorf("an older role's period is %d", got)
	}
}
