// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"go.etcd.io/bbolt"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// The floor that the others are to be compared with: what recognising a key
// costs whatever surrounds it.
func BenchmarkVerifyFloor(b *testing.B) {
	secret := make([]byte, keyformat.DigestSecretLen)
	key, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	text := key.Reveal()
	ready := keyformat.NewSecret(1, secret)
	stored := ready.Digest(keyformat.Sum(text))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keyformat.Parse(text); err != nil || !ready.Equal(stored, keyformat.Sum(text)) {
			b.Fatal("the key was not recognised")
		}
	}
}

// verifyData is what a request says, as the reader hands it to a handler.
func (m *testMount) verifyData(data map[string]any) *input {
	return &input{fields: m.verifySpec.fields, values: data}
}

// BenchmarkVerifyHot is the handler of verify for a key that is cached.
func BenchmarkVerifyHot(b *testing.B) {
	m := newMount(b)
	m.write("roles/orders", map[string]any{"scopes": "orders:read,orders:write", "metadata": map[string]any{"team": "shop"}})
	key := m.read("creds/orders")["api_key"]
	req := m.request
	req.Operation, req.Path, req.Storage = logical.UpdateOperation, "verify", m.storage
	d := m.verifyData(map[string]any{"key": key})
	b.ReportAllocs()
	for b.Loop() {
		resp, err := m.verify(context.Background(), &req, d)
		if err != nil || resp.Data["valid"] != true {
			b.Fatal(resp, err)
		}
	}
}

// BenchmarkVerifyHotRequest is the same with everything that the framework does
// around a handler.
func BenchmarkVerifyHotRequest(b *testing.B) {
	m := newMount(b)
	m.write("roles/orders", map[string]any{"scopes": "orders:read,orders:write", "metadata": map[string]any{"team": "shop"}})
	req := m.request
	req.Operation, req.Path, req.Storage = logical.UpdateOperation, "verify", m.storage
	req.Data = map[string]any{"key": m.read("creds/orders")["api_key"]}
	b.ReportAllocs()
	for b.Loop() {
		resp, err := m.HandleRequest(context.Background(), &req)
		if err != nil || resp.Data["valid"] != true {
			b.Fatal(resp, err)
		}
	}
}

// BenchmarkVerifyBatch is a thousand cached keys in one request.
func BenchmarkVerifyBatch(b *testing.B) {
	m := newMount(b)
	lines := make([]string, maxBatchItems)
	for i := range lines {
		name := fmt.Sprintf("orders-%d", i%100)
		if i < 100 {
			m.write("roles/"+name, nil)
		}
		lines[i] = fmt.Sprintf(`{"key":%q}`, m.read("creds/" + name)["api_key"])
	}
	req := m.request
	req.Operation, req.Path, req.Storage = logical.UpdateOperation, "verify", m.storage
	d := m.verifyData(map[string]any{"batch": strings.Join(lines, "\n")})
	b.ReportAllocs()
	for b.Loop() {
		if resp, err := m.verify(context.Background(), &req, d); err != nil || len(resp.Data["results"].([]any)) != maxBatchItems {
			b.Fatal(resp, err)
		}
	}
}

// boltStorage is a storage in a file, as a server's integrated one is.
type boltStorage struct {
	logical.Storage // only to have the methods that the benchmark does not call
	db              *bbolt.DB
}

var boltBucket = []byte("b")

func (s *boltStorage) Get(_ context.Context, key string) (*logical.StorageEntry, error) {
	var value []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		value = bytes.Clone(tx.Bucket(boltBucket).Get([]byte(key)))
		return nil
	})
	if err != nil || value == nil {
		return nil, err
	}
	return &logical.StorageEntry{Key: key, Value: value}, nil
}

func (s *boltStorage) Put(_ context.Context, e *logical.StorageEntry) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(boltBucket).Put([]byte(e.Key), e.Value) })
}

func (s *boltStorage) Delete(_ context.Context, key string) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(boltBucket).Delete([]byte(key)) })
}

func (s *boltStorage) List(context.Context, string) ([]string, error) { return nil, nil }

// filledMount is a mount with n static roles on a file, and some of their keys,
// spread over all. The records are written past the engine, in order of their
// paths; what they look like is what the engine wrote for a role of its own.
func filledMount(b *testing.B, n, sample int) (*testMount, []string) {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "store"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(boltBucket); return err }); err != nil {
		b.Fatal(err)
	}
	m := mountOn(b, &boltStorage{db: db}, newFakeClock())
	m.write("roles/model", map[string]any{"scopes": "orders:read", "metadata": map[string]any{"team": "shop"}})
	model, err := m.roles.get(b.Context(), m.storage, rolePath("model"))
	if err != nil {
		b.Fatal(err)
	}
	digests, err := m.digests(b.Context(), m.storage)
	if err != nil {
		b.Fatal(err)
	}
	type entry struct {
		path string
		data []byte
	}
	put := func(entries []entry) {
		for part := range slices.Chunk(entries, 100000) {
			err := db.Update(func(tx *bbolt.Tx) error {
				bucket := tx.Bucket(boltBucket)
				bucket.FillPercent = 0.9
				for _, e := range part {
					if err := bucket.Put([]byte(e.path), e.data); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	keys := make([]string, 0, sample)
	keyEntries, roleEntries := make([]entry, 0, n), make([]entry, 0, min(n, 100000))
	for i := range n {
		key, rec, err := m.mintKey(digests, "ak")
		if err != nil {
			b.Fatal(err)
		}
		role := model.clone()
		role.Name, role.ID = fmt.Sprintf("r%08d", i), fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		role.Ring.Versions[0].KeyID = rec.ID
		rec.Role, rec.RoleID, rec.Version = role.Name, role.ID, 1
		keyData, err := json.Marshal(rec)
		if err != nil {
			b.Fatal(err)
		}
		roleData, err := json.Marshal(role)
		if err != nil {
			b.Fatal(err)
		}
		keyEntries = append(keyEntries, entry{keyPath(rec.ID), keyData})
		if roleEntries = append(roleEntries, entry{rolePath(role.Name), roleData}); len(roleEntries) == cap(roleEntries) {
			put(roleEntries)
			roleEntries = roleEntries[:0]
		}
		if i%(n/sample) == 0 && len(keys) < sample {
			keys = append(keys, key.Reveal())
		}
	}
	put(roleEntries)
	slices.SortFunc(keyEntries, func(x, y entry) int { return strings.Compare(x.path, y.path) })
	put(keyEntries)
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
	return m, keys
}

// BenchmarkVerifyCold is a key of which nothing is cached, on a file with few
// and with many keys. The two take turns: the ratio is what matters.
func BenchmarkVerifyCold(b *testing.B) {
	const round = 100
	sizes := [2]int{1000, 1000000}
	var mounts [2]*testMount
	var keys [2][]string
	for i, n := range sizes {
		mounts[i], keys[i] = filledMount(b, n, 1000)
		mounts[i].keys.resize(1)
		mounts[i].roles.resize(1)
		mounts[i].views.resize(1)
	}
	var spent [2]time.Duration
	asked := 0
	for b.Loop() {
		for i, m := range mounts {
			began := time.Now()
			for k := range round {
				q := question{key: keys[i][(asked+k)%len(keys[i])]}
				if v, err := m.verifyOne(b.Context(), m.storage, &q); err != nil || v.code != codeValid {
					b.Fatal(v.code, err)
				}
			}
			spent[i] += time.Since(began)
		}
		asked += round
	}
	b.ReportMetric(0, "ns/op")
	for i, n := range sizes {
		b.ReportMetric(float64(spent[i].Nanoseconds())/float64(asked), fmt.Sprintf("ns/keys=%d", n))
	}
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}

// BenchmarkVerifyBesideUnknown is a cached key alone and, taking turns, with
// unknown ones asked for beside it, 10,000 a second. A second core answers those.
func BenchmarkVerifyBesideUnknown(b *testing.B) {
	const (
		perSecond = 10000
		turn      = 100 * time.Millisecond
	)
	m := newMount(b)
	m.write("roles/r", nil)
	known := question{key: m.read("creds/r")["api_key"].(string)}
	others := make([]string, 20000)
	for i := range others {
		others[i] = unknownKey(b)
	}
	var unknown atomic.Int64
	flood := func(stop <-chan struct{}) {
		began, asked := time.Now(), 0
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			for ; asked < int(time.Since(began).Seconds()*perSecond); asked++ {
				q := question{key: others[int(unknown.Add(1))%len(others)]}
				if _, err := m.verifyOne(context.Background(), m.storage, &q); err != nil {
					b.Error(err)
				}
			}
		}
	}
	var spent [2]time.Duration
	var answered [2]int
	for b.Loop() {
		for beside := range 2 {
			stop := make(chan struct{})
			var wg sync.WaitGroup
			if beside == 1 {
				wg.Go(func() { flood(stop) })
			}
			began := time.Now()
			for time.Since(began) < turn {
				for range 100 {
					if v, err := m.verifyOne(b.Context(), m.storage, &known); err != nil || v.code != codeValid {
						b.Fatal(v.code, err)
					}
				}
				answered[beside] += 100
			}
			spent[beside] += time.Since(began)
			close(stop)
			wg.Wait()
		}
	}
	alone, beside := float64(spent[0].Nanoseconds())/float64(answered[0]), float64(spent[1].Nanoseconds())/float64(answered[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(alone, "ns-alone")
	b.ReportMetric(beside, "ns-beside")
	b.ReportMetric(100*(beside/alone-1), "%-worse")
	b.ReportMetric(float64(unknown.Load())/spent[1].Seconds(), "unknown/s")
}

// BenchmarkVerifyRefused is what the refusals cost that anybody can cause. They
// must not tell an unknown id, a wrong secret and a wrong role apart.
func BenchmarkVerifyRefused(b *testing.B) {
	m := newMount(b)
	m.write("roles/r", nil)
	m.write("roles/other", nil)
	key := m.read("creds/r")["api_key"].(string)
	for _, c := range []struct {
		name string
		q    question
	}{
		{"unknown", question{key: unknownKey(b)}},
		{"wrong-secret", question{key: withID(b, m.idOf(key))}},
		{"wrong-role", question{key: key, role: "other"}},
		{"malformed", question{key: key[1:]}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := m.verifyOne(b.Context(), m.storage, &c.q); err != nil || v.known != nil {
					b.Fatal(v.code, err)
				}
			}
		})
	}
}
