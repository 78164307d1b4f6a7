// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// yielding is a storage whose calls let others go first, as one behind a network
// does.
type yielding struct{ logical.Storage }

func (s yielding) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	runtime.Gosched()
	e, err := s.Storage.Get(ctx, key)
	runtime.Gosched()
	return e, err
}

func (s yielding) Put(ctx context.Context, e *logical.StorageEntry) error {
	runtime.Gosched()
	err := s.Storage.Put(ctx, e)
	runtime.Gosched()
	return err
}

func (s yielding) Delete(ctx context.Context, key string) error {
	runtime.Gosched()
	return s.Storage.Delete(ctx, key)
}

// crowd is what all the goroutines of a test see together.
type crowd struct {
	m *testMount

	mu       sync.Mutex
	versions map[string]string // version of a role id: the key it is
	dead     map[string]bool   // key ids whose end was acknowledged
	ids      []string          // role ids that were deleted
	rotated  map[string]string // acknowledged: key id to version
	failures atomic.Int64
}

func (c *crowd) fail(format string, args ...any) {
	if c.failures.Add(1) < 10 {
		c.m.t.Errorf(format, args...)
	}
}

func (c *crowd) isDead(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead[id]
}

func (c *crowd) kill(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.dead[id] = true
	}
}

// ask sends a request that may be refused, since others are at work, but may not
// fail.
func (c *crowd) ask(op logical.Operation, path string, data map[string]any) map[string]any {
	resp, err := c.m.send(op, path, data)
	if status, text := httpStatus(resp, err); status >= 500 && (resp == nil || !resp.IsError()) {
		c.fail("%s %s: %d %s", op, path, status, text)
		return nil
	}
	if err != nil || resp == nil {
		return nil
	}
	return resp.Data
}

// verify presents a key. One whose end was acknowledged before is refused.
func (c *crowd) verify(key, id string) map[string]any {
	dead := c.isDead(id)
	got := c.ask(logical.UpdateOperation, "verify", map[string]any{"key": key})
	if got == nil {
		c.fail("verify failed")
		return nil
	}
	if dead && got["valid"] == true {
		c.fail("key %s verifies after its end was acknowledged", id)
	}
	return got
}

// read reads the current key and presents it.
func (c *crowd) read(role string) {
	got := c.ask(logical.ReadOperation, "creds/"+role, nil)
	if got == nil {
		return // deleted, or without current key
	}
	key, id := got["api_key"].(string), got["key_id"].(string)
	verdict := c.verify(key, id)
	if verdict == nil || verdict["role_id"] == nil {
		return // deleted meanwhile
	}
	c.isVersion(verdict["role_id"], got["version"], id)
}

// isVersion: a version is one key, forever.
func (c *crowd) isVersion(roleID, version any, keyID string) {
	name := fmt.Sprint(roleID, "/", version)
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.versions[name]; ok && known != keyID {
		c.fail("version %s is key %s and key %s", name, known, keyID)
	}
	c.versions[name] = keyID
}

func (c *crowd) rotate(role string, grace any) {
	data := map[string]any{"force": true}
	if grace != nil {
		data["grace_period"] = grace
	}
	if got := c.ask(logical.UpdateOperation, "rotate/"+role, data); got != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		id := got["key_id"].(string)
		if id == "" {
			return // a generation
		}
		if was, ok := c.rotated[id]; ok {
			c.fail("key %s was made twice, as %s and %v", id, was, got["version"])
		}
		c.rotated[id] = fmt.Sprint(got["version"])
	}
}

func (c *crowd) revoke(role string, data map[string]any) {
	if got := c.ask(logical.UpdateOperation, "revoke/"+role, data); got != nil {
		switch ids := got["revoked_key_ids"].(type) {
		case []string:
			c.kill(ids)
		case []any: // as the first time
			for _, id := range ids {
				c.kill([]string{id.(string)})
			}
		}
	}
}

// look: no record shows two current versions, or one out of order.
func (c *crowd) look(role string) {
	rec, err := getRecord[roleRecord](context.Background(), c.m.storage, rolePath(role))
	if err != nil {
		c.fail("%v", err)
	}
	if rec == nil {
		return
	}
	now, current := c.m.now(rec.Committed), 0
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		if st, _ := rec.Ring.Status(v.N, now); st.State == keyring.Current {
			current++
		}
		if i > 0 && rec.Ring.Versions[i-1].N >= v.N {
			c.fail("role %s: version %d behind %d", role, v.N, rec.Ring.Versions[i-1].N)
		}
		c.isVersion(rec.ID, v.N, v.KeyID)
	}
	if current > 1 {
		c.fail("role %s has %d current versions", role, current)
	}
}

func (c *crowd) dynamic(r *rand.Rand) {
	resp, err := c.m.send(logical.ReadOperation, "creds/d", nil)
	if err != nil || resp == nil {
		return
	}
	resp.Secret.IssueTime = c.m.clock.Now()
	key, id := resp.Data["api_key"].(string), resp.Data["key_id"].(string)
	c.verify(key, id)
	switch r.IntN(3) {
	case 0:
		if _, err := c.m.onLease(logical.RenewOperation, resp, 0); err != nil && !errors.Is(err, logical.ErrInvalidRequest) {
			c.fail("renew: %v", err)
		}
	case 1:
		if _, err := c.m.onLease(logical.RevokeOperation, resp, 0); err != nil {
			c.fail("lease revoke: %v", err)
		}
		c.kill([]string{id})
	case 2:
		c.revoke("d", map[string]any{"key_id": id})
	}
	c.verify(key, id)
}

func (c *crowd) remove(role string) {
	if got := c.ask(logical.DeleteOperation, "roles/"+role, nil); got != nil {
		c.mu.Lock()
		c.ids = append(c.ids, got["role_id"].(string))
		c.mu.Unlock()
	}
}

func (c *crowd) restore(r *rand.Rand) {
	c.mu.Lock()
	id := ""
	if len(c.ids) > 0 {
		id = c.ids[r.IntN(len(c.ids))]
	}
	c.mu.Unlock()
	if id == "" {
		return
	}
	data := map[string]any{}
	if r.IntN(2) == 0 {
		data["name"], data["force"] = []string{"a", "b", "c"}[r.IntN(3)], r.IntN(2) == 0
	}
	c.ask(logical.UpdateOperation, "restore/"+id, data)
}

// create makes or changes a role. Whether there is one may change between the
// server's two questions.
func (c *crowd) create(role string, n int) {
	for range 5 {
		_, err := c.m.send(logical.UpdateOperation, "roles/"+role, map[string]any{"rotation_period": "1h", "owner": fmt.Sprint(n)})
		if err == nil {
			return
		}
	}
}

// act does something, mostly what is done most.
func (c *crowd) act(n int) {
	r := rand.New(rand.NewPCG(uint64(n), 7)) //nolint:gosec // a test's choices
	role := []string{"a", "b", "c"}[r.IntN(3)]
	switch dice := r.IntN(100); {
	case dice < 36:
		c.read(role)
	case dice < 46:
		c.look(role)
	case dice < 60:
		c.rotate(role, []any{nil, 0, "1h"}[r.IntN(3)])
	case dice < 64:
		c.revoke(role, map[string]any{"all": true})
	case dice < 68:
		if got := c.ask(logical.ReadOperation, "creds/"+role, nil); got != nil {
			c.revoke(role, map[string]any{"key_id": got["key_id"]})
			c.verify(got["api_key"].(string), got["key_id"].(string))
		}
	case dice < 70:
		c.ask(logical.UpdateOperation, "rollback/"+role, nil)
	case dice < 72:
		c.ask(logical.UpdateOperation, "rotate/"+role, map[string]any{"stage": true})
		c.ask(logical.UpdateOperation, "promote/"+role, nil)
	case dice < 73:
		if c.remove(role); r.IntN(2) == 0 {
			c.create(role, n)
		}
	case dice < 82:
		c.create(role, n)
	case dice < 84:
		c.restore(r)
	case dice < 94:
		c.dynamic(r)
	case dice < 95:
		c.rotate("d", nil)
	case dice < 97:
		c.m.clock.advance(20 * time.Second)
		c.m.tick()
	default:
		c.ask(logical.ReadOperation, "status/"+role, nil)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	clock.leaps = true
	m := mountOn(withoutSchemas{t}, yielding{&logical.InmemStorage{}}, clock)
	c := &crowd{m: m, versions: map[string]string{}, dead: map[string]bool{}, rotated: map[string]string{}}
	for _, role := range []string{"a", "b", "c"} {
		m.write("roles/"+role, map[string]any{"rotation_period": "1h"})
	}
	m.write("roles/d", map[string]any{"type": "dynamic"})
	start := make(chan struct{})
	var wg sync.WaitGroup
	for n := range 2000 {
		wg.Go(func() {
			<-start
			c.act(2 * n)
			c.act(2*n + 1)
		})
	}
	close(start)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		stacks := make([]byte, 1<<20)
		t.Fatalf("they do not come to an end:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
	w := newWorld()
	w.check(m, true)
	for _, role := range []string{"a", "b", "c"} {
		c.look(role)
	}
	// No acknowledged rotation was lost: its key is a version of its role.
	for id, version := range c.rotated {
		rec, err := getRecord[keyRecord](context.Background(), m.storage, keyPath(id))
		if err != nil || rec == nil || fmt.Sprint(rec.Version) != version {
			t.Fatalf("key %s of version %s: %+v %v", id, version, rec, err)
		}
		var role *roleRecord
		if stored, err := m.kept(context.Background(), m.storage, rec.Role, rec.RoleID); err != nil {
			t.Fatal(err)
		} else if stored != nil && stored.ID == rec.RoleID && stored.Ring.Last > 0 {
			role = stored
		}
		if role == nil {
			t.Errorf("the role of key %s is gone", id)
		} else if v := role.Ring.Get(rec.Version); rec.End == nil && (v == nil || v.KeyID != id) {
			t.Errorf("version %s of role %s was acknowledged as key %s and is lost", version, rec.Role, id)
		}
	}
	if len(c.rotated) < 50 || len(c.dead) < 50 {
		t.Errorf("%d rotations, %d kills: too little happened", len(c.rotated), len(c.dead))
	}
}
