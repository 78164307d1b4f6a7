// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// landingStorage answers the next write below a prefix with an error and carries it out
// when it is told to.
type landingStorage struct {
	logical.Storage

	mu     sync.Mutex
	prefix string
	late   []func()
	ended  bool // a write was given a context that had ended
}

func (s *landingStorage) write(ctx context.Context, key string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		s.ended = true
		return ctx.Err()
	}
	if s.prefix != "" && strings.HasPrefix(key, s.prefix) {
		s.prefix = ""
		s.late = append(s.late, func() { _ = do() })
		return errStorage
	}
	return do()
}

func (s *landingStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.write(ctx, e.Key, func() error { return s.Storage.Put(context.WithoutCancel(ctx), e) })
}

func (s *landingStorage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, key, func() error { return s.Storage.Delete(context.WithoutCancel(ctx), key) })
}

// fails makes the next write below the prefix late.
func (s *landingStorage) fails(prefix string) { s.prefix = prefix }

// land carries out what is late.
func (s *landingStorage) land() {
	for _, do := range s.late {
		do()
	}
	s.late = nil
}

// A kill whose write errs and lands later: no cache says afterwards that the key is
// good, whoever asked or changed nothing in between.
func TestLateWritesLeaveNoDeadKeyGood(t *testing.T) {
	t.Parallel()
	revoke := func(m *testMount, id string) {
		_, _ = m.do(logical.UpdateOperation, "revoke/a", map[string]any{"key_id": id, "rotate": false})
	}
	for name, c := range map[string]struct {
		dynamic bool
		prefix  string
		kill    func(m *testMount, id string)
	}{
		"revoke": {prefix: rolePrefix, kill: revoke},
		"disable": {prefix: rolePrefix, kill: func(m *testMount, _ string) {
			_, _ = m.do(logical.UpdateOperation, "roles/a", map[string]any{"disabled": true})
		}},
		"grace 0": {prefix: rolePrefix, kill: func(m *testMount, _ string) {
			_, _ = m.do(logical.UpdateOperation, "rotate/a", map[string]any{"grace_period": 0})
		}},
		"delete":  {prefix: rolePrefix, kill: func(m *testMount, _ string) { _, _ = m.do(logical.DeleteOperation, "roles/a", nil) }},
		"dynamic": {dynamic: true, prefix: keyPrefix, kill: revoke},
		"generation": {dynamic: true, prefix: rolePrefix, kill: func(m *testMount, _ string) {
			_, _ = m.do(logical.UpdateOperation, "revoke/a", map[string]any{"version": 1})
		}},
	} {
		// between is what happens after the error: also a look that comes before it lands,
		// and one that comes after.
		for between, look := range map[string]func(m *testMount, id string){
			"nothing": func(*testMount, string) {},
			"a rewrite that changes nothing": func(m *testMount, id string) {
				unlock := m.lockRole("a")
				_, err := m.lockedShown(context.Background(), m.storage, "a")
				unlock()
				unlockKey := m.lockKey(id)
				_, keyErr := m.lockedKey(context.Background(), m.storage, id)
				unlockKey()
				if err != nil || keyErr != nil {
					t.Error(err, keyErr)
				}
			},
			"a tick": func(m *testMount, _ string) { m.tick() },
		} {
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			role := map[string]any{"rotation_period": 0}
			if c.dynamic {
				role = map[string]any{"type": "dynamic"}
			}
			m.write("roles/a", role)
			got := m.read("creds/a")
			key, id := got["api_key"].(string), got["key_id"].(string)
			good := func() bool { return m.write("verify", map[string]any{"key": key})["valid"] == true }
			if !good() {
				t.Fatal("no key")
			}
			s.fails(c.prefix)
			c.kill(m, id)
			if len(s.late) == 0 {
				t.Fatalf("%s: no write failed", name)
			}
			good()
			look(m, id)
			good()
			m.clock.advance(40 * time.Second)
			good()
			s.land()
			if good() {
				t.Errorf("%s, then %s: the key is good after the write has landed", name, between)
			}
			// The repetition that finds it done.
			c.kill(m, id)
			if good() {
				t.Errorf("%s, then %s: the key is good after the repetition", name, between)
			}
			m.checkCaches()
		}
	}
}

// Once nothing can land any more a record is cached again, whether somebody came to
// it or not; and at once where what was written is found.
func TestUnsureRecordsAreCachedAgain(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	p := newProbe(s)
	m := mountOn(t, p, newFakeClock())
	m.write("roles/a", map[string]any{"rotation_period": 0})
	got := m.read("creds/a")
	verify := func() int {
		p.reset()
		m.write("verify", map[string]any{"key": got["api_key"]})
		calls, _ := p.count()
		return calls
	}
	fail := func() {
		s.fails(rolePrefix)
		_, _ = m.do(logical.UpdateOperation, "roles/a", map[string]any{"description": "x"})
		for range 2 {
			if verify() == 0 {
				t.Error("an unsure record is cached")
			}
		}
	}
	fail()
	m.clock.advance(lateFor)
	m.tick()
	verify()
	if calls := verify(); calls != 0 {
		t.Errorf("%d calls for a record that is sure again", calls)
	}
	fail()
	s.land()
	m.tick()
	if verify() == 0 {
		t.Error("cached before anybody read it under the lock")
	}
	_, _ = m.do(logical.UpdateOperation, "promote/a", nil)
	verify()
	if calls := verify(); calls != 0 {
		t.Errorf("%d calls for a record whose write was seen to have landed", calls)
	}
}

func TestUnsureRecordsAreBounded(t *testing.T) {
	t.Parallel()
	var u unsureSet
	now := newFakeClock().Now()
	for range maxUnsure + 10 {
		id, err := newUUID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		u.add(id, "", nil, now)
	}
	if len(u.paths) != maxUnsure || !u.has("another") {
		t.Fatal(len(u.paths))
	}
	if got := u.due(now.Add(lateFor), 7); len(got) != 7 || u.has("another") {
		t.Error(got)
	}
}

// Every record that verification reads is read again after a write that erred, until
// it is sure.
func TestLateWritesOfCells(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	c := newTestCell()
	put := func(key string) error {
		_, err := c.change(ctx, s, func(*secretRecord) (*secretRecord, error) { return &secretRecord{Key: key}, nil })
		return err
	}
	want := func(key string) {
		t.Helper()
		if got, err := c.get(ctx, s); err != nil || got.Key != key {
			t.Errorf("%+v %v, want %s", got, err, key)
		}
	}
	if err := put("one"); err != nil {
		t.Fatal(err)
	}
	s.fails(configPath)
	if put("two") == nil {
		t.Fatal("no error")
	}
	want("one")
	want("one")
	s.land()
	want("two")
	if c.known() == nil {
		t.Error("not kept although the write was seen to have landed")
	}
}

// The storage calls of a commit do not end with the caller, and whoever unloads the
// engine can wait for them.
func TestCommitsOutliveTheirCaller(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"role/a", "secret/"} {
		s := &landingStorage{Storage: &logical.InmemStorage{}}
		hangs := &hangingUp{Storage: s, prefix: path}
		m := mountOn(t, hangs, newFakeClock())
		m.write("roles/a", nil)
		key := m.read("creds/a")["api_key"]
		ctx, cancel := context.WithCancel(context.Background())
		var waited, busy bool
		hangs.do = func() {
			cancel()
			ended, stop := context.WithCancel(context.Background())
			stop()
			busy = !m.commits.Wait(ended)
			waited = true
		}
		req := m.request
		req.Operation, req.Path, req.Storage = logical.UpdateOperation, "revoke/a", m.storage
		req.Data = map[string]any{"all": true}
		resp, err := m.HandleRequest(ctx, &req)
		if err != nil || resp.IsError() {
			t.Errorf("%s: %v %v", path, resp, err)
		}
		if !waited || !busy || s.ended {
			t.Errorf("%s: waited %v, under way %v, ended %v", path, waited, busy, s.ended)
		}
		if m.write("verify", map[string]any{"key": key})["valid"] == true {
			t.Error("the key is good")
		}
		if !m.commits.Wait(context.Background()) {
			t.Error("a commit is under way for good")
		}
	}
}

// hangingUp does something before the first write below a prefix.
type hangingUp struct {
	logical.Storage

	prefix string
	do     func()
}

func (s *hangingUp) Put(ctx context.Context, e *logical.StorageEntry) error {
	if do := s.do; do != nil && strings.HasPrefix(e.Key, s.prefix) {
		s.do = nil
		do()
	}
	return s.Storage.Put(ctx, e)
}

// Who hangs up while something is written that decides about keys leaves nothing half
// done: all that belongs together is written.
func TestWhoHangsUpLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	type scene struct {
		prefix string // at the first write below it the caller hangs up
		before func(m *testMount, c *decided)
		do     func(m *testMount, ctx context.Context, c *decided) (*logical.Response, error)
		holds  func(m *testMount, c *decided, resp *logical.Response) bool
	}
	request := func(op logical.Operation, path func(*decided) string, data map[string]any) func(*testMount, context.Context, *decided) (*logical.Response, error) {
		return func(m *testMount, ctx context.Context, c *decided) (*logical.Response, error) {
			req := m.request
			req.Operation, req.Path, req.Data, req.Storage = op, path(c), data, m.storage
			return m.HandleRequest(ctx, &req)
		}
	}
	at := func(path string) func(*decided) string { return func(*decided) string { return path } }
	foreign := foreignKey(t, 40)
	batch := `[{"role": "n", "key": "` + foreign + `"}]`
	onLease := func(op logical.Operation) func(*testMount, context.Context, *decided) (*logical.Response, error) {
		return func(m *testMount, ctx context.Context, c *decided) (*logical.Response, error) {
			secret := *c.lease.Secret
			return m.HandleRequest(ctx, &logical.Request{Operation: op, Path: "creds/any", Storage: m.storage, Secret: &secret, Data: c.lease.Data})
		}
	}
	valid := func(m *testMount, key any) bool { return m.verdict(key) == "VALID" }
	imported := func(m *testMount, _ *decided, _ *logical.Response) bool { return valid(m, foreign) }
	for name, c := range map[string]scene{
		"issue": {
			prefix: keyPrefix, do: request(logical.ReadOperation, at("creds/d"), nil),
			holds: func(m *testMount, _ *decided, resp *logical.Response) bool {
				return valid(m, resp.Data["api_key"]) && m.exists(issuedPath(m.record("d").ID, resp.Data["key_id"].(string)))
			},
		},
		"renewal": {
			prefix: keyPrefix, before: func(m *testMount, _ *decided) { m.clock.advance(30 * time.Minute) },
			do: onLease(logical.RenewOperation),
			holds: func(m *testMount, c *decided, _ *logical.Response) bool {
				m.clock.advance(45 * time.Minute)
				return valid(m, c.key)
			},
		},
		"lease given back": {
			prefix: keyPrefix, do: onLease(logical.RevokeOperation),
			holds: func(m *testMount, c *decided, _ *logical.Response) bool { return !valid(m, c.key) },
		},
		"config": {
			prefix: configPath, do: request(logical.UpdateOperation, at("config"), map[string]any{"cache_size": 100}),
			holds: func(m *testMount, _ *decided, _ *logical.Response) bool {
				return m.configs.known() != nil && number(m.t, m.read("config")["cache_size"]) == 100
			},
		},
		"digest secret": {
			prefix: digestPath, do: request(logical.UpdateOperation, at("config/rotate-digest"), nil),
			holds: func(m *testMount, _ *decided, _ *logical.Response) bool {
				return m.digestSecrets.known() != nil && m.digestSecrets.known().Current == 2
			},
		},
		"import, its forms": {prefix: importedPath, do: request(logical.UpdateOperation, at("import"), map[string]any{"batch": batch}), holds: imported},
		"import, its key":   {prefix: keyPrefix, do: request(logical.UpdateOperation, at("import"), map[string]any{"batch": batch}), holds: imported},
		"delete": {
			prefix: deletedPrefix, do: request(logical.DeleteOperation, at("roles/a"), nil),
			holds: func(m *testMount, c *decided, _ *logical.Response) bool {
				return !m.exists(rolePath("a")) && m.exists(deletedPath(c.roleID))
			},
		},
		"restore, which makes way": {
			prefix: deletedPrefix,
			before: func(m *testMount, _ *decided) {
				m.remove("a")
				m.write("roles/a", nil)
			},
			do: request(logical.UpdateOperation, func(c *decided) string { return "restore/" + c.roleID }, map[string]any{"force": true}),
			holds: func(m *testMount, c *decided, _ *logical.Response) bool {
				return m.record("a").ID == c.roleID
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			hangs := &hangingUp{Storage: s, prefix: c.prefix}
			m := mountOn(t, hangs, newFakeClock())
			m.write("roles/a", nil)
			m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h", "max_ttl": "10h"})
			on := &decided{roleID: m.record("a").ID, lease: m.lease("d", nil)}
			on.key = on.lease.Data["api_key"].(string)
			if c.before != nil {
				c.before(m, on)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			hangs.do = cancel
			resp, err := c.do(m, ctx, on)
			switch {
			case err != nil || resp.IsError():
				t.Errorf("%v %v", resp, err)
			case ctx.Err() == nil:
				t.Error("nobody has hung up")
			case s.ended:
				t.Error("something was to be written with the caller's context")
			case !c.holds(m, on, resp):
				t.Error("it is half done")
			}
		})
	}
}

// A write that came through since says nothing of the earlier one, which may land over
// it: nothing is kept until that is settled.
func TestLateWritesLandOverLaterOnes(t *testing.T) {
	t.Parallel()
	s := &landingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", map[string]any{"rotation_period": 0})
	got := m.read("creds/a")
	s.fails(rolePrefix)
	_, _ = m.do(logical.UpdateOperation, "revoke/a", map[string]any{"key_id": got["key_id"], "rotate": false})
	m.write("roles/a", map[string]any{"description": "x"})
	m.expectVerdict(got["api_key"].(string), "VALID")
	s.land()
	m.expectVerdict(got["api_key"].(string), "REVOKED")

	var u unsureSet
	now := m.clock.Now()
	rec := &secretRecord{Key: "k"}
	u.add("p", "", encoded(t, rec), now)
	u.overwritten("p")
	if u.settle("p", rec, now); !u.has("p") {
		t.Error("taken for landed, although another write may have left it")
	}
	c := newRecordCache[secretRecord](10)
	c.doubted("p", "", encoded(t, rec), now)
	if got, err := c.getOrAbsent(t.Context(), s, "p", now); got != nil || err != nil {
		t.Fatal(got, err)
	}
	plant(t, s, "p", rec)
	if got, err := c.getOrAbsent(t.Context(), s, "p", now); got == nil || err != nil {
		t.Error("its absence was kept", err)
	}
}

// What nobody comes to is settled by the worker, of each kind.
func TestWorkerSettlesWhatIsUnsure(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	now, id := m.clock.Now(), "0123456789ab"
	m.roles.doubted(rolePath("a"), "id", nil, now)
	m.keys.doubted(keyPath(id), "id", nil, now)
	m.secretCache.doubted(secretPath("id", 1), "id", nil, now)
	m.moves.doubted(movedPath("id"), "id", nil, now)
	m.copies.add(deletedPath("id"), "id", nil, now)
	m.clock.advance(lateFor)
	if err := m.settleLate(t.Context(), m.storage); err != nil {
		t.Fatal(err)
	}
	if m.roles.unsure.has(rolePath("a")) || m.keys.unsure.has(keyPath(id)) || m.secretCache.unsure.has(secretPath("id", 1)) ||
		m.moves.unsure.has(movedPath("id")) || m.copies.has(deletedPath("id")) {
		t.Error("something is unsure for good")
	}
}
