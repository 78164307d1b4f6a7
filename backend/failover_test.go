// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// standbyStorage is storage as a standby has it: what another node wrote can be
// read, writes are refused. The error has crossed the plugin's connection, so
// only its text is left.
type standbyStorage struct {
	logical.Storage

	attempts atomic.Int64
	open     atomic.Bool // writes are let through
}

func (s *standbyStorage) refuse() error {
	s.attempts.Add(1)
	return errors.New("rpc error: code = Unknown desc = " + logical.ErrReadOnly.Error())
}

func (s *standbyStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.open.Load() {
		return s.Storage.Put(ctx, e)
	}
	return s.refuse()
}

func (s *standbyStorage) Delete(ctx context.Context, key string) error {
	if s.open.Load() {
		return s.Storage.Delete(ctx, key)
	}
	return s.refuse()
}

// mountAs starts the engine on a node in that state of replication, and returns
// what it logs.
func mountAs(t testing.TB, s logical.Storage, c *fakeClock, state consts.ReplicationState) (*testMount, *bytes.Buffer) {
	t.Helper()
	m := &testMount{backend: newBackend(c, rand.Reader), t: t, clock: c, storage: s, request: logical.Request{
		ClientTokenAccessor: "accessor-1", DisplayName: "token-operator", MountPoint: "apikeys/",
	}}
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = state
	var logged bytes.Buffer
	conf := &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Output: &logged, Level: hclog.Info}),
		System: sys, StorageView: s, BackendUUID: "test",
	}
	if err := m.Setup(context.Background(), conf); err != nil {
		t.Fatal(err)
	}
	if err := m.Initialize(context.Background(), &logical.InitializationRequest{Storage: s}); err != nil {
		t.Fatal(err)
	}
	return m, &logged
}

// cluster is a node that writes and a standby, which hears of writes when a test
// lets it.
type cluster struct {
	active, standby *testMount
	writes          *probe
	refusing        *standbyStorage
	forwards        int
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	shared := &logical.InmemStorage{}
	c := &cluster{writes: newProbe(shared), refusing: &standbyStorage{Storage: shared}}
	clock := newFakeClock()
	c.active = mountOn(t, c.writes, clock)
	c.standby, _ = mountAs(t, c.refusing, clock, consts.ReplicationPerformanceStandby|consts.ReplicationDRDisabled)
	return c
}

// written are the storage keys written since the last call.
func (c *cluster) written() (keys []string) {
	for _, call := range c.writes.log {
		if op, key, _ := strings.Cut(call, " "); op == "put" || op == "delete" {
			keys = append(keys, key)
		}
	}
	c.writes.reset()
	return keys
}

func (c *cluster) deliver(key string) {
	c.standby.InvalidateKey(context.Background(), key)
}

// seenBy is what a node tells of keys and roles; what it would have forwarded is
// asked of the other.
func (c *cluster) seenBy(m *testMount, keys map[string]string) map[string]string {
	m.t.Helper()
	all := map[string]string{}
	ask := func(name string, op logical.Operation, path string, data map[string]any, fields ...string) {
		resp, err := m.do(op, path, data)
		if err == logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
			c.forwards++
			resp, err = c.active.do(op, path, data)
		}
		text := fmt.Sprint(err)
		if resp != nil {
			for _, f := range fields {
				text += fmt.Sprint(" ", resp.Data[f])
			}
			if resp.IsError() {
				text += resp.Error().Error()
			}
		}
		all[name] = text
	}
	for name, key := range keys {
		ask("verify "+name, logical.UpdateOperation, "verify", map[string]any{"key": key}, "code", "state", "reason", "scopes", "metadata", "expires_at")
	}
	for _, role := range []string{"a", "b"} {
		ask("creds "+role, logical.ReadOperation, "creds/"+role, nil, "version", "key_id", "scopes", "ttl", "rotation_period")
		ask("status "+role, logical.ReadOperation, "status/"+role, nil, "current_version", "next_rotation", "disabled")
		ask("role "+role, logical.ReadOperation, "roles/"+role, nil, "scopes", "grace_period", "role_id")
	}
	ask("config", logical.ReadOperation, "config", nil, "stage_ahead", "rotation_paused")
	return all
}

func TestStandbyFollowsWhatItIsTold(t *testing.T) {
	t.Parallel()
	orders := map[string]func([]string) []string{
		"in order": func(k []string) []string { return k },
		"twice":    func(k []string) []string { return append(slices.Clone(k), k...) },
		"reversed": func(k []string) []string { k = slices.Clone(k); slices.Reverse(k); return k },
		"shuffled": func(k []string) []string {
			k = append(slices.Clone(k), k...)
			mrand.Shuffle(len(k), func(i, j int) { k[i], k[j] = k[j], k[i] })
			return k
		},
	}
	for name, order := range orders {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late %v", name, late), func(t *testing.T) {
				t.Parallel()
				followed(t, order, late)
			})
		}
	}
}

// followed does many things on the writing node, and compares the standby after
// each. late: what is told is told only with what comes next.
func followed(t *testing.T, order func([]string) []string, late bool) {
	c := newCluster(t)
	a := c.active
	keys := map[string]string{}
	hold := func(name, role string) {
		keys[name] = a.read("creds/" + role)["api_key"].(string)
	}
	var lease *logical.Response
	roleID := ""
	foreign := strings.Repeat("y2", 12)
	steps := []struct {
		name string
		do   func()
	}{
		{"create", func() { a.write("roles/a", map[string]any{"rotation_period": "24h", "scopes": "x"}); hold("a1", "a") }},
		{"create b", func() { a.write("roles/b", map[string]any{"rotation_period": 0}); hold("b1", "b") }},
		{"rotate", func() { a.write("rotate/a", map[string]any{"grace_period": "3h"}); hold("a2", "a") }},
		{"scopes", func() { a.write("roles/a", map[string]any{"scopes": "y,z", "metadata": map[string]any{"m": "1"}}) }},
		{"digest secret", func() { a.write("config/rotate-digest", nil) }},
		{"rotate again", func() { a.write("rotate/a", map[string]any{"grace_period": 0}); hold("a3", "a") }},
		{"config", func() { a.write("config", map[string]any{"stage_ahead": "1h", "rotation_paused": true}) }},
		{"config back", func() { a.write("config", map[string]any{"rotation_paused": false}) }},
		{"stage", func() {
			a.write("rotate/b", map[string]any{"stage": true})
			keys["b2"] = a.read("creds/b/pending")["api_key"].(string)
		}},
		{"promote", func() { a.write("promote/b", nil) }},
		{"rollback", func() { a.write("rollback/b", nil) }},
		{"dynamic", func() {
			a.write("roles/d", map[string]any{"type": "dynamic"})
			lease = a.lease("d", nil)
			keys["d1"] = lease.Data["api_key"].(string)
		}},
		{"lease revoked", func() {
			if _, err := a.onLease(logical.RevokeOperation, lease, 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"import", func() {
			a.write("import", map[string]any{"batch": `{"role":"i","key":"` + foreign + `"}`})
			keys["i1"] = foreign
		}},
		{"revoke", func() { a.write("revoke/a", map[string]any{"version": 3}); hold("a4", "a") }},
		{"disable", func() { a.write("roles/a", map[string]any{"disabled": true}) }},
		{"enable", func() { a.write("roles/a", map[string]any{"disabled": false}) }},
		{"time", func() { a.clock.advance(24 * time.Hour); a.tick() }},
		{"more time", func() { a.clock.advance(6 * time.Hour); a.tick() }},
		{"delete", func() { roleID, _ = a.remove("a") }},
		{"restore", func() { a.write("restore/"+roleID, nil) }},
		{"delete again", func() { a.remove("a") }},
		{"create anew", func() { a.write("roles/a", nil); hold("new a1", "a") }},
	}
	var owed []string
	for _, step := range steps {
		c.seenBy(c.standby, keys) // fills its caches
		step.do()
		told := order(append(owed, c.written()...))
		if late && step.name != steps[len(steps)-1].name {
			told, owed = order(owed), c.ownWrites(told)
			for _, key := range told {
				c.deliver(key)
			}
			continue
		}
		for i, key := range told {
			c.deliver(key)
			if i%3 == 1 {
				c.seenBy(c.standby, keys) // what it reads in between is not to stay
			}
		}
		owed = nil
		c.standby.tick()
		c.forwards = 0
		want, got := c.seenBy(a, keys), c.seenBy(c.standby, keys)
		unknown := 0
		for name := range keys {
			if strings.HasPrefix(want["verify "+name], "<nil> NOT_FOUND") {
				unknown++
			}
		}
		if c.forwards != unknown {
			t.Errorf("%s: it forwarded %d questions, %d of them about unknown keys", step.name, c.forwards, unknown)
		}
		if !reflect.DeepEqual(got, want) {
			for k := range want {
				if got[k] != want[k] {
					t.Errorf("%s: %s says\n %s, want\n %s", step.name, k, got[k], want[k])
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	if n := c.refusing.attempts.Load(); n != 0 {
		t.Errorf("the standby tried to write %d times", n)
	}
}

// ownWrites keeps each key once.
func (c *cluster) ownWrites(keys []string) []string {
	set := map[string]bool{}
	for _, k := range keys {
		set[k] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func TestStandbyForwardsWhatWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.active
	a.write("roles/a", map[string]any{"rotation_period": "24h"})
	a.write("roles/once", map[string]any{"reveal": "once"})
	a.write("roles/d", map[string]any{"type": "dynamic"})
	a.write("rotate/a", nil)
	key := a.read("creds/a")["api_key"].(string)
	lease := a.lease("d", nil)
	a.write("roles/gone", nil)
	id, _ := a.remove("gone")
	a.write("roles/p", nil)
	a.write("rotate/p", nil)
	a.write("rotate/p", map[string]any{"stage": true})
	unknown := someKey(t, "ak").Reveal()

	forwarded := []struct {
		op   logical.Operation
		path string
		data map[string]any
	}{
		{logical.UpdateOperation, "roles/new", nil},
		{logical.UpdateOperation, "roles/a", map[string]any{"owner": "me"}},
		{logical.PatchOperation, "roles/a", map[string]any{"owner": "me"}},
		{logical.DeleteOperation, "roles/a", nil},
		{logical.UpdateOperation, "restore/" + id, nil},
		{logical.UpdateOperation, "config", map[string]any{"rotation_paused": true}},
		{logical.UpdateOperation, "config/rotate-digest", nil},
		{logical.UpdateOperation, "rotate/a", nil},
		{logical.UpdateOperation, "rotate/a", map[string]any{"stage": true}},
		{logical.UpdateOperation, "promote/p", nil},
		{logical.UpdateOperation, "rollback/p", nil},
		{logical.UpdateOperation, "revoke/a", map[string]any{"all": true}},
		{logical.UpdateOperation, "revoke/d", map[string]any{"key_id": lease.Data["key_id"]}},
		{logical.ReadOperation, "creds/d", nil},
		{logical.UpdateOperation, "creds/d", map[string]any{"ttl": 60}},
		{logical.ReadOperation, "creds/once", nil},
		{logical.UpdateOperation, "report", map[string]any{"key": key}},
		{logical.UpdateOperation, "lookup", map[string]any{"key": key}},
		{logical.UpdateOperation, "import", map[string]any{"batch": `{"role":"i","key":"` + strings.Repeat("z3", 10) + `"}`}},
		{logical.UpdateOperation, "tidy", nil},
		{logical.UpdateOperation, "usage", map[string]any{"instance": "i", "sequence": 1, "batch": `{}`}},
		{logical.UpdateOperation, "bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false}},
		{logical.UpdateOperation, "verify", map[string]any{"key": unknown}},
		{logical.UpdateOperation, "verify", map[string]any{"batch": `{"key":"` + key + `"}` + "\n" + `{"key":"` + unknown + `"}`}},
		{logical.UpdateOperation, "verify", map[string]any{"key_id": "AAAAAAAAAAAA", "role_id": id}},
		{logical.UpdateOperation, "verify/d", map[string]any{"key": key}},
	}
	declared, _ := mountAs(t, c.refusing, a.clock, consts.ReplicationPerformanceStandby)
	secondary, _ := mountAs(t, c.refusing, a.clock, consts.ReplicationPerformanceSecondary)
	// One whose server calls it a writer, and that only its storage knows better.
	undeclared, logged := mountAs(t, c.refusing, a.clock, 0)
	for name, m := range map[string]*testMount{"standby": declared, "secondary": secondary, "undeclared": undeclared} {
		m.tick()
		before := dump(t, a.storage)
		for _, q := range forwarded {
			if resp, err := m.send(q.op, q.path, q.data); err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
				if name == "undeclared" && (q.path == "lookup" || q.path == "usage" || strings.HasPrefix(q.path, "verify")) {
					continue // which write nothing, and are forwarded where the server says so
				}
				t.Errorf("%s: %s %s: %v %v", name, q.op, q.path, resp, err)
			}
		}
		for _, op := range []logical.Operation{logical.RenewOperation, logical.RevokeOperation} {
			if resp, err := m.onLease(op, lease, 0); err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
				t.Errorf("%s: %s: %v %v", name, op, resp, err)
			}
		}
		if got := m.read("creds/a"); got["api_key"] != key {
			t.Errorf("%s: creds/a is version %v", name, got["version"])
		}
		if got := m.write("verify", map[string]any{"key": key}); got["code"] != "VALID" || name != "undeclared" && number(t, got["cache_ttl"]) > 5 {
			t.Errorf("%s: %v", name, got)
		}
		if !reflect.DeepEqual(before, dump(t, a.storage)) {
			t.Errorf("%s: something was written", name)
		}
	}
	if logged.Len() != 0 {
		t.Errorf("logged: %s", logged)
	}
}

func TestNodeThatMayNotWriteTicksQuietly(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]consts.ReplicationState{"declared": consts.ReplicationPerformanceStandby, "undeclared": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared := &logical.InmemStorage{}
			clock := newFakeClock()
			a := mountOn(t, shared, clock)
			const roles = 60
			for i := range roles {
				a.write(fmt.Sprintf("roles/r%d", i), map[string]any{"rotation_period": "1h"})
			}
			storage := &standbyStorage{Storage: shared}
			m, logged := mountAs(t, storage, clock, state)
			clock.advance(2 * time.Hour)
			before := dump(t, shared)
			for range 3 {
				clock.advance(time.Minute)
				m.tick()
			}
			if !reflect.DeepEqual(before, dump(t, shared)) || logged.Len() != 0 {
				t.Errorf("it wrote, or logged %s", logged)
			}
			attempts := storage.attempts.Load()
			if limit := int64(2*tickWorkers + 5); attempts > limit || state != 0 && attempts > 0 {
				t.Errorf("it tried to write %d times", attempts)
			}
			if state != 0 {
				return
			}
			// It becomes the node that writes.
			storage.open.Store(true)
			clock.advance(time.Minute)
			m.tick()
			m.run(2 * time.Minute)
			for i := range roles {
				if got := m.read(fmt.Sprintf("creds/r%d", i)); got["version"] != 2 {
					t.Fatalf("role %d is at version %v", i, got["version"])
				}
			}
			newWorld().check(m, true)
		})
	}
}

func TestStandbyKnowsTheTimeOfTheWriter(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.active
	a.write("roles/a", map[string]any{"rotation_period": 0})
	old := a.read("creds/a")["api_key"]
	a.write("rotate/a", map[string]any{"grace_period": "1h"})
	slow := newFakeClock()
	c.standby.backend.clock = slow
	c.standby.expectVerdict(old, "VALID") // and so its caches are filled
	for range 61 {
		a.clock.advance(time.Minute)
		slow.advance(time.Minute)
		a.tick()
		for _, key := range c.written() {
			if key == markPath {
				c.deliver(key)
			}
		}
		c.standby.tick()
	}
	slow.advance(-2 * time.Minute) // its clock is slow; it was told nothing of the role
	if got := c.standby.write("verify", map[string]any{"key": old}); got["code"] != "RETIRED" {
		t.Errorf("%v", got)
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	shared := &logical.InmemStorage{}
	clock := newFakeClock()
	m := mountOn(t, shared, clock)
	w := newWorld()
	pair(map[string]any{"rotation_period": "24h", "grace_period": "2h"})(m, w)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	for i := range 6 {
		lease := w.issue(m, "d", fmt.Sprintf("lease %d", i))
		w.hold(m, "a", fmt.Sprintf("leader %d", i))
		switch i % 3 {
		case 0:
			m.write("rotate/a", map[string]any{"grace_period": 0})
			w.kills[fmt.Sprintf("leader %d", i)] = true
		case 1:
			m.write("revoke/a", map[string]any{"all": true})
			w.kills[fmt.Sprintf("leader %d", i)] = true
		case 2:
			if _, err := m.onLease(logical.RevokeOperation, lease, 0); err != nil {
				t.Fatal(err)
			}
			w.kills[fmt.Sprintf("lease %d", i)] = true
		}
		want := w.check(m, true)
		m = m.restart()
		if got := w.check(m, true); !reflect.DeepEqual(got, want) {
			t.Errorf("after the failover verify says %v, before it %v", got, want)
		}
		m.run(25 * time.Minute)
		w.check(m, true)
	}
}
