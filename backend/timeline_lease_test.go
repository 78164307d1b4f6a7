// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"
)

// A renewal moves the end of a lease, and no other.
func TestOnlyTheEndOfALeaseIsRenewable(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
	m.write("roles/s", map[string]any{"ttl": "1h", "rotation_period": 0})
	keys := map[string]any{}
	for role, want := range map[string]bool{"d": true, "s": false} {
		key := m.read("creds/" + role)["api_key"]
		line := lineOf(t, m.write("verify", map[string]any{"key": key, "timeline": 1}))
		last := len(line) - 1
		if line.State(last) != "expired" || line.Renewable(last) != want || line.Renewable(0) {
			t.Errorf("%s: %+v", role, line.Entries())
		}
		keys[role] = key
	}
	// One that has come is for good.
	m.clock.advance(2 * time.Hour)
	for role, key := range keys {
		if line := lineOf(t, m.write("verify", map[string]any{"key": key, "timeline": 1})); line.State(0) != "expired" || line.Renewable(0) {
			t.Errorf("%s, ended: %+v", role, line.Entries())
		}
	}
}
