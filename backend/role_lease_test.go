// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// superseding are the ways in which a dynamic role's generation is superseded, at a
// grace that is shorter than the leases that are out.
var superseding = map[string]func(m *testMount) []string{
	"rotation": func(m *testMount) []string { return m.warned("rotate/d", map[string]any{"grace_period": "1m"}) },
	"rotation by itself": func(m *testMount) []string {
		m.run(35 * time.Minute)
		return []string{"lease"}
	},
	"dated rotation": func(m *testMount) []string {
		return m.warned("rotate/d", map[string]any{"grace_period": "1m", "activate_at": "1m"})
	},
	"promotion": func(m *testMount) []string {
		m.write("rotate/d", map[string]any{"stage": true})
		return m.warned("promote/d", map[string]any{"grace_period": "1m"})
	},
	"rollback": func(m *testMount) []string { return m.warned("rollback/d", map[string]any{"grace_period": "1m"}) },
	"bulk job": func(m *testMount) []string {
		m.write("bulk", map[string]any{"action": "rotate", "roles": "d", "grace_period": "1m", "dry_run": false, "reason": "x"})
		m.run(time.Minute)
		return []string{"lease"}
	},
}

// warned sends a write and returns the warnings.
func (m *testMount) warned(path string, data map[string]any) []string {
	m.t.Helper()
	resp, err := m.do(logical.UpdateOperation, path, data)
	if err != nil || resp.IsError() {
		m.t.Fatalf("%s: %v %v", path, err, resp)
	}
	return resp.Warnings
}

// tuned gives the mount another default ttl of leases.
func (m *testMount) tuned(ttl time.Duration) {
	m.t.Helper()
	sys, ok := m.System().(*logical.StaticSystemView)
	if !ok {
		m.t.Fatalf("the system is a %T", m.System())
	}
	sys.DefaultLeaseTTLVal, sys.MaxLeaseTTLVal = ttl, 24*time.Hour
}

// longLeases are the ways in which a lease may be longer than the role's ttl, which
// is 10 minutes. They return the lease, and its end.
var longLeases = map[string]func(m *testMount) (*logical.Response, time.Time){
	"renewed for longer": func(m *testMount) (*logical.Response, time.Time) {
		lease := m.lease("d", nil)
		resp, err := m.onLease(logical.RenewOperation, lease, 3*time.Hour)
		if err != nil || resp.IsError() || resp.Secret.TTL != 3*time.Hour {
			m.t.Fatal(err, resp)
		}
		return lease, m.clock.Now().Add(3 * time.Hour)
	},
	"issued under a longer ttl": func(m *testMount) (*logical.Response, time.Time) {
		m.write("roles/d", map[string]any{"ttl": "3h"})
		lease := m.lease("d", nil)
		m.write("roles/d", map[string]any{"ttl": "10m"})
		return lease, m.clock.Now().Add(3 * time.Hour)
	},
	"issued under a longer ttl of the mount": func(m *testMount) (*logical.Response, time.Time) {
		m.tuned(time.Hour)
		m.patch("roles/d", map[string]any{"ttl": nil})
		lease := m.lease("d", nil)
		m.tuned(10 * time.Minute)
		return lease, m.clock.Now().Add(time.Hour)
	},
	"renewed under a longer ttl of the mount": func(m *testMount) (*logical.Response, time.Time) {
		m.tuned(10 * time.Minute)
		m.patch("roles/d", map[string]any{"ttl": nil})
		lease := m.lease("d", nil)
		m.tuned(time.Hour)
		if resp, err := m.onLease(logical.RenewOperation, lease, 0); err != nil || resp.IsError() || resp.Secret.TTL != time.Hour {
			m.t.Fatal(err, resp)
		}
		m.tuned(10 * time.Minute)
		return lease, m.clock.Now().Add(time.Hour)
	},
	"renewed late": func(m *testMount) (*logical.Response, time.Time) {
		lease := m.lease("d", nil)
		for range 20 { // longer than what is noted the first time
			m.clock.advance(9 * time.Minute)
			if resp, err := m.onLease(logical.RenewOperation, lease, 40*time.Minute); err != nil || resp.IsError() {
				m.t.Fatal(err, resp)
			}
		}
		m.write("rotate/d", map[string]any{"activate_at": "1s"}) // what the leases of before may forget
		m.clock.advance(2 * time.Second)
		other := m.lease("d", nil)
		if resp, err := m.onLease(logical.RenewOperation, other, 40*time.Minute); err != nil || resp.IsError() {
			m.t.Fatal(err, resp)
		}
		return other, m.clock.Now().Add(40 * time.Minute)
	},
}

// No lease is cut off by a rotation, a rollback or a job that nobody forced.
func TestGraceIsNoShorterThanTheLeases(t *testing.T) {
	for how, begin := range longLeases {
		for what, supersede := range superseding {
			t.Run(how+"/"+what, func(t *testing.T) {
				m := newMount(t)
				m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "10m", "max_ttl": "20h", "grace_period": "1m", "rotation_period": "24h"})
				m.write("rotate/d", nil) // something to go back to
				if what == "rotation by itself" {
					m.run(23*time.Hour + 30*time.Minute)
				}
				lease, ends := begin(m)
				warnings := supersede(m)
				if !strings.Contains(strings.Join(warnings, " "), "lease") {
					t.Errorf("the warnings are %q", warnings)
				}
				m.clock.set(ends.Add(-time.Second))
				m.expectVerdict(lease.Data["api_key"], "VALID")
			})
		}
	}
}

// A lease calls its role by the name of before a rename.
func TestLongRenewalAfterARename(t *testing.T) {
	for _, again := range []bool{false, true} { // whether another role has the name
		m := newMount(t)
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "10m", "max_ttl": "20h", "grace_period": "1m"})
		lease := m.lease("d", nil)
		m.rename("d", "n")
		if again {
			m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "3h", "max_ttl": "20h"})
		}
		if resp, err := m.onLease(logical.RenewOperation, lease, 3*time.Hour); err != nil || resp.IsError() || resp.Secret.TTL != 3*time.Hour {
			t.Fatal(err, resp)
		}
		ends := m.clock.Now().Add(3 * time.Hour)
		m.write("rotate/n", nil)
		m.clock.set(ends.Add(-time.Second))
		m.expectVerdict(lease.Data["api_key"], "VALID")
	}
}

// Who forces it is told what is cut off.
func TestForcedGraceSaysWhatItCutsOff(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "10m", "max_ttl": "20h"})
	lease, _ := longLeases["renewed for longer"](m)
	warnings := m.warned("rotate/d", map[string]any{"grace_period": "1m", "force": true})
	if text := strings.Join(warnings, " "); !strings.Contains(text, "3h") {
		t.Errorf("the warnings are %q", warnings)
	}
	m.clock.advance(time.Minute)
	m.expectVerdict(lease.Data["api_key"], "RETIRED")
}

// A key renews by the role's ttl once that is shorter than its own.
func TestRenewalFollowsTheRolesTTL(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "3h", "max_ttl": "20h"})
	long, short := m.lease("d", map[string]any{"ttl": "2h"}), m.lease("d", map[string]any{"ttl": "5m"})
	m.write("roles/d", map[string]any{"ttl": "10m"})
	for lease, want := range map[*logical.Response]time.Duration{long: 10 * time.Minute, short: 5 * time.Minute} {
		resp, err := m.onLease(logical.RenewOperation, lease, 0)
		if err != nil || resp.IsError() || resp.Secret.TTL != want {
			t.Errorf("renewed for %v, want %s (%v)", resp.Secret, want, err)
		}
	}
}

// Ordinary issues and renewals write nothing to the role, long renewals seldom.
func TestLeasesAreNotedSeldom(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "10m", "max_ttl": "20h"})
	lease := m.lease("d", nil)
	seq := m.record("d").Seq
	for range 8 {
		m.clock.advance(5 * time.Minute)
		if resp, err := m.onLease(logical.RenewOperation, lease, 0); err != nil || resp.IsError() {
			t.Fatal(err, resp)
		}
		m.lease("d", nil)
	}
	if n := m.record("d").Seq; n != seq {
		t.Errorf("%d commits", n-seq)
	}
	for range 8 {
		m.clock.advance(5 * time.Minute)
		if resp, err := m.onLease(logical.RenewOperation, lease, time.Hour); err != nil || resp.IsError() {
			t.Fatal(err, resp)
		}
	}
	if n := m.record("d").Seq; n != seq+1 {
		t.Errorf("%d commits for renewals within an hour, want 1", n-seq)
	}
}

// TestEarlierEndSparesLeases that were issued before the mount's ttl fell, also where a
// rotation came between.
func TestEarlierEndSparesLeases(t *testing.T) {
	for _, between := range []time.Duration{0, 40 * time.Minute} {
		m := newMount(t)
		m.tuned(time.Hour)
		m.write("roles/d", map[string]any{"type": "dynamic"})
		lease := m.lease("d", nil)
		m.tuned(5 * time.Minute)
		m.write("rotate/d", nil)
		m.clock.advance(between)
		m.write("rotate/d", nil)
		m.refused(logical.UpdateOperation, "grace/d", map[string]any{"version": 1, "valid_until": "6m"}, "force", "leases until")
		m.clock.advance(time.Hour - between - time.Second)
		m.expectVerdict(lease.Data["api_key"], "VALID")
	}
	// Once they are over nothing keeps the floor up.
	m := newMount(t)
	m.tuned(time.Hour)
	m.write("roles/d", map[string]any{"type": "dynamic", "grace_period": "1m"})
	m.tuned(5 * time.Minute)
	m.write("rotate/d", nil)
	m.clock.advance(61 * time.Minute)
	m.write("rotate/d", nil)
	m.write("rotate/d", nil)
	m.write("grace/d", map[string]any{"version": 2, "valid_until": "5m"})
	if got := m.record("d"); got.LeaseTTL != 300 || got.ttlSeen() != 5*time.Minute {
		t.Errorf("leases of %d s, %s", got.LeaseTTL, got.ttlSeen())
	}
}
