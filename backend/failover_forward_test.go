// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

func TestStandbyForwardsWhatWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.active
	a.write("roles/a", map[string]any{"rotation_period": "24h"})
	a.write("roles/once", map[string]any{"reveal": "once"})
	a.write("roles/d", map[string]any{"type": "dynamic"})
	a.write("rotate/a", nil)
	key := a.read("creds/a")["api_key"].(string)
	lease := a.lease("d", nil)
	a.write("roles/gone", nil)
	id, _ := a.remove("gone")
	a.write("roles/p", nil)
	a.write("rotate/p", nil)
	a.write("rotate/p", map[string]any{"stage": true})
	unknown := someKey(t, "ak").Reveal()

	forwarded := []struct {
		op   logical.Operation
		path string
		data map[string]any
	}{
		{logical.UpdateOperation, "roles/new", nil},
		{logical.UpdateOperation, "roles/a", map[string]any{"owner": "me"}},
		{logical.PatchOperation, "roles/a", map[string]any{"owner": "me"}},
		{logical.DeleteOperation, "roles/a", nil},
		{logical.UpdateOperation, "restore/" + id, nil},
		{logical.UpdateOperation, "config", map[string]any{"rotation_paused": true}},
		{logical.UpdateOperation, "config/rotate-digest", nil},
		{logical.UpdateOperation, "rotate/a", nil},
		{logical.UpdateOperation, "rotate/a", map[string]any{"stage": true}},
		{logical.UpdateOperation, "promote/p", nil},
		{logical.UpdateOperation, "rollback/p", nil},
		{logical.UpdateOperation, "revoke/a", map[string]any{"all": true}},
		{logical.UpdateOperation, "revoke/d", map[string]any{"key_id": lease.Data["key_id"]}},
		{logical.ReadOperation, "creds/d", nil},
		{logical.UpdateOperation, "creds/d", map[string]any{"ttl": 60}},
		{logical.ReadOperation, "creds/once", nil},
		{logical.UpdateOperation, "report", map[string]any{"key": key}},
		{logical.UpdateOperation, "lookup", map[string]any{"key": key}},
		{logical.UpdateOperation, "import", map[string]any{"batch": `{"role":"i","key":"` + strings.Repeat("z3", 10) + `"}`}},
		{logical.UpdateOperation, "tidy", nil},
		{logical.UpdateOperation, "usage", map[string]any{"instance": "i", "sequence": 1, "batch": `{}`}},
		{logical.UpdateOperation, "usage/a", map[string]any{"instance": "i", "sequence": 1, "batch": `{}`}},
		{logical.ReadOperation, "changes", nil},
		{logical.UpdateOperation, "changes", map[string]any{"wait": 0}},
		{logical.UpdateOperation, "verify", map[string]any{"key": key, "timeline": 1}},
		{logical.UpdateOperation, "verify", map[string]any{"batch": `{"key":"` + key + `","timeline":1}`}},
		{logical.UpdateOperation, "bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false}},
		{logical.UpdateOperation, "verify", map[string]any{"key": unknown}},
		{logical.UpdateOperation, "verify", map[string]any{"batch": `{"key":"` + key + `"}` + "\n" + `{"key":"` + unknown + `"}`}},
		{logical.UpdateOperation, "verify", map[string]any{"key_id": "AAAAAAAAAAAA", "role_id": id}},
		{logical.UpdateOperation, "verify/d", map[string]any{"key": key}},
	}
	declared, _ := mountAs(t, c.refusing, a.clock, consts.ReplicationPerformanceStandby)
	secondary, _ := mountAs(t, c.refusing, a.clock, consts.ReplicationPerformanceSecondary)
	// One whose server calls it a writer, and that only its storage knows better.
	undeclared, logged := mountAs(t, c.refusing, a.clock, consts.ReplicationPerformanceDisabled)
	for name, m := range map[string]*testMount{"standby": declared, "secondary": secondary, "undeclared": undeclared} {
		m.tick()
		before := dump(t, a.storage)
		for _, q := range forwarded {
			if resp, err := m.send(q.op, q.path, q.data); err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
				if name == "undeclared" && (q.path == "lookup" || strings.HasPrefix(q.path, "usage") || strings.HasPrefix(q.path, "verify") && !strings.Contains(fmt.Sprint(q.data), "timeline")) {
					continue // which write nothing, and are forwarded where the server says so
				}
				t.Errorf("%s: %s %s: %v %v", name, q.op, q.path, resp, err)
			}
		}
		for _, op := range []logical.Operation{logical.RenewOperation, logical.RevokeOperation} {
			if resp, err := m.onLease(op, lease, 0); err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
				t.Errorf("%s: %s: %v %v", name, op, resp, err)
			}
		}
		if got := m.read("creds/a"); got["api_key"] != key {
			t.Errorf("%s: creds/a is version %v", name, got["version"])
		}
		if got := m.write("verify", map[string]any{"key": key}); got["code"] != "VALID" || name != "undeclared" && number(t, got["cache_ttl"]) > 5 {
			t.Errorf("%s: %v", name, got)
		}
		if !reflect.DeepEqual(before, dump(t, a.storage)) {
			t.Errorf("%s: something was written", name)
		}
	}
	if logged.Len() != 0 {
		t.Errorf("logged: %s", logged)
	}
}

func TestNodeThatMayNotWriteTicksQuietly(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]consts.ReplicationState{"declared": consts.ReplicationPerformanceStandby, "undeclared": consts.ReplicationPerformanceDisabled} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared := &logical.InmemStorage{}
			clock := newFakeClock()
			a := mountOn(t, shared, clock)
			const roles = 60
			for i := range roles {
				a.write(fmt.Sprintf("roles/r%d", i), map[string]any{"rotation_period": "1h"})
			}
			storage := &standbyStorage{Storage: shared}
			m, logged := mountAs(t, storage, clock, state)
			clock.advance(2 * time.Hour)
			before := dump(t, shared)
			for range 3 {
				clock.advance(time.Minute)
				m.tick()
			}
			if !reflect.DeepEqual(before, dump(t, shared)) || logged.Len() != 0 {
				t.Errorf("it wrote, or logged %s", logged)
			}
			attempts := storage.attempts.Load()
			if limit := int64(2*tickWorkers + 5); attempts > limit || name == "declared" && attempts > 0 {
				t.Errorf("it tried to write %d times", attempts)
			}
			if name == "declared" {
				return
			}
			// It becomes the node that writes.
			storage.open.Store(true)
			clock.advance(time.Minute)
			m.tick()
			m.run(2 * time.Minute)
			for i := range roles {
				if got := m.read(fmt.Sprintf("creds/r%d", i)); got["version"] != 2 {
					t.Fatalf("role %d is at version %v", i, got["version"])
				}
			}
			newWorld().check(m, true)
		})
	}
}

func TestStandbyKnowsTheTimeOfTheWriter(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.active
	a.write("roles/a", map[string]any{"rotation_period": 0})
	old := a.read("creds/a")["api_key"]
	a.write("rotate/a", map[string]any{"grace_period": "1h"})
	slow := newFakeClock()
	c.standby.backend.clock = slow
	c.standby.expectVerdict(old, "VALID") // and so its caches are filled
	for range 61 {
		a.clock.advance(time.Minute)
		slow.advance(time.Minute)
		a.tick()
		for _, key := range c.written() {
			if key == markPath {
				c.deliver(key)
			}
		}
		c.standby.tick()
	}
	slow.advance(-2 * time.Minute) // its clock is slow; it was told nothing of the role
	if got := c.standby.write("verify", map[string]any{"key": old}); got["code"] != "RETIRED" {
		t.Errorf("%v", got)
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	shared := &logical.InmemStorage{}
	clock := newFakeClock()
	m := mountOn(t, shared, clock)
	w := newWorld()
	pair(map[string]any{"rotation_period": "24h", "grace_period": "2h"})(m, w)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	for i := range 6 {
		lease := w.issue(m, "d", fmt.Sprintf("lease %d", i))
		w.hold(m, "a", fmt.Sprintf("leader %d", i))
		switch i % 3 {
		case 0:
			m.write("rotate/a", map[string]any{"grace_period": 0})
			w.kills[fmt.Sprintf("leader %d", i)] = true
		case 1:
			m.write("revoke/a", map[string]any{"all": true})
			w.kills[fmt.Sprintf("leader %d", i)] = true
		case 2:
			if _, err := m.onLease(logical.RevokeOperation, lease, 0); err != nil {
				t.Fatal(err)
			}
			w.kills[fmt.Sprintf("lease %d", i)] = true
		}
		want := w.check(m, true)
		m = m.restart()
		if got := w.check(m, true); !reflect.DeepEqual(got, want) {
			t.Errorf("after the failover verify says %v, before it %v", got, want)
		}
		m.run(25 * time.Minute)
		w.check(m, true)
	}
}
