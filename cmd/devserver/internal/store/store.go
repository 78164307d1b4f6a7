// SPDX-License-Identifier: MPL-2.0

// Package store is the development server's storage: an ordered key space with atomic writes, held
// in memory or in one bbolt file, and the view of it that a mount gets.
package store

import (
	"errors"
	"strings"
)

// MaxValue is the largest value a write may carry: the limit of servers with integrated storage, kept
// here so that a record that is too large is noticed on a developer's machine.
const MaxValue = 1 << 20

// MaxKey is bbolt's limit, applied to both stores.
const MaxKey = 32 << 10

var (
	// ErrValueTooLarge refuses a value above MaxValue.
	ErrValueTooLarge = errors.New("put failed due to value being too large")
	// ErrKeyTooLarge refuses a key above MaxKey.
	ErrKeyTooLarge = errors.New("put failed due to key being too large")
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("storage is closed")

	errEmptyKey  = errors.New("storage key is empty")
	errDirectory = errors.New("storage key ends in a slash")
)

// Write is one change: a nil Value deletes.
type Write struct {
	Key   string
	Value []byte
}

// Store is an ordered key space. Values that go in and come out are the caller's own copies.
type Store interface {
	// Get returns nil and no error for an absent key.
	Get(key string) ([]byte, error)
	// List returns the direct children of prefix in order, directories with a trailing slash: those
	// that follow after, at most limit of them if limit is positive.
	List(prefix, after string, limit int) ([]string, error)
	// Apply makes all writes or none, and returns when they are as durable as the store can make them.
	Apply(writes ...Write) error
	Close() error
}

func check(writes []Write) error {
	for _, w := range writes {
		switch {
		case w.Key == "":
			return errEmptyKey
		case strings.HasSuffix(w.Key, "/"):
			return errDirectory
		case len(w.Key) > MaxKey:
			return ErrKeyTooLarge
		case len(w.Value) > MaxValue:
			return ErrValueTooLarge
		}
	}
	return nil
}
