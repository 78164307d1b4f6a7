// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

var configDefaults = map[string]any{
	"rotation_paused": false, "max_rotations_per_second": 50.0, "stage_ahead": 600.0, "delete_recovery": 86400.0,
	"max_leak_actions": 100.0, "trust_reported_usage": false, "trusted_reporters": []any{}, "allow_weak_imports": false, "cache_size": 20000.0, "count_reads": false,
	"edge_max_staleness": 3600.0, "feed_wait": 2.0,
	"egress_allow": []any{}, "egress_proxy": "", "outbound_paused": false, "metrics_role_labels": false, "notify_before": []any{604800.0, 86400.0},
}

func TestConfigFields(t *testing.T) {
	m := newMount(t)
	if got := plain(t, m.read("config")); !reflect.DeepEqual(got, configDefaults) {
		t.Fatalf("%v, want %v", got, configDefaults)
	}
	for _, c := range []struct {
		field  string
		value  any
		want   any
		refuse string
	}{
		{field: "rotation_paused", value: true, want: true},
		{field: "edge_max_staleness", value: "10m", want: 600.0},
		{field: "edge_max_staleness", value: "59s", refuse: "1m"},
		{field: "edge_max_staleness", value: "25h", refuse: "24h"},
		{field: "feed_wait", value: "5s", want: 5.0},
		{field: "feed_wait", value: "0", refuse: "from 1 second"},
		{field: "feed_wait", value: "6s", refuse: "to 5 seconds"},
		{field: "rotation_paused", value: "x", refuse: `rotation_paused: "x": is neither true nor false`},
		{field: "max_rotations_per_second", value: 0, want: 0.0},
		{field: "max_rotations_per_second", value: "7", want: 7.0},
		{field: "max_rotations_per_second", value: -1, refuse: "max_rotations_per_second: -1: must be from 0 to 100000: "},
		{field: "max_rotations_per_second", value: 100001, refuse: "must be from 0"},
		{field: "stage_ahead", value: "3m", want: 180.0},
		{field: "stage_ahead", value: 86400, want: 86400.0},
		{field: "stage_ahead", value: 179, refuse: "stage_ahead: 179: must be from 3m (180 seconds) to 24h (86400 seconds): "},
		{field: "stage_ahead", value: 86401, refuse: "stage_ahead: 86401: "},
		{field: "stage_ahead", value: "200500ms", refuse: "is not a whole number of seconds"},
		{field: "delete_recovery", value: 0, want: 0.0},
		{field: "delete_recovery", value: "2160h", want: 7776000.0},
		{field: "delete_recovery", value: "2161h", refuse: "delete_recovery: 7779600: must be from 0 seconds to 2160h (7776000 seconds)"},
		{field: "max_leak_actions", value: 0, want: 0.0},
		{field: "max_leak_actions", value: -5, refuse: "max_leak_actions: -5: "},
		{field: "trusted_reporters", value: "entity-1,entity-2", want: []any{"entity-1", "entity-2"}},
		{field: "trusted_reporters", value: "*,entity-1", refuse: "trusted_reporters: has other entries beside *: "},
		{field: "trusted_reporters", value: "entity 1", refuse: "trusted_reporters: \"entity 1\": is no entity id: "},
		{field: "allow_weak_imports", value: true, want: true},
		{field: "count_reads", value: true, want: true},
		{field: "count_reads", value: "", refuse: "count_reads: is empty"},
		{field: "cache_size", value: 100, want: 100.0},
		{field: "cache_size", value: 99, refuse: "cache_size: 99: must be from 100 to 10000000: "},
		{field: "cach_size", value: 99, refuse: `cach_size: unknown field: did you mean cache_size?`},
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			data := map[string]any{c.field: c.value}
			if c.refuse != "" {
				data["rotation_paused"] = cond(c.field == "rotation_paused", c.value, true)
				m.unchanged(func() { m.refused(op, "config", data, c.refuse) })
			} else {
				m.must(op, "config", data)
				want := plain(t, configDefaults)
				want[c.field] = c.want
				if got := plain(t, m.read("config")); !reflect.DeepEqual(got, want) {
					t.Errorf("%s %v: %v, want %v", op, data, got, want)
				}
				if got := plain(t, m.restart().read("config")); !reflect.DeepEqual(got, want) {
					t.Errorf("%s %v, after a restart: %v", op, data, got)
				}
				m.unchanged(func() { m.write("config", plain(t, m.read("config"))) })
				m.write("config", map[string]any{c.field: nil}) // names nothing
				if got := plain(t, m.read("config")); !reflect.DeepEqual(got, want) {
					t.Errorf("null in an update: %v", got)
				}
				m.must(logical.PatchOperation, "config", map[string]any{c.field: nil})
			}
			if got := plain(t, m.read("config")); !reflect.DeepEqual(got, configDefaults) {
				t.Fatalf("%s %v: %v, want the defaults", op, data, got)
			}
		}
	}
}

// trust_reported_usage is the older way to say that all reporters are trusted.
func TestTrustedReportersAndTheOldField(t *testing.T) {
	m := newMount(t)
	all, none, one := []any{"*"}, []any{}, []any{"entity-1"}
	for i, c := range []struct {
		op   logical.Operation
		data map[string]any
		old  bool
		want []any
	}{
		{logical.UpdateOperation, map[string]any{"trust_reported_usage": true}, true, all},
		{logical.UpdateOperation, map[string]any{"trusted_reporters": "entity-1"}, false, one},
		{logical.UpdateOperation, map[string]any{"trust_reported_usage": false}, false, one},
		{logical.UpdateOperation, map[string]any{"trusted_reporters": "*"}, true, all},
		{logical.UpdateOperation, map[string]any{"trust_reported_usage": false}, false, none},
		{logical.UpdateOperation, map[string]any{"trust_reported_usage": true, "trusted_reporters": "*"}, true, all},
		{logical.UpdateOperation, map[string]any{"trusted_reporters": ""}, false, none},
		{logical.UpdateOperation, map[string]any{"trusted_reporters": "*", "replace": true}, true, all},
		{logical.UpdateOperation, map[string]any{"trust_reported_usage": true, "replace": true}, true, all},
		{logical.PatchOperation, map[string]any{"trusted_reporters": nil}, false, none},
		{logical.PatchOperation, map[string]any{"trusted_reporters": "*", "trust_reported_usage": nil}, true, all},
		{logical.PatchOperation, map[string]any{"trust_reported_usage": nil}, false, none},
	} {
		m.must(c.op, "config", c.data)
		for _, m := range []*testMount{m, m.restart()} {
			got := plain(t, m.read("config"))
			if got["trust_reported_usage"] != c.old || !reflect.DeepEqual(got["trusted_reporters"], c.want) {
				t.Errorf("%d: after %v: %v, %v", i, c.data, got["trust_reported_usage"], got["trusted_reporters"])
			}
		}
	}
	for _, data := range []map[string]any{
		{"trust_reported_usage": true, "trusted_reporters": "entity-1"},
		{"trust_reported_usage": false, "trusted_reporters": "*"},
	} {
		m.unchanged(func() { m.refused(logical.UpdateOperation, "config", data, "contradicts trusted_reporters") })
	}
}

func cond(is bool, a, b any) any {
	if is {
		return a
	}
	return b
}

// A config whose write has an unknown outcome is read again.
func TestConfigIsWhatIsStored(t *testing.T) {
	for _, f := range []fault{faultFail, faultApplied} {
		p := newProbe(&logical.InmemStorage{})
		m := mountOn(t, p, newFakeClock())
		p.onlyWrites = true
		p.arm(1, f)
		if _, err := m.do(logical.UpdateOperation, "config", map[string]any{"rotation_paused": true}); err == nil {
			t.Error("no error")
		}
		p.reset()
		if got, stored := m.read("config")["rotation_paused"], m.restart().read("config")["rotation_paused"]; got != stored || got != (f == faultApplied) {
			t.Errorf("fault %d: %v, stored %v", f, got, stored)
		}
	}
}

// What another node wrote counts once this one is told, and a fill that began
// before does not bring the old value back.
func TestConfigInvalidation(t *testing.T) {
	m := newMount(t)
	other := m.restart()
	other.read("config")
	m.write("config", map[string]any{"cache_size": 100})
	other.InvalidateKey(t.Context(), "config")
	if got := number(t, other.read("config")["cache_size"]); got != 100 {
		t.Errorf("%d", got)
	}
}

func TestRotateDigest(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	old := m.read("creds/a")["api_key"]
	for want := int64(2); want < 4; want++ {
		got := m.write("config/rotate-digest", nil)
		if number(t, got["digest_version"]) != want || got["rotated"] != m.clock.Now().Format(time.RFC3339) || len(got) != 2 {
			t.Fatalf("%v", got)
		}
	}
	m.write("rotate/a", nil)
	for _, m := range []*testMount{m, m.restart()} {
		m.expectVerdict(old, "VALID")
		m.expectVerdict(m.read("creds/a")["api_key"], "VALID")
	}
	digests := map[string]int{}
	for path, value := range dump(t, m.storage) {
		for _, v := range []string{"v1:", "v2:", "v3:"} {
			if strings.HasPrefix(path, keyPrefix) && strings.Contains(value, `"`+v) {
				digests[v]++
			}
		}
	}
	if digests["v1:"] != 1 || digests["v3:"] != 1 || digests["v2:"] != 0 {
		t.Errorf("%v", digests)
	}
}
