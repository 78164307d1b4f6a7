// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"go.etcd.io/bbolt"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// benchStore is a storage that can be filled with many records at once.
type benchStore interface {
	logical.Storage
	// filling turns the cost of writing safely off and on.
	filling(bool) error
}

// treeStore keeps everything in memory; what a call costs does not depend on
// how much that is.
type treeStore struct {
	logical.Storage // only to have the methods that are not called

	mu     sync.RWMutex
	values map[string][]byte
	dirs   map[string]map[string]struct{} // children by prefix
}

func newTreeStore() *treeStore {
	return &treeStore{values: map[string][]byte{}, dirs: map[string]map[string]struct{}{}}
}

func (s *treeStore) filling(bool) error { return nil }

func (s *treeStore) Get(_ context.Context, key string) (*logical.StorageEntry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, ok := s.values[key]
	if !ok {
		return nil, nil
	}
	return &logical.StorageEntry{Key: key, Value: value}, nil
}

func (s *treeStore) Put(_ context.Context, e *logical.StorageEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.values[e.Key]
	s.values[e.Key] = e.Value
	for path := e.Key; !known && path != ""; {
		dir, name := parent(path)
		children := s.dirs[dir]
		if children == nil {
			children = map[string]struct{}{}
			s.dirs[dir] = children
		}
		_, known = children[name]
		children[name] = struct{}{}
		path = dir
	}
	return nil
}

func (s *treeStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.values[key]; !known {
		return nil
	}
	delete(s.values, key)
	for path := key; path != ""; {
		dir, name := parent(path)
		delete(s.dirs[dir], name)
		if len(s.dirs[dir]) > 0 {
			break
		}
		delete(s.dirs, dir)
		path = dir
	}
	return nil
}

func (s *treeStore) List(_ context.Context, prefix string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.dirs[prefix])), nil
}

// parent splits a path before its last name, which keeps the slash of a
// directory.
func parent(path string) (dir, name string) {
	i := strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/')
	return path[:i+1], path[i+1:]
}

// fileStore is a bbolt file, with one transaction per call but while it is being
// filled.
type fileStore struct {
	boltStorage

	fill  *bbolt.Tx
	count int
}

func newFileStore(b testing.TB) *fileStore {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "store"), 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(boltBucket); return err }); err != nil {
		b.Fatal(err)
	}
	return &fileStore{boltStorage: boltStorage{db: db}}
}

func (s *fileStore) filling(on bool) error {
	s.db.NoSync = on
	if on {
		var err error
		s.fill, err = s.db.Begin(true)
		return err
	}
	err := s.fill.Commit()
	s.fill = nil
	return errors.Join(err, s.db.Sync())
}

func (s *fileStore) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.fill == nil {
		return s.boltStorage.Put(ctx, e)
	}
	bucket := s.fill.Bucket(boltBucket)
	bucket.FillPercent = 0.9
	if err := bucket.Put([]byte(e.Key), e.Value); err != nil {
		return err
	}
	if s.count++; s.count%50000 != 0 {
		return nil
	}
	if err := s.fill.Commit(); err != nil {
		return err
	}
	var err error
	s.fill, err = s.db.Begin(true)
	return err
}

func (s *fileStore) List(_ context.Context, prefix string) ([]string, error) {
	var names []string
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(boltBucket).Cursor()
		p := []byte(prefix)
		for k, _ := c.Seek(p); k != nil && bytes.HasPrefix(k, p); {
			name, _, dir := strings.Cut(string(k[len(p):]), "/")
			if !dir {
				names = append(names, name)
				k, _ = c.Next()
				continue
			}
			names = append(names, name+"/")
			k, _ = c.Seek([]byte(prefix + name + "0")) // what follows the slash
		}
		return nil
	})
	return names, err
}

// calls counts what the engine asks of its storage.
type calls struct {
	logical.Storage

	all, lists, roles, values atomic.Int64 // writes of role records and of keys' values
}

func (c *calls) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	c.all.Add(1)
	return c.Storage.Get(ctx, key)
}

func (c *calls) List(ctx context.Context, prefix string) ([]string, error) {
	c.all.Add(1)
	c.lists.Add(1)
	return c.Storage.List(ctx, prefix)
}

func (c *calls) Put(ctx context.Context, e *logical.StorageEntry) error {
	c.all.Add(1)
	if strings.HasPrefix(e.Key, rolePrefix) {
		c.roles.Add(1)
	}
	if strings.HasPrefix(e.Key, secretPrefix) {
		c.values.Add(1)
	}
	return c.Storage.Put(ctx, e)
}

func (c *calls) Delete(ctx context.Context, key string) error {
	c.all.Add(1)
	return c.Storage.Delete(ctx, key)
}

// The plan of a filled store: besides the roles that are the store's size, whose
// rotation is far off, dueRoles rotate a little after dueAfter and as many more
// on the days from asleepFrom to asleepTo.
const (
	dueRoles             = 1000
	dueAfter             = 2 * time.Hour
	asleepFrom, asleepTo = 3 * 24 * time.Hour, 29 * 24 * time.Hour
	restFrom, restTo     = 100 * 24 * time.Hour, 190 * 24 * time.Hour
)

// fillStore writes n static roles, and those that will be due, past the API but
// in the engine's own records.
func fillStore(t testing.TB, s benchStore, n int) {
	t.Helper()
	m := mountOn(t, s, newFakeClock())
	m.write("config", map[string]any{"max_rotations_per_second": 0})
	m.write("roles/model", map[string]any{"scopes": "orders:read,orders:write", "metadata": map[string]any{"team": "shop"}, "owner": "shop"})
	ctx := context.Background()
	model, err := m.roles.get(ctx, s, rolePath("model"))
	if err != nil {
		t.Fatal(err)
	}
	digests, err := m.digests(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.filling(true); err != nil {
		t.Fatal(err)
	}
	// One family after the other and in order, as a file is filled best.
	start, total := m.clock.Now(), n+2*dueRoles
	lead := 10 * time.Minute
	stage := func(i int) time.Time {
		switch j := i - dueRoles; {
		case i < dueRoles:
			return start.Add(dueAfter + time.Duration(i%10)*time.Minute)
		case j < dueRoles:
			return start.Add(asleepFrom + time.Duration(j)*(asleepTo-asleepFrom)/dueRoles)
		default:
			return start.Add(restFrom + time.Duration(i-2*dueRoles)*(restTo-restFrom)/time.Duration(n))
		}
	}
	id := func(i int) string { return fmt.Sprintf("%012d", i*100000) }
	put := func(path string, rec any) {
		plant(t, s, path, rec)
	}
	for i := range total {
		if err := putBytes(ctx, s, duePath(stage(i).Truncate(time.Minute), benchRole(i)), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	key := &keyRecord{Schema: recordSchema, Version: 1, Digest: keyformat.Digest(digests.Secrets[1], 1, keyformat.Sum("model")), Created: start}
	for i := range total {
		key.ID, key.Role, key.RoleID = id(i), benchRole(i), benchID(i)
		put(keyPath(key.ID), key)
	}
	for i := range total {
		rec := model.clone()
		rec.Name, rec.ID = benchRole(i), benchID(i)
		rec.Ring.Versions[0].KeyID = id(i)
		rec.Due, rec.Next = stage(i).Truncate(time.Minute), stage(i).Add(lead)
		plan := *model.Plan
		plan.Slot = rec.Next
		rec.Plan = &plan
		put(rolePath(rec.Name), rec)
	}
	secret := &secretRecord{Schema: recordSchema}
	for i := range total {
		secret.Key = "ak_" + id(i) + strings.Repeat("x", 49)
		put(secretPath(benchID(i), 1), secret)
	}
	if err := s.filling(false); err != nil {
		t.Fatal(err)
	}
}

func benchRole(i int) string { return fmt.Sprintf("r%08d", i) }
func benchID(i int) string   { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// benchSizes are the numbers of roles; BENCH_SIZES=1000,10000 gives others.
func benchSizes(t testing.TB) []int {
	t.Helper()
	sizes := []int{1000, 10000, 100000, 1000000}
	if text := os.Getenv("BENCH_SIZES"); text != "" {
		sizes = nil
		for word := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, n)
		}
	}
	return sizes
}
