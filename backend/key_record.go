// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/sdk/logical"
)

// mutateKey changes the record of a dynamic key under the key's lock, with one
// Put. fn gets a copy, nil if there is none; errUnchanged from it, like any
// other error, leaves the record as it was, and only the latter is returned.
func (b *backend) mutateKey(ctx context.Context, s logical.Storage, id string, fn func(*keyRecord) error) (*keyRecord, error) {
	unlock := b.lockKey(id)
	defer unlock()
	stored, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err != nil {
		return nil, err
	}
	var rec *keyRecord
	if stored != nil {
		c := *stored
		rec = &c
	}
	switch err := fn(rec); {
	case errors.Is(err, errUnchanged):
		return stored, nil
	case err != nil:
		return nil, err
	}
	if err := b.commitKey(ctx, s, stored, rec); err != nil {
		return nil, err
	}
	return rec, nil
}
