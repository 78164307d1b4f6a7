// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// adopted is a key to adopt, as far as that is known: under which id and digest
// it is stored.
type adopted struct {
	role     string
	record   *keyRecord
	over     *keyRecord // what is stored in its place, of which nothing came
	sum      [32]byte
	plain    string
	version  int
	expires  time.Time
	foreign  bool
	number   int // of the digest secret that a foreign key's id is made with
	weak     bool
	byDigest bool
	prefix   string // of a key of this engine's form, where it is known
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
	a.record = &keyRecord{Schema: recordSchema, ID: id, Digest: digest, Weak: a.weak}
}

// What is known of an imported key's strength; of another form it is told how many
// characters it has.
const (
	strengthOwn     = "256 bits" // it has this engine's form
	strengthWeak    = "weak: "   // it is too short for what is otherwise looked up
	strengthUnknown = "unknown: imported by digest"
)

// ids are the ids that the key may be stored under: its own, or for a foreign key
// one for each digest secret of the mount, the current one's first. Verification
// looks under those only that keys are stored under; a key that ended may be
// found under any.
func (a *adopted) ids(d *digestRecord) []string {
	ids := []string{a.record.ID}
	if !a.foreign {
		return ids
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(d.Secrets))) {
		if n != a.number {
			ids = append(ids, keyformat.ImportedID(d.Secrets[n], a.sum))
		}
	}
	return ids
}

// refuse refuses the key itself; no refusal shows it.
func (a *adopted) refuse(rule, todo string) error {
	field := "key"
	if a.byDigest {
		field = "sha256"
	}
	return refusal.New(field, nil, rule, todo)
}

// known looks at what is stored under an id of the key: the answer if this very
// import happened before, a refusal if the key ended for good or belongs to
// something else, and neither if nothing is stored there or nothing came of it.
// What that left behind is removed, since the record which leads to it is about to
// be written anew.
func (b *backend) known(ctx context.Context, s logical.Storage, id string, a *adopted, d *digestRecord) (map[string]any, error) {
	seen, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err != nil || seen == nil {
		return nil, err
	}
	// Under the lock no commit or purge of the role is half done.
	home, unlock, err := b.lockOf(ctx, s, seen.Role, seen.RoleID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err != nil || key == nil {
		return nil, err
	}
	if key.Role != seen.Role || key.RoleID != seen.RoleID {
		return nil, a.refuse("was changed by somebody else this moment", "repeat the request")
	}
	role, hidden, err := b.keeperOf(ctx, s, home, key)
	if err != nil {
		return nil, err
	}
	now := b.now()
	if role != nil {
		now = b.now(role.Committed)
	}
	how, st := ending(key, role, now)
	same := role != nil && !hidden && role.Name == a.role && !key.Dynamic
	switch {
	case neverCommitted(key, role), role == nil && how == "":
		if id == a.record.ID {
			a.over = key
		}
		return nil, b.dropLeft(ctx, s, key, role)
	case !b.matches(key, d, a.sum):
		return nil, a.refuseTaken()
	case how != "" && (!same || st.State == keyring.Revoked):
		return nil, a.refuse(how, "a key that ended cannot come back: make a new one")
	case same:
		done := map[string]any{"result": importRepeated, "role": role.Name, "version": key.Version, "key_id": key.ID, "role_id": role.ID}
		if how != "" {
			done["ended"] = stamp(st.Until)
		}
		return done, nil
	case !hidden:
		return nil, a.refuseTaken()
	case role.restorable(now):
		return nil, a.refuse("belongs to a role that was deleted and can still be restored", "restore it, or wait until it is gone")
	default:
		return nil, a.refuse("belongs to a role that was deleted and is being removed", "repeat the request in some minutes")
	}
}

func (a *adopted) refuseTaken() error {
	return a.refuse("is known to this mount already, as another role's key or with another value", "each key belongs to one role")
}

// neverCommitted reports whether nothing came of the key: no version of its role,
// or of the copy, has it, and none had it that ended.
func neverCommitted(key *keyRecord, role *roleRecord) bool {
	if role == nil || role.stub() || key.Dynamic || key.End != nil {
		return false
	}
	v := role.Ring.Get(key.Version)
	return v == nil || v.KeyID != key.ID
}

// keeperOf is the record that says what became of a key: its role's, or while the
// role is deleted the copy's; nil if both are gone. home is what the role is called
// now; the caller holds its lock.
func (b *backend) keeperOf(ctx context.Context, s logical.Storage, home string, key *keyRecord) (role *roleRecord, hidden bool, err error) {
	role, err = b.shownOf(ctx, s, home, key.RoleID)
	if err != nil {
		return nil, false, err
	}
	if role != nil {
		return role, role.marked(), nil
	}
	role, err = b.lockedCopy(ctx, s, key.RoleID)
	return role, true, err
}

// dropLeft removes what the record of a key that never came to be, or whose role is
// gone, leads to.
func (b *backend) dropLeft(ctx context.Context, s logical.Storage, key *keyRecord, role *roleRecord) error {
	switch {
	case key.Dynamic:
		return deleteRecord(ctx, s, issuedPath(key.RoleID, key.ID))
	case keepsPlaintext(role, key.Version):
		return nil // another key's, that was committed under the number
	default:
		return b.erasePlaintext(ctx, s, key.Role, key.RoleID, key.Version)
	}
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
	if err := tx.ownKeyByDigest(a); err != nil {
		return err
	}
	tx.note(historyEntry{Kind: eventImported, Version: max(last+1, a.version), KeyID: a.record.ID, Reason: a.strength})
	if _, err := tx.succeed(succession{grace: grace, adopt: a}); err != nil {
		return ringRefusal(err)
	}
	if a.foreign {
		// After the last refusal, and before the key's record is written.
		if err := tx.b.noteImported(tx.ctx, tx.s, a.number, a.weak); err != nil {
			return err
		}
	}
	return tx.bridge()
}

// maxImportYears is how far ahead the end of an imported key may lie: what is
// further ahead is meant to be no end, and nothing is cut silently.
const maxImportYears = 100

// writeAdopted writes the record of an imported key, unless what was looked at in
// its place has changed since: the key may have ended meanwhile, or tidy is about to
// remove what was left there.
func (tx *roleTx) writeAdopted(a *adopted) error {
	unlock := tx.b.lockKey(a.record.ID)
	defer unlock()
	stored, err := tx.b.lockedKey(tx.ctx, tx.s, a.record.ID)
	if err != nil {
		return err
	}
	if stored != nil && (a.over == nil || stored.RoleID != a.over.RoleID || stored.Version != a.over.Version || tombstone(stored)) {
		return a.refuse("was changed by somebody else this moment", "repeat the request")
	}
	return tx.b.commitKey(tx.ctx, tx.s, stored, a.record, nil)
}

// ownKeyByDigest refuses the digest of one of the role's own keys without its id.
// Such a key is found by its id alone, so a version that has only the digest would
// supersede it and never verify. Of other roles' keys nobody can tell from a digest
// that it is theirs; no import harms them.
func (tx *roleTx) ownKeyByDigest(a *adopted) error {
	if !a.byDigest || !a.foreign {
		return nil
	}
	d, err := tx.b.digests(tx.ctx, tx.s)
	if err != nil {
		return err
	}
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		if v.KeyID == "" || v.Foreign {
			continue
		}
		key, err := tx.b.keys.get(tx.ctx, tx.s, keyPath(v.KeyID))
		if err != nil {
			return err
		}
		if tx.b.matches(key, d, a.sum) {
			return a.refuse(fmt.Sprintf("is that of version %d of the role, key %s", v.N, v.KeyID), "there is nothing to adopt")
		}
	}
	return nil
}

const (
	importDone     = "imported"
	importRepeated = "already_imported"
	importRefused  = "refused"
)

// keepsPlaintext reports whether the plaintext under that number is another key's,
// one that was committed under the number that the left-over one was to have.
func keepsPlaintext(role *roleRecord, n int) bool {
	if role == nil {
		return false
	}
	v := role.Ring.Get(n)
	return v != nil && v.Plain
}
