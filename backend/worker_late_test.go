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
