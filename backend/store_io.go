// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// getRecord reads and decodes one record; nil if there is none.
func getRecord[T any](ctx context.Context, s logical.Storage, path string) (*T, error) {
	if strings.Contains(path, "..") {
		// Storage views refuse such a path, so nothing was ever written there.
		return nil, nil
	}
	entry, err := s.Get(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", family(path), err)
	}
	if entry == nil {
		return nil, nil
	}
	return decoded[T](path, entry.Value)
}

// decoded is the record at the path, whose encoding is given; nil if it is to be taken
// for none.
func decoded[T any](path string, data []byte) (*T, error) {
	rec := new(T)
	if err := decodeRecord(data, rec); err != nil {
		return nil, fmt.Errorf("%s: %w", family(path), err)
	}
	if v, ok := any(rec).(interface{ hiddenAt(path string) bool }); ok && v.hiddenAt(path) {
		return nil, nil
	}
	return rec, nil
}

// decodeRecord refuses what a newer build wrote before it looks at the rest.
func decodeRecord(data []byte, into any) error {
	newest := recordSchema
	if v, ok := into.(interface{ newest() int }); ok {
		newest = v.newest()
	}
	if err := json.Unmarshal(data, into); err != nil {
		var head struct {
			Schema int `json:"schema"`
		}
		if json.Unmarshal(data, &head) == nil && head.Schema > newest {
			return fmt.Errorf("schema %d, this build knows up to %d: %w", head.Schema, newest, errSchema)
		}
		return fmt.Errorf("%w: %w", errDecoding, err)
	}
	if v, ok := into.(interface{ schema() int }); ok && v.schema() > newest {
		return fmt.Errorf("schema %d, this build knows up to %d: %w", v.schema(), newest, errSchema)
	}
	return nil
}

func putRecord(ctx context.Context, s logical.Storage, path string, rec any) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(path), err)
	}
	return putBytes(ctx, s, path, data)
}

func putBytes(ctx context.Context, s logical.Storage, path string, data []byte) error {
	if err := ordinary(path); err != nil {
		return err
	}
	return writeAt(ctx, s, path, data)
}

func deleteRecord(ctx context.Context, s logical.Storage, path string) error {
	if err := ordinary(path); err != nil {
		return err
	}
	return deleteAt(ctx, s, path)
}

// ordinary refuses a path that the list of places lacks, and one whose writes
// committed is to be told of.
func ordinary(path string) error {
	switch p := placeOf(path); {
	case p == nil:
		return fmt.Errorf("%s has no place in storage: store_paths.go lists them", family(path))
	case p.told:
		return fmt.Errorf("%s was to be written without its being told: store_commit.go writes it", family(path))
	default:
		return nil
	}
}

// writeAt writes, whatever the path.
func writeAt(ctx context.Context, s logical.Storage, path string, data []byte) error {
	if err := airborne(ctx); err != nil {
		return fmt.Errorf("writing %s: %w", family(path), err)
	}
	p := placeOf(path)
	entry := &logical.StorageEntry{Key: path, Value: data, SealWrap: p != nil && p.sealed}
	if err := s.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing %s: %w", family(path), err)
	}
	return nil
}

// deleteAt deletes, whatever the path.
func deleteAt(ctx context.Context, s logical.Storage, path string) error {
	if err := airborne(ctx); err != nil {
		return fmt.Errorf("deleting %s: %w", family(path), err)
	}
	if err := s.Delete(ctx, path); err != nil {
		return fmt.Errorf("deleting %s: %w", family(path), err)
	}
	return nil
}

func list(ctx context.Context, s logical.Storage, prefix string) ([]string, error) {
	names, err := s.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", family(prefix), err)
	}
	return names, nil
}

// family is the kind of record a path belongs to: what an error says instead of
// the path.
func family(path string) string {
	kind, _, _ := strings.Cut(path, "/")
	return "the " + kind + " record"
}

// fencedStorage asks before each write whether it may be made.
type fencedStorage struct {
	logical.Storage

	may func() error
}

func (s fencedStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if err := s.may(); err != nil {
		return err
	}
	return s.Storage.Put(ctx, e)
}

func (s fencedStorage) Delete(ctx context.Context, key string) error {
	if err := s.may(); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

// countedStorage counts the calls that are made.
type countedStorage struct {
	logical.Storage

	calls int
}

func (s *countedStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.calls++
	return s.Storage.List(ctx, prefix)
}

func (s *countedStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.calls++
	return s.Storage.Get(ctx, key)
}

func (s *countedStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	s.calls++
	return s.Storage.Put(ctx, e)
}

func (s *countedStorage) Delete(ctx context.Context, key string) error {
	s.calls++
	return s.Storage.Delete(ctx, key)
}

// meteredStorage counts the calls that are made, and measures them. All that the engine
// is called with goes through it.
type meteredStorage struct {
	logical.Storage

	b *backend
}

func (b *backend) metered(s logical.Storage) logical.Storage {
	if s == nil {
		return nil // a call that has none
	}
	return &meteredStorage{Storage: s, b: b}
}

func (s *meteredStorage) List(ctx context.Context, prefix string) (names []string, err error) {
	defer s.call("list", &err)()
	return s.Storage.List(ctx, prefix)
}

func (s *meteredStorage) Get(ctx context.Context, key string) (e *logical.StorageEntry, err error) {
	defer s.call("get", &err)()
	return s.Storage.Get(ctx, key)
}

func (s *meteredStorage) Put(ctx context.Context, e *logical.StorageEntry) (err error) {
	defer s.call("put", &err)()
	return s.Storage.Put(ctx, e)
}

func (s *meteredStorage) Delete(ctx context.Context, key string) (err error) {
	defer s.call("delete", &err)()
	return s.Storage.Delete(ctx, key)
}

// call counts a call that begins; the result is called at its end. What another node is
// to do is no failure of storage, and neither is a caller who goes away.
func (s *meteredStorage) call(operation string, err *error) func() {
	n, began := s.b.numbers, s.b.clock.Reading()
	n.storageCalls.WithLabelValues(operation).Inc()
	return func() {
		n.storageSeconds.WithLabelValues(operation).Observe((s.b.clock.Reading().steady - began.steady).Seconds())
		if *err != nil && !mustForward(*err) && !errors.Is(*err, context.Canceled) {
			n.storageErrors.WithLabelValues(operation).Inc()
		}
	}
}
