// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"testing"
	"time"
)

// record is the role's record as it is stored.
func (m *testMount) record(role string) *roleRecord {
	m.t.Helper()
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath(role))
	if err != nil || rec == nil {
		m.t.Fatal(rec, err)
	}
	return rec
}

func TestHeldVersionLeavesThePlanAsItIs(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "24h"})
	planned := m.record("a").Next
	m.clock.advance(6 * time.Hour)
	m.write("rotate/a", map[string]any{"stage": true})
	if next := m.record("a").Next; !next.Equal(planned) {
		t.Errorf("planned for %s, and after staging for %s", planned, next)
	}
	m.write("revoke/a", map[string]any{"version": 2})
	if next := m.read("status/a")["next_rotation"]; next != stamp(planned) {
		t.Errorf("the next rotation is at %v, was planned for %s", next, planned)
	}
}

func TestAnySuccessorPaysWhatIsOwed(t *testing.T) {
	for name, data := range map[string]map[string]any{
		"rotation": nil, "activation later": {"activate_at": "1h"}, "staging": {"stage": true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/a", nil)
			rec := m.record("a")
			rec.Owed = true
			plant(t, m.storage, rolePath("a"), rec)
			m.write("rotate/a", data)
			if m.record("a").Owed {
				t.Error("a replacement is still owed")
			}
		})
	}
}
