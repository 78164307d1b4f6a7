// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

type importedRecord struct {
	Schema int `json:"schema"`
	// Numbers of digest secrets, newest first.
	Numbers []int `json:"numbers"`
	// Weak: among them are keys too short for what is otherwise looked up.
	Weak bool `json:"weak,omitempty"`
}

func (r *importedRecord) schema() int { return r.Schema }

// maxForeignSecrets bounds under how many digest secrets a string is looked for.
const maxForeignSecrets = 16

// same reports whether both say the same.
func (r *importedRecord) same(o *importedRecord) bool {
	return slices.Equal(r.Numbers, o.Numbers) && r.Weak == o.Weak
}

// with is what both say together.
func (r *importedRecord) with(o *importedRecord) *importedRecord {
	both := &importedRecord{Schema: recordSchema, Numbers: slices.Concat(r.Numbers, o.Numbers), Weak: r.Weak || o.Weak}
	newestFirst(both.Numbers)
	both.Numbers = slices.Compact(both.Numbers)
	return both
}

func newestFirst(numbers []int) { slices.SortFunc(numbers, func(a, b int) int { return b - a }) }

// importedForms says under which digest secrets imported keys may be found, and
// of what form.
func (b *backend) importedForms(ctx context.Context, s logical.Storage) (*importedRecord, error) {
	rec, err := b.imported.get(ctx, s)
	if err != nil {
		return nil, err
	}
	// What tidy has put aside counts still. It has a record of its own, which an
	// older build leaves alone.
	aside, err := b.aside.get(ctx, s)
	if err != nil || len(aside.Numbers) == 0 && !aside.Weak {
		return rec, err
	}
	return rec.with(aside), nil
}

// mayBe reports whether a string of that form may be an imported key.
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

// noteImported makes verification look for foreign keys under digest secret n.
// It is to be called before the first record of such a key is written.
func (b *backend) noteImported(ctx context.Context, s logical.Storage, n int, weak bool) error {
	forms, err := b.importedForms(ctx, s)
	if err != nil {
		return err
	}
	if !slices.Contains(forms.Numbers, n) && len(forms.Numbers) >= maxForeignSecrets {
		return refusal.New("key", nil, fmt.Sprintf("has another form than this engine's, and such keys are stored under %d digest secrets already: each makes every look-up of one dearer", maxForeignSecrets),
			"let the keys that were imported under the oldest end, and run tidy twice; or rotate their roles, whose new keys need no look-up")
	}
	_, err = b.imported.change(ctx, s, func(stored *importedRecord) (*importedRecord, error) {
		next := stored.with(&importedRecord{Numbers: []int{n}, Weak: weak})
		if next.same(stored) {
			return nil, nil
		}
		return next, nil
	})
	return err
}

// replaceForms writes what one of the two records is to say, if that is something
// else. The caller holds importMu.
func (b *backend) replaceForms(ctx context.Context, s logical.Storage, in *cell[importedRecord], old, next *importedRecord) error {
	if next.same(old) {
		return nil
	}
	return in.write(ctx, s, next)
}

// foreignID is the id, and the digest to store, of an imported key of foreign
// form, of which the sum is known.
func foreignID(d *digestRecord, sum [32]byte) (id, digest string) {
	secret := d.Secrets[d.Current]
	return keyformat.ImportedID(secret, sum), keyformat.Digest(secret, d.Current, sum)
}
