// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// TestNoDigestTakesAKeysPlace imports digests of keys that the mount has made, in
// every state, with their ids and without, into their own role and another. Most
// are refused. One is not, since nobody can tell from a digest whose it is: that of
// another role's key without its id. It changes nothing for that key.
func TestNoDigestTakesAKeysPlace(t *testing.T) {
	m := newMount(t)
	keys := map[string]string{}
	own := map[string]string{} // roles
	hold := func(name, path, role string) {
		keys[name], own[name] = m.read(path)["api_key"].(string), role
	}
	static := map[string]any{"rotation_period": 0, "grace_period": "20h"}
	m.write("roles/a", static)
	hold("trimmed", "creds/a", "a")
	for range 24 {
		m.write("rotate/a", map[string]any{"grace_period": 0})
		m.clock.advance(2 * time.Hour)
		m.tick()
	}
	hold("previous", "creds/a", "a")
	m.write("rotate/a", nil)
	hold("live", "creds/a", "a")
	m.write("rotate/a", map[string]any{"stage": true})
	hold("pending", "creds/a/pending", "a")
	m.write("roles/rv", static)
	hold("revoked", "creds/rv", "rv")
	m.write("revoke/rv", map[string]any{"all": true})
	m.write("roles/d", map[string]any{"type": "dynamic"})
	for _, name := range []string{"dynamic", "dynamic revoked"} {
		keys[name], own[name] = m.lease("d", nil).Data["api_key"].(string), "d"
	}
	m.write("revoke/d", map[string]any{"key_id": m.idOf(keys["dynamic revoked"])})
	m.write("roles/del", static)
	hold("deleted", "creds/del", "del")
	m.must(logical.DeleteOperation, "roles/del", nil)
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/gone", static)
	hold("tombstone", "creds/gone", "gone")
	m.write("revoke/gone", map[string]any{"all": true})
	m.must(logical.DeleteOperation, "roles/gone", nil)
	start := dump(t, m.storage)

	// facts are what anybody is told of a key.
	facts := func(m *testMount, name, key string) string {
		verdict := m.write("verify", map[string]any{"key": key})
		all := fmt.Sprintln(verdict["code"], verdict["role"], verdict["version"], verdict["state"], verdict["reason"], verdict["key_id"])
		if resp, err := m.do(logical.UpdateOperation, "lookup", map[string]any{"key": key}); err != nil {
			all += fmt.Sprintln(err)
		} else {
			all += fmt.Sprintln(resp.Data["role"], resp.Data["version"], resp.Data["state"], resp.Data["role_deleted"])
		}
		if role := own[name]; role != "d" && role != "del" && role != "gone" {
			all += fmt.Sprintln(m.states(role), m.read("creds/" + role)["api_key"])
		}
		return all
	}
	for name, key := range inOrder(keys) {
		for _, withID := range []bool{true, false} {
			for _, role := range []string{"new", "b", own[name]} {
				m := mountOn(t, copyStorage(t, start), m.clock)
				m.write("roles/b", nil)
				before := facts(m, name, key)
				item := map[string]any{"role": role, "sha256": sha(key)}
				if withID {
					item["key_id"] = m.idOf(key)
				}
				got := m.importItems(item)[0]
				text, _ := got["error"].(string)
				where := fmt.Sprintf("%s, id %v, into %s: %v", name, withID, role, got)
				undetected := !withID && got["result"] == "imported"
				switch {
				case strings.Contains(text, key), strings.Contains(text, sha(key)):
					t.Errorf("%s: the refusal shows the key", name)
				case withID && role == own[name] && (name == "live" || name == "previous" || name == "pending"):
					if got["result"] != "already_imported" || got["ended"] != nil {
						t.Error(where)
					}
				case withID && role == own[name] && name == "trimmed":
					if got["result"] != "already_imported" || got["ended"] == nil {
						t.Error(where)
					}
				case withID && got["result"] != "refused":
					t.Error(where)
				case !withID && role == "a" && name != "trimmed" && (got["result"] != "refused" || !strings.Contains(text, "sha256: is that of version ")):
					t.Error(where)
				case !withID && role != own[name] && !undetected:
					t.Error(where)
				case role == "d" && got["result"] != "refused":
					t.Error(where)
				}
				if name == "trimmed" && undetected && role == "a" {
					continue // the role goes on, and its newest version has a successor
				}
				if role == own[name] && undetected {
					// As good as another role: of what the role was nothing is left.
					if name != "deleted" && name != "tombstone" {
						t.Error(where)
					}
				}
				if after := facts(m, name, key); after != before {
					t.Errorf("%s:\n%s\nwas\n%s", where, after, before)
				}
				if undetected {
					// What was made is no key that anybody can present.
					if code := m.verdict(key); code == "VALID" && m.ask(key)["role"] != own[name] {
						t.Errorf("%s: %s", where, code)
					}
					m.refused(logical.ReadOperation, "creds/"+role, nil, "imported by digest")
				}
				if _, err := keyformat.Parse(key); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
