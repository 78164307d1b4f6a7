// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// stormRoles is how many roles the measured storm has: enough to see the pace, in real
// time.
const stormRoles = 1000

// BenchmarkStorm is the worker, as a server runs it, with roles that are all due at once,
// at the default pace and with none.
func BenchmarkStorm(b *testing.B) {
	for name, pace := range map[string]int{"pace=default": 0, "pace=10000": 10000} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := stormStore(b, pace)
				b.StartTimer()
				began := time.Now()
				m := startStorm(b, s)
				for s.values.Load() < stormRoles {
					if time.Since(began) > 5*time.Minute {
						b.Fatalf("%d of %d rotated", s.values.Load(), stormRoles)
					}
					<-time.After(10 * time.Millisecond)
				}
				b.ReportMetric(stormRoles/time.Since(began).Seconds(), "rotations/s")
				b.ReportMetric(float64(s.all.Load())/stormRoles, "calls/rotation")
				m.Cleanup(b.Context())
			}
		})
	}
}

// stormStore holds roles that were to rotate a minute ago.
func stormStore(b *testing.B, pace int) *calls {
	b.Helper()
	store := newTreeStore()
	c := newFakeClock()
	c.set(time.Now().Add(-61 * time.Minute))
	m := mountOn(b, store, c)
	if pace > 0 {
		m.write("config", map[string]any{"max_rotations_per_second": pace})
	}
	m.makeRoles("r", stormRoles, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	return &calls{Storage: store}
}

func startStorm(b *testing.B, s logical.Storage) logical.Backend {
	b.Helper()
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
	m, err := Factory(b.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: sys, StorageView: s, BackendUUID: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Initialize(b.Context(), &logical.InitializationRequest{Storage: s}); err != nil {
		b.Fatal(err)
	}
	return m
}
