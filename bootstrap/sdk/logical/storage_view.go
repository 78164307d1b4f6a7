// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"errors"
	"strings"
)

// StorageView is the part of a Storage below a prefix.
type StorageView struct {
	storage Storage
	prefix  string
}

var _ Storage = (*StorageView)(nil)

// NewStorageView returns the part of storage below prefix, which should end in a slash.
func NewStorageView(storage Storage, prefix string) *StorageView {
	return &StorageView{storage: storage, prefix: prefix}
}

// Prefix returns the prefix.
func (s *StorageView) Prefix() string { return s.prefix }

// SubView returns the part below a further prefix.
func (s *StorageView) SubView(prefix string) *StorageView {
	return &StorageView{storage: s.storage, prefix: s.ExpandKey(prefix)}
}

// SanityCheck refuses keys that might lead out of the view.
func (s *StorageView) SanityCheck(key string) error {
	if strings.Contains(key, "..") {
		return ErrRelativePath
	}
	return nil
}

// ExpandKey adds the prefix.
func (s *StorageView) ExpandKey(suffix string) string { return s.prefix + suffix }

// TruncateKey removes the prefix.
func (s *StorageView) TruncateKey(full string) string { return strings.TrimPrefix(full, s.prefix) }

// List implements Storage.
func (s *StorageView) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.SanityCheck(prefix); err != nil {
		return nil, err
	}
	return s.storage.List(ctx, s.ExpandKey(prefix))
}

// Get implements Storage.
func (s *StorageView) Get(ctx context.Context, key string) (*StorageEntry, error) {
	if err := s.SanityCheck(key); err != nil {
		return nil, err
	}
	entry, err := s.storage.Get(ctx, s.ExpandKey(key))
	if err != nil || entry == nil {
		return nil, err
	}
	return &StorageEntry{
		Key:      s.TruncateKey(entry.Key),
		Value:    entry.Value,
		SealWrap: entry.SealWrap,
	}, nil
}

// Put implements Storage.
func (s *StorageView) Put(ctx context.Context, entry *StorageEntry) error {
	if entry == nil {
		return errors.New("cannot write nil entry")
	}
	if err := s.SanityCheck(entry.Key); err != nil {
		return err
	}
	return s.storage.Put(ctx, &StorageEntry{
		Key:      s.ExpandKey(entry.Key),
		Value:    entry.Value,
		SealWrap: entry.SealWrap,
	})
}

// Delete implements Storage.
func (s *StorageView) Delete(ctx context.Context, key string) error {
	if err := s.SanityCheck(key); err != nil {
		return err
	}
	return s.storage.Delete(ctx, s.ExpandKey(key))
}
