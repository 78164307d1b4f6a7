// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// goOn runs steps until the worker wants none before the next minute, or until the
// clock has come to the end.
func (m *testMount) goOn(until time.Time) {
	m.t.Helper()
	for m.clock.Now().Before(until) {
		now := m.clock.Now()
		next, err := m.step(now, stepBudget)
		if err != nil {
			m.t.Fatalf("a step: %v", err)
		}
		if next.After(m.clock.Now()) {
			m.clock.set(next)
		} else if m.clock.Now().Equal(now) {
			m.clock.advance(time.Millisecond) // a clock that waits stands still where nobody does
		}
	}
}

// entrusted is a mount whose worker is to be run by step, as if a goroutine did it.
func entrusted(t testing.TB, s logical.Storage, c *fakeClock) *testMount {
	t.Helper()
	m := mountOn(t, s, c)
	m.worker.running = true
	m.entrust(s)
	return m
}

// A storm of 10,000 roles that are due in one minute is over in less than 5 minutes at
// the default pace, and no step takes longer than it may.
func TestWorkerEndsAStorm(t *testing.T) {
	n := 10000
	if testing.Short() {
		n = 1000
	}
	c := newWaitingClock()
	m := entrusted(t, &logical.InmemStorage{}, c)
	storm := m.makeRoles("r", n, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	began := c.Now().Truncate(time.Minute).Add(time.Hour)
	c.set(began)
	left := n
	for end := began.Add(5 * time.Minute); left > 0 && c.Now().Before(end); {
		m.tick() // it renews the mandate, and does no more than one step
		m.goOn(c.Now().Truncate(time.Minute).Add(time.Minute))
		left = 0
		for _, name := range storm {
			if m.record(name).Ring.Last < 2 {
				left++
			}
		}
	}
	if took := c.Now().Sub(began); left > 0 || took > 5*time.Minute {
		t.Errorf("after %v %d roles of %d wait", took, left, n)
	}
	c.set(c.Now().Truncate(time.Minute).Add(time.Minute))
	if _, err := m.step(c.Now(), stepBudget); err != nil {
		t.Fatal(err)
	}
	if mark := m.mark.last(); !mark.Cursor.After(began.Add(-time.Minute)) {
		t.Errorf("the cursor stays at %v", mark.Cursor)
	}
}

// With nothing due, the worker and the periodic call together make few storage calls.
func TestWorkerIdles(t *testing.T) {
	s := newTreeStore()
	fillStore(t, s, 100)
	m, c := benchMount(t, s)
	m.worker.running = true
	m.entrust(c)
	for minute := range 5 {
		m.tidy.mu.Lock()
		m.tidy.next = m.clock.Now().Add(tidyEvery)
		m.tidy.mu.Unlock()
		m.clock.set(m.clock.Now().Truncate(time.Minute).Add(time.Minute))
		before := c.all.Load()
		if minute%2 == 0 {
			m.tick()
		}
		next, err := m.step(m.clock.Now(), stepBudget)
		if want := m.clock.Now().Add(time.Minute); err != nil || !next.Equal(want) {
			t.Errorf("the next step is wanted at %v, %v; want %v", next, err, want)
		}
		if m.clock.advance(30 * time.Second); minute%2 == 1 {
			m.tick()
		}
		if n := c.all.Load() - before; n > 20 {
			t.Errorf("minute %d: %d storage calls", minute, n)
		}
	}
}

// Shares of time are as much smaller as the budget is, and never overflow.
func TestSharesOfTime(t *testing.T) {
	for budget, want := range map[time.Duration]time.Duration{0: tickWork, tickBudget: tickWork, stepBudget: 900 * time.Millisecond} {
		if got := (&tick{budget: budget}).share(tickWork); got != want {
			t.Errorf("a budget of %v begins work for %v, want %v", budget, got, want)
		}
	}
}

// The mandate ends with the periodic calls, in the middle of a storm too, and a
// periodic call brings it back.
func TestWorkerStopsWithoutPeriodicCalls(t *testing.T) {
	c := newWaitingClock()
	p := &recorder{Storage: &logical.InmemStorage{}, clock: c}
	m := entrusted(t, p, c)
	m.makeRoles("r", 200, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	m.write("config", map[string]any{"max_rotations_per_second": 1})
	c.advance(time.Hour)
	m.tick()
	end := c.Now().Add(mandateTime)
	var err error
	for err == nil && c.Now().Before(end.Add(time.Minute)) {
		_, err = m.step(c.Now(), stepBudget/2)
		if c.Now().Before(end) {
			c.advance(100 * time.Millisecond)
		}
	}
	if !errors.Is(err, errNoMandate) {
		t.Fatalf("a step without a mandate: %v", err)
	}
	if last := p.last(); last.After(end) {
		t.Errorf("it wrote %v after the mandate had ended", last.Sub(end))
	}
	m.tick()
	if _, err := m.step(c.Now(), stepBudget); err != nil {
		t.Errorf("after a periodic call: %v", err)
	}
}

// A mandate that lapses in a storm ends it at the next role: those in hand are ended, and
// no more is begun, nor a key left behind. The next mandate goes on with the rest.
func TestMandateLapsesInAStorm(t *testing.T) {
	t.Parallel()
	const n = 60
	for _, at := range []int{0, 1, 7, 20, 41} {
		c := newWaitingClock()
		s := &watched{Storage: &logical.InmemStorage{}, before: func(string, string) {}}
		m := entrusted(t, s, c)
		names := m.makeRoles("r", n, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
		c.advance(time.Hour)
		m.entrust(s)
		var commits, begun atomic.Int64
		end := c.Now().Add(mandateTime)
		c.set(end.Add(-100 * time.Millisecond)) // less than a step has
		lapse := func() { c.set(end) }
		s.before = func(op, path string) {
			switch {
			case op == "put" && strings.HasPrefix(path, rolePrefix):
				if int(commits.Add(1)) == at {
					lapse()
				}
			case op == "put" && strings.HasPrefix(path, keyPrefix) && !m.mandated():
				begun.Add(1)
			}
		}
		if at == 0 {
			s.before = func(string, string) { // of the fence
				if commits.Add(1); commits.Load() == 1 {
					lapse()
				}
			}
		}
		var err error
		for i := 0; err == nil && i < 100; i++ {
			if _, err = m.step(c.Now(), stepBudget); c.Now().Before(end) {
				c.advance(time.Millisecond)
			}
		}
		if !errors.Is(err, errNoMandate) {
			t.Fatalf("%d: %v", at, err)
		}
		if done := int(commits.Load()); done > at+tickWorkers || begun.Load() > tickWorkers {
			t.Errorf("it lapsed at commit %d: %d were made, %d roles begun since", at, done, begun.Load())
		}
		versions := 0
		for _, name := range names {
			versions += len(m.record(name).Ring.Versions)
		}
		if keys := len(m.under(keyPrefix)); keys != versions {
			t.Errorf("%d keys of %d versions", keys, versions)
		}
		s.before = func(string, string) {}
		for range 3 {
			m.tick()
			m.goOn(c.Now().Truncate(time.Minute).Add(time.Minute))
		}
		for _, name := range names {
			if v := m.newestVersion(name); v != 2 {
				t.Errorf("role %s has version %d", name, v)
			}
		}
	}
}

// A step whose mandate lapsed while it read does not even begin to act.
func TestMandateLapsesBeforeTheFence(t *testing.T) {
	s := &recorder{Storage: &logical.InmemStorage{}}
	s.refuses(errStorage)
	m := entrusted(t, &logical.InmemStorage{}, newFakeClock())
	at := &tick{b: m.backend, s: s, kept: &backlog{}}
	m.clock.advance(mandateTime)
	if err := at.fence(t.Context()); !errors.Is(err, errNoMandate) || s.puts.Load() > 0 {
		t.Errorf("%v, %d writes", err, s.puts.Load())
	}
}

// recorder notes when something was written, by the mount's clock.
type recorder struct {
	logical.Storage

	clock   *fakeClock
	wrote   atomic.Int64
	puts    atomic.Int64
	refusal atomic.Pointer[error]
}

// refuses has every write fail, or none again.
func (r *recorder) refuses(err error) { r.refusal.Store(&err) }

func (r *recorder) last() time.Time { return time.Unix(0, r.wrote.Load()) }

func (r *recorder) Put(ctx context.Context, e *logical.StorageEntry) error {
	if refused := r.refusal.Load(); refused != nil && *refused != nil {
		r.puts.Add(1)
		return *refused
	}
	if r.clock != nil {
		r.wrote.Store(r.clock.Now().UnixNano())
	}
	return r.Storage.Put(ctx, e)
}

// The clock on the wall counts where it ran further, and the other one where that did: a
// node that slept has no mandate any more, and one whose clock was set back has none for
// longer.
func TestMandateCountsSleep(t *testing.T) {
	for _, c := range []struct {
		wall, steady time.Duration
		want         bool
	}{
		{149 * time.Second, 149 * time.Second, true},
		{150 * time.Second, 150 * time.Second, false},
		{149 * time.Second, 0, true},
		{150 * time.Second, 0, false},
		{time.Hour, time.Second, false},
		{-time.Hour, 149 * time.Second, true},
		{-time.Hour, 150 * time.Second, false},
	} {
		m := entrusted(t, &logical.InmemStorage{}, newFakeClock())
		m.clock.advance(c.steady)
		m.clock.sleep(c.wall - c.steady)
		if got := m.mandated(); got != c.want {
			t.Errorf("%v after on the wall, %v by the other clock: %t", c.wall, c.steady, got)
		}
		if got, want := m.writer.lately(m.reading()), c.want && c.wall > 0; got != want {
			t.Errorf("%v after on the wall, %v by the other clock: it takes itself for the one that writes: %t", c.wall, c.steady, got)
		}
	}
}

// The clocks of the system are two.
func TestSystemHasTwoClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(systemClock{}, strings.NewReader(""))
		began := b.reading()
		time.Sleep(time.Hour)
		if wall, steady := began.upTo(b.reading()); wall != time.Hour || steady != time.Hour {
			t.Errorf("an hour took %v on the wall, %v by the other clock", wall, steady)
		}
	})
}

// A node whose state is not known, one that follows another and a mount that is being
// taken away begin nothing.
func TestWorkerAsksTheServer(t *testing.T) {
	for what, sys := range map[string]*logical.StaticSystemView{
		"unknown": {},
		"standby": {ReplicationStateVal: consts.ReplicationPerformanceStandby},
		"tainted": {ReplicationStateVal: consts.ReplicationPerformanceDisabled, TaintedVal: true},
	} {
		m := entrusted(t, &logical.InmemStorage{}, newFakeClock())
		s := &recorder{Storage: m.storage}
		s.refuses(errStorage)
		sys.DefaultLeaseTTLVal, sys.MaxLeaseTTLVal = time.Hour, 24*time.Hour
		if err := m.Setup(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: sys, StorageView: s}); err != nil {
			t.Fatal(err)
		}
		m.entrust(s)
		m.clock.advance(time.Minute)
		if _, err := m.step(m.clock.Now(), stepBudget); !errors.Is(err, errNoMandate) || s.puts.Load() > 0 {
			t.Errorf("%s: %v, %d writes", what, err, s.puts.Load())
		}
	}
}

// Storage that refuses the first write of a step gets no other one.
func TestRefusalEndsTheStep(t *testing.T) {
	s := &recorder{Storage: &logical.InmemStorage{}}
	m := entrusted(t, s, newFakeClock())
	m.makeRoles("r", 20, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	m.clock.advance(2 * time.Hour)
	m.entrust(s)
	s.refuses(logical.ErrReadOnly)
	_, err := m.step(m.clock.Now(), stepBudget)
	if err == nil || !mustForward(err) || s.puts.Load() != 1 {
		t.Errorf("%v, after %d writes", err, s.puts.Load())
	}
	if p, ok := m.problems.get("r0000"); ok {
		t.Errorf("it counts as the role's failure: %+v", p)
	}
	s.refuses(nil)
	m.entrust(s)
	for range 5 {
		if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
			t.Fatal(err)
		}
		m.clock.advance(time.Second)
	}
	m.expectStates("r0007", "previous current")
}

// Two instances on one storage: the roles come to no harm, and it is told.
func TestTwoWorkersAreTold(t *testing.T) {
	c := newFakeClock()
	s := &logical.InmemStorage{}
	a, b := entrusted(t, s, c), entrusted(t, s, c)
	a.makeRoles("r", 5, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	for range 130 {
		c.advance(time.Minute)
		for _, m := range []*testMount{a, b} {
			m.entrust(s)
			if _, err := m.step(c.Now(), stepBudget); err != nil {
				t.Fatal(err)
			}
			for i := range 5 { // no server tells them of each other's writes
				m.roles.drop(rolePath(fmt.Sprintf("r%04d", i)))
			}
		}
	}
	if !strings.Contains(a.rivalProblem(), "another instance") || !strings.Contains(fmt.Sprint(b.read("status/r0000")["problems"]), "another instance") {
		t.Errorf("not told: %q, %q", a.rivalProblem(), b.rivalProblem())
	}
	for i := range 5 {
		if v := a.newestVersion(fmt.Sprintf("r%04d", i)); v != 3 {
			t.Errorf("role %d has version %d after two periods", i, v)
		}
	}
	c.advance(time.Hour)
	if a.rivalProblem() != "" {
		t.Error("told for ever")
	}
}

// running starts the engine as a server does, in a bubble of simulated time.
func running(t *testing.T, s logical.Storage) *backend {
	t.Helper()
	return runningOn(t, s, writingSystem())
}

func runningOn(t *testing.T, s logical.Storage, sys logical.SystemView) *backend {
	t.Helper()
	made, err := Factory(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: sys, StorageView: s, BackendUUID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Initialize(t.Context(), &logical.InitializationRequest{Storage: s}); err != nil {
		t.Fatal(err)
	}
	return made.(*backend)
}

func write(t *testing.T, b *backend, s logical.Storage, path string, data map[string]any) {
	t.Helper()
	req := &logical.Request{Operation: logical.UpdateOperation, Path: path, Data: data, Storage: s, MountPoint: "apikeys/"}
	if strings.HasPrefix(path, "roles/") {
		req.Operation = logical.CreateOperation
	}
	if resp, err := b.HandleRequest(t.Context(), req); err != nil || resp.IsError() {
		t.Fatalf("%s: %v %v", path, resp, err)
	}
}

func lastVersion(t *testing.T, s logical.Storage, role string) int {
	t.Helper()
	rec, err := getRecord[roleRecord](t.Context(), s, rolePath(role))
	if err != nil || rec == nil {
		t.Fatal(rec, err)
	}
	return rec.Ring.Last
}

// Initialize starts the worker, which does what is due without a periodic call until
// its mandate is over, and a periodic call starts it again. A job wakes it.
func TestInitializeStartsTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &logical.InmemStorage{}
		b := running(t, s)
		write(t, b, s, "roles/r", map[string]any{"rotation_period": "60s", "grace_period": "10s"})
		write(t, b, s, "roles/j", map[string]any{"rotation_period": 0})
		time.Sleep(140 * time.Second)
		if n := lastVersion(t, s, "r"); n < 3 {
			t.Errorf("version %d after two periods", n)
		}
		write(t, b, s, "bulk", map[string]any{"action": "rotate", "roles": "j", "dry_run": false, "reason": "x"})
		time.Sleep(5 * time.Second)
		if n := lastVersion(t, s, "j"); n != 2 {
			t.Errorf("the job's role has version %d", n)
		}
		time.Sleep(time.Hour)
		n := lastVersion(t, s, "r")
		if n > 5 {
			t.Errorf("version %d: the mandate does not end", n)
		}
		if _, err := b.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: s}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(130 * time.Second)
		if again := lastVersion(t, s, "r"); again < n+2 {
			t.Errorf("version %d, then %d: it does not start again", n, again)
		}
		b.Cleanup(t.Context())
		n = lastVersion(t, s, "r")
		time.Sleep(10 * time.Minute)
		if again := lastVersion(t, s, "r"); again != n {
			t.Errorf("version %d, then %d after the cleanup", n, again)
		}
	})
}

// stuck is a storage in which writes of a role take long, whatever their context.
type stuck struct {
	logical.Storage

	takes atomic.Int64
	begun atomic.Int64
}

func (s *stuck) Put(ctx context.Context, e *logical.StorageEntry) error {
	if d := time.Duration(s.takes.Load()); d > 0 && strings.HasPrefix(e.Key, rolePrefix) {
		s.begun.Add(1)
		time.Sleep(d)
	}
	return s.Storage.Put(ctx, e)
}

// The end of the engine during a commit waits for it, but not for long; the commit is
// whole in either case, and nothing is begun after.
func TestCleanupDuringACommit(t *testing.T) {
	for _, takes := range []time.Duration{300 * time.Millisecond, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := &stuck{Storage: &logical.InmemStorage{}}
			b := running(t, s)
			for i := range 30 {
				write(t, b, s, fmt.Sprintf("roles/r%02d", i), map[string]any{"rotation_period": "60s", "grace_period": "10s"})
			}
			s.takes.Store(int64(takes))
			for s.begun.Load() == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			began := time.Now()
			b.Cleanup(t.Context())
			if took := time.Since(began); took > min(takes, handTime)+10*time.Millisecond {
				t.Errorf("a commit that takes %v holds the cleanup up for %v", takes, took)
			}
			begun := s.begun.Load()
			s.takes.Store(0)
			time.Sleep(time.Minute)
			if now := s.begun.Load(); now != begun || begun > tickWorkers {
				t.Errorf("%d commits begun, then %d", begun, now)
			}
			next := running(t, s)
			time.Sleep(2 * time.Minute)
			for i := range 30 {
				if n := lastVersion(t, s, fmt.Sprintf("r%02d", i)); n < 2 {
					t.Errorf("role %d has version %d", i, n)
				}
			}
			next.Cleanup(t.Context())
		})
	}
}

// A step that panics ends alone, and the worker goes on later.
func TestWorkerOutlivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &panicky{Storage: &logical.InmemStorage{}}
		b := running(t, s)
		write(t, b, s, "roles/r", map[string]any{"rotation_period": "60s", "grace_period": "10s"})
		s.panicAt(markPath, duePrefix)
		b.mark.forget()
		time.Sleep(90 * time.Second)
		s.panicAt()
		if _, err := b.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: s}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n := lastVersion(t, s, "r"); n < 3 {
			t.Errorf("version %d", n)
		}
		b.Cleanup(t.Context())
	})
}

// moody is a server that panics when it is asked, or says that the mount moves.
type moody struct {
	logical.SystemView

	panics, tainted atomic.Bool
}

func (s *moody) ReplicationState() consts.ReplicationState {
	if s.panics.Load() {
		panic("the server has gone")
	}
	return s.SystemView.ReplicationState()
}

func (s *moody) Tainted() bool { return s.tainted.Load() }

// A server that panics when the worker asks it ends no plugin, and a mount that moves is
// let alone until the server calls again.
func TestWorkerOutlivesItsServersMoods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &recorder{Storage: &logical.InmemStorage{}}
		sys := &moody{SystemView: writingSystem()}
		b := runningOn(t, s, sys)
		write(t, b, s, "roles/r", map[string]any{"rotation_period": "60s", "grace_period": "10s"})
		calls := func(minutes int) {
			for range minutes {
				time.Sleep(time.Minute)
				_, _ = b.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: s})
			}
		}
		for what, mood := range map[string]*atomic.Bool{"panics": &sys.panics, "moves the mount": &sys.tainted} {
			calls(3)
			n := lastVersion(t, s, "r")
			mood.Store(true)
			time.Sleep(time.Second)
			s.refuses(errStorage)
			before := s.puts.Load()
			calls(5)
			if s.puts.Load() > before {
				t.Errorf("the server %s: it writes", what)
			}
			s.refuses(nil)
			mood.Store(false)
			calls(4)
			if again := lastVersion(t, s, "r"); again < n+3 {
				t.Errorf("the server %s: version %d, then %d", what, n, again)
			}
		}
		b.Cleanup(t.Context())
	})
}

// A write that fails and lands all the same harms no role.
func TestWorkerAndAWriteThatLandsAfterItsError(t *testing.T) {
	for at := range 12 {
		p := newProbe(&logical.InmemStorage{})
		m := entrusted(t, p, newFakeClock())
		m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "30m"})
		m.clock.advance(61 * time.Minute)
		p.onlyWrites = true
		p.arm(at+1, faultApplied)
		m.entrust(p)
		_, _ = m.step(m.clock.Now(), stepBudget)
		p.reset()
		for range 10 {
			m.clock.advance(time.Minute)
			m.entrust(p)
			if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
				t.Errorf("write %d: %v", at+1, err)
			}
		}
		m.expectStates("r", "previous current")
	}
}
