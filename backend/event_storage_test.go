// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// failsUnder is a storage in which writes below a prefix fail.
type failsUnder struct {
	logical.Storage

	prefix string
}

func (s *failsUnder) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.prefix != "" && strings.HasPrefix(e.Key, s.prefix) {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

func (s *failsUnder) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.prefix == key { // a record, not what is below it
		return nil, errStorage
	}
	return s.Storage.Get(ctx, key)
}
