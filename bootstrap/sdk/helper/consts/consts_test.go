// SPDX-License-Identifier: MPL-2.0

package consts

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestReplicationState(t *testing.T) {
	for bit, c := range map[int]struct {
		state           ReplicationState
		names           []string
		dr, performance string
		primary         bool
	}{
		5:  {ReplicationPerformancePrimary, []string{"perf-primary"}, "unknown", "primary", true},
		6:  {ReplicationPerformanceSecondary, []string{"perf-secondary"}, "unknown", "secondary", false},
		7:  {OldSplitReplicationBootstrapping, nil, "unknown", "unknown", false},
		8:  {ReplicationDRPrimary, []string{"dr-primary"}, "primary", "unknown", true},
		9:  {ReplicationDRSecondary, []string{"dr-secondary"}, "secondary", "unknown", false},
		10: {ReplicationPerformanceBootstrapping, []string{"perf-bootstrapping"}, "unknown", "bootstrapping", false},
		11: {ReplicationDRBootstrapping, []string{"dr-bootstrapping"}, "bootstrapping", "unknown", false},
		12: {ReplicationPerformanceDisabled, []string{"perf-disabled"}, "unknown", "disabled", false},
		13: {ReplicationDRDisabled, []string{"dr-disabled"}, "disabled", "unknown", false},
		14: {ReplicationPerformanceStandby, []string{"perfstandby"}, "unknown", "unknown", false},
	} {
		if c.state != 1<<bit {
			t.Errorf("bit %d is %#x", bit, uint32(c.state))
		}
		if !slices.Equal(c.state.StateStrings(), c.names) || c.state.GetDRString() != c.dr ||
			c.state.GetPerformanceString() != c.performance || c.state.IsPrimaryState() != c.primary {
			t.Errorf("bit %d is %q, %s, %s, %v", bit, c.state.StateStrings(), c.state.GetDRString(), c.state.GetPerformanceString(), c.state.IsPrimaryState())
		}
	}

	state := ReplicationUnknown
	state.AddState(ReplicationDRPrimary | ReplicationPerformanceSecondary)
	if !state.HasState(ReplicationDRPrimary) || !state.HasState(ReplicationDRPrimary|ReplicationDRSecondary) || state.HasState(ReplicationDRSecondary) {
		t.Errorf("state is %#x", uint32(state))
	}
	state.ClearState(ReplicationDRPrimary)
	state.ToggleState(ReplicationPerformanceSecondary | ReplicationDRDisabled)
	if state != ReplicationDRDisabled {
		t.Errorf("state is %#x", uint32(state))
	}
}

func TestPluginType(t *testing.T) {
	for number, name := range []string{"unknown", "auth", "database", "secret"} {
		p := PluginType(number)
		if p.String() != name {
			t.Errorf("%d is %s", number, p)
		}
		if parsed, err := ParsePluginType(name); err != nil || parsed != p {
			t.Errorf("%s is %d, %v", name, parsed, err)
		}
		for _, text := range []string{string(rune('0' + number)), `"` + name + `"`} {
			var decoded PluginType
			if err := json.Unmarshal([]byte(text), &decoded); err != nil || decoded != p {
				t.Errorf("%s is %d, %v", text, decoded, err)
			}
		}
		if encoded, err := json.Marshal(p); err != nil || string(encoded) != `"`+name+`"` {
			t.Errorf("%d encodes to %s, %v", number, encoded, err)
		}
	}
	if PluginType(9).String() != "unsupported" {
		t.Error("an unknown number has a name")
	}
	for _, text := range []string{`"other"`, `"unsupported"`, `{}`} {
		var decoded PluginType
		if err := json.Unmarshal([]byte(text), &decoded); err == nil {
			t.Errorf("%s is %d", text, decoded)
		}
	}
}
