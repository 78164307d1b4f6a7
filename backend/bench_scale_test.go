// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// BenchmarkRoles is what the engine does with few and with many roles. What does
// not depend on their number has the same result at each size.
func BenchmarkRoles(b *testing.B) {
	for _, kind := range []string{"memory", "file"} {
		for _, n := range benchSizes(b) {
			b.Run(fmt.Sprintf("storage=%s/roles=%d", kind, n), func(b *testing.B) {
				var s benchStore = newTreeStore()
				if kind == "file" {
					s = newFileStore(b)
				}
				fillStore(b, s, n)
				runtime.GC()
				benchRoles(b, s)
			})
		}
	}
}

// once is a benchmark of something that can only happen once: it was measured
// before, and is only reported here.
func once(b *testing.B, name string, metrics map[string]float64) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		for _, unit := range sortedKeys(metrics) {
			b.ReportMetric(metrics[unit], unit)
		}
	})
}

// benchMount starts the engine on a filled store.
func benchMount(t testing.TB, s logical.Storage) (*testMount, *calls) {
	t.Helper()
	c := &calls{Storage: s}
	return mountOn(t, c, newFakeClock()), c
}

// tickOnly is a tick in which tidy, which has a share of its own in some, rests.
func (m *testMount) tickOnly() {
	m.t.Helper()
	m.tidy.mu.Lock()
	m.tidy.next = m.clock.Now().Add(tidyEvery)
	m.tidy.mu.Unlock()
	m.tick()
}

func benchRoles(b *testing.B, s logical.Storage) {
	began := time.Now()
	m, c := benchMount(b, s)
	once(b, "start", map[string]float64{
		"ms": ms(time.Since(began)), "calls": float64(c.all.Load()), "lists": float64(c.lists.Load()),
	})

	b.Run("tick=idle", func(b *testing.B) {
		before, ticks := c.all.Load(), 0
		end := newFakeClock().Now().Add(dueAfter - time.Minute)
		for b.Loop() {
			if m.clock.Now().Before(end) {
				m.clock.advance(time.Second)
			}
			m.tickOnly()
			ticks++
		}
		b.ReportMetric(float64(c.all.Load()-before)/float64(ticks), "calls/op")
	})
	begin := newFakeClock().Now()
	m.clock.set(begin.Add(dueAfter + 11*time.Minute))
	once(b, "tick=due", m.rotateDue(c))
	// What follows from those rotations: activations, ends, erasures.
	for _, at := range []time.Duration{25 * time.Minute, 25 * time.Hour, 27 * time.Hour} {
		m.clock.set(begin.Add(dueAfter + at))
		for range 100 {
			m.tickOnly()
		}
	}
	m.clock.set(begin.Add(30*24*time.Hour + dueAfter))
	once(b, "tick=asleep", m.rotateDue(c))
	m.benchRequests(b, c)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rotateDue lets the periodic function rotate all that are due, in as many runs
// as it takes.
func (m *testMount) rotateDue(c *calls) map[string]float64 {
	m.t.Helper()
	all, lists, roles, values := c.all.Load(), c.lists.Load(), c.roles.Load(), c.values.Load()
	var sum, longest time.Duration
	ticks := 0
	for c.roles.Load()-roles < dueRoles {
		if ticks++; ticks > 1000 {
			m.t.Fatalf("%d of %d roles rotated", c.roles.Load()-roles, dueRoles)
		}
		began := time.Now()
		m.tickOnly()
		d := time.Since(began)
		sum, longest = sum+d, max(longest, d)
	}
	if n, made := c.roles.Load()-roles, c.values.Load()-values; made != n {
		m.t.Fatalf("%d roles were looked at, and %d keys made", n, made)
	}
	rotated := float64(c.roles.Load() - roles)
	return map[string]float64{
		"rotations/s": rotated / sum.Seconds(), "calls/rotation": float64(c.all.Load()-all) / rotated, "lists": float64(c.lists.Load() - lists),
		"ticks": float64(ticks), "ms-longest-tick": ms(longest),
	}
}

// benchRequests measures what is asked of the engine in its own process.
func (m *testMount) benchRequests(b *testing.B, c *calls) {
	send := func(b *testing.B, op logical.Operation, path func(int) string, data map[string]any) {
		req := m.request
		req.Operation, req.Data, req.Storage = op, data, m.storage
		b.ReportAllocs()
		before, i := c.all.Load(), 0
		for b.Loop() {
			req.Path = path(i)
			if resp, err := m.HandleRequest(context.Background(), &req); err != nil || resp.IsError() {
				b.Fatal(resp, err)
			}
			i++
		}
		b.ReportMetric(float64(c.all.Load()-before)/float64(i), "calls/op")
	}
	one := "creds/" + benchRole(5000%dueRoles)
	b.Run("creds=cached", func(b *testing.B) { send(b, logical.ReadOperation, func(int) string { return one }, nil) })
	b.Run("creds=cold", func(b *testing.B) {
		m.roles.purge()
		m.secretCache.purge()
		m.roles.resize(1)
		m.secretCache.resize(1)
		send(b, logical.ReadOperation, func(i int) string { return "creds/" + benchRole(i%(2*dueRoles)) }, nil)
		m.roles.resize(defaultCacheSize)
		m.secretCache.resize(defaultCacheSize)
	})
	b.Run("rotate", func(b *testing.B) {
		send(b, logical.UpdateOperation, func(i int) string { return "rotate/" + benchRole(i%dueRoles) }, map[string]any{"force": true})
	})
}
