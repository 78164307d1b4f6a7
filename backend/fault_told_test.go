// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// broken is a storage one of whose calls fails whenever it is made: to try again
// at once does not help.
type broken struct {
	logical.Storage

	mu   sync.Mutex
	call string // operation and path; empty: all works
	only int    // the one of these calls that fails, from 1; 0 is all
	seen int
	hits int
	log  []string
}

func (s *broken) do(call string, fn func() error) error {
	s.mu.Lock()
	s.log = append(s.log, call)
	fails := false
	if call == s.call {
		s.seen++
		if fails = s.only == 0 || s.only == s.seen; fails {
			s.hits++
		}
	}
	s.mu.Unlock()
	if fails {
		return errStorage
	}
	return fn()
}

func (s *broken) List(ctx context.Context, prefix string) (names []string, err error) {
	err = s.do("list "+prefix, func() (err error) { names, err = s.Storage.List(ctx, prefix); return err })
	return names, err
}

func (s *broken) Get(ctx context.Context, key string) (e *logical.StorageEntry, err error) {
	err = s.do("get "+key, func() (err error) { e, err = s.Storage.Get(ctx, key); return err })
	return e, err
}

func (s *broken) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.do("put "+e.Key, func() error { return s.Storage.Put(ctx, e) })
}

func (s *broken) Delete(ctx context.Context, key string) error {
	return s.do("delete "+key, func() error { return s.Storage.Delete(ctx, key) })
}

// Read makes it a source of randomness that gives none.
func (s *broken) Read([]byte) (int, error) {
	return 0, s.do("random", func() error { return errStorage })
}

// logged is a mount whose log is kept.
func logged(t testing.TB, s logical.Storage, c *fakeClock) (*testMount, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	m := &testMount{
		backend: newBackend(c, rand.Reader), t: t, clock: c, storage: s,
		request: logical.Request{
			ClientTokenAccessor: "accessor-1", DisplayName: "token-operator", MountPoint: "apikeys/",
			Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
		},
	}
	conf := &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: log, Mutex: &sync.Mutex{}}),
		System: writingSystem(), StorageView: s, BackendUUID: "test",
	}
	if err := m.Setup(context.Background(), conf); err != nil {
		t.Fatal(err)
	}
	if err := m.Initialize(context.Background(), &logical.InitializationRequest{Storage: s}); err != nil {
		t.Fatal(err)
	}
	return m, log
}

// allScenes is every operation that writes.
func allScenes() []scene {
	var all []scene
	for _, group := range [][]scene{roleScenes(), rotationScenes(), killScenes(), dynamicScenes(), leakScenes(), otherScenes(), tickScenes(), workScenes()} {
		all = append(all, group...)
	}
	return all
}

// TestNoFaultIsSwallowed: where a call to storage fails and goes on failing, the
// caller or the log is told, in every operation and at every call.
func TestNoFaultIsSwallowed(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.tells(t)
		})
	}
}

// quiet reports whether the call is one that the operation does without.
func (sc *scene) quiet(call string) bool {
	switch call {
	case "get config": // what was known last holds: a kill does not wait for it
		return true
	case "get endpoints": // those that were known last are told: no commit waits for it
		return true
	case "get tidy": // whether roles were renamed: moved/ is asked then
		return true
	}
	switch sc.name {
	case "bulk": // a role that cannot be read exists, so the job is made
		return call == "get role/a"
	case "revoke by key id": // the role's own record knows the id, too
		return strings.HasPrefix(call, "get key/")
	}
	return false
}

// repeats reports whether the operation makes that one of these calls for a guess, and
// makes it again where it matters.
func (sc *scene) repeats(call string, only int) bool {
	switch {
	case only > 1:
		return false
	case sc.name == "bulk":
		return call == "list job/"
	case sc.name == "disable", sc.name == "update": // whether there is such a role
		return call == "get role/a"
	case sc.name == "revoke one dynamic key":
		return strings.HasPrefix(call, "get key/")
	default: // how urgent a role is, and how to share the time
		return sc.tick && (strings.HasPrefix(call, "get role/") || call == "list job/")
	}
}

func (sc *scene) tells(test *testing.T) {
	test.Helper()
	t := withoutSchemas{test}
	first := newMount(t)
	w := newWorld()
	sc.prepare(first, w)
	start, at := dump(t, first.storage), first.clock.Now()
	// A failure that a bulk job keeps is told, too.
	run := func(call string, only int) (*broken, bool) {
		clock := newFakeClock()
		clock.set(at)
		s := &broken{Storage: copyStorage(t, start)}
		m, log := logged(t, s, clock)
		m.request = first.request
		for i := range places {
			// As where another node wrote it: all is read again.
			if p := &places[i]; p.forget != nil && !strings.HasSuffix(p.path, "/") {
				p.forget(m.backend, p.path)
			}
		}
		s.call, s.only, s.log = call, only, nil
		if call == "random" {
			m.rand = s
		}
		log.Reset()
		err := sc.op(m, w.clone())
		s.call = ""
		if errors.Is(err, errPanic) || strings.Contains(log.String(), "panicked") {
			t.Errorf("%s fails, and it ends in a panic", call)
		}
		for _, path := range m.under(jobPrefix) {
			if job, err := getRecord[jobRecord](context.Background(), s, path); err != nil || job.Failed > 0 {
				return s, true
			}
		}
		return s, err != nil || log.Len() > 0
	}
	s, told := run("", 0)
	if told {
		t.Fatal("somebody is told of a fault, and there was none")
	}
	s.log = append(s.log, "random")
	made := map[string]int{}
	for _, call := range s.log {
		made[call]++
	}
	tried, families := map[string]bool{}, map[string]int{}
	for _, call := range s.log {
		family, _, _ := strings.Cut(call, "/")
		if tried[call] || families[family] == 12 {
			continue // the walk and tidy make many, all alike
		}
		tried[call] = true
		families[family]++
		s, told := run(call, 0)
		if s.hits > 0 && !told && !sc.quiet(call) {
			t.Errorf("%s fails, and nobody is told", call)
		}
		// One place after the other, where several make the call.
		for only := 1; !sc.again && made[call] > 1 && only <= min(made[call], 30); only++ {
			if s, told := run(call, only); s.hits > 0 && !told && !sc.quiet(call) && !sc.repeats(call, only) {
				t.Errorf("%s fails the %d. time, and nobody is told", call, only)
			}
		}
	}
}

// TestStartTellsOfFaults: at every call of the first start on a storage and of a
// later one. A storage that may only be read is no fault.
func TestStartTellsOfFaults(t *testing.T) {
	t.Parallel()
	start := func(content map[string]string, call string) (*broken, error) {
		s := &broken{Storage: copyStorage(t, content), call: call}
		b := newBackend(newFakeClock(), rand.Reader)
		if call == "random" {
			b.rand = s
		}
		conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: s, BackendUUID: "test"}
		if err := b.Setup(t.Context(), conf); err != nil {
			t.Fatal(err)
		}
		return s, b.Initialize(t.Context(), &logical.InitializationRequest{Storage: s})
	}
	for _, content := range []map[string]string{nil, dump(t, newMount(t).storage)} {
		s, err := start(content, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range append(s.log, "random") {
			if call == "get tidy" {
				continue // it is read again when it is needed
			}
			if s, err := start(content, call); s.hits > 0 && !errors.Is(err, errStorage) {
				t.Errorf("%s fails, and the server is told %v", call, err)
			}
		}
	}
}

// TestReadOnlyStorageIsNoFault: where storage refuses to be written from some write
// on, the caller is told just that, so that the server asks the node that may, and
// no record is blamed for it.
func TestReadOnlyStorageIsNoFault(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		t.Run(sc.name, func(test *testing.T) {
			test.Parallel()
			t := withoutSchemas{test}
			first := newMount(t)
			w := newWorld()
			sc.prepare(first, w)
			start, at := dump(t, first.storage), first.clock.Now()
			for n := 1; n <= 40; n++ {
				clock := newFakeClock()
				clock.set(at)
				p := newProbe(copyStorage(t, start))
				m, log := logged(t, p, clock)
				m.request = first.request
				log.Reset()
				p.arm(n, faultReadOnly)
				p.onlyWrites = true
				err := sc.op(m, w.clone())
				if _, writes := p.count(); writes < n {
					return
				}
				// After the first write the operation may have happened.
				if err != nil && !errors.Is(err, logical.ErrReadOnly) || err == nil && !sc.tick && n == 1 {
					t.Errorf("at write %d the caller is told %v", n, err)
				}
				if strings.Contains(log.String(), "tidy passes over") || strings.Contains(log.String(), "looking at a role failed") {
					t.Errorf("at write %d the log says: %s", n, log)
				}
			}
		})
	}
}
