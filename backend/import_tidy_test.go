// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// gated is the storage of one of two who work at once: before its call number stop it
// tells that it has come there, and waits until it may go on.
type gated struct {
	logical.Storage

	stop, calls, keyReads int
	key                   string
	there, on             chan struct{}
	lock                  sync.Locker // of the key
	unlocked              bool        // the key was written without it
}

func newGated(s logical.Storage, stop int) *gated {
	return &gated{Storage: s, stop: stop, there: make(chan struct{}), on: make(chan struct{})}
}

func (g *gated) call() {
	if g.calls++; g.calls == g.stop {
		g.there <- struct{}{}
		<-g.on
	}
}

func (g *gated) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	g.call()
	if key == g.key {
		g.keyReads++
	}
	return g.Storage.Get(ctx, key)
}

func (g *gated) List(ctx context.Context, prefix string) ([]string, error) {
	g.call()
	return g.Storage.List(ctx, prefix)
}

func (g *gated) Put(ctx context.Context, e *logical.StorageEntry) error {
	g.call()
	if e.Key == g.key && !heldLock(g.lock) {
		g.unlocked = true
	}
	return g.Storage.Put(ctx, e)
}

func (g *gated) Delete(ctx context.Context, key string) error {
	g.call()
	return g.Storage.Delete(ctx, key)
}

// importAgainstTidy is a key that a purged role has left, which an import gives to
// another role while tidy looks at it.
type importAgainstTidy struct {
	*testMount

	key, id     string
	before      string // the other role's current key until then
	imports     *gated
	tidies      *gated
	importEnds  chan error
	tidyEnds    chan error
	importMoved bool
}

func newImportAgainstTidy(t *testing.T, foreign bool, importStop, tidyStop int) *importAgainstTidy {
	t.Helper()
	m := newMount(t)
	x := &importAgainstTidy{testMount: m, importEnds: make(chan error, 1), tidyEnds: make(chan error, 1)}
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/other", map[string]any{"rotation_period": 0})
	x.before = m.read("creds/other")["api_key"].(string)
	if foreign {
		x.key = foreignKey(t, 40)
		x.id = m.importItems(map[string]any{"role": "gone", "key": x.key})[0]["key_id"].(string)
	} else {
		m.write("roles/gone", map[string]any{"rotation_period": 0})
		got := m.read("creds/gone")
		x.key, x.id = got["api_key"].(string), got["key_id"].(string)
	}
	m.remove("gone")
	m.clock.advance(2 * time.Hour)
	if !m.exists(keyPath(x.id)) || locksutil.LockForKey(m.roleLocks, "gone") == locksutil.LockForKey(m.roleLocks, "other") {
		t.Fatal("nothing is left, or the roles share a lock")
	}
	x.imports, x.tidies = newGated(m.storage, importStop), newGated(m.storage, tidyStop)
	x.imports.key, x.imports.lock = keyPath(x.id), locksutil.LockForKey(m.keyLocks, x.id)
	return x
}

func (m *testMount) exists(path string) bool {
	m.t.Helper()
	entry, err := m.storage.Get(context.Background(), path)
	if err != nil {
		m.t.Fatal(err)
	}
	return entry != nil
}

func (x *importAgainstTidy) startImport() {
	go func() {
		data, err := json.Marshal([]map[string]any{{"role": "other", "key": x.key, "grace_period": "1h"}})
		if err != nil {
			x.importEnds <- err
			return
		}
		req := x.request
		req.Operation, req.Path, req.Storage, req.Data = logical.UpdateOperation, "import", x.imports, map[string]any{"batch": string(data)}
		resp, err := x.HandleRequest(context.Background(), &req)
		if err == nil {
			result := resp.Data["results"].([]any)[0].(map[string]any)
			if x.importMoved = result["result"] == importDone; !x.importMoved && result["result"] != importRefused {
				err = fmt.Errorf("%v", result)
			}
		}
		x.importEnds <- err
	}()
}

func (x *importAgainstTidy) startTidy() {
	go func() {
		s := &countedStorage{Storage: x.tidies}
		now := x.clock.Now()
		own := &tick{b: x.backend, s: s, now: now}
		r := &tidyRun{b: x.backend, s: s, rec: &tidyRecord{}, tick: own, now: now, calls: maxTidyCalls}
		x.tidyEnds <- r.key(context.Background(), x.id)
	}()
}

// until waits until one has come to its stop, or has ended.
func (x *importAgainstTidy) until(g *gated, ends chan error) (stopped bool) {
	x.t.Helper()
	select {
	case <-g.there:
		return true
	case err := <-ends:
		if err != nil {
			x.t.Fatal(err)
		}
		return false
	}
}

// goOn lets one go on to its end.
func (x *importAgainstTidy) goOn(g *gated, ends chan error) {
	x.t.Helper()
	g.on <- struct{}{}
	if err := <-ends; err != nil {
		x.t.Fatal(err)
	}
}

// locked reports whether whoever stands still holds what both need: the lock of the
// role that is gone, and the key's.
func (x *importAgainstTidy) locked() (role, key bool) {
	return heldLock(locksutil.LockForKey(x.roleLocks, "gone")), heldLock(locksutil.LockForKey(x.keyLocks, x.id))
}

// holds: whatever came of the import, the key that is current now verifies and can be
// read, and goes on to when tidy has come by once more.
func (x *importAgainstTidy) holds() {
	x.t.Helper()
	if x.imports.unlocked {
		x.t.Error("the key was written without its lock")
	}
	want := x.before
	if x.importMoved {
		want = x.key
	}
	for range 2 {
		if got := x.verdict(want); got != "VALID" {
			x.t.Errorf("the current key is %s", got)
		}
		if got := x.read("creds/other")["api_key"]; got != want {
			x.t.Error("creds hands out another key")
		}
		x.checkCaches()
		x.clock.advance(30 * time.Minute)
		x.tidyAll()
		x.restart()
	}
}

// TestImportAgainstTidy lets the one come to each of its storage calls, then the other
// to each of its own, and then both to their ends: an import takes over what tidy is
// about to remove, and loses nothing of it.
func TestImportAgainstTidy(t *testing.T) {
	t.Parallel()
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprintf("import first, foreign %v", foreign), func(t *testing.T) {
			t.Parallel()
			eachPair(func(i, j int) (bool, bool) {
				x := newImportAgainstTidy(t, foreign, i, j)
				x.startImport()
				if !x.until(x.imports, x.importEnds) {
					return false, false
				}
				if role, key := x.locked(); role || key {
					x.goOn(x.imports, x.importEnds) // tidy has to wait for it
					return true, false
				}
				x.startTidy()
				more := x.until(x.tidies, x.tidyEnds)
				if more {
					role, key := x.locked()
					if past := x.imports.keyReads > 1; !key && (!role || past) {
						x.goOn(x.imports, x.importEnds)
						x.goOn(x.tidies, x.tidyEnds)
						x.holds()
						return true, true
					}
					x.goOn(x.tidies, x.tidyEnds)
				}
				x.goOn(x.imports, x.importEnds)
				x.holds()
				return true, more
			})
		})
		t.Run(fmt.Sprintf("tidy first, foreign %v", foreign), func(t *testing.T) {
			t.Parallel()
			eachPair(func(i, j int) (bool, bool) {
				x := newImportAgainstTidy(t, foreign, j, i)
				x.startTidy()
				if !x.until(x.tidies, x.tidyEnds) {
					return false, false
				}
				if role, key := x.locked(); role || key {
					x.goOn(x.tidies, x.tidyEnds) // the import has to wait for it
					return true, false
				}
				x.startImport()
				more := x.until(x.imports, x.importEnds)
				if more {
					if role, key := x.locked(); role || key {
						x.goOn(x.imports, x.importEnds)
						more = false
					}
				}
				if role, key := x.locked(); role || key {
					t.Fatal("a lock is left")
				}
				x.goOn(x.tidies, x.tidyEnds)
				if more {
					x.goOn(x.imports, x.importEnds)
				}
				x.holds()
				return true, x.imports.calls >= j
			})
		})
	}
}

// eachPair goes through all stops of the first, and for each through those of the
// second. try answers whether there were such stops.
func eachPair(try func(i, j int) (first, second bool)) {
	for i := 1; ; i++ {
		for j := 1; ; j++ {
			first, second := try(i, j)
			if !first {
				return
			}
			if !second {
				break
			}
		}
	}
}
