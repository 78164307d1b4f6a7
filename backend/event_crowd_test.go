// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// What is more than memory holds, at once: an endpoint that hangs, one that is slow, and
// one that is off delay the fast one by nothing, and get what is theirs.
func TestACrowdDelaysNobody(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"hangs", "slow", "off"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			m := newEventMount(t)
			m.outbox.most = 40
			m.endpoint("other", map[string]any{"types": "role.created"})
			m.endpoint("fast", map[string]any{"types": "role.created"})
			free, hung := make(chan struct{}), make(chan struct{})
			m.outbox.spawn = func(fn func()) { // and waits, but for what hangs
				done := make(chan struct{})
				m.flights.Go(func() {
					fn()
					close(done)
				})
				select {
				case <-done:
				case <-hung:
				}
			}
			switch how {
			case "hangs":
				m.answer("other.example.com", badAnswers["refuses"])
				m.write("roles/first", map[string]any{"type": "dynamic"})
				m.deliver()
				m.heardBy("fast")
				m.clock.advance(time.Minute)
				m.answer("other.example.com", func(tidings) (*egress.Answer, error) {
					hung <- struct{}{}
					<-free
					return nil, &egress.Error{Class: egress.Unreachable}
				})
			case "slow":
				m.write("events/other", map[string]any{"pace": 0.01})
			case "off":
				m.write("config", map[string]any{"outbound_paused": true})
			}
			const n = 200
			for i := range n {
				m.write(fmt.Sprintf("roles/r%03d", i), map[string]any{"type": "dynamic"})
				if how == "off" && i == n/2 {
					m.write("events/other", map[string]any{"disabled": true})
					m.write("config", map[string]any{"outbound_paused": false})
				}
				if i%20 == 19 {
					m.settleSoon()
				}
			}
			got := 0
			for range 300 {
				m.settleSoon()
				if got += len(m.heardBy("fast")); got >= n {
					break
				}
			}
			if got != n {
				t.Errorf("the fast one heard %d of %d: %v", got, n, m.read("events/fast/status"))
			}
			if have := len(m.outbox.heads); have > 40 {
				t.Errorf("%d entries in memory", have)
			}
			m.answer("other.example.com", nil)
			close(free)
			m.flights.Wait()
			m.outbox.spawn = func(fn func()) { m.flights.Go(fn) }
			m.write("events/other", map[string]any{"pace": 1000, "disabled": false})
			m.pass(6*time.Hour, 10*time.Minute)
			if left := m.under(outboxPrefix); len(left) > 0 {
				t.Errorf("%d are left: %v", len(left), m.read("events/other/status"))
			}
		})
	}
}

// settleSoon has the worker do what it wants to do within half a second.
func (m *eventMount) settleSoon() {
	m.t.Helper()
	for range 5 {
		m.clock.advance(100 * time.Millisecond)
		m.entrust(m.storage)
		if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
			m.t.Fatal(err)
		}
	}
}

// Entries of the outbox that cannot be read hold up nothing: not what is older, and not
// the sweep after a deletion.
func TestEntriesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("e", map[string]any{"types": "role.created"})
	m.endpoint("gone", nil)
	m.answer("e.example.com", badAnswers["refuses"])
	m.answer("gone.example.com", badAnswers["refuses"])
	m.write("roles/a", map[string]any{"type": "dynamic"})
	m.write("roles/b", map[string]any{"type": "dynamic"})
	m.deliver()
	day := outboxDay(m.clock.Now())
	bad := map[string]string{
		day + "0900/00/damaged": `{"schema":1,`, day + "0900/01/newer": `{"schema":99,"commit":"newer","facts":{}}`,
		day + "0900/02/odd": `{"schema":1,"commit":"another"}`, day + "2359/00/late": `[]`,
	}
	for path, value := range bad {
		if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	m.must(logical.DeleteOperation, "events/gone", nil)
	m = eventMountOn(t, m.storage, m.clock, m.outside)
	m.answer("e.example.com", nil)
	m.pass(20*time.Minute, time.Minute)
	if got := kinds(m.heardBy("e")); got != "role.created role.created" {
		t.Errorf("it heard %q", got)
	}
	if left := m.under(outboxPrefix); len(left) != len(bad) {
		t.Errorf("left are %q", left)
	}
	if m.endpoints.last().Sweep {
		t.Error("the sweep never ends")
	}
}

// One role whose record is damaged keeps nobody from hearing of the others after a
// failover.
func TestOneRoleCannotBeRead(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("e", map[string]any{"types": "key.activated"})
	m.write("config", map[string]any{"outbound_paused": true})
	for _, name := range []string{"a", "b", "c"} {
		m.write("roles/"+name, map[string]any{"rotation_period": 0})
		m.clock.advance(time.Minute)
	}
	m.write("config", map[string]any{"outbound_paused": false})
	if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: rolePath("c"), Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	m = eventMountOn(t, m.storage, m.clock, m.outside)
	for range 10 {
		m.clock.advance(30 * time.Second)
		m.entrust(m.storage)
		_, _ = m.step(m.clock.Now(), stepBudget) // which says so
		m.flights.Wait()
	}
	if got := m.heardBy("e"); len(got) != 2 {
		t.Errorf("it heard %d", len(got))
	}
}

// tires is a storage that takes all of the time for a few entries of the outbox.
type tires struct {
	logical.Storage

	left   int
	cancel func()
}

func (s *tires) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if strings.HasPrefix(key, outboxPrefix) {
		if s.left--; s.left == 0 {
			s.cancel()
		}
	}
	return s.Storage.Get(ctx, key)
}

// Where memory is full after a failover the walk ends all the same, however little of
// a minute it can read at once, and what has waited for 7 days goes.
func TestTheWalkEnds(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("dead", map[string]any{"types": "role.created"})
	m.answer("dead.example.com", badAnswers["refuses"])
	make20 := func(prefix string) {
		for i := range 20 {
			m.write(fmt.Sprintf("roles/%s%d", prefix, i), map[string]any{"type": "dynamic"})
		}
		m.deliver()
	}
	make20("old")
	m.pass(4*24*time.Hour, time.Hour)
	make20("new")
	m = eventMountOn(t, m.storage, m.clock, m.outside)
	m.outbox.most = 10
	rec, err := m.endpoints.get(t.Context(), m.storage)
	if err != nil {
		t.Fatal(err)
	}
	w := &tending{s: m.storage, fence: func() error { return nil }}
	if err := m.knowEndpoints(t.Context(), w, rec); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		begin, cancel := context.WithCancel(t.Context())
		w.s = &tires{Storage: m.storage, left: 5, cancel: cancel}
		if err := m.walkOutbox(t.Context(), begin, w); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if !m.outbox.walk.done || len(m.outbox.heads) != 10 {
		t.Fatalf("the walk is %+v, %d entries in memory", m.outbox.walk, len(m.outbox.heads))
	}
	m.pass(4*24*time.Hour, time.Hour)
	for _, path := range m.under(outboxPrefix) {
		if strings.HasPrefix(path, "outbox/20260302/") {
			t.Errorf("still there: %s", path)
		}
	}
	if st := m.read("events/dead/status"); number(t, st["dropped"].(map[string]any)["expired"]) != 20 {
		t.Errorf("the status is %v", st)
	}
}

// After the last endpoint was deleted nothing is left of it, wherever the node falls.
func TestNothingIsLeftOfAnEndpoint(t *testing.T) {
	t.Parallel()
	first := newEventMount(t)
	first.endpoint("e", nil)
	first.answer("e.example.com", badAnswers["refuses"])
	for _, name := range []string{"a", "b", "c"} {
		first.write("roles/"+name, map[string]any{"rotation_period": 0})
		first.clock.advance(time.Minute)
	}
	first.pass(time.Minute, 10*time.Second)
	if len(first.under(endpointsPrefix)) != 1 {
		t.Fatal("it has no state")
	}
	content, at := dump(t, first.storage), first.clock.Now()
	for n := 1; ; n++ {
		clock := newFakeClock()
		clock.set(at)
		p := newProbe(copyStorage(t, content))
		m := eventMountOn(t, p, clock, nil)
		m.must(logical.DeleteOperation, "events/e", nil)
		plant(t, p, endpointPath("late"), &endpointState{Schema: recordSchema, ID: "late"}) // a write that lands late
		p.onlyWrites = true
		p.arm(n, faultCrash)
		m.entrust(p)
		for range 5 {
			_, _ = m.step(clock.Now(), stepBudget)
			clock.advance(time.Second)
		}
		fell := p.hit()
		p.reset()
		m = eventMountOn(t, p, clock, m.outside)
		m.pass(10*time.Minute, time.Minute)
		if left := append(m.under(outboxPrefix), m.under(endpointsPrefix)...); len(left) > 0 {
			t.Fatalf("it falls at write %d, and left are %q", n, left)
		}
		if !fell {
			if n < 4 {
				t.Errorf("it fell at %d writes only", n)
			}
			return
		}
	}
}

// What an endpoint that nothing is sent to leaves behind in memory does not grow, however
// many roles there are, entries make room, are read anew, or get too old.
func TestAnEndpointThatIsOffHoldsNoMemory(t *testing.T) {
	t.Parallel()
	for _, foreign := range []bool{false, true} {
		offHoldsNoMemory(t, foreign)
	}
}

func offHoldsNoMemory(t *testing.T, foreign bool) {
	t.Helper()
	m := newEventMount(t)
	m.outbox.most = 40
	m.endpoint("off", map[string]any{"types": "role.created"})
	m.endpoint("good", map[string]any{"types": "role.created"})
	m.answer("off.example.com", badAnswers["refuses"])
	const n = 600
	for i := range n {
		m.write(fmt.Sprintf("roles/r%d", i), map[string]any{"type": "dynamic"})
		switch {
		case foreign && i%100 == 99:
			m.outboxForeign.Store(true)
			m.clock.advance(time.Minute)
			m.deliver()
		case i%10 == 9:
			m.clock.advance(40 * time.Second)
			m.deliver()
		}
	}
	check := func(when string) {
		t.Helper()
		for _, p := range m.outbox.posts {
			held := len(p.queues) + len(p.resting) + len(p.failed)
			for _, list := range p.ready {
				held += len(list)
			}
			if held > 4*m.outbox.most {
				t.Errorf("%s %s holds %d things for %d events", when, p.endpoint.Name, held, p.waiting)
			}
		}
		if len(m.outbox.heads) > m.outbox.most || len(m.outbox.marks) > m.outbox.most {
			t.Errorf("%s there are %d entries, %d marks", when, len(m.outbox.heads), len(m.outbox.marks))
		}
	}
	check("after a crowd")
	m.pass(8*24*time.Hour, 6*time.Hour)
	check("after a week")
	for i := range 30 {
		m.write(fmt.Sprintf("roles/late%d", i), map[string]any{"type": "dynamic"})
		m.outboxForeign.Store(foreign)
		m.tend(time.Second)
	}
	check("after other nodes wrote")
	m.pass(8*24*time.Hour, 6*time.Hour)
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}
