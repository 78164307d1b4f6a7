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
		ask("verify "+name, logical.UpdateOperation, "verify", map[string]any{"key": key}, "code", "role", "state", "reason", "scopes", "metadata", "expires_at")
	}
	for _, role := range []string{"a", "b", "c", "e"} {
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
		{"rename", func() { a.write("restore/"+roleID, map[string]any{"name": "c"}) }},
		{"rotate what was renamed", func() { a.write("rotate/c", map[string]any{"grace_period": "9h"}); hold("a5", "c") }},
		{"delete what was renamed", func() { a.remove("c") }},
		{"rename again", func() { a.write("restore/"+roleID, map[string]any{"name": "e"}) }},
		{"delete the other", func() { a.remove("a") }},
		{"delete it", func() { a.remove("e") }},
		{"rename back", func() { a.write("restore/"+roleID, map[string]any{"name": "a"}) }},
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
