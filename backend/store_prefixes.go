// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"

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

func (b *backend) knownPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	return b.prefixes.get(ctx, s)
}

// notePrefix writes a prefix down before the first key that has it can count.
func (b *backend) notePrefix(ctx context.Context, s logical.Storage, prefix string) error {
	if rec := b.prefixes.known(); rec != nil && rec.settled(prefix) {
		return nil
	}
	_, err := b.prefixes.change(ctx, s, func(stored *prefixRecord) (*prefixRecord, error) {
		if stored.settled(prefix) {
			return nil, nil
		}
		next := &prefixRecord{Schema: recordSchema, Prefixes: stored.Prefixes, Truncated: len(stored.Prefixes) >= maxPrefixes}
		if !next.Truncated {
			at, _ := slices.BinarySearch(stored.Prefixes, prefix)
			next.Prefixes = slices.Insert(slices.Clone(stored.Prefixes), at, prefix)
		}
		return next, nil
	})
	return err
}
