// SPDX-License-Identifier: MPL-2.0

// Package tiny is changed by the tests of the program beside it. Its own tests miss some of it on purpose.
package tiny

import (
	"cmp"
	"errors"
	"slices"
	"sync"
)

// limit is declared outside of functions: its mutants cannot share a binary.
const limit = 3

var errFull = errors.New("full")

// shelf has a mutex and two writes whose order matters.
type shelf struct {
	mu    sync.Mutex
	items []string
	log   []string
}

// put has a parameter without a name, and is tested to its boundary.
func (s *shelf) put(item string, _ bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) >= limit {
		return errFull
	}
	s.note("before " + item)
	s.keep(item)
	return nil
}

func (s *shelf) note(line string) { s.log = append(s.log, line) }

func (s *shelf) keep(item string) {
	s.items = append(s.items, item)
	s.note("kept " + item)
}

// oldest is tested without looking at the boundary.
func oldest(ages ...int) int {
	found := 0
	for _, age := range ages {
		if age > found {
			found = age
		}
	}
	return found
}

// sorted is generic, and its order is tested.
func sorted[T cmp.Ordered](_ int, list []T) []T {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(a, b) })
	return list
}

// box is generic, too.
type box[T any] struct{ full bool }

func (b *box[T]) fill(T) { b.full = true }

// safely recovers, which a copy that it calls could not.
func safely() (failed bool) {
	defer func() { failed = recover() != nil }()
	panic("as always")
}

// nobody is not tested.
func nobody() bool { return true }
