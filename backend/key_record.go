// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
)

// mutateKey changes the record of a dynamic key under the key's lock, with one
// Put. fn gets a copy, nil if there is none. Where it answers false, or an error,
// the record stays as it was.
func (b *backend) mutateKey(ctx context.Context, s logical.Storage, id string, fn func(*keyRecord) (bool, error)) (*keyRecord, error) {
	unlock := b.lockKey(id)
	defer unlock()
	stored, err := b.lockedKey(ctx, s, id)
	if err != nil {
		return nil, err
	}
	var rec *keyRecord
	if stored != nil {
		c := *stored
		rec = &c
	}
	switch changed, err := fn(rec); {
	case err != nil:
		return nil, err
	case !changed:
		return stored, nil
	}
	if err := b.commitKey(ctx, s, stored, rec); err != nil {
		return nil, err
	}
	return rec, nil
}
