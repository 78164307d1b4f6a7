// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Whoever presents keys that he does not have learns nothing from how much storage
// is asked: an id that exists costs what one that never did costs, whether the
// engine has read it before or not, at the first try and at every later one.
func TestRefusalsCostTheSame(t *testing.T) {
	foreign := "sk-0123456789-from-elsewhere"
	setUp := func() (m *testMount, good, id string) {
		m = mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
		m.write("roles/r", nil)
		m.write("roles/other", nil)
		m.write("import", map[string]any{"batch": `{"role":"legacy","key":"` + foreign + `"}`})
		read := m.read("creds/r")
		fresh := m.restart()
		fresh.ask(unknownKey(t)) // the mount's secrets are read once
		fresh.ask("another-string-that-nobody-imported")
		return fresh, read["api_key"].(string), read["key_id"].(string)
	}
	type try struct {
		path string
		key  func(good, id string) string
	}
	unknown := func(string, string) string { return unknownKey(t) }
	wrong := func(_, id string) string { return withID(t, id) }
	right := func(good, _ string) string { return good }
	imported := func(string, string) string { return foreign }
	stranger := func(string, string) string { return "sk-9876543210-from-elsewhere" }
	steps := []time.Duration{0, time.Second, 3 * time.Second, 2 * time.Second, time.Millisecond, absentFor}

	// known is what the engine was asked before.
	for name, known := range map[string]func(m *testMount, good string){
		"nothing read":  func(*testMount, string) {},
		"key is cached": func(m *testMount, good string) { m.ask(good); m.ask(foreign) },
		"cached for long": func(m *testMount, good string) {
			m.ask(good)
			m.ask(foreign)
			m.clock.advance(time.Hour)
		},
	} {
		for _, fresh := range []bool{false, true} {
			for _, c := range []struct {
				name              string
				unknown, existing try
			}{
				{"wrong secret", try{"verify", unknown}, try{"verify", wrong}},
				{"wrong secret, bound", try{"verify/r", unknown}, try{"verify/r", wrong}},
				{"another role's", try{"verify/other", unknown}, try{"verify/other", right}},
				{"another role's, imported", try{"verify/other", stranger}, try{"verify/other", imported}},
			} {
				var costs [2][]cost
				for i, which := range []try{c.unknown, c.existing} {
					m, good, id := setUp()
					known(m, good)
					m.fresh(fresh)
					key := which.key(good, id)
					for _, step := range steps {
						m.clock.advance(step)
						spent, code := m.costOf(which.path, key)
						if code != "NOT_FOUND" {
							t.Fatalf("%s, %s: %s", name, c.name, code)
						}
						costs[i] = append(costs[i], spent)
					}
				}
				for i := range steps {
					if costs[0][i] != costs[1][i] {
						t.Errorf("%s, %s, fresh %v, try %d: an unknown id takes %+v, an existing one %+v", name, c.name, fresh, i, costs[0][i], costs[1][i])
					}
				}
			}
		}
	}
}
