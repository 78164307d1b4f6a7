// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
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
