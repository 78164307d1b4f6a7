// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

type importedRecord struct {
	Schema int `json:"schema"`
	// Numbers of digest secrets, newest first.
	Numbers []int `json:"numbers"`
	// Weak: among them are keys too short for what is otherwise looked up.
	Weak bool `json:"weak,omitempty"`
}

func (r *importedRecord) schema() int { return r.Schema }

// importedState is this node's copy of it, absence included.
type importedState struct {
	mu    sync.Mutex // held from a Get to its fill, and by forget
	cache atomic.Pointer[importedRecord]
}

// importedForms says under which digest secrets imported keys may be found, and
// of what form.
func (b *backend) importedForms(ctx context.Context, s logical.Storage) (*importedRecord, error) {
	if rec := b.imported.cache.Load(); rec != nil {
		return rec, nil
	}
	b.imported.mu.Lock()
	defer b.imported.mu.Unlock()
	rec, err := getRecord[importedRecord](ctx, s, importedPath)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		rec = &importedRecord{Schema: recordSchema}
	}
	b.imported.cache.Store(rec)
	return rec, nil
}

// mayBe: a string of that form may be an imported key.
func (r *importedRecord) mayBe(text string) bool {
	switch keyformat.Classify(text) {
	case keyformat.Foreign:
		return len(r.Numbers) > 0
	case keyformat.Invalid:
		return r.Weak && len(text) > 0 && len(text) < keyformat.MinForeignLen
	default:
		return false
	}
}

// markImported makes verification look for foreign keys under digest secret n.
// It is to be called before the first record of such a key is written.
func (b *backend) markImported(ctx context.Context, s logical.Storage, n int, weak bool) error {
	b.imported.mu.Lock()
	defer b.imported.mu.Unlock()
	rec, err := getRecord[importedRecord](ctx, s, importedPath)
	if err != nil {
		return err
	}
	if rec == nil {
		rec = &importedRecord{}
	}
	if !slices.Contains(rec.Numbers, n) || weak && !rec.Weak {
		rec.Schema, rec.Weak = recordSchema, rec.Weak || weak
		if !slices.Contains(rec.Numbers, n) {
			rec.Numbers = append(rec.Numbers, n)
		}
		slices.SortFunc(rec.Numbers, func(a, b int) int { return b - a })
		b.imported.cache.Store(nil)
		if err := putRecord(ctx, s, importedPath, rec); err != nil {
			return err
		}
	}
	b.imported.cache.Store(rec)
	return nil
}

// forget makes the next look read it again.
func (i *importedState) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cache.Store(nil)
}

// foreignID is the id, and the digest to store, of an imported key of foreign
// form, of which the sum is known.
func foreignID(d *digestRecord, sum [32]byte) (id, digest string) {
	secret := d.Secrets[d.Current]
	return keyformat.ImportedID(secret, sum), keyformat.Digest(secret, d.Current, sum)
}
