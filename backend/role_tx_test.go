// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// unreadable makes the role's plan one that no node can read, as a time zone
// that went from the system would.
func (m *testMount) unreadable(role string) {
	m.t.Helper()
	ctx := context.Background()
	rec, err := getRecord[roleRecord](ctx, m.storage, rolePath(role))
	if err != nil || rec == nil {
		m.t.Fatal(rec, err)
	}
	rec.Policy.RotationSchedule = "CRON_TZ=Nowhere/Land 0 4 * * *"
	plant(m.t, m.storage, rolePath(role), rec)
	m.invalidate(ctx, rolePath(role))
}

func TestRoleWithUnreadablePlanCanBeDeletedAndPurged(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	m.unreadable("a")
	if status := m.status(logical.UpdateOperation, "rotate/a", nil); status != 500 {
		t.Errorf("rotate: %d", status)
	}
	id, _ := m.remove("a")
	m.expectVerdict(key, "NOT_FOUND")
	if status := m.status(logical.UpdateOperation, "restore/"+id, nil); status != 500 {
		t.Errorf("restore: %d", status)
	}
	m.run(24*time.Hour + 5*time.Minute)
	if left := m.under(deletedPrefix); len(left) > 0 {
		t.Errorf("%v is not purged", left)
	}
}

// TestRoleWithUnreadablePlanIsClosed: no kill waits for the plan. The plan stays what it
// was, the role stays in the calendar, and whoever writes a schedule mends it.
func TestRoleWithUnreadablePlanIsClosed(t *testing.T) {
	ways := maps.Clone(kills)
	for action, want := range map[string]string{"revoke": "REVOKED", "disable": "DISABLED"} {
		end := ways["disable"]
		end.want, end.do = want, func(m *testMount, key string) error {
			defer m.tick()
			return asking(logical.UpdateOperation, "bulk", map[string]any{"action": action, "roles": "r", "dry_run": false})(m, key)
		}
		ways["bulk "+action] = end
	}
	for name, closing := range ways {
		for _, fields := range []map[string]any{{"rotation_schedule": "0 3 * * *"}, {"type": "dynamic", "ttl": "20h", "rotation_schedule": "0 3 * * *"}} {
			m := newMount(t)
			m.write("roles/r", fields)
			key := current(m, "r")
			m.unreadable("r")
			before := m.record("r")
			if err := closing.do(m, key); err != nil {
				t.Errorf("%s, %v: %v", name, fields, err)
			}
			m.expectVerdict(key, closing.want)
			if name == "delete" {
				continue
			}
			if after := m.record("r"); !strings.HasPrefix(name, "revoke all w") && after.Plan.Slot != before.Plan.Slot || after.Due.IsZero() {
				t.Errorf("%s: the plan became %+v, looked at %v", name, after.Plan, after.Due)
			}
			m.tick()
			m.write("roles/r", map[string]any{"rotation_schedule": "0 4 * * *"})
			want := m.clock.Now().Truncate(24 * time.Hour).Add(28 * time.Hour)
			if next := m.record("r").Next; !next.Equal(want) {
				t.Errorf("%s: mended, it rotates at %v, want %v", name, next, want)
			}
			last := m.newestVersion("r")
			m.run(24 * time.Hour)
			m.expectVersion(last+1, "r")
		}
	}
}

// TestRoleWithUnreadablePlanIsRead: whoever holds its keys is not cut off, and somebody
// finds out what is wrong.
func TestRoleWithUnreadablePlanIsRead(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_schedule": "0 3 * * *"})
	m.write("roles/d", map[string]any{"type": "dynamic", "rotation_schedule": "0 3 * * *"})
	key, lease := current(m, "r"), m.lease("d", nil)
	m.unreadable("r")
	m.unreadable("d")
	m.clock.advance(time.Minute)
	m.tick()
	if got := current(m, "r"); got != key {
		t.Error("creds hands out another key")
	}
	m.expectVerdict(m.lease("d", nil).Data["api_key"], "VALID")
	m.clock.advance(30 * time.Minute)
	m.mustLease(logical.RenewOperation, lease)
	m.clock.advance(40 * time.Minute)
	m.expectVerdict(lease.Data["api_key"], "VALID")
	if got := m.read("roles/r")["rotation_schedule"]; got != "CRON_TZ=Nowhere/Land 0 4 * * *" {
		t.Errorf("the policy says %v", got)
	}
	for path, data := range map[string]map[string]any{
		"rotate/r": nil, "promote/r": nil, "rollback/r": nil, "rotate/d": {"grace_period": "48h"}, "import": {"batch": `{"role":"r","key":"` + strings.Repeat("k7", 12) + `"}`},
	} {
		if status := m.status(logical.UpdateOperation, path, data); status != 500 && path != "import" {
			t.Errorf("%s: %d", path, status)
		}
	}
	m.write("roles/r", map[string]any{"owner": "x"})
	m.tick()
	for _, field := range []string{"rotation", "last_error"} {
		if text := m.read("status/r")[field].(string); !strings.Contains(text, "Nowhere/Land") {
			t.Errorf("%s is %q", field, text)
		}
	}
	if n := m.newestVersion("r"); n != 1 {
		t.Errorf("version %d was made without a plan", n)
	}
}
