// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// latecomer is a storage in which one write, or each below a path, answers an error and
// lands before a later one.
type latecomer struct {
	logical.Storage

	mu     sync.Mutex
	n      int // writes since arm
	fails  int // the one that fails, from 1; 0: none
	lands  int // the one before which it lands; 0: when it is told to
	late   func()
	failed string
}

func (s *latecomer) arm(fails, lands int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.fails, s.lands, s.late, s.failed = 0, fails, lands, nil, ""
}

func (s *latecomer) land() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late != nil {
		s.late()
	}
	s.late = nil
}

func (s *latecomer) write(what string, do func() error) error {
	s.mu.Lock()
	s.n++
	n := s.n
	if n == s.fails {
		s.late, s.failed = func() { _ = do() }, what
		s.mu.Unlock()
		return errStorage
	}
	s.mu.Unlock()
	if n == s.lands {
		s.land()
	}
	return do()
}

func (s *latecomer) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.write("put "+e.Key, func() error { return s.Storage.Put(context.WithoutCancel(ctx), e) })
}

func (s *latecomer) Delete(ctx context.Context, key string) error {
	return s.write("delete "+key, func() error { return s.Storage.Delete(context.WithoutCancel(ctx), key) })
}

// Whichever write of the worker's rotation answers an error, and whenever it lands after:
// before the next attempt, before any write of that, or after it. The role hands out a
// key that is good all the time, and who holds one keeps it.
func TestWorkersWritesLandAtAnyTime(t *testing.T) {
	t.Parallel()
	first := newMount(t)
	first.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "50m"})
	first.tick()
	content := dump(t, first.storage)
	seen := map[string]bool{}
	for fails := 1; fails <= 16; fails++ {
		for lands := 0; lands <= 20; lands += 1 + lands/6 {
			s := &latecomer{Storage: copyStorage(t, content)}
			m := entrusted(withoutSchemas{t}, s, newFakeClock())
			held := map[string]time.Time{}
			look := func() {
				t.Helper()
				resp, err := m.send(logical.ReadOperation, "creds/r", nil)
				if err != nil {
					t.Fatalf("write %d (%s) landing before %d: creds: %v", fails, s.failed, lands, err)
				}
				held[resp.Data["api_key"].(string)] = m.clock.Now()
				for key, at := range held {
					if m.clock.Now().Sub(at) > 45*time.Minute {
						continue
					}
					if v := m.write("verify", map[string]any{"key": key}); v["code"] != "VALID" {
						t.Fatalf("write %d (%s) landing before %d: a key that was handed out is %v", fails, s.failed, lands, v["code"])
					}
				}
			}
			look()
			m.clock.advance(61 * time.Minute)
			m.entrust(s)
			s.arm(fails, fails+lands)
			for i := range 12 {
				m.entrust(s)
				_, _ = m.step(m.clock.Now(), stepBudget)
				look()
				if i == 8 {
					s.land()
				}
				look()
				m.clock.advance([]time.Duration{time.Second, 10 * time.Second, 20 * time.Second}[i%3])
			}
			seen[s.failed] = true
			for range 8 {
				m.clock.advance(time.Minute)
				_ = ticking(m, nil) // the failure may come now
				look()
			}
			if n := m.newestVersion("r"); n != 2 && n != 3 {
				t.Errorf("write %d (%s) landing before %d: version %d", fails, s.failed, lands, n)
			}
			m.write("tidy", nil)
			newWorld().check(m, true)
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %d writes failed: %v", len(seen), seen)
	}
}

// A kill that came through is not undone by an earlier write of the same role that
// answered an error and lands after it: neither for who asks, nor in storage once the
// worker has been by.
func TestKillsOutliveWritesThatLandLate(t *testing.T) {
	t.Parallel()
	for what, before := range map[string]func(m *testMount){
		"a change": func(m *testMount) {
			_, _ = m.send(logical.UpdateOperation, "roles/r", map[string]any{"description": "x"})
		},
		"a rotation": func(m *testMount) { _, _ = m.send(logical.UpdateOperation, "rotate/r", nil) },
	} {
		for kill, data := range map[string]map[string]any{
			"revoke/r": {"all": true}, "roles/r": {"disabled": true}, "rotate/r": {"grace_period": 0},
		} {
			for lands, when := range []string{"at once", "after a look", "after minutes"} {
				t.Run(fmt.Sprintf("%s before %s, %s", what, kill, when), func(t *testing.T) {
					s := &landingStorage{Storage: &logical.InmemStorage{}}
					m := entrusted(t, s, newFakeClock())
					m.write("roles/r", map[string]any{"rotation_period": 0})
					key := m.read("creds/r")["api_key"]
					good := func() bool { return m.write("verify", map[string]any{"key": key})["valid"] == true }
					s.fails(rolePrefix)
					before(m)
					if len(s.late) != 1 {
						t.Fatal("no write failed")
					}
					m.write(kill, data)
					if good() {
						t.Fatal("not killed")
					}
					if lands == 1 {
						m.tick()
					}
					if lands == 2 {
						m.clock.advance(4 * time.Minute)
						m.tick()
					}
					s.land()
					if good() {
						t.Error("good again")
					}
					m.clock.advance(lateFor)
					m.tick()
					if good() {
						t.Error("good after the worker has been by")
					}
					m = m.restart()
					if good() {
						t.Error("good after a restart")
					}
					m.checkCaches()
				})
			}
		}
	}
}

// A kill does not fail where what it finds has to be written again and that errs, and is
// not undone when that lands after it.
func TestKillsDoNotFailForWhatLandedLate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dynamic bool
		kill    func(m *testMount, key any)
	}{
		"revoke all":       {kill: func(m *testMount, _ any) { m.write("revoke/r", map[string]any{"all": true}) }},
		"revoke a version": {kill: func(m *testMount, _ any) { m.write("revoke/r", map[string]any{"version": 1}) }},
		"disable":          {kill: func(m *testMount, _ any) { m.write("roles/r", map[string]any{"disabled": true}) }},
		"report":           {kill: func(m *testMount, key any) { m.write("report", map[string]any{"key": key}) }},
		"delete":           {kill: func(m *testMount, _ any) { m.remove("r") }},
		"revoke a leased key": {dynamic: true, kill: func(m *testMount, key any) {
			m.write("revoke/r", map[string]any{"key_id": m.keyIDOf(key.(string))})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			m := entrusted(t, s, newFakeClock())
			prefix := rolePrefix
			var key any
			change := func(n time.Duration) {
				_, _ = m.send(logical.UpdateOperation, "roles/r", map[string]any{"description": n.String()})
			}
			if c.dynamic {
				m.write("roles/r", map[string]any{"type": "dynamic", "ttl": "1h", "max_ttl": "40h"})
				lease := m.lease("r", nil)
				key, prefix = lease.Data["api_key"], keyPrefix
				change = func(n time.Duration) { _, _ = m.onLease(logical.RenewOperation, lease, n) }
			} else {
				m.write("roles/r", map[string]any{"rotation_period": 0})
				key = m.read("creds/r")["api_key"]
			}
			s.fails(prefix)
			change(3 * time.Hour)
			if len(s.late) != 1 {
				t.Fatal("no write failed")
			}
			change(2 * time.Hour) // what ends less than this does not stay
			s.land()
			s.fails(prefix) // what is written again
			c.kill(m, key)
			if len(s.late) != 1 {
				t.Fatal("nothing was written again")
			}
			good := func() bool { return m.write("verify", map[string]any{"key": key})["valid"] == true }
			if good() {
				t.Error("not killed")
			}
			s.land()
			if good() {
				t.Error("good when that has landed")
			}
			m.clock.advance(lateFor)
			m.tick()
			if m = m.restart(); good() {
				t.Error("good after a restart")
			}
		})
	}
}
