// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// TestVerifyTellsOfFaults: where storage fails there is no verdict, whatever is
// asked and whatever this node still knows.
func TestVerifyTellsOfFaults(t *testing.T) {
	t.Parallel()
	first := newMount(t)
	first.write("roles/a", nil)
	first.issueTo("d", "x", 1)
	static, leased := first.read("creds/a"), first.lease("d", nil)
	foreign := first.importForeign("i")
	first.write("config/rotate-digest", nil)
	start := dump(t, first.storage)
	asked := map[string]map[string]any{
		"verify a static role's key": {"key": static["api_key"]},
		"verify a leased key":        {"key": leased.Data["api_key"]},
		"verify an imported key":     {"key": foreign},
		"verify an unknown key":      {"key": newMountKey(t)},
		"verify a key of other form": {"key": strings.Repeat("y8", 16)},
		"verify by id":               {"key_id": static["key_id"], "role_id": first.record("a").ID},
		"verify/a key":               {"key": static["api_key"]},
		"verify/i wrong key":         {"key": static["api_key"]},
		"verify/a wrong foreign key": {"key": foreign},
	}
	for what, data := range asked {
		path, _, _ := strings.Cut(what, " ")
		for _, fresh := range []bool{false, true} {
			if data["fresh"] = fresh; !fresh {
				delete(data, "fresh")
			}
			run := func(call string) (*broken, any, error) {
				s := &broken{Storage: copyStorage(t, start)}
				m := mountOn(withoutSchemas{t}, s, newFakeClock())
				for i := range places {
					if p := &places[i]; p.forget != nil && !strings.HasSuffix(p.path, "/") {
						p.forget(m.backend, p.path)
					}
				}
				s.call, s.log = call, nil
				resp, err := m.send(logical.UpdateOperation, path, data)
				var code any
				if resp != nil {
					code = resp.Data["code"]
				}
				return s, code, err
			}
			s, _, err := run("")
			if err != nil {
				t.Fatal(what, err)
			}
			for _, call := range s.log {
				if call == "get tidy" {
					continue // whether roles were renamed: moved/ is asked then
				}
				if s, code, err := run(call); s.hits > 0 && !errors.Is(err, errStorage) {
					t.Errorf("%s, fresh %v: %s fails, and the answer is %v %v", what, fresh, call, code, err)
				}
			}
		}
	}
}

// newMountKey is a key that another mount made.
func newMountKey(t *testing.T) string {
	m := newMount(t)
	m.write("roles/a", nil)
	return m.read("creds/a")["api_key"].(string)
}

// TestAnswersAreMadeOnceASecond for each key and verdict.
func TestAnswersAreMadeOnceASecond(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"].(string)
	ask := func() uintptr {
		v, err := m.verdictOf(t.Context(), m.storage, &question{key: key}, m.clock.Now())
		if err != nil || v.code != codeValid {
			t.Fatal(v.code, err)
		}
		return reflect.ValueOf(m.rendered(&v)).Pointer()
	}
	one := ask()
	if ask() != one {
		t.Error("an answer of the same second is made anew")
	}
	m.clock.advance(time.Second)
	if ask() == one {
		t.Error("an answer of another second is taken")
	}
}

// TestDeadKeysStayAsTheyDied: who kills one again changes nothing of it.
func TestDeadKeysStayAsTheyDied(t *testing.T) {
	for _, expired := range []bool{false, true} {
		m := newMount(t)
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
		id := m.lease("d", nil).Data["key_id"].(string)
		kill := func() string {
			m.clock.advance(time.Minute)
			if _, err := m.killKey(t.Context(), m.storage, id, nil, func(*keyRecord) (bool, error) { return true, nil }, causeRequest, "why", keyring.Unspecified); err != nil {
				t.Fatal(err)
			}
			return dump(t, m.storage)[keyPath(id)]
		}
		if expired {
			m.clock.advance(2 * time.Hour)
		}
		first := kill()
		if expired {
			m.clock.set(m.clock.Now().Add(-3 * time.Hour)) // no clock that goes back revives it
		}
		if second := kill(); second != first || strings.Contains(first, "expired_seen") != expired {
			t.Errorf("a dead key was %s and is %s", first, second)
		}
	}
}
