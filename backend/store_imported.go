// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"

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

// importedForms says under which digest secrets imported keys may be found, and
// of what form.
func (b *backend) importedForms(ctx context.Context, s logical.Storage) (*importedRecord, error) {
	return b.imported.get(ctx, s)
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
	_, err := b.imported.change(ctx, s, func(stored *importedRecord) (*importedRecord, error) {
		next := *stored
		next.Schema, next.Weak = recordSchema, stored.Weak || weak
		if !slices.Contains(stored.Numbers, n) {
			next.Numbers = append(slices.Clone(stored.Numbers), n)
			slices.SortFunc(next.Numbers, func(a, b int) int { return b - a })
		} else if next.Weak == stored.Weak {
			return nil, nil
		}
		return &next, nil
	})
	return err
}

// foreignID is the id, and the digest to store, of an imported key of foreign
// form, of which the sum is known.
func foreignID(d *digestRecord, sum [32]byte) (id, digest string) {
	secret := d.Secrets[d.Current]
	return keyformat.ImportedID(secret, sum), keyformat.Digest(secret, d.Current, sum)
}
