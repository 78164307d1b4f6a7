// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
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

// latePlaintexts is a storage where plaintexts land late, after their error, while on.
type latePlaintexts struct {
	logical.Storage

	on   bool
	late []*logical.StorageEntry
}

func (s *latePlaintexts) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.on && strings.HasPrefix(e.Key, secretPrefix) {
		s.late = append(s.late, e)
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

// TestPlaintextThatLandsLate is no other version's: what creds hands out verifies,
// whatever made the version and whatever made the one before that did not come to be.
func TestPlaintextThatLandsLate(t *testing.T) {
	makes := map[string]func(m *testMount) error{
		"rotation": func(m *testMount) error { _, err := m.do(logical.UpdateOperation, "rotate/r", nil); return err },
		"replacement": func(m *testMount) error {
			_, err := m.do(logical.UpdateOperation, "revoke/r", map[string]any{"all": true})
			return err
		},
		"leak": func(m *testMount) error {
			if m.record("r").Ring.Current(m.now()) == nil {
				return nil // nothing is left to report
			}
			_, err := m.do(logical.UpdateOperation, "report", map[string]any{"key": current(m, "r")})
			return err
		},
		"import": func(m *testMount) error {
			_, err := m.do(logical.UpdateOperation, "import", map[string]any{"batch": `{"role":"r","key":"` + strings.Repeat("k7", 12) + `"}`})
			return err
		},
		"the worker": func(m *testMount) error { m.run(2 * time.Minute); return nil },
		"held, promoted": func(m *testMount) error {
			if _, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"stage": true}); err != nil {
				return err
			}
			_, err := m.do(logical.UpdateOperation, "promote/r", nil)
			return err
		},
	}
	for first, fails := range makes {
		for then, makes := range makes {
			s := &latePlaintexts{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			m.write("roles/r", map[string]any{"rotation_period": "24h"})
			for range 2 {
				s.on = true
				_ = fails(m)
				s.on = false
				if err := makes(m); err != nil {
					t.Fatalf("%s, %s: %v", first, then, err)
				}
			}
			m.run(2 * time.Minute) // what is owed
			for _, e := range s.late {
				if err := s.Storage.Put(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			if len(s.late) == 0 && first != "the worker" {
				t.Errorf("%s, %s: nothing lands late", first, then)
			}
			if got := m.verdict(current(m.restart(), "r")); got != "VALID" {
				t.Errorf("%s, %s: verify says %s", first, then, got)
			}
		}
	}
}
