// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// The records that decide about keys are written here and nowhere else: roles,
// keys, plaintexts. Each write is told to committed, whatever came of it, before
// the caller goes on. So nothing that has to learn of a commit can be forgotten.

// change is what one write did to a role, to a key or to a plaintext.
type change struct {
	what   changeKind
	role   string // name
	roleID string
	// Of a role: its record before and after. old is nil for a role that was made,
	// and the copy under deleted/ for one that was restored; rec is nil for one
	// that was deleted.
	old, rec *roleRecord
	// Of a key: its record before, where that is known, and after; nil if it was
	// removed. The record of a static role's key alone decides nothing.
	keyID       string
	oldKey, key *keyRecord
	// version is whose plaintext was stored or erased.
	version int
	// moved is where the role lives from now on; nil if that is forgotten.
	moved *movedRecord
	// unknown: the write returned an error, so what is stored may be either.
	unknown bool
}

type changeKind int

const (
	roleChange changeKind = iota
	keyChange
	plaintextChange
	moveChange
)

// committed is told of every change, under the lock of what changed.
func (b *backend) committed(c change) {
	switch c.what {
	case roleChange:
		b.roles.committed(rolePath(c.role), unless(c.unknown, c.rec))
	case keyChange:
		b.keys.committed(keyPath(c.keyID), unless(c.unknown, c.key))
	case plaintextChange:
		b.secretCache.committed(secretPath(c.roleID, c.version), nil) // filled when it is read
	case moveChange:
		b.moves.committed(movedPath(c.roleID), unless(c.unknown, c.moved))
	}
}

func unless[T any](not bool, v *T) *T {
	if not {
		return nil
	}
	return v
}

// commitRole writes the record of a role; data is its encoding.
func (b *backend) commitRole(ctx context.Context, s logical.Storage, old, rec *roleRecord, data []byte) error {
	err := writeAt(ctx, s, rolePath(rec.Name), data)
	b.committed(change{what: roleChange, role: rec.Name, roleID: rec.ID, old: old, rec: rec, unknown: err != nil})
	return err
}

// commitDeletion removes the record of a role.
func (b *backend) commitDeletion(ctx context.Context, s logical.Storage, old *roleRecord) error {
	err := deleteAt(ctx, s, rolePath(old.Name))
	b.committed(change{what: roleChange, role: old.Name, roleID: old.ID, old: old, unknown: err != nil})
	return err
}

// commitMove writes where a role lives that is about to come back.
func (b *backend) commitMove(ctx context.Context, s logical.Storage, moved *movedRecord) error {
	data, err := json.Marshal(moved)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(movedPrefix), err)
	}
	err = writeAt(ctx, s, movedPath(moved.RoleID), data)
	b.committed(change{what: moveChange, role: moved.Name, roleID: moved.RoleID, moved: moved, unknown: err != nil})
	return err
}

// forgetMove removes where a role lived that is gone for good.
func (b *backend) forgetMove(ctx context.Context, s logical.Storage, role, roleID string) error {
	err := deleteAt(ctx, s, movedPath(roleID))
	b.committed(change{what: moveChange, role: role, roleID: roleID, unknown: err != nil})
	return err
}

// commitKey writes the record of a key.
func (b *backend) commitKey(ctx context.Context, s logical.Storage, old, rec *keyRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(keyPrefix), err)
	}
	err = writeAt(ctx, s, keyPath(rec.ID), data)
	b.committed(change{
		what: keyChange, role: rec.Role, roleID: rec.RoleID, keyID: rec.ID, oldKey: old, key: rec, unknown: err != nil,
	})
	return err
}

// removeKey removes the record of a key.
func (b *backend) removeKey(ctx context.Context, s logical.Storage, old *keyRecord) error {
	err := deleteAt(ctx, s, keyPath(old.ID))
	b.committed(change{
		what: keyChange, role: old.Role, roleID: old.RoleID, keyID: old.ID, oldKey: old, unknown: err != nil,
	})
	return err
}

// storePlaintext stores the key of a version.
func (b *backend) storePlaintext(ctx context.Context, s logical.Storage, role *roleRecord, n int, plain string) error {
	data, err := json.Marshal(&secretRecord{Schema: recordSchema, Key: plain})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(secretPrefix), err)
	}
	err = writeAt(ctx, s, secretPath(role.ID, n), data)
	b.committed(change{what: plaintextChange, role: role.Name, roleID: role.ID, version: n, unknown: err != nil})
	return err
}

// erasePlaintext deletes the key of a version of the role with that name and id.
func (b *backend) erasePlaintext(ctx context.Context, s logical.Storage, role, roleID string, n int) error {
	err := deleteAt(ctx, s, secretPath(roleID, n))
	b.committed(change{what: plaintextChange, role: role, roleID: roleID, version: n, unknown: err != nil})
	return err
}
