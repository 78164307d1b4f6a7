// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Many roles revoked by one job, with three endpoints of which one is dead: the others
// hear of each at once, storage is asked for little, and memory is bounded.
func TestAStormOfRevocations(t *testing.T) {
	t.Parallel()
	n := 2000
	if testing.Short() {
		n = 200
	}
	s := &calls{Storage: &logical.InmemStorage{}}
	m := eventMountOn(t, s, newFakeClock(), nil)
	m.makeRoles("r", n, map[string]any{"rotation_period": 0})
	revoke := func() int64 {
		before := s.all.Load()
		m.write("bulk", map[string]any{"action": "revoke", "name_prefix": "r", "dry_run": false, "pace": 0, "reason": "x", "rotate": false})
		m.deliver()
		return s.all.Load() - before
	}
	for _, name := range []string{"dead", "one", "two"} {
		m.endpoint(name, map[string]any{"types": "key.revoked"})
	}
	m.answer("dead.example.com", badAnswers["breaks"])
	m.deliver()
	began := time.Now() //nolint:forbidigo // how long it takes on this machine
	used := revoke()
	took := time.Since(began) //nolint:forbidigo // the same
	for _, name := range []string{"one", "two"} {
		if got := m.heardBy(name); len(got) != n {
			t.Errorf("%s heard %d of %d", name, len(got), n)
		}
	}
	t.Logf("%d roles: %.1f storage calls a role, %v, %d heads", n, float64(used)/float64(n), took, len(m.outbox.heads))
	m.clock.advance(time.Minute)
	before := s.all.Load()
	m.deliver()
	if more := s.all.Load() - before; more > int64(n)+50 {
		t.Errorf("what was told costs %d calls for %d entries to be written down", more, n)
	}
	if left := m.under(outboxPrefix); len(left) != n {
		t.Errorf("%d are left for the dead one", len(left))
	}
	m.answer("dead.example.com", nil)
	m.pass(2*time.Hour, 5*time.Minute)
	if got := m.heardBy("dead"); len(got) != n {
		t.Errorf("the dead one hears %d of %d: %v", len(got), n, fmt.Sprint(m.read("events/dead/status")))
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}
