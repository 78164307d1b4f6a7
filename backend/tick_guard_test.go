// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// panicky panics at every call for a path with one of the prefixes.
type panicky struct {
	logical.Storage

	mu sync.Mutex
	at []string
}

// panicAt sets the prefixes while others are at work.
func (s *panicky) panicAt(prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = prefixes
}

func (s *panicky) check(path string) {
	s.mu.Lock()
	prefixes := s.at
	s.mu.Unlock()
	for _, at := range prefixes {
		if strings.HasPrefix(path, at) {
			panic("the value of a panic may be ak_a_secret")
		}
	}
}

func (s *panicky) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	s.check(path)
	return s.Storage.Get(ctx, path)
}

func (s *panicky) Put(ctx context.Context, e *logical.StorageEntry) error {
	s.check(e.Key)
	return s.Storage.Put(ctx, e)
}

func (s *panicky) List(ctx context.Context, prefix string) ([]string, error) {
	s.check(prefix)
	return s.Storage.List(ctx, prefix)
}

// Whatever part of the background work panics, it ends that part alone: the tick
// goes on, and nothing stays locked.
func TestPanicEndsOnlyItsPartOfTheWork(t *testing.T) {
	for what, at := range map[string]string{
		"a role": rolePath("bad"), "counts": usagePrefix, "tidy": tidyPath, "an index": attentionPrefix,
		"a plaintext": secretPrefix, "jobs": jobPrefix, "problems": problemPrefix,
	} {
		t.Run(what, func(t *testing.T) {
			s := &panicky{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			for _, name := range []string{"bad", "good"} {
				m.write("roles/"+name, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
			}
			m.expectVerdict(m.read("creds/good")["api_key"], "VALID") // a use to store
			m.write("bulk", map[string]any{"action": "disable", "roles": "bad", "dry_run": false, "reason": "x"})
			m.roles.drop(rolePath("bad"))
			s.at = []string{at}
			for range 65 {
				m.clock.advance(time.Minute)
				req := &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage}
				_, _ = m.HandleRequest(t.Context(), req) // it tells of the panics
			}
			s.at = nil
			if what != "a plaintext" { // without which no version can be made
				m.expectStates("good", "previous current")
			}
			if what == "a role" {
				if p, ok := m.problems.get("bad"); !ok || strings.Contains(p.Error, "secret") {
					t.Errorf("the problem is %+v, %t", p, ok)
				}
			}
			m.run(2 * time.Hour)
			if v := number(t, m.read("creds/good")["version"]); v < 3 {
				t.Errorf("good has version %d", v)
			}
			if rec := m.record("bad"); rec.Ring.Last < 3 || !rec.Policy.Disabled && what != "a role" {
				t.Errorf("bad has version %d, disabled %t", rec.Ring.Last, rec.Policy.Disabled)
			}
			m.clean(t.Context())
		})
	}
}

// A failure under a wrong clock holds a role up no longer than any other.
func TestFailureUnderAWrongClockIsForgotten(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s := &panicky{Storage: &logical.InmemStorage{}}
		m := mountOn(t, s, newFakeClock())
		m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m"})
		m.tick()
		right := m.clock.Now()
		m.clock.advance(72 * time.Hour)
		s.at = []string{secretPrefix}
		m.tick()
		s.at = nil
		if p, ok := m.problems.get("r"); !ok || p.Next.Before(right.Add(72*time.Hour)) {
			t.Fatalf("no failure: %+v", p)
		}
		m.clock.set(right.Add(time.Hour - 5*time.Minute))
		if restart {
			m = m.restart()
		}
		m.run(6 * time.Minute)
		m.expectStates("r", "previous current")
		if p, ok := m.problems.get("r"); ok {
			t.Errorf("still failing: %+v", p)
		}
	}
}
