// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// hanging is a storage in which one call, or each from one on, takes long.
type hanging struct {
	logical.Storage

	takes time.Duration
	heeds bool // the end of a call's context ends the call, which then does nothing
	all   bool // each call from that one on

	mu     sync.Mutex
	at     int // the call, from 1; 0: none
	calls  int
	stuck  chan struct{} // closed when a call hangs, since arm
	begun  []string      // writes that began after mark
	marked bool
}

func (s *hanging) arm(at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.calls, s.stuck = at, 0, make(chan struct{})
}

// mark begins to note what is begun.
func (s *hanging) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = true
}

func (s *hanging) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

func (s *hanging) call(ctx context.Context, write string, do func() error) error {
	s.mu.Lock()
	if s.marked && write != "" {
		s.begun = append(s.begun, write)
	}
	s.calls++
	hangs := s.at > 0 && (s.calls == s.at || s.all && s.calls > s.at)
	if hangs && s.calls == s.at {
		close(s.stuck)
	}
	s.mu.Unlock()
	switch {
	case hangs && s.heeds:
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	case hangs:
		<-time.After(s.takes)
	}
	return do()
}

func (s *hanging) List(ctx context.Context, prefix string) (names []string, err error) {
	err = s.call(ctx, "", func() (err error) { names, err = s.Storage.List(context.WithoutCancel(ctx), prefix); return err })
	return names, err
}

func (s *hanging) Get(ctx context.Context, key string) (e *logical.StorageEntry, err error) {
	err = s.call(ctx, "", func() (err error) { e, err = s.Storage.Get(context.WithoutCancel(ctx), key); return err })
	return e, err
}

func (s *hanging) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.call(ctx, "put "+e.Key, func() error { return s.Storage.Put(context.WithoutCancel(ctx), e) })
}

func (s *hanging) Delete(ctx context.Context, key string) error {
	return s.call(ctx, "delete "+key, func() error { return s.Storage.Delete(context.WithoutCancel(ctx), key) })
}

// The engine is unloaded while the worker, or a request, waits for storage, at each call
// that it makes. It takes 2 seconds at most, begins nothing after, and what was answered
// as done is done; the next instance goes on with the rest, whatever lands meanwhile.
func TestReloadAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		takes      time.Duration
		heeds, all bool
	}{
		{takes: 300 * time.Millisecond},
		{takes: 7 * time.Second},
		{takes: 7 * time.Second, heeds: true},
		{takes: time.Minute, heeds: true, all: true},
		{takes: time.Minute, all: true},
	} {
		for _, request := range []bool{false, true} {
			t.Run(fmt.Sprintf("takes=%v,heeds=%t,all=%t,request=%t", c.takes, c.heeds, c.all, request), func(t *testing.T) {
				t.Parallel()
				for at := 1; at <= 50; at += 1 + at/8 {
					synctest.Test(t, func(t *testing.T) {
						s := &hanging{Storage: &logical.InmemStorage{}, takes: c.takes, heeds: c.heeds, all: c.all}
						reload(t, s, at, request)
					})
				}
			})
		}
	}
}

func reload(t *testing.T, s *hanging, at int, request bool) {
	t.Helper()
	b := running(t, s)
	roles := []string{"r0", "r1", "r2"}
	for _, name := range roles {
		write(t, b, s, "roles/"+name, map[string]any{"rotation_period": "60s", "grace_period": "10s"})
	}
	write(t, b, s, "roles/asked", map[string]any{"rotation_period": 0, "grace_period": "10h"})
	var err error
	answered := make(chan struct{})
	if request {
		s.arm(at)
		go func() {
			defer close(answered)
			req := &logical.Request{Operation: logical.UpdateOperation, Path: "rotate/asked", Storage: s, MountPoint: "apikeys/"}
			_, err = b.HandleRequest(t.Context(), req)
		}()
		synctest.Wait() // it is answered, or hangs
	} else {
		close(answered)
		time.Sleep(50 * time.Second)
		s.arm(at)
		select {
		case <-s.stuck:
		case <-time.After(30 * time.Second): // it makes fewer calls
		}
	}
	began := time.Now()
	b.Cleanup(t.Context())
	if took := time.Since(began); took > cleanTime {
		t.Errorf("call %d: the cleanup takes %v", at, took)
	}
	s.mark()
	next := running(t, s.Storage)
	done := false
	select {
	case <-answered:
		done = request && err == nil
	default:
	}
	if n := lastVersion(t, s.Storage, "asked"); done && n != 2 {
		t.Errorf("call %d: a rotation was acknowledged, and there is version %d", at, n)
	}
	for range 4 {
		time.Sleep(time.Minute)
		if _, err := next.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, Storage: s.Storage}); err != nil {
			t.Errorf("call %d: %v", at, err)
		}
	}
	<-answered
	if late := s.noted(); len(late) > 0 {
		t.Errorf("call %d: the engine was unloaded, and began %q", at, late)
	}
	for _, name := range append(roles, "asked") {
		if n := lastVersion(t, s.Storage, name); name != "asked" && n < 4 || name == "asked" && err == nil && request && n != 2 {
			t.Errorf("call %d: role %s has version %d", at, name, n)
		}
		resp, err := next.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "creds/" + name, Storage: s.Storage})
		if err != nil || resp.IsError() {
			t.Errorf("call %d: creds/%s: %v %v", at, name, resp, err)
			continue
		}
		verdict, err := next.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "verify", Storage: s.Storage, Data: map[string]any{"key": resp.Data["api_key"]},
		})
		if err != nil || verdict.Data["code"] != "VALID" {
			t.Errorf("call %d: the key of %s: %v %v", at, name, verdict, err)
		}
	}
	next.Cleanup(t.Context())
}

// hurried is a clock by which time-outs come soon.
type hurried struct{ systemClock }

func (hurried) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d/100)
}

// Who holds a lock while storage hangs, whatever its context, does not hold up the end of
// the engine.
func TestCleanupWaitsForNoLock(t *testing.T) {
	t.Parallel()
	release, held := make(chan struct{}), make(chan struct{})
	s := &watched{Storage: &logical.InmemStorage{}, before: func(string, string) {}}
	b := newBackend(hurried{}, rand.Reader)
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: s, BackendUUID: "test"}
	if err := b.Setup(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	if err := b.Initialize(t.Context(), &logical.InitializationRequest{Storage: s}); err != nil {
		t.Fatal(err)
	}
	write(t, b, s, "roles/r", map[string]any{"rotation_period": 0})
	ask := func() {
		resp, err := b.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "creds/r", Storage: s})
		if err != nil {
			t.Fatal(err)
		}
		write(t, b, s, "verify", map[string]any{"key": resp.Data["api_key"]})
	}
	ask()
	var once sync.Once
	s.before = func(_, path string) {
		if strings.HasPrefix(path, usagePrefix) {
			once.Do(func() { close(held) })
			<-release
		}
	}
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		b.flushRest(context.Background())
	}()
	<-held
	ask()
	b.Cleanup(t.Context()) // or the test hangs
	close(release)
	<-flushed
}

// The server may begin and end an engine in any order, and as often as it likes.
func TestLifeOfTheEngineInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &logical.InmemStorage{}
		made, err := Factory(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: s, BackendUUID: "test"})
		if err != nil {
			t.Fatal(err)
		}
		made.Cleanup(t.Context()) // before anything
		made.Cleanup(t.Context())
		begin := &logical.InitializationRequest{Storage: s}
		if err := made.Initialize(t.Context(), begin); err != nil {
			t.Fatal(err)
		}
		tick := &logical.Request{Operation: logical.RollbackOperation, Storage: s}
		if _, err := made.HandleRequest(t.Context(), tick); err != nil {
			t.Fatal(err)
		}
		if made.(*backend).worker.running {
			t.Error("an engine that was unloaded works")
		}

		b := running(t, s)
		write(t, b, s, "roles/r", map[string]any{"rotation_period": "60s", "grace_period": "10s"})
		steps := make(chan struct{})
		for range 3 { // one goroutine works, however often it is begun
			go func() {
				_ = b.Initialize(t.Context(), begin)
				_, _ = b.HandleRequest(t.Context(), tick)
				steps <- struct{}{}
			}()
		}
		for range 3 {
			<-steps
		}
		time.Sleep(130 * time.Second)
		if n := lastVersion(t, s, "r"); n < 3 || n > 4 {
			t.Errorf("version %d after two periods", n)
		}
		b.Cleanup(t.Context())
		b.Cleanup(t.Context())
	})
}
