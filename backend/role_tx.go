// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

const (
	// keepEnded is how many ended versions a role record remembers. How those
	// before ended is written into their key records.
	keepEnded = 20
	// maxRecordSize and sizeGoal bound a role record: above the goal, history
	// moves to the archive early.
	maxRecordSize = 256 << 10
	sizeGoal      = 160 << 10
)

// errUnchanged ends a transition that found nothing to do.
var errUnchanged = errors.New("unchanged")

// roleTx is one transition of one role, under the role's lock: it works on a
// copy of the stored record, and commit writes it with a single Put. What must
// exist before the record may point at it (keys, plaintexts, calendar entry,
// archive) is written before; what nothing points at any more is deleted after.
// A crash at any line leaves the old state or the new one, and at worst
// something that tidy finds.
type roleTx struct {
	b   *backend
	ctx context.Context //nolint:containedctx // a transition lives no longer than its call
	s   logical.Storage
	now time.Time
	by  actor

	old   *roleRecord // as stored, shared; nil for a role that is being created
	rec   *roleRecord // the copy
	terms terms
	lim   limits

	minted   []mintedKey
	warnings []string
	// kill: the transition ends something that must end; nothing that is not part
	// of that may stop it.
	kill bool
}

// mintedKey is a key whose records are to be written before the commit.
type mintedKey struct {
	version int
	record  *keyRecord
	plain   string // empty: not stored
	written bool   // its records are in storage already
}

// mutate runs fn on the role under its lock and commits what it changed.
// Whatever the clock alone did is settled first. errUnchanged from fn, like any
// other error, leaves the record as it was; only the latter is returned.
func (b *backend) mutate(ctx context.Context, s logical.Storage, name string, by actor, fn func(*roleTx) error) (*roleRecord, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	return b.mutateLocked(ctx, s, name, by, lim, fn)
}

func (b *backend) mutateLocked(ctx context.Context, s logical.Storage, name string, by actor, lim limits, fn func(*roleTx) error) (*roleRecord, error) {
	// Always from storage: another node may have written what this one has not
	// been told of yet.
	old, err := getRecord[roleRecord](ctx, s, rolePath(name))
	if err != nil {
		return nil, err
	}
	if old == nil {
		b.roles.drop(rolePath(name))
		return nil, noRole(name)
	}
	tx := &roleTx{b: b, ctx: ctx, s: s, by: by, old: old, rec: old.clone(), lim: lim}
	tx.now = b.now(old.Committed)
	if tx.terms, err = old.Policy.terms(old.ID, old.Type, lim); err != nil {
		return nil, fmt.Errorf("role %s: %w", name, err)
	}
	tx.record(tx.rec.Ring.Settle(tx.now), actor{cause: causePeriodic})
	if err := fn(tx); err != nil {
		if errors.Is(err, errUnchanged) {
			return old, nil
		}
		return nil, err
	}
	if err := tx.commit(); err != nil {
		return nil, err
	}
	return tx.rec, nil
}

// clone copies the record deeply enough for a transition to change anything.
func (r *roleRecord) clone() *roleRecord {
	c := *r
	c.Ring = r.Ring.Clone()
	c.History = append([]historyEntry(nil), r.History...)
	c.Requests = append([]replay(nil), r.Requests...)
	if r.Noise != nil {
		c.Noise = make(map[string]noise, len(r.Noise))
		for k, v := range r.Noise {
			c.Noise[k] = v
		}
	}
	return &c
}

// commit writes the transition.
func (tx *roleTx) commit() error {
	rec := tx.rec
	rec.Schema = recordSchema
	rec.Committed = tx.now
	rec.Seq++

	if err := tx.optional(tx.erase()); err != nil {
		return err
	}
	if err := tx.forget(); err != nil {
		return err
	}
	if err := tx.optional(tx.notePrefixes()); err != nil {
		return err
	}
	for i := range tx.minted {
		if tx.minted[i].written {
			continue
		}
		if err := tx.writeKey(&tx.minted[i]); err != nil {
			return err
		}
	}
	oldDue := rec.Due
	if err := tx.optional(tx.file()); err != nil {
		return err
	}
	if err := tx.optional(tx.attend()); err != nil {
		return err
	}
	data, err := tx.encode()
	if err != nil {
		return err
	}

	path := rolePath(rec.Name)
	if err := putBytes(tx.ctx, tx.s, path, data); err != nil {
		// The outcome is unknown: nothing is undone, and nobody trusts the cache.
		tx.b.roles.drop(path)
		return err
	}
	tx.b.roles.committed(path, rec)
	for i := range tx.minted {
		tx.b.keys.committed(keyPath(tx.minted[i].record.ID), tx.minted[i].record)
	}

	// From here on the transition has happened; what fails is left to the next
	// look at the role or to tidy.
	if !oldDue.IsZero() && !oldDue.Equal(rec.Due) {
		tx.b.unfile(tx.ctx, tx.s, oldDue, rec.Name)
	}
	tx.unattend()
	tx.eraseKilled()
	return nil
}

// erasePlaintext deletes the plaintext of a version.
func (tx *roleTx) erasePlaintext(n int) error {
	path := secretPath(tx.rec.ID, n)
	err := deleteRecord(tx.ctx, tx.s, path)
	tx.b.secretCache.drop(path)
	return err
}

// optional lets a kill go on where only upkeep failed: what is missed here is
// found by the next look at the role, or by tidy.
func (tx *roleTx) optional(err error) error {
	if err == nil || !tx.kill || mustForward(err) {
		return err
	}
	tx.b.Logger().Warn("a kill is committed although upkeep of the role failed", "role", tx.rec.Name, "error", err)
	return nil
}

// erase deletes the plaintexts that are due for it. What makes them due (an
// end, a revelation) is committed already, so the order of the two writes is
// free.
func (tx *roleTx) erase() error {
	if tx.old == nil {
		return nil
	}
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		stored := tx.old.Ring.Get(v.N)
		if stored == nil || (!marked(stored) && stored.Revealed.IsZero()) || !tx.erasable(stored, &tx.old.Ring) {
			continue
		}
		if err := tx.erasePlaintext(v.N); err != nil {
			return err
		}
		v.Plain = false
	}
	return nil
}

// erasable: the plaintext of v, a version of ring, is due to be erased.
func (tx *roleTx) erasable(v *keyring.Version, ring *keyring.Ring) bool {
	st, _ := ring.Status(v.N, tx.now)
	at := v.EraseAt(st)
	return !at.IsZero() && !at.After(tx.now)
}

func marked(v *keyring.Version) bool {
	return !v.RevokedAt.IsZero() || v.ExpiredSeen || !v.RetiredAt.IsZero()
}

// eraseKilled deletes, after the commit, the plaintexts that it made due. Their
// Plain mark stays until the next look at the role has deleted them again: a
// crash here must not leave one behind.
func (tx *roleTx) eraseKilled() {
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		if !tx.erasable(v, &tx.rec.Ring) {
			continue
		}
		if err := tx.erasePlaintext(v.N); err != nil {
			tx.b.Logger().Warn("a plaintext is erased later", "role", tx.rec.Name, "version", v.N, "error", err)
		}
	}
}

// forget drops the oldest ended versions, after their key records were told how
// they ended.
func (tx *roleTx) forget() error {
	if tx.kill {
		return nil // the next transition does it
	}
	for _, v := range tx.rec.Ring.Trim(tx.now, keepEnded) {
		if v.KeyID == "" {
			continue
		}
		path := keyPath(v.KeyID)
		stored, err := getRecord[keyRecord](tx.ctx, tx.s, path)
		if err != nil {
			return err
		}
		if stored == nil || stored.End != nil {
			continue
		}
		end := *stored
		st := endOf(&v)
		end.End = &st
		if err := putRecord(tx.ctx, tx.s, path, &end); err != nil {
			tx.b.keys.drop(path)
			return err
		}
		tx.b.keys.committed(path, &end)
	}
	return nil
}

// endOf is the end that is marked in a version.
func endOf(v *keyring.Version) keyEnd {
	switch {
	case !v.RevokedAt.IsZero():
		return keyEnd{State: keyring.Revoked, At: v.RevokedAt}
	case v.ExpiredSeen:
		return keyEnd{State: keyring.Expired, At: v.Expires}
	default:
		return keyEnd{State: keyring.Retired, Reason: v.RetiredBy, At: v.RetiredAt}
	}
}

// writeKey writes the records of a minted key. The one that points comes first:
// wherever a plaintext was left behind, tidy finds it through a key record.
func (tx *roleTx) writeKey(m *mintedKey) error {
	if m.record.Created.IsZero() {
		m.record.Created = tx.now
	}
	if err := putRecord(tx.ctx, tx.s, keyPath(m.record.ID), m.record); err != nil {
		return err
	}
	if m.plain == "" {
		return nil
	}
	secret := &secretRecord{Schema: recordSchema, Key: m.plain}
	return putRecord(tx.ctx, tx.s, secretPath(tx.rec.ID, m.version), secret)
}

// encode makes the bytes of the record and keeps them within bounds: history
// goes to the archive, then the oldest answers to request ids go.
func (tx *roleTx) encode() ([]byte, error) {
	if err := tx.optional(tx.archive(maxHistory)); err != nil {
		return nil, err
	}
	for keep := maxHistory / 2; ; keep /= 2 {
		data, err := json.Marshal(tx.rec)
		if err != nil {
			return nil, fmt.Errorf("encoding the role record: %w", err)
		}
		switch {
		case len(data) <= sizeGoal:
			return data, nil
		case len(tx.rec.History) > 0:
			err := tx.archive(keep)
			if err != nil && len(data) <= maxRecordSize && tx.optional(err) == nil {
				return data, nil // a kill does not wait for a smaller record
			}
			if err != nil {
				return nil, err
			}
		case len(tx.rec.Requests) > 0:
			tx.rec.Requests = tx.rec.Requests[(len(tx.rec.Requests)+1)/2:]
		case len(data) <= maxRecordSize:
			return data, nil
		default:
			return nil, fmt.Errorf("the role record has %d bytes, more than %d", len(data), maxRecordSize)
		}
	}
}
