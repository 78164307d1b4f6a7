// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
)

// prefixRecord holds every prefix that a key of this mount may have, of ended
// keys too: a scanner that goes through old commits wants to know them.
type prefixRecord struct {
	Schema   int      `json:"schema"`
	Prefixes []string `json:"prefixes"` // sorted
	// Truncated: there were more than the record takes.
	Truncated bool `json:"truncated,omitempty"`
}

func (r *prefixRecord) schema() int { return r.Schema }

// settled: there is nothing to write down for the prefix.
func (r *prefixRecord) settled(prefix string) bool {
	_, known := slices.BinarySearch(r.Prefixes, prefix)
	return known || r.Truncated
}

// prefixState is this node's copy of it, absence included.
type prefixState struct {
	mu    sync.Mutex // held from a Get to its fill, and by forget
	cache atomic.Pointer[prefixRecord]
}

// forget makes the next look read it again.
func (p *prefixState) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache.Store(nil)
}

func (b *backend) knownPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	if rec := b.prefixes.cache.Load(); rec != nil {
		return rec, nil
	}
	b.prefixes.mu.Lock()
	defer b.prefixes.mu.Unlock()
	return b.loadPrefixes(ctx, s)
}

// loadPrefixes fills the copy, under its mutex.
func (b *backend) loadPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	rec, err := getRecord[prefixRecord](ctx, s, prefixesPath)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		rec = &prefixRecord{Schema: recordSchema}
	}
	b.prefixes.cache.Store(rec)
	return rec, nil
}

// notePrefix writes a prefix down before the first key that has it can count.
func (b *backend) notePrefix(ctx context.Context, s logical.Storage, prefix string) error {
	if rec := b.prefixes.cache.Load(); rec != nil && rec.settled(prefix) {
		return nil
	}
	b.prefixes.mu.Lock()
	defer b.prefixes.mu.Unlock()
	rec, err := b.loadPrefixes(ctx, s)
	if err != nil || rec.settled(prefix) {
		return err
	}
	next := &prefixRecord{Schema: recordSchema, Prefixes: rec.Prefixes, Truncated: len(rec.Prefixes) >= maxPrefixes}
	if !next.Truncated {
		at, _ := slices.BinarySearch(rec.Prefixes, prefix)
		next.Prefixes = slices.Insert(slices.Clone(rec.Prefixes), at, prefix)
	}
	b.prefixes.cache.Store(nil)
	if err := putRecord(ctx, s, prefixesPath, next); err != nil {
		return err
	}
	b.prefixes.cache.Store(next)
	return nil
}
