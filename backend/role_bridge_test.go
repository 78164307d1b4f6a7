// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// endingSoon are the transitions that make a version current which ends by itself
// so long from then.
var endingSoon = map[string]func(m *testMount, left time.Duration, more map[string]any) []string{
	"rollback": func(m *testMount, left time.Duration, more map[string]any) []string {
		m.write("rotate/r", map[string]any{"grace_period": "90m"})
		m.clock.set(m.record("r").Ring.Get(1).Expires.Add(-left))
		resp, err := m.do(logical.UpdateOperation, "rollback/r", more)
		if err != nil || resp.IsError() {
			m.t.Fatal(err, resp)
		}
		return resp.Warnings
	},
	"import": func(m *testMount, left time.Duration, more map[string]any) []string {
		if more["pause"] == true {
			m.write("roles/r", map[string]any{"rotation_paused": true})
		}
		m.write("import", map[string]any{
			"batch": `{"role":"r","key":"` + strings.Repeat("k7", 12) + `","expires_at":"` + stamp(m.clock.Now().Add(left)) + `"}`,
		})
		return []string{"ends by itself"}
	},
	"promotion": func(m *testMount, left time.Duration, more map[string]any) []string {
		m.write("rotate/r", map[string]any{"stage": true})
		m.clock.set(m.record("r").Ring.Get(2).Expires.Add(-left))
		if more["pause"] == true {
			m.write("roles/r", map[string]any{"rotation_paused": true})
		}
		resp, err := m.do(logical.UpdateOperation, "promote/r", nil)
		if err != nil || resp.IsError() {
			m.t.Fatal(err, resp)
		}
		return resp.Warnings
	},
}

// Between two ticks the role has a current key all the time, however soon the one
// ends that a transition made current.
func TestVersionThatEndsSoonIsSucceeded(t *testing.T) {
	for what, do := range endingSoon {
		for _, left := range []time.Duration{11 * time.Second, 50 * time.Second, 2 * time.Minute} {
			t.Run(what+"/"+left.String(), func(t *testing.T) {
				m := newMount(t)
				m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "80m"})
				warnings := do(m, left, nil)
				if !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "ends by itself") }) {
					t.Errorf("the warnings are %q", warnings)
				}
				first := number(t, m.read("creds/r")["version"])
				var key any
				for i := range 60 {
					got := m.read("creds/r")
					m.expectVerdict(got["api_key"], "VALID")
					if key != nil && i > 0 && number(t, got["version"]) == first && got["api_key"] != key {
						t.Fatal("another key of the same version")
					}
					key = got["api_key"]
					m.clock.advance(5 * time.Second)
					if i%12 == 11 {
						m.tick()
					}
				}
			})
		}
	}
}

// The transition stands where the successor cannot be made; the next tick makes it.
func TestVersionThatEndsSoonIsOwedASuccessor(t *testing.T) {
	s := &losing{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "80m"})
	m.write("rotate/r", map[string]any{"grace_period": "90m"})
	m.clock.set(m.record("r").Ring.Get(1).Expires.Add(-50 * time.Second))
	s.refuse = []string{secretPrefix}
	m.write("rollback/r", nil)
	m.expectStates("r", "current withdrawn")
	s.refuse = nil
	m.clock.advance(20 * time.Second)
	m.tick()
	m.expectStates("r", "previous withdrawn current")
}

// Nothing is made where automatic rotation is off or paused.
func TestVersionThatEndsSoonIsLeftAloneWithoutRotation(t *testing.T) {
	for what, do := range endingSoon {
		for _, off := range []string{"by hand", "role paused", "mount paused"} {
			t.Run(what+"/"+off, func(t *testing.T) {
				m := newMount(t)
				fields := map[string]any{"rotation_period": "1h", "grace_period": "10m", "ttl": "80m"}
				var more map[string]any
				switch off {
				case "by hand":
					fields["rotation_period"] = 0
				case "role paused":
					more = map[string]any{"pause": true}
				case "mount paused":
					m.write("config", map[string]any{"rotation_paused": true})
				}
				m.write("roles/r", fields)
				warnings := do(m, 50*time.Second, more)
				if !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "ends by itself") }) {
					t.Errorf("the warnings are %q", warnings)
				}
				m.run(3 * time.Minute)
				if n := m.record("r").Ring.Last; n != 2 || m.record("r").Owed {
					t.Errorf("version %d was made", n)
				}
			})
		}
	}
}
