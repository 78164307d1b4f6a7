// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// drowsy is a storage on a node that falls asleep once, after a call.
type drowsy struct {
	logical.Storage

	mu     sync.Mutex
	after  int    // the call, from 1; 0: never
	sleep  func() // called then
	calls  int
	asleep bool
	late   []string // writes after waking
	// refuses: storage is another node's since.
	refuses error
}

func (s *drowsy) arm(after int, sleep func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after, s.sleep, s.calls, s.asleep, s.late, s.refuses = after, sleep, 0, false, nil, nil
}

// call makes one; write says what it writes, empty for a read.
func (s *drowsy) call(write string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asleep && write != "" {
		s.late = append(s.late, write)
		if s.refuses != nil {
			return s.refuses
		}
	}
	err := do()
	if s.calls++; s.calls == s.after {
		s.asleep = true
		s.sleep()
	}
	return err
}

func (s *drowsy) slept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asleep
}

// doze has it asleep before the next call.
func (s *drowsy) doze(refuses error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after, s.calls, s.asleep, s.refuses = 0, 0, true, refuses
}

// wake is told that somebody asks for something new.
func (s *drowsy) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = false
}

func (s *drowsy) List(ctx context.Context, prefix string) (names []string, err error) {
	err = s.call("", func() (err error) { names, err = s.Storage.List(ctx, prefix); return err })
	return names, err
}

func (s *drowsy) Get(ctx context.Context, key string) (e *logical.StorageEntry, err error) {
	err = s.call("", func() (err error) { e, err = s.Storage.Get(ctx, key); return err })
	return e, err
}

func (s *drowsy) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.call("put "+e.Key, func() error { return s.Storage.Put(ctx, e) })
}

func (s *drowsy) Delete(ctx context.Context, key string) error {
	return s.call("delete "+key, func() error { return s.Storage.Delete(ctx, key) })
}

// busyWorld has work of every kind for the worker: rotations, an end, an owed
// replacement, a deleted role whose time is over, jobs, counts, and what tidy removes.
func busyWorld(t testing.TB) (content map[string]string, at time.Time, w *world) {
	t.Helper()
	m, w := newMount(t), newWorld()
	littered(m, w)
	m.write("config", map[string]any{"delete_recovery": "27h"})
	for _, name := range []string{"due1", "due2", "due3"} {
		m.write("roles/"+name, map[string]any{"rotation_period": "26h", "grace_period": "10h"})
		w.holdLive(m, name, name)
	}
	m.write("roles/job1", map[string]any{"rotation_period": 0})
	m.write("roles/job2", map[string]any{"rotation_period": 0})
	m.write("roles/left", map[string]any{"type": "dynamic", "ttl": "40h"})
	m.lease("left", nil)
	m.write("roles/purged", nil)
	m.remove("purged")
	m.write("roles/used", map[string]any{"rotation_period": 0})
	w.holdLive(m, "used", "used")
	m.clock.advance(27 * time.Hour)
	for _, data := range []map[string]any{
		{"action": "rotate", "roles": "job1,job2", "grace_period": "1h"},
		{"action": "revoke", "issued_to": "token-operator", "pace": 0},
	} {
		data["dry_run"], data["reason"] = false, "x"
		m.write("bulk", data)
	}
	return dump(t, m.storage), m.clock.Now(), w
}

// asleepMount is the worker's mount on that content, with both clocks.
func asleepMount(t testing.TB, content map[string]string, at time.Time) (*testMount, *drowsy) {
	t.Helper()
	s := &drowsy{Storage: copyStorage(t, content)}
	c := newWaitingClock()
	c.set(at)
	m := mountOn(t, s, c)
	m.worker.running = true
	m.worker.together = 1 // or one writes while another's call falls asleep
	m.entrust(s)
	m.tidy.next = m.clock.Now()
	return m, s
}

// finished: whatever the worker was to do in a busy world is done.
func finished(m *testMount, w *world) {
	m.t.Helper()
	for range 40 {
		m.clock.advance(time.Minute)
		m.tick()
		m.goOn(m.clock.Now().Add(10 * time.Second))
	}
	m.write("tidy", nil)
	w.check(m, true)
	w.leftovers(m)
	for _, name := range []string{"due1", "due2", "due3", "job1", "job2"} {
		if n := m.newestVersion(name); n != 2 {
			m.t.Errorf("role %s has version %d", name, n)
		}
	}
	for _, path := range m.under(jobPrefix) {
		if job, err := getRecord[jobRecord](context.Background(), m.storage, path); err != nil || job.State != jobDone || job.Failed > 0 {
			m.t.Errorf("the job is %+v %v", job, err)
		}
	}
}

// A worker whose node sleeps, wherever in its work, writes nothing after it woke until
// the server calls again, and then goes on.
func TestSleeperWritesNothingUntilItIsCalled(t *testing.T) {
	t.Parallel()
	content, at, known := busyWorld(t)
	work := func(m *testMount, s *drowsy) error {
		key := m.read("creds/used")["api_key"]
		m.ask(key)
		for range 30 {
			next, err := m.step(m.clock.Now(), stepBudget)
			if err != nil || s.slept() || next.After(m.clock.Now().Add(30*time.Second)) {
				return err
			}
			m.clock.advance(time.Second)
			m.usage.counter.Due(m.clock.Now(), 0)
		}
		return nil
	}
	m, s := asleepMount(t, content, at)
	s.arm(0, nil)
	if err := work(m, s); err != nil {
		t.Fatal(err)
	}
	all := s.calls
	finished(m, known.clone())
	for n := 1; n <= all; n += 1 + n/50 {
		w := known.clone()
		m, s := asleepMount(withoutSchemas{t}, content, at)
		s.arm(n, func() { m.clock.sleep(time.Hour) })
		err := work(m, s)
		if !s.slept() {
			continue // what is done in which order is not always the same
		}
		if err != nil && !mustForward(err) {
			t.Errorf("asleep after call %d: %v", n, err)
		}
		if _, err := m.step(m.clock.Now(), stepBudget); !errors.Is(err, errNoMandate) {
			t.Errorf("asleep after call %d: a step: %v", n, err)
		}
		if m.Cleanup(t.Context()); len(s.late) > 0 {
			t.Errorf("asleep after call %d: it wrote %q", n, s.late)
		}
		if n%4 == 0 {
			s.arm(0, nil)
			m = mountOn(withoutSchemas{t}, s, m.clock)
			finished(m, w)
		}
	}
}

// Where both clocks stood still nobody but storage knows: what it refuses ends the
// worker, and nothing is tried beyond the mandate.
func TestSleeperWhoseClocksStoppedIsRefused(t *testing.T) {
	t.Parallel()
	content, at, known := busyWorld(t)
	for _, refusal := range []error{logical.ErrReadOnly, errors.New("node is not the leader")} {
		for n := 1; n < 90; n += 7 {
			m, s := asleepMount(withoutSchemas{t}, content, at)
			s.arm(n, func() { s.refuses = refusal })
			before := dump(t, s.Storage)
			end := m.clock.Now().Add(mandateTime)
			var err error
			for !errors.Is(err, errNoMandate) && m.clock.Now().Before(end.Add(time.Minute)) {
				if !s.slept() {
					before = nil
				} else if before == nil {
					before = dump(t, s.Storage)
				}
				_, err = m.step(m.clock.Now(), stepBudget)
				m.clock.advance(time.Second)
			}
			if before != nil {
				if after := dump(t, s.Storage); !reflect.DeepEqual(before, after) {
					t.Errorf("refused after call %d, and storage has changed", n)
				}
			}
			if m.clock.Now().After(end.Add(2 * time.Second)) {
				t.Errorf("refused after call %d: it goes on", n)
			}
			s.arm(0, nil)
			m = mountOn(withoutSchemas{t}, s, m.clock)
			finished(m, known.clone())
		}
	}
}

// No request goes on writing after its node slept in the middle of it, and what it had
// begun is whole, or can be done again.
func TestRequestsDoNotOversleep(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		t.Run(sc.name, func(test *testing.T) {
			test.Parallel()
			t := withoutSchemas{test}
			first := newMount(t)
			known := newWorld()
			sc.prepare(first, known)
			content, at := dump(t, first.storage), first.clock.Now()
			for n := 1; n <= 60; n++ {
				s := &drowsy{Storage: copyStorage(t, content)}
				c := newFakeClock()
				c.set(at)
				m := mountOn(t, s, c)
				m.request = first.request
				m.worker.running = sc.tick
				m.before = func() { s.wake() }
				s.arm(n, func() { c.sleep(10 * time.Minute) })
				w := known.clone()
				err := sc.op(m, w)
				if s.calls < n {
					return
				}
				if len(s.late) > 0 {
					t.Errorf("asleep after call %d: %v; it wrote %q", n, err, s.late)
				}
			}
		})
	}
}

// Who keeps timelines is told nothing by a node that slept since it last knew that it is
// the one that writes, until storage has said so again: whether it slept before the
// question, while that waited for a decision, or while it was answered.
func TestSleeperTellsNoTimelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &drowsy{Storage: &logical.InmemStorage{}}
		m := mountOn(withoutSchemas{t}, s, newFakeClock())
		m.write("roles/r", nil)
		key := m.read("creds/r")["api_key"]
		item := fmt.Sprintf(`[{"key":%q,"timeline":1}]`, key)
		refused := errors.New("node is not the leader")
		asleep := func() {
			m.clock.sleep(10 * time.Minute)
			s.doze(refused)
		}
		for what, ask := range map[string]func() (*logical.Response, error){
			"changes": func() (*logical.Response, error) {
				return m.do(logical.ReadOperation, "changes", map[string]any{"wait": 0})
			},
			"a timeline": func() (*logical.Response, error) {
				return m.do(logical.UpdateOperation, "verify", map[string]any{"key": key, "timeline": 1})
			},
			"timelines": func() (*logical.Response, error) {
				return m.do(logical.UpdateOperation, "verify", map[string]any{"batch": item})
			},
		} {
			asleep()
			if resp, err := ask(); !errors.Is(err, refused) {
				t.Errorf("%s: it tells %v %v", what, resp, err)
			}
			s.wake()
			if resp, err := ask(); err != nil || resp.IsError() {
				t.Errorf("%s, when storage is this node's: %v %v", what, resp, err)
			}
			if what != "changes" {
				m.roles.purge()
				s.arm(1, asleepIn(m.clock, s, refused))
				if resp, err := ask(); !errors.Is(err, refused) {
					t.Errorf("%s, asleep while it is answered: it tells %v %v", what, resp, err)
				}
				s.arm(0, nil)
			}
		}
		cursor := m.read("changes")["cursor"]
		var resp *logical.Response
		var err error
		told := make(chan struct{})
		go func() {
			defer close(told)
			resp, err = m.do(logical.ReadOperation, "changes", map[string]any{"since": cursor, "wait": 2})
		}()
		time.Sleep(time.Second)
		asleep()
		if <-told; err == nil {
			t.Errorf("asleep while it waited: it tells %v %v", resp, err)
		}
	})
}

// asleepIn is what happens while a call is made.
func asleepIn(c *fakeClock, s *drowsy, refused error) func() {
	return func() {
		c.sleep(10 * time.Minute)
		s.refuses = refused
	}
}
