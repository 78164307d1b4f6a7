// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// adopted is a key to adopt, as far as that is known: under which id and digest
// it is stored.
type adopted struct {
	role     string
	record   *keyRecord
	sum      [32]byte
	plain    string
	version  int
	expires  time.Time
	foreign  bool
	number   int // of the digest secret that a foreign key's id is made with
	weak     bool
	strength string
	grace    *policy.Seconds
	policy   map[string]any // the fields that are named
	rotation bool           // something was said of automatic rotation
}

// ownRecord makes the record of a key of this engine's form.
func (a *adopted) ownRecord(d *digestRecord, id string) {
	a.record = &keyRecord{Schema: recordSchema, ID: id, Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, a.sum)}
}

// foreignRecord makes the record of a key of another form.
func (a *adopted) foreignRecord(d *digestRecord) {
	id, digest := foreignID(d, a.sum)
	a.foreign, a.number = true, d.Current
	a.record = &keyRecord{Schema: recordSchema, ID: id, Digest: digest}
}

// foreignIDs are the ids that a foreign key may be stored under: one for each
// digest secret under which keys were imported, and for the current one.
func (b *backend) foreignIDs(ctx context.Context, s logical.Storage, d *digestRecord, sum [32]byte) ([]string, error) {
	forms, err := b.importedForms(ctx, s)
	if err != nil {
		return nil, err
	}
	id, _ := foreignID(d, sum)
	ids := []string{id}
	for _, n := range forms.Numbers {
		if secret := d.Secrets[n]; secret != nil && n != d.Current {
			ids = append(ids, keyformat.ImportedID(secret, sum))
		}
	}
	return ids, nil
}

// alreadyImported looks at a key record that is there under the key's id: the
// answer if this very import happened before, a refusal if the key belongs to
// something else, and neither if nothing came of the record.
func (b *backend) alreadyImported(ctx context.Context, s logical.Storage, known *keyRecord, a *adopted, d *digestRecord) (map[string]any, error) {
	role, err := getRecord[roleRecord](ctx, s, rolePath(known.Role))
	if err != nil {
		return nil, err
	}
	if role == nil || role.ID != known.RoleID {
		if copied, err := getRecord[roleRecord](ctx, s, deletedPath(known.RoleID)); err != nil {
			return nil, err
		} else if copied != nil {
			return nil, refusal.New("key", nil, "belongs to a role that was deleted and can still be restored", "restore it, or wait until it is gone")
		}
		return nil, nil
	}
	v := role.Ring.Get(known.Version)
	if !known.Dynamic && known.End == nil && (v == nil || v.KeyID != known.ID) {
		return nil, nil // the commit never happened
	}
	if known.Role == a.role && !known.Dynamic && b.matches(known, d, a.sum) {
		return map[string]any{"result": importRepeated, "role": known.Role, "version": known.Version, "key_id": known.ID, "role_id": known.RoleID}, nil
	}
	return nil, refusal.New("key", nil, "is known to this mount already, as another role's key or with another value", "each key belongs to one role")
}

// dropLeftPlaintext erases what an import that never came to its commit left
// under the number it was to have. The record of the key is about to be written
// anew: afterwards nothing would lead there.
func (b *backend) dropLeftPlaintext(ctx context.Context, s logical.Storage, left *keyRecord) error {
	if left.Dynamic {
		return nil
	}
	unlock := b.lockRole(left.Role)
	defer unlock()
	role, err := getRecord[roleRecord](ctx, s, rolePath(left.Role))
	if err != nil {
		return err
	}
	if role != nil && role.ID == left.RoleID && keepsPlaintext(role, left.Version) {
		return nil
	}
	return b.erasePlaintext(ctx, s, left.Role, left.RoleID, left.Version)
}

// adopt makes the key the next version of the role.
func (tx *roleTx) adopt(a *adopted) error {
	last := tx.rec.Ring.Last
	if a.version != 0 && a.version <= last {
		return refusal.New("version", a.version, fmt.Sprintf("the role gave out numbers up to %d", last), "leave it out, or give a higher one")
	}
	switch {
	case a.expires.IsZero():
	case !a.expires.After(tx.now):
		return refusal.New("expires_at", stamp(a.expires), "is over", "there is nothing to adopt")
	case a.expires.After(tx.now.AddDate(maxImportYears, 0, 0)):
		return refusal.New("expires_at", stamp(a.expires), fmt.Sprintf("is more than %d years ahead", maxImportYears), "leave it out for a key without end")
	}
	grace, err := tx.requestedGrace(a.grace)
	if err != nil {
		return err
	}
	tx.note(historyEntry{Kind: eventImported, Version: max(last+1, a.version), KeyID: a.record.ID, Reason: a.strength})
	if _, err := tx.succeed(succession{grace: grace, adopt: a}); err != nil {
		return ringRefusal(err)
	}
	if a.foreign {
		// After the last refusal, and before the key's record is written.
		return tx.b.markImported(tx.ctx, tx.s, a.number, a.weak)
	}
	return nil
}

// maxImportYears is how far ahead the end of an imported key may lie: what is
// further ahead is meant to be no end, and nothing is cut silently.
const maxImportYears = 100

const (
	importDone     = "imported"
	importRepeated = "already_imported"
	importRefused  = "refused"
)

// keepsPlaintext: the plaintext under that number is another key's, one that
// was committed under the number that the left-over one was to have.
func keepsPlaintext(role *roleRecord, n int) bool {
	if role == nil {
		return false
	}
	v := role.Ring.Get(n)
	return v != nil && v.Plain
}
