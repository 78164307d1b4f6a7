// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

var (
	errPutDisabled    = errors.New("put operations disabled in inmem backend")
	errGetDisabled    = errors.New("get operations disabled in inmem backend")
	errDeleteDisabled = errors.New("delete operations disabled in inmem backend")
	errListDisabled   = errors.New("list operations disabled in inmem backend")
)

// InmemStorage keeps everything in memory, for tests. The zero value is ready. It does not keep SealWrap,
// and does not copy values.
type InmemStorage struct {
	mu     sync.RWMutex
	keys   []string // sorted
	values map[string][]byte

	failPut, failGet, failDelete, failList bool
}

var _ Storage = (*InmemStorage)(nil)

// Get implements Storage.
func (s *InmemStorage) Get(ctx context.Context, key string) (*StorageEntry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failGet {
		return nil, errGetDisabled
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	value, ok := s.values[key]
	if !ok {
		return nil, nil
	}
	return &StorageEntry{Key: key, Value: value}, nil
}

// Put implements Storage.
func (s *InmemStorage) Put(ctx context.Context, entry *StorageEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failPut {
		return errPutDisabled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if i, found := slices.BinarySearch(s.keys, entry.Key); !found {
		s.keys = slices.Insert(s.keys, i, entry.Key)
	}
	if s.values == nil {
		s.values = make(map[string][]byte)
	}
	s.values[entry.Key] = entry.Value
	return nil
}

// Delete implements Storage.
func (s *InmemStorage) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failDelete {
		return errDeleteDisabled
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if i, found := slices.BinarySearch(s.keys, key); found {
		s.keys = slices.Delete(s.keys, i, i+1)
		delete(s.values, key)
	}
	return nil
}

// List implements Storage.
func (s *InmemStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failList {
		return nil, errListDisabled
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var children []string
	i, _ := slices.BinarySearch(s.keys, prefix)
	for i < len(s.keys) && strings.HasPrefix(s.keys[i], prefix) {
		child := s.keys[i][len(prefix):]
		slash := strings.IndexByte(child, '/')
		if slash < 0 {
			children = append(children, child)
			i++
			continue
		}
		children = append(children, child[:slash+1])
		// '0' comes right after '/': the first key after the directory.
		i, _ = slices.BinarySearch(s.keys, prefix+child[:slash]+"0")
	}
	return children, nil
}

func (s *InmemStorage) set(flag *bool, fail bool) *InmemStorage {
	s.mu.Lock()
	defer s.mu.Unlock()
	*flag = fail
	return s
}

// FailPut makes every Put fail.
func (s *InmemStorage) FailPut(fail bool) *InmemStorage { return s.set(&s.failPut, fail) }

// FailGet makes every Get fail.
func (s *InmemStorage) FailGet(fail bool) *InmemStorage { return s.set(&s.failGet, fail) }

// FailDelete makes every Delete fail.
func (s *InmemStorage) FailDelete(fail bool) *InmemStorage { return s.set(&s.failDelete, fail) }

// FailList makes every List fail.
func (s *InmemStorage) FailList(fail bool) *InmemStorage { return s.set(&s.failList, fail) }
