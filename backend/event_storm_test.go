// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// stormOf is how many roles a storm has, fewer where that would take too long.
func stormOf(n int) int {
	switch {
	case testing.Short():
		return n / 50
	case raced:
		return n / 5
	default:
		return n
	}
}

// Many roles revoked by one job, with three endpoints of which one is dead: the others
// hear of each at once, storage is asked for little, and memory is bounded.
func TestAStormOfRevocations(t *testing.T) { //nolint:paralleltest // it measures memory
	n := stormOf(10_000)
	s := &calls{Storage: &logical.InmemStorage{}}
	m := eventMountOn(t, s, newFakeClock(), nil)
	m.makeRoles("r", n, map[string]any{"rotation_period": 0})
	for _, name := range []string{"dead", "one", "two"} {
		m.endpoint(name, map[string]any{"types": "key.revoked"})
	}
	m.answer("dead.example.com", badAnswers["breaks"])
	m.deliver()
	before := s.all.Load()
	began := time.Now() //nolint:forbidigo // how long it takes on this machine
	m.revokeAll("r")
	m.deliver()
	took := time.Since(began) //nolint:forbidigo // the same
	for _, name := range []string{"one", "two"} {
		if got := m.heardBy(name); len(got) != n {
			t.Errorf("%s heard %d of %d", name, len(got), n)
		}
	}
	m.clock.advance(time.Minute)
	m.deliver()
	used := float64(s.all.Load()-before) / float64(n)
	if used > 13.5 { // 11 of the revocation, one to tell it, and one that two know it
		t.Errorf("%.1f storage calls a role", used)
	}
	if left := m.under(outboxPrefix); len(left) != n {
		t.Errorf("%d are left for the dead one", len(left))
	}
	m.clear()
	held := heapUsed()
	heads := len(m.outbox.heads)
	m.outbox.heads, m.outbox.posts = nil, nil
	held -= heapUsed()
	m = eventMountOn(t, s, m.clock, m.outside) // a failover
	if most := int64(n) * maxFact; held > most {
		t.Errorf("memory holds %d bytes of %d events, want at most %d", held, n, most)
	}
	t.Logf("%d roles: %.1f storage calls a role, %v, %d entries in memory: %d bytes each", n, used, took, heads, held/int64(n))
	m.answer("dead.example.com", nil)
	m.pass(2*time.Hour, 5*time.Minute)
	if got := m.heardBy("dead"); len(got) != n {
		t.Errorf("the dead one hears %d of %d: %v", len(got), n, fmt.Sprint(m.read("events/dead/status")))
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}

// revokeAll has a job revoke all roles whose names begin so.
func (m *eventMount) revokeAll(prefix string) {
	m.t.Helper()
	m.write("bulk", map[string]any{"action": "revoke", "name_prefix": prefix, "dry_run": false, "pace": 0, "reason": "x", "rotate": false})
}

// clear forgets what was delivered.
func (o *outside) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got = nil
}

// heapUsed is how many bytes are in use.
func heapUsed() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) //nolint:gosec // there is no such memory
}

// What is found in the open goes out at once at the default pace, although thousands of
// revocations wait, memory is full, and one of three endpoints is dead.
func TestAStormHoldsUpNoReport(t *testing.T) {
	t.Parallel()
	n, found := stormOf(10_000), 20
	m := newEventMount(t)
	m.outbox.most = n
	m.makeRoles("r", n+100, map[string]any{"rotation_period": 0})
	leaks := m.makeRoles("leak", found, map[string]any{"rotation_period": 0, "on_leak": "alert"})
	for _, name := range []string{"dead", "one", "two"} {
		m.endpoint(name, map[string]any{"pace": 10})
	}
	m.answer("dead.example.com", badAnswers["breaks"])
	m.revokeAll("r")
	m.tend(time.Second)
	for _, name := range leaks {
		m.write("report", map[string]any{"key": m.read("creds/" + name)["api_key"]})
	}
	began := m.clock.Now()
	reported := map[string]int{}
	for reported["one"] < found || reported["two"] < found {
		m.tend(100 * time.Millisecond)
		for _, name := range []string{"one", "two"} {
			for _, n := range m.heardBy(name) {
				if n.kind == tellsReported {
					reported[name]++
				}
			}
		}
		if m.clock.Now().Sub(began) > time.Minute {
			t.Fatalf("after a minute they heard %v of %d", reported, found)
		}
	}
	took := m.clock.Now().Sub(began)
	t.Logf("the last of %d reports is out after %v, %d entries in memory", found, took, len(m.outbox.heads))
	if took > 3*time.Second { // at 10 a second
		t.Errorf("the last report took %v", took)
	}
	if have := len(m.outbox.heads); have > n {
		t.Errorf("%d entries in memory", have)
	}
}

// tend lets some time pass, with one step of the worker.
func (m *eventMount) tend(d time.Duration) {
	m.t.Helper()
	m.clock.advance(d)
	m.entrust(m.storage)
	if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
		m.t.Fatal(err)
	}
	m.flights.Wait()
}
