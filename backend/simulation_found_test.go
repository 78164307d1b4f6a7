// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// What the simulation found, each by itself.

// After a rollback the older key is replaced before it ends by itself, with its
// readers' grace left.
func TestRollbackToAKeyThatEndsSoonMovesThePlan(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "80m"})
	first := m.clock.Now()
	m.clock.advance(50 * time.Minute)
	m.write("rotate/r", nil)
	m.clock.advance(time.Minute)
	next := m.write("rollback/r", nil)["next_rotation"]
	if want := stamp(first.Add(70 * time.Minute)); next != want {
		t.Fatalf("next rotation %v, want %v: the key ends at %v", next, want, stamp(first.Add(80*time.Minute)))
	}
	old := m.read("creds/r")["api_key"]
	m.clock.set(first.Add(60 * time.Minute))
	m.run(10 * time.Minute)
	if v := m.read("creds/r")["version"]; v != 3 {
		t.Fatalf("version %v is current", v)
	}
	m.expectVerdict(old, "VALID")
}

// A plan that was missed may leave out a slot; not where the key would end.
func TestMissedRotationDoesNotOutlastTheKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "24h", "grace_period": "1h", "ttl": "92100s"})
	m.clock.advance(24*time.Hour + 18*time.Hour) // missed by 18 hours: the slot 6 hours on is left out
	m.tick()
	var last time.Duration
	for range 60 {
		if _, err := m.do(logical.ReadOperation, "creds/r", nil); err != nil {
			t.Fatal(err)
		}
		m.run(30 * time.Minute)
		if resp, err := m.do(logical.ReadOperation, "creds/r", nil); err != nil || resp.IsError() {
			t.Fatalf("after %s: %v %v", last, resp, err)
		}
		last += 30 * time.Minute
	}
}

// Rotations that become far more frequent wait for the readers who were told to
// come back later than ten versions would last.
func TestPlanWaitsForReadersOfTheOldPolicy(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "168h", "grace_period": "24h", "refresh_interval": "12h"})
	key, ttl := m.read("creds/r")["api_key"], number(t, m.read("creds/r")["ttl"])
	m.write("roles/r", map[string]any{"rotation_period": "90s", "grace_period": "45s", "refresh_interval": "5m"})
	m.run(time.Duration(ttl)*time.Second + 20*time.Second)
	m.expectVerdict(key, "VALID")
	m.run(24 * time.Hour)
	before := number(t, m.read("creds/r")["version"])
	m.run(time.Hour)
	if after := number(t, m.read("creds/r")["version"]); after-before < 30 {
		t.Fatalf("%d rotations in the hour after everybody had come back", after-before)
	}
}

// What readers were told holds through any number of changes.
func TestSecondPolicyChangeKeepsThePromise(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": "1h", "refresh_interval": "30m"})
	key := m.read("creds/r")["api_key"]
	m.write("roles/r", map[string]any{"grace_period": "2m"})
	m.write("roles/r", map[string]any{"grace_period": "10s"})
	m.clock.advance(5 * time.Minute)
	m.write("rotate/r", nil)
	m.clock.advance(25*time.Minute + 4*time.Second)
	m.expectVerdict(key, "VALID")
}

// The leases of a ttl that was shortened count until they are over, also in the
// grace of a version that was staged after it.
func TestPromotionKeepsLongerLeases(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "12h", "grace_period": "10m"})
	lease := m.lease("d", nil)
	m.write("roles/d", map[string]any{"ttl": "10m"})
	m.write("rotate/d", map[string]any{"stage": true})
	m.clock.advance(time.Minute)
	m.write("promote/d", nil)
	m.clock.advance(11 * time.Hour)
	m.expectVerdict(lease.Data["api_key"], "VALID")
}

// A request that leaves a gap is carried out, and says so.
func TestWarningsOfGaps(t *testing.T) {
	m := newMount(t)
	warned := func(what, path string, data map[string]any) {
		t.Helper()
		resp, err := m.do(logical.UpdateOperation, path, data)
		if err != nil || resp.IsError() || len(resp.Warnings) == 0 {
			t.Errorf("%s: %v %v", what, resp, err)
		}
	}
	policy := map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "80m"}
	m.write("roles/a", policy)
	warned("an activation after the end of the current key", "rotate/a", map[string]any{"activate_at": "79m59s"})
	m.write("roles/b", policy)
	warned("a held version", "rotate/b", map[string]any{"stage": true})
	m.write("roles/c", map[string]any{"grace_period": "10m"})
	m.write("rotate/c", map[string]any{"activate_at": "5m"})
	warned("a later activation than the pending one's", "rotate/c", map[string]any{"activate_at": "1h"})
}
