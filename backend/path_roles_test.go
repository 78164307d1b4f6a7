// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// plain is an answer as a client sees it.
func plain(t testing.TB, data map[string]any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	var seen map[string]any
	if err := json.Unmarshal(encoded, &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestRoleOfDefaults(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	got := plain(t, m.read("roles/a"))
	for _, f := range []string{"role_id", "created"} {
		if got[f] == "" {
			t.Errorf("%s is empty", f)
		}
		delete(got, f)
	}
	want := map[string]any{
		"name": "a", "type": "static", "description": "", "owner": "", "metadata": map[string]any{}, "scopes": []any{}, "prefix": "ak",
		"ttl": 0.0, "max_ttl": 0.0, "rotation_period": 7776000.0, "rotation_schedule": "", "rotation_window": 0.0, "valid_until": "", "rotation_jitter": 0.0, "rotation_paused": false,
		"grace_period": 86400.0, "max_grace_period": 86400.0, "refresh_interval": 300.0, "reveal": "always", "allowed_cidrs": []any{},
		"rate_limit": 0.0, "on_leak": "revoke", "leak_grace_period": 3600.0, "disabled": false, "deletion_protection": false,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}

	m.write("roles/d", map[string]any{"type": "dynamic"})
	got = plain(t, m.read("roles/d"))
	if got["ttl"] != 3600.0 || got["rotation_period"] != 0.0 || got["grace_period"] != 86400.0 || got["max_ttl"] == 0.0 {
		t.Errorf("dynamic: %v", got)
	}
	if _, err := m.do(logical.DeleteOperation, "roles/a", nil); err != nil {
		t.Fatal(err)
	}
}
