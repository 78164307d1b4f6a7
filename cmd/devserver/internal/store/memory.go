// SPDX-License-Identifier: MPL-2.0

package store

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Memory is a Store that ends with the process.
type Memory struct {
	mu     sync.RWMutex
	root   *node
	closed bool
}

// node is one directory level, so that a List costs its children and not everything below them.
type node struct {
	values map[string][]byte
	dirs   map[string]*node
	// names caches the sorted children; nil after one was added or removed.
	names []string
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{root: &node{}}
}

// Get implements Store.
func (m *Memory) Get(key string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	dir, name := split(key)
	n := m.root.find(dir)
	if n == nil {
		return nil, nil
	}
	return bytes.Clone(n.values[name]), nil
}

// List implements Store.
func (m *Memory) List(prefix, after string, limit int) ([]string, error) {
	// The write lock, because a List may fill the cache of sorted names.
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	dir, partial := split(prefix)
	n := m.root.find(dir)
	if n == nil {
		return nil, nil
	}
	names := n.sorted()
	// A prefix that does not end in a slash selects by the rest of the name, and cuts it off.
	if partial != "" {
		lo := sort.SearchStrings(names, partial)
		hi := lo
		for hi < len(names) && strings.HasPrefix(names[hi], partial) {
			hi++
		}
		names = names[lo:hi]
	}
	out := make([]string, 0, len(names))
	for _, name := range names {
		name = name[len(partial):]
		if after != "" && name <= after {
			continue
		}
		out = append(out, name)
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return out, nil
}

// Apply implements Store.
func (m *Memory) Apply(writes ...Write) error {
	if err := check(writes); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	for _, w := range writes {
		segments := strings.Split(w.Key, "/")
		if w.Value == nil {
			m.root.remove(segments)
			continue
		}
		m.root.put(segments, slices.Clone(w.Value))
	}
	return nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func split(key string) (dir, name string) {
	i := strings.LastIndexByte(key, '/')
	return key[:i+1], key[i+1:]
}

// find walks to the directory dir, which is empty or ends in a slash.
func (n *node) find(dir string) *node {
	for n != nil && dir != "" {
		head, rest, _ := strings.Cut(dir, "/")
		n, dir = n.dirs[head], rest
	}
	return n
}

func (n *node) put(segments []string, value []byte) {
	for ; len(segments) > 1; segments = segments[1:] {
		child := n.dirs[segments[0]]
		if child == nil {
			child = &node{}
			if n.dirs == nil {
				n.dirs = map[string]*node{}
			}
			n.dirs[segments[0]] = child
			n.names = nil
		}
		n = child
	}
	if n.values == nil {
		n.values = map[string][]byte{}
	}
	if _, ok := n.values[segments[0]]; !ok {
		n.names = nil
	}
	if value == nil {
		value = []byte{}
	}
	n.values[segments[0]] = value
}

// remove deletes the value and every directory it leaves empty: an empty directory must not be listed.
func (n *node) remove(segments []string) {
	if len(segments) == 1 {
		if _, ok := n.values[segments[0]]; ok {
			delete(n.values, segments[0])
			n.names = nil
		}
		return
	}
	child := n.dirs[segments[0]]
	if child == nil {
		return
	}
	child.remove(segments[1:])
	if len(child.values) == 0 && len(child.dirs) == 0 {
		delete(n.dirs, segments[0])
		n.names = nil
	}
}

func (n *node) sorted() []string {
	if n.names == nil {
		n.names = make([]string, 0, len(n.values)+len(n.dirs))
		for name := range n.values {
			n.names = append(n.names, name)
		}
		for name := range n.dirs {
			n.names = append(n.names, name+"/")
		}
		slices.Sort(n.names)
	}
	return n.names
}
