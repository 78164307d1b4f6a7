// SPDX-License-Identifier: MPL-2.0

package consts

// ReplicationState is a bit set. The bits are on the plugin wire.
type ReplicationState uint32

const (
	ReplicationUnknown                  ReplicationState = 0
	ReplicationPerformancePrimary       ReplicationState = 1 << 5
	ReplicationPerformanceSecondary     ReplicationState = 1 << 6
	OldSplitReplicationBootstrapping    ReplicationState = 1 << 7
	ReplicationDRPrimary                ReplicationState = 1 << 8
	ReplicationDRSecondary              ReplicationState = 1 << 9
	ReplicationPerformanceBootstrapping ReplicationState = 1 << 10
	ReplicationDRBootstrapping          ReplicationState = 1 << 11
	ReplicationPerformanceDisabled      ReplicationState = 1 << 12
	ReplicationDRDisabled               ReplicationState = 1 << 13
	ReplicationPerformanceStandby       ReplicationState = 1 << 14
)

// HasState reports whether any bit of flag is set.
func (r ReplicationState) HasState(flag ReplicationState) bool { return r&flag != 0 }

// AddState sets the bits of flag.
func (r *ReplicationState) AddState(flag ReplicationState) { *r |= flag }

// ClearState clears the bits of flag.
func (r *ReplicationState) ClearState(flag ReplicationState) { *r &^= flag }

// ToggleState flips the bits of flag.
func (r *ReplicationState) ToggleState(flag ReplicationState) { *r ^= flag }

type namedState struct {
	state ReplicationState
	name  string
}

// firstName returns the name of the first state that r has.
func (r ReplicationState) firstName(states []namedState) string {
	for _, s := range states {
		if r.HasState(s.state) {
			return s.name
		}
	}
	return "unknown"
}

// StateStrings names every set bit.
func (r ReplicationState) StateStrings() []string {
	var names []string
	for _, s := range []namedState{
		{ReplicationPerformanceSecondary, "perf-secondary"},
		{ReplicationPerformancePrimary, "perf-primary"},
		{ReplicationPerformanceBootstrapping, "perf-bootstrapping"},
		{ReplicationPerformanceDisabled, "perf-disabled"},
		{ReplicationDRPrimary, "dr-primary"},
		{ReplicationDRSecondary, "dr-secondary"},
		{ReplicationDRBootstrapping, "dr-bootstrapping"},
		{ReplicationDRDisabled, "dr-disabled"},
		{ReplicationPerformanceStandby, "perfstandby"},
	} {
		if r.HasState(s.state) {
			names = append(names, s.name)
		}
	}
	return names
}

// GetDRString names the disaster-recovery role.
func (r ReplicationState) GetDRString() string {
	return r.firstName([]namedState{
		{ReplicationDRBootstrapping, "bootstrapping"},
		{ReplicationDRPrimary, "primary"},
		{ReplicationDRSecondary, "secondary"},
		{ReplicationDRDisabled, "disabled"},
	})
}

// GetPerformanceString names the performance-replication role.
func (r ReplicationState) GetPerformanceString() string {
	return r.firstName([]namedState{
		{ReplicationPerformanceBootstrapping, "bootstrapping"},
		{ReplicationPerformancePrimary, "primary"},
		{ReplicationPerformanceSecondary, "secondary"},
		{ReplicationPerformanceDisabled, "disabled"},
	})
}

// IsPrimaryState reports whether the cluster is a primary of any kind.
func (r ReplicationState) IsPrimaryState() bool {
	return r.HasState(ReplicationPerformancePrimary | ReplicationDRPrimary)
}
