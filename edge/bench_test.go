// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

const keyForBench = "ak_0123456789012345678901234567890123456789012345678901234567_"

func benchKey(i int) string { return fmt.Sprintf("%s%07d", keyForBench, i) }

// fill has the edge hold so many keys, each with one scope, perRole of them to a role.
func fill(tb testing.TB, v *Verifier, n, perRole int) {
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
		role := fmt.Sprintf("9d8f0c52-0000-4000-8000-%012d", i/perRole)
		a := &answers{
			Cursor:  cursor,
			Results: []answer{{Code: "VALID", RoleID: role, KeyID: fmt.Sprintf("k%011d", i), Version: 3, Timeline: line}},
			Roles:   map[string]roleFacts{role: {Role: fmt.Sprint("customer-", i/perRole), Scopes: []string{"orders:read"}}},
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

// presented are all keys that fill has made, in an order of their own: their texts lie
// one after the other, as that of a key does which a request has just brought, and what
// is held of them does not.
func presented(n int) []string {
	const size = len(keyForBench) + 7
	all := make([]byte, 0, n*size)
	for i := range n {
		all = append(all, benchKey(i*7919%n)...)
	}
	text, keys := string(all), make([]string, n)
	for i := range keys {
		keys[i] = text[i*size : (i+1)*size]
	}
	return keys
}

// user presents the keys one after the other.
type user struct {
	keys []string
	next int
}

func (u *user) key() string {
	if u.next++; u.next >= len(u.keys) {
		u.next = 0
	}
	return u.keys[u.next]
}

var benchScopes = []string{"orders:read"}

func (u *user) verify(b *testing.B, v *Verifier, times int) {
	for range times {
		if verdict, err := v.Verify(context.Background(), Request{Key: u.key(), Scopes: benchScopes}); err != nil || !verdict.Valid {
			b.Error(verdict, err)
			return
		}
	}
}

// floor is what one HMAC of a key costs, with nothing around it.
type floor struct {
	user
	mac hash.Hash
	sum []byte
}

func newFloor(keys []string) *floor {
	return &floor{user: user{keys: keys}, mac: hmac.New(sha256.New, make([]byte, 32)), sum: make([]byte, 0, 32)}
}

func (f *floor) hash(times int) {
	var text [len(keyForBench) + 7]byte
	for range times {
		copy(text[:], f.key())
		f.mac.Reset()
		_, _ = f.mac.Write(text[:])
		f.sum = f.mac.Sum(f.sum[:0])
	}
}

// turns are how long the same work took, again and again.
type turns []time.Duration

func (t *turns) take(work func()) {
	began := time.Now()
	work()
	*t = append(*t, time.Since(began))
}

// best is how long one of so many took in the best turn: what else a machine does
// meanwhile hits most turns, but not that one.
func (t turns) best(times int) float64 { return float64(slices.Min(t).Nanoseconds()) / float64(times) }

func (t turns) middle() float64 {
	all := make([]float64, len(t))
	for i := range t {
		all[i] = float64(t[i])
	}
	return middle(all)
}

// middle is a number such that as many are above it as below.
func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

func BenchmarkHMAC(b *testing.B) {
	f := newFloor(presented(10_000))
	b.ReportAllocs()
	for b.Loop() {
		f.hash(1)
	}
}

var benchSizes = []int{10_000, 1_000_000}

// memory is as much as so many keys take, and a way through all of it in no order: what
// the machine takes to come to a key that is in no cache.
type memory struct {
	lines [][24]int // the size of a key that is held
	at    int
}

func newMemory(n int) *memory {
	m := &memory{lines: make([][24]int, n)}
	order := mathrand.New(mathrand.NewPCG(1, 2)).Perm(n)
	for i := range order {
		m.lines[order[i]][0] = order[(i+1)%n]
	}
	return m
}

func (m *memory) walk(times int) {
	for range times {
		m.at = m.lines[m.at][0]
	}
}

// BenchmarkHeld verifies keys that are held and, in turns with that, makes one HMAC of
// each, and goes from one place of as much memory to the next. The ratio is what matters.
func BenchmarkHeld(b *testing.B) {
	const times = 1000
	for _, n := range benchSizes {
		b.Run(fmt.Sprint("keys=", n), func(b *testing.B) {
			_, v := live(b, Options{})
			fill(b, v, n, 1)
			keys := presented(n)
			f, u := newFloor(keys), &user{keys: keys}
			f.hash(n)
			u.verify(b, v, n)
			m := newMemory(n)
			m.walk(n)
			var floor, held, step turns
			for b.Loop() {
				step.take(func() { m.walk(times) })
				floor.take(func() { f.hash(times) })
				held.take(func() { u.verify(b, v, times) })
			}
			allocs := testing.AllocsPerRun(times, func() { u.verify(b, v, 1) })
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(floor.best(times), "ns/hmac")
			b.ReportMetric(step.best(times), "ns/memory")
			b.ReportMetric(held.best(times), "ns/verify")
			b.ReportMetric(held.best(times)/floor.best(times), "x-hmac")
			b.ReportMetric(allocs, "allocs/verify")
		})
	}
}

// BenchmarkHeldParallel is two goroutines beside each other, in turns with one, and the
// same with nothing but HMACs. x-one is what the machine gave, in the best turn; computed
// is the same by what the threads computed, which a machine that is busy with other
// things changes little.
func BenchmarkHeldParallel(b *testing.B) {
	const times = 50_000
	_, v := live(b, Options{})
	fill(b, v, 10_000, 1)
	keys := presented(10_000)
	users, floors := [2]*user{{keys: keys}, {keys: keys, next: 5000}}, [2]*floor{newFloor(keys), newFloor(keys)}
	var computed [2]turns // by one that is alone, and by one of two
	on := func(n int, work func(i int)) func() {
		return func() {
			var wg sync.WaitGroup
			var spent [2]time.Duration
			for i := range n {
				wg.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					began := threadTime()
					work(i)
					spent[i] = threadTime() - began
				})
			}
			wg.Wait()
			computed[n-1] = append(computed[n-1], spent[:n]...)
		}
	}
	hash, verify := func(i int) { floors[i].hash(times) }, func(i int) { users[i].verify(b, v, times) }
	var one, two, oneHMAC, twoHMAC turns
	for b.Loop() {
		oneHMAC.take(on(1, hash))
		twoHMAC.take(on(2, hash))
		computed[0], computed[1] = computed[0][:len(one)], computed[1][:2*len(two)] // of verifications only
		one.take(on(1, verify))
		two.take(on(2, verify))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one.best(times), "ns/verify")
	b.ReportMetric(2*one.best(times)/two.best(times), "x-one")
	b.ReportMetric(2*oneHMAC.best(times)/twoHMAC.best(times), "x-one-hmac")
	b.ReportMetric(2*computed[0].middle()/computed[1].middle(), "x-one-computed")
}

// BenchmarkHeldUnderForgeries verifies keys that are held alone and, in turns with that,
// while 10,000 forged ones arrive each second: at this edge, and at another one, which
// costs the machine the same. What counts is what the verifying thread computes: where
// the flood takes its core that is not this package's. All forged keys are others. They
// come from one address, or each from an address of its own.
func BenchmarkHeldUnderForgeries(b *testing.B) {
	const (
		perSecond = 10_000
		turn      = 50 * time.Millisecond
		rounds    = 10
	)
	for _, from := range []string{"one", "many"} {
		b.Run("addresses="+from, func(b *testing.B) {
			_, v := live(b, Options{})
			_, other := live(b, Options{})
			fill(b, v, 10_000, 1)
			fill(b, other, 10_000, 1)
			u := &user{keys: presented(10_000)}
			var forged, asked atomic.Int64
			flood := func(stop <-chan struct{}, v *Verifier) {
				began, sent := time.Now(), 0
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
					for ; sent < int(time.Since(began).Seconds()*perSecond); sent++ {
						i := forged.Add(1)
						addr := netip.AddrFrom4([4]byte{192, 0, 2, 1})
						if from == "many" {
							addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
						}
						verdict, err := v.Verify(context.Background(), Request{Key: fmt.Sprint("forged-", i), RemoteAddr: addr})
						switch {
						case err == nil && verdict.Code == codeNotFound:
							asked.Add(1)
						case !errors.Is(err, ErrBusy):
							b.Error(verdict, err)
							return
						}
					}
				}
			}
			var each [3][]float64 // of each turn, how long a verification took in it
			var flooded time.Duration
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				for range rounds {
					for i, at := range []*Verifier{nil, v, other} {
						stop := make(chan struct{})
						var wg sync.WaitGroup
						began, computed, verified := time.Now(), threadTime(), 0
						if at != nil {
							wg.Go(func() { flood(stop, at) })
						}
						for time.Since(began) < turn {
							u.verify(b, v, 100)
							verified += 100
						}
						each[i] = append(each[i], float64((threadTime()-computed).Nanoseconds())/float64(verified))
						close(stop)
						wg.Wait()
						if at != nil {
							flooded += time.Since(began)
						}
					}
				}
			}
			alone, here, there := middle(each[0]), middle(each[1]), middle(each[2])
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(alone, "ns-alone")
			b.ReportMetric(100*(here/alone-1), "%-worse")
			b.ReportMetric(100*(there/alone-1), "%-worse-elsewhere")
			b.ReportMetric(float64(forged.Load())/flooded.Seconds(), "forged/s")
			b.ReportMetric(float64(asked.Load())/flooded.Seconds(), "asked/s")
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkState tells what a held key takes, in memory and in the state file, and how
// long a million are read from there.
func BenchmarkState(b *testing.B) {
	const n = 1_000_000
	for _, perRole := range []int{1, 10} {
		b.Run(fmt.Sprint("keys-per-role=", perRole), func(b *testing.B) {
			opt := stateOptions(b.TempDir())
			opt.MaxKeys = n
			e, v := live(b, opt)
			before := heapInUse()
			fill(b, v, n, perRole)
			held := heapInUse() - before
			if err := v.Close(); err != nil {
				b.Fatal(err)
			}
			runtime.KeepAlive(v)
			info, err := os.Stat(opt.StateFile)
			if err != nil {
				b.Fatal(err)
			}
			e.set(func() { e.down = true })
			var loads turns
			var loaded uint64
			for b.Loop() {
				v = nil
				before := heapInUse()
				loads.take(func() { v = e.open(b, opt) })
				if got := v.keys.size.Load(); got != n {
					b.Fatalf("%d keys", got)
				}
				if verdict, err := v.Verify(context.Background(), Request{Key: benchKey(n / 2)}); err != nil || !verdict.Valid || !verdict.CutOff {
					b.Fatal(verdict, err)
				}
				loaded = heapInUse() - before
				// What it writes then is the same once more.
				if err := v.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(loads.best(1)/1e9, "s-to-load")
			b.ReportMetric(float64(held)/n, "bytes/key")
			b.ReportMetric(float64(loaded)/n, "bytes/loaded-key")
			b.ReportMetric(float64(info.Size())/n, "filebytes/key")
		})
	}
}

// What is fast because it allocates nothing stays so.
func TestHeldKeysAllocateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		fill(t, v, 100, 10)
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
