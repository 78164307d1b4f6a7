// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

const keyForBench = "ak_0123456789012345678901234567890123456789012345678901234567_"

func benchKey(i int) string { return fmt.Sprintf("%s%07d", keyForBench, i) }

// fill has the edge hold so many keys, ten to a role, each with one scope.
func fill(tb testing.TB, v *Verifier, n int) {
	tb.Helper()
	v.feed.mu.Lock()
	cursor := v.feed.cursor
	v.feed.mu.Unlock()
	if _, _, ok := feed.ParseCursor(cursor); !ok {
		tb.Fatal("the feed was not read yet")
	}
	line := []timeline.Entry{
		{From: time.Now().Add(-time.Hour), Code: "VALID", State: "current", End: "planned"},
		{From: time.Now().Add(24 * time.Hour), Code: "RETIRED", State: "retired", Reason: "grace_ended"},
	}
	now, _ := v.clock.elapsed()
	for i := range n {
		role := fmt.Sprintf("9d8f0c52-0000-4000-8000-%012d", i/10)
		a := &answers{
			Cursor:  cursor,
			Results: []answer{{Code: "VALID", RoleID: role, KeyID: fmt.Sprintf("k%011d", i), Version: 3, Timeline: line}},
			Roles:   map[string]roleFacts{role: {Role: fmt.Sprint("customer-", i/10), Scopes: []string{"orders:read"}}},
		}
		if r := v.learn(&question{digest: v.digest.of(benchKey(i)), key: benchKey(i)}, a, 0, now); r.err != nil || r.once != nil {
			tb.Fatal(r)
		}
	}
}

// live is an edge that follows an engine, by the real clock.
func live(tb testing.TB, opt Options) (*engine, *Verifier) {
	tb.Helper()
	e := newEngine()
	v := e.open(tb, opt)
	for v.confirmed.Load() == notConfirmed {
		runtime.Gosched()
	}
	return e, v
}

// The floor: what one HMAC of the key costs.
func BenchmarkHMAC(b *testing.B) {
	mac, key, sum := hmac.New(sha256.New, make([]byte, 32)), []byte(benchKey(1)), make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		mac.Reset()
		_, _ = mac.Write(key)
		sum = mac.Sum(sum[:0])
	}
}

var benchSizes = []int{10_000, 1_000_000}

func BenchmarkHeld(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint("keys=", n), func(b *testing.B) {
			_, v := live(b, Options{})
			fill(b, v, n)
			keys := make([]string, 100_000)
			for i := range keys {
				keys[i] = benchKey(i * 7919 % n)
			}
			scopes, ctx := []string{"orders:read"}, context.Background()
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if verdict, err := v.Verify(ctx, Request{Key: keys[i%len(keys)], Scopes: scopes}); err != nil || !verdict.Valid {
					b.Fatal(verdict, err)
				}
				i++
			}
		})
	}
}

// With -cpu 1,2 it tells what a second goroutine adds.
func BenchmarkHeldParallel(b *testing.B) {
	_, v := live(b, Options{})
	fill(b, v, 10_000)
	var from atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := int(from.Add(5000))
		for pb.Next() {
			if verdict, err := v.Verify(context.Background(), Request{Key: benchKey(i % 10_000)}); err != nil || !verdict.Valid {
				b.Error(verdict, err)
				return
			}
			i++
		}
	})
}

// BenchmarkHeldUnderForgeries is BenchmarkHeld while 10,000 forged keys arrive each
// second.
func BenchmarkHeldUnderForgeries(b *testing.B) {
	_, v := live(b, Options{})
	fill(b, v, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		attacker := netip.MustParseAddr("192.0.2.1")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range 10 {
				i++
				if verdict, err := v.Verify(ctx, Request{Key: fmt.Sprint("forged", i), RemoteAddr: attacker}); err == nil && verdict.Valid {
					b.Error(verdict)
				}
			}
		}
	}()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if verdict, err := v.Verify(ctx, Request{Key: benchKey(i % 10_000)}); err != nil || !verdict.Valid {
			b.Fatal(verdict, err)
		}
		i++
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkState tells what a held key takes, and how long a million are read.
func BenchmarkState(b *testing.B) {
	const n = 1_000_000
	opt := stateOptions(b.TempDir())
	opt.MaxKeys = n
	before := heapInUse()
	e, v := live(b, opt)
	fill(b, v, n)
	b.ReportMetric(float64(heapInUse()-before)/n, "bytes/key")
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	runtime.KeepAlive(v)
	info, err := os.Stat(opt.StateFile)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/n, "filebytes/key")
	e.set(func() { e.down = true })
	for b.Loop() {
		v := e.open(b, opt)
		if v.keys.size.Load() != n {
			b.Fatalf("%d keys", v.keys.size.Load())
		}
		b.StopTimer()
		_ = v.Close()
		b.StartTimer()
	}
}

// What is fast because it allocates nothing stays so.
func TestHeldKeysAllocateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		fill(t, v, 100)
		key, scopes := benchKey(7), []string{"orders:read"}
		if n := testing.AllocsPerRun(1000, func() {
			if verdict, err := v.Verify(context.Background(), Request{Key: key, Scopes: scopes}); err != nil || !verdict.Valid {
				t.Fatal(verdict, err)
			}
		}); n > 0 && !raced {
			t.Errorf("%v allocations", n)
		}
		if calls, _ := e.asked(); calls > 0 {
			t.Error("a held key cost a call")
		}
	})
}
