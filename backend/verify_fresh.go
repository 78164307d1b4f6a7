// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Where a verification finds records: in the caches, or in storage alone if it is
// to be fresh. A fresh one puts nothing into the caches. What it finds them to be
// behind of it takes out, so that the next plain verification does not say what a
// fresh one has just found to be over.

// keyAt is the key record at that path, nil if there is none; asked reports whether
// storage was.
func (b *backend) keyAt(ctx context.Context, s logical.Storage, q *question, path string, clock time.Time) (key *keyRecord, asked bool, err error) {
	if !q.fresh {
		return b.keys.find(ctx, s, path, clock)
	}
	key, err = getRecord[keyRecord](ctx, s, path)
	if err == nil {
		b.keys.compared(path, key)
	}
	return key, true, err
}

// roleAt is the role record at that path, nil if there is none.
func (b *backend) roleAt(ctx context.Context, s logical.Storage, q *question, path string, clock time.Time) (*roleRecord, error) {
	if !q.fresh {
		return b.roles.getOrAbsent(ctx, s, path, clock)
	}
	role, err := getRecord[roleRecord](ctx, s, path)
	if err == nil {
		b.roles.compared(path, role)
	}
	return role, err
}

// digestsFor is digests for a question.
func (b *backend) digestsFor(ctx context.Context, s logical.Storage, q *question) (*digestRecord, error) {
	if !q.fresh {
		return b.digests(ctx, s)
	}
	rec, err := b.digestSecrets.stored(ctx, s)
	if err == nil && rec == nil {
		err = errNoDigest
	}
	return rec, err
}

// formsFor is importedForms for a question.
func (b *backend) formsFor(ctx context.Context, s logical.Storage, q *question) (*importedRecord, error) {
	if !q.fresh {
		return b.importedForms(ctx, s)
	}
	rec, err := b.imported.stored(ctx, s)
	if err != nil {
		return nil, err
	}
	aside, err := b.aside.stored(ctx, s)
	if err != nil {
		return nil, err
	}
	return rec.with(aside), nil
}
