// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"
)

// maxPrefixes bounds the record, and so the answer.
const maxPrefixes = 1000

// prefixRecord holds every prefix that a key of this mount may have, of ended
// keys too: a scanner that goes through old commits wants to know them.
type prefixRecord struct {
	Schema   int      `json:"schema"`
	Prefixes []string `json:"prefixes"` // of roles, sorted
	// Truncated: there were more than the record takes.
	Truncated bool `json:"truncated,omitempty"`
	// Imported are those that only imported keys have, sorted: they come from
	// elsewhere and take no room from the roles' own.
	Imported          []string `json:"imported,omitempty"`
	ImportedTruncated bool     `json:"imported_truncated,omitempty"`
	// Aside are those that made room since tidy found them nowhere, until its next
	// pass.
	Aside []string `json:"aside,omitempty"`
}

func (r *prefixRecord) same(o *prefixRecord) bool {
	return slices.Equal(r.Prefixes, o.Prefixes) && r.Truncated == o.Truncated && slices.Equal(r.Imported, o.Imported) &&
		r.ImportedTruncated == o.ImportedTruncated && slices.Equal(r.Aside, o.Aside)
}

func (r *prefixRecord) schema() int { return r.Schema }

// settled reports whether there is nothing to write down for the prefix, which a
// role has or only an imported key.
func (r *prefixRecord) settled(prefix string, imported bool) bool {
	if _, known := slices.BinarySearch(r.Prefixes, prefix); known || !imported {
		return known || r.Truncated
	}
	_, known := slices.BinarySearch(r.Imported, prefix)
	return known || r.ImportedTruncated
}

// with is the record with one more prefix, as far as it takes one.
func (r *prefixRecord) with(prefix string, imported bool) *prefixRecord {
	next := *r
	next.Schema = recordSchema
	list, truncated := &next.Prefixes, &next.Truncated
	if imported {
		list, truncated = &next.Imported, &next.ImportedTruncated
	}
	if *truncated = len(*list) >= maxPrefixes; *truncated {
		return &next
	}
	one := []string{prefix}
	next.Aside = without(r.Aside, one)
	if !imported {
		next.Imported = without(r.Imported, one)
	}
	*list = union(*list, one)
	return &next
}

// all are the prefixes to look for, sorted.
func (r *prefixRecord) all() []string { return union(r.Prefixes, union(r.Imported, r.Aside)) }

// complete reports whether every prefix that is to be looked for is among them.
func (r *prefixRecord) complete() bool { return !r.Truncated && !r.ImportedTruncated }

// union is what is in one of two sorted lists, sorted.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// without is the list less what is in those, which are sorted.
func without(list, those []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		_, found := slices.BinarySearch(those, s)
		return found
	})
}

func (b *backend) knownPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	return b.prefixes.get(ctx, s)
}

// notePrefix writes a prefix down before the first key that has it can count. It
// is a role's, or only that of an imported key.
func (b *backend) notePrefix(ctx context.Context, s logical.Storage, prefix string, imported bool) error {
	if rec := b.prefixes.known(); rec != nil && rec.settled(prefix, imported) {
		return nil
	}
	_, err := b.prefixes.change(ctx, s, func(stored *prefixRecord) (*prefixRecord, error) {
		if stored.settled(prefix, imported) {
			return nil, nil
		}
		return stored.with(prefix, imported), nil
	})
	return err
}
