// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// watched is a storage that is told of each write before it is made.
type watched struct {
	logical.Storage

	before func(op, path string)
}

func (s *watched) Put(ctx context.Context, e *logical.StorageEntry) error {
	s.before("put", e.Key)
	return s.Storage.Put(ctx, e)
}

func (s *watched) Delete(ctx context.Context, key string) error {
	s.before("delete", key)
	return s.Storage.Delete(ctx, key)
}

// held reports whether somebody has the lock.
func heldLock(l sync.Locker) bool {
	try := l.(interface {
		TryLock() bool
		Unlock()
	})
	if try.TryLock() {
		try.Unlock()
		return false
	}
	return true
}

// guard is the lock that has to be held for a write to the path, nil if there is
// none: roles is the name of each role by its id.
func (m *testMount) guard(op, path string, roles map[string]string) sync.Locker {
	kind, rest, _ := strings.Cut(path, "/")
	first, last := rest, rest
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		first, last = rest[:strings.IndexByte(rest, '/')], rest[i+1:]
	}
	role := func(name string) sync.Locker {
		if id, deleted := strings.CutPrefix(name, deletedMark); deleted {
			name = roles[id]
		}
		if name == "" {
			return nil // it never had a record
		}
		return locksutil.LockForKey(m.roleLocks, name)
	}
	switch kind + "/" {
	case rolePrefix, attentionPrefix, problemPrefix, duePrefix:
		return role(last)
	case deletedPrefix, archivePrefix, secretPrefix:
		return role(roles[first])
	case keyPrefix:
		key, err := getRecord[keyRecord](context.Background(), m.storage.(*watched).Storage, path)
		if err == nil && key != nil && !key.Dynamic && op == "delete" {
			home := cmp.Or(roles[key.RoleID], key.Role) // it may be called otherwise since
			if moved, err := getRecord[movedRecord](context.Background(), m.storage.(*watched).Storage, movedPath(key.RoleID)); err == nil && moved != nil {
				home = moved.Name
			}
			return role(home)
		}
		if err == nil && key != nil && key.Dynamic {
			return locksutil.LockForKey(m.keyLocks, last)
		}
	case usagePrefix:
		if op == "put" {
			return locksutil.LockForKey(m.usage.locks, rest)
		}
		return role(roles[first])
	case jobPrefix:
		if op == "put" {
			return &m.jobs.edit
		}
	}
	return nil
}

// TestWritesAreMadeUnderTheirLock, in every operation.
func TestWritesAreMadeUnderTheirLock(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		t.Run(sc.name, func(test *testing.T) {
			test.Parallel()
			t := withoutSchemas{test}
			first := newMount(t)
			w := newWorld()
			sc.prepare(first, w)
			clock := newFakeClock()
			clock.set(first.clock.Now())
			s := &watched{Storage: copyStorage(t, dump(t, first.storage)), before: func(string, string) {}}
			m := mountOn(t, s, clock)
			m.request = first.request
			roles := map[string]string{}
			for _, path := range append(m.under(rolePrefix), m.under(deletedPrefix)...) {
				rec, err := getRecord[roleRecord](context.Background(), s, path)
				if err != nil {
					t.Fatal(err)
				}
				if rec != nil { // else it is deleted, and stands there still
					roles[rec.ID] = rec.Name
				}
			}
			var mu sync.Mutex
			s.before = func(op, path string) {
				mu.Lock()
				defer mu.Unlock()
				if l := m.guard(op, path, roles); l != nil && !heldLock(l) {
					t.Errorf("%s %s without its lock", op, path)
				}
			}
			if err := sc.op(m, w); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestJobsAreReadUnderTheirLock by who works on them: a stop between the read and what
// is made of it would be lost.
func TestJobsAreReadUnderTheirLock(t *testing.T) {
	s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(string) error { return nil }}
	m := mountOn(t, s, newFakeClock())
	m.makeRoles("r", 3, nil)
	job := m.startJob("action", "rotate", "name_prefix", "r")
	reads := 0
	s.hook = func(call string) error {
		if call == "get "+jobPath(job) {
			if reads++; !heldLock(&m.jobs.edit) {
				t.Error("a job is read without the lock")
			}
		}
		return nil
	}
	m.clock.advance(time.Minute)
	m.tick()
	if reads == 0 {
		t.Error("the job was not read")
	}
}
