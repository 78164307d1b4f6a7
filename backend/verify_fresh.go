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
	key, err = b.keys.stored(ctx, s, path)
	if err == nil {
		b.keys.compared(path, key)
	}
	return key, true, err
}

// roleFor is the role that the key belongs to, nil if there is none; path is where it
// was seen last.
func (b *backend) roleFor(ctx context.Context, s logical.Storage, q *question, path string, key *keyRecord, clock time.Time) (*roleRecord, error) {
	if !q.fresh {
		return b.roleAt(ctx, s, path, key.Role, key.RoleID, clock)
	}
	moved, err := b.moveFor(ctx, s, q, key.RoleID, clock)
	if err != nil {
		return nil, err
	}
	if path = rolePath(key.Role); moved != nil {
		path = rolePath(moved.Name)
	}
	role, err := b.roles.stored(ctx, s, path)
	if err != nil {
		return nil, err
	}
	if role != nil && role.ID == key.RoleID && !role.stands(moved) {
		role = nil
	}
	b.roles.compared(path, role)
	if role == nil || role.ID != key.RoleID {
		return nil, nil
	}
	return role, nil
}

// moveFor is where the role with that id lives; nil where its keys know.
func (b *backend) moveFor(ctx context.Context, s logical.Storage, q *question, id string, clock time.Time) (*movedRecord, error) {
	if !q.fresh {
		return b.move(ctx, s, id, clock)
	}
	// That there were renames this node knows by itself: only one that may write
	// answers afresh, and it is who renames.
	moved, err := b.storedMove(ctx, s, id)
	if err == nil {
		b.moves.compared(movedPath(id), moved)
	}
	return moved, err
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
