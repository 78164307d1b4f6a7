// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"container/heap"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// simWorld is one role and all who have to do with it.
type simWorld struct {
	t    *testing.T
	rng  *rand.Rand
	name string

	random io.Reader // of keys and ids

	start, now time.Time // true time
	queue      simQueue
	seq        int
	stop       bool

	storage  logical.Storage
	server   *testMount // the active node
	offsets  [2]time.Duration
	active   int
	verifier *testMount
	verifies time.Duration // offset of the verifier's clock
	skew     time.Duration // between any two clocks, at most
	down     time.Time     // the server is down until then

	policy    map[string]any
	dynamic   bool
	hasTTL    bool
	graces    []simGrace // what the role's grace was, since when
	busy      time.Time  // the next event that is not a read or a tick
	consumers []*simConsumer
	trace     []string
	stats     simStats
}

type simGrace struct {
	since time.Time
	grace time.Duration
}

func newSimWorld(t *testing.T, rng *rand.Rand) *simWorld {
	t.Helper()
	w := &simWorld{t: t, rng: rng, storage: &logical.InmemStorage{}, random: &lockedReader{r: rand.NewChaCha8([32]byte{byte(rng.Uint32())})}}
	w.start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(w.upTo(366 * 24 * time.Hour))
	w.now = w.start
	w.server = w.mount(w.offsets[0])
	w.verifier = w.mount(0)
	w.choosePolicy()
	return w
}

// upTo is a random duration below d.
func (w *simWorld) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

// around is exponentially distributed with that mean.
func (w *simWorld) around(mean time.Duration) time.Duration {
	return min(time.Duration(w.rng.ExpFloat64()*float64(mean)), simSpan)
}

func (w *simWorld) chance(p float64) bool { return w.rng.Float64() < p }

func pick[T any](w *simWorld, from ...T) T { return from[w.rng.IntN(len(from))] }

func (w *simWorld) mount(offset time.Duration) *testMount {
	w.t.Helper()
	c := newFakeClock()
	c.set(w.now.Add(offset))
	m := mountOn(w.t, w.storage, c)
	m.rand = w.random // so that a seed repeats the role's id, and its jitter
	return m
}

func (w *simWorld) note(format string, args ...any) {
	line := fmt.Sprintf("%s %s", w.now.Format("2006-01-02 15:04:05.000"), fmt.Sprintf(format, args...))
	if w.trace = append(w.trace, line); len(w.trace) > 400 {
		w.trace = w.trace[200:]
	}
}

func (w *simWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.stop = true
	w.t.Errorf("%s: %s\npolicy %v, clocks %v, verifier %v\n%s\nrecord: %s", w.name, fmt.Sprintf(format, args...), w.policy, w.offsets, w.verifies,
		strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"), w.describe())
}

func (w *simWorld) describe() string {
	rec := w.record()
	var s strings.Builder
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		st, _ := rec.Ring.Status(v.N, w.serverNow())
		if !st.State.Ended() || i > len(rec.Ring.Versions)-6 {
			fmt.Fprintf(&s, "\n  %d %s activate %s grace %s+%s until %s expires %s", v.N, st.State, stamp(v.Activate), v.Grace, v.Extended, stamp(st.Until), stamp(v.Expires))
		}
	}
	return fmt.Sprintf("next %s due %s promise %+v lease %d until %s%s", stamp(rec.Next), stamp(rec.Due), rec.Promise, rec.LeaseTTL, stamp(rec.LeaseUntil), s.String())
}

func (w *simWorld) serverNow() time.Time { return w.now.Add(w.offsets[w.active]) }

func (w *simWorld) record() *roleRecord {
	rec, err := w.server.roles.get(context.Background(), w.storage, rolePath("r"))
	if err != nil || rec == nil {
		w.t.Fatalf("%s: the role record: %v %v", w.name, rec, err)
	}
	return rec
}

func (w *simWorld) terms(rec *roleRecord) policy.Terms {
	lim, err := w.server.limits(context.Background(), w.storage)
	if err != nil {
		w.t.Fatal(err)
	}
	t, err := rec.Policy.Effective(rec.ID, rec.Type, lim)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// request sends one to a node. Its answer is an error text for refusals.
func (w *simWorld) request(m *testMount, op logical.Operation, path string, data map[string]any) (*logical.Response, string) {
	req := m.request
	req.Operation, req.Path, req.Data, req.Storage = op, path, data, w.storage
	resp, err := m.HandleRequest(context.Background(), &req)
	switch {
	case err != nil && (resp == nil || !resp.IsError()):
		w.fail("%s %s: %v", op, path, err)
		return nil, err.Error()
	case resp.IsError():
		return nil, resp.Error().Error()
	}
	return resp, ""
}

func (w *simWorld) at(when time.Time, do func()) {
	w.seq++
	heap.Push(&w.queue, simEvent{at: when, seq: w.seq, do: do})
}

func (w *simWorld) run() {
	for n := 0; n < simEvents && !w.stop && w.queue.Len() > 0; n++ {
		e := heap.Pop(&w.queue).(simEvent)
		if e.at.Sub(w.start) > simSpan {
			break
		}
		if e.at.After(w.now) {
			w.now = e.at
		}
		w.server.clock.set(w.serverNow())
		w.verifier.clock.set(w.now.Add(w.verifies))
		e.do()
	}
	w.stats.span = w.now.Sub(w.start)
}

// lockedReader lets the workers of a tick share a seeded source.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}
