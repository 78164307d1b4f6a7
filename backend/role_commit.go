// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

const (
	// keepEnded is how many ended versions a role record remembers. How those
	// before ended is written into their key records.
	keepEnded = 20
	// keepLingering is how many of them keep their plaintexts for an hour after a
	// planned end: in a storm of rotations those of the oldest are erased early.
	keepLingering = 64
	// trimAtOnce and trimWithKill are how many versions one commit forgets at most,
	// if its size does not ask for more. A kill does not wait for many.
	trimAtOnce   = 100
	trimWithKill = 4
	// maxRecordSize and sizeGoal bound a role record: above the goal, history
	// moves to the archive early.
	maxRecordSize = 256 << 10
	sizeGoal      = 160 << 10
)

// commit writes the transition.
func (tx *roleTx) commit() error {
	err := tx.write()
	tx.count(err)
	if err != nil && tx.told != nil {
		tx.b.toldVoid(tx.told)
	}
	if err == nil && tx.rec.owesNews() && !tx.hidden {
		tx.b.missed.add(tx.rec.Name)
		tx.b.wake.at(tx.now)
	}
	for i := range tx.minted {
		switch {
		case err == nil:
			tx.b.begun.drop(tx.rec.ID, tx.minted[i].version)
		case outcomeUnknown(err):
			tx.begun(&tx.minted[i])
		}
	}
	return err
}

// begun notes that making a key failed.
func (tx *roleTx) begun(m *mintedKey) {
	tx.b.begun.keep(tx.rec.ID, m.version, m.plain, tx.b.clock.Now())
}

func (tx *roleTx) write() error {
	caller := tx.ctx
	ctx, done := tx.b.underway(caller)
	tx.ctx = ctx
	defer func() {
		tx.ctx = caller
		done()
	}()
	rec := tx.rec
	rec.Schema = recordSchema
	rec.Committed = tx.now
	rec.Seq++
	if rec.Type == policy.Dynamic {
		rec.TTLSeen = policy.Seconds(tx.terms.TTL / time.Second)
	}
	tx.replan()
	if err := tx.foretell(false); err != nil {
		return err
	}
	if tx.hidden {
		return tx.commitCopy()
	}

	if err := tx.optional(tx.erase()); err != nil {
		return err
	}
	if err := tx.optional(tx.trim(keepEnded, tx.trimmed())); err != nil {
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
	fileErr := tx.file()
	if err := tx.optional(fileErr); err != nil {
		return err
	}
	if err := tx.optional(tx.attend()); err != nil {
		return err
	}
	data, err := tx.encode()
	if err != nil {
		return err
	}
	if err := tx.optional(tx.renewCopy()); err != nil {
		return err
	}

	if err := tx.b.commitRole(tx.ctx, tx.s, tx.old, rec, data, tx.told); err != nil {
		return err // the outcome is unknown: nothing is undone
	}

	// From here on the transition has happened; what fails is left to the next
	// look at the role or to tidy.
	if fileErr != nil {
		tx.fileLate()
	}
	if !oldDue.IsZero() && !oldDue.Equal(rec.Due) {
		tx.b.unfile(tx.ctx, tx.s, oldDue, rec.Name)
	}
	tx.unattend()
	tx.eraseKilled()
	return nil
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

// erase deletes the plaintexts that are due for it, and those of the oldest ended
// versions where too many linger. What makes them due (an end, a revelation) is
// committed already, so the order of the two writes is free.
func (tx *roleTx) erase() error {
	if tx.old == nil {
		return nil
	}
	early := map[int]bool{}
	if _, lingering := tx.old.Ring.Forgettable(tx.now); len(lingering) > keepLingering {
		lingering = lingering[:len(lingering)-keepLingering]
		for _, n := range lingering[:min(len(lingering), tx.trimmed())] {
			early[n] = true
		}
	}
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		stored := tx.old.Ring.Get(v.N)
		if stored == nil || (!endMarked(stored) && stored.Revealed.IsZero()) || !early[v.N] && !tx.erasable(stored, &tx.old.Ring) {
			continue
		}
		if err := tx.b.erasePlaintext(tx.ctx, tx.s, tx.rec.Name, tx.rec.ID, v.N); err != nil {
			return err
		}
		v.Plain = false
	}
	return nil
}

// trimmed is how many versions the commit forgets at most.
func (tx *roleTx) trimmed() int {
	if tx.kill {
		return trimWithKill
	}
	return trimAtOnce
}

// erasable reports whether the plaintext of v, a version of ring, is due to be
// erased.
func (tx *roleTx) erasable(v *keyring.Version, ring *keyring.Ring) bool {
	st, _ := ring.Status(v.N, tx.now)
	at := v.EraseAt(st)
	return !at.IsZero() && !at.After(tx.now)
}

func endMarked(v *keyring.Version) bool {
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
		if err := tx.b.erasePlaintext(tx.ctx, tx.s, tx.rec.Name, tx.rec.ID, v.N); err != nil {
			tx.b.Logger().Warn("a plaintext is erased later", "role", tx.rec.Name, "version", v.N, "error", err)
		}
	}
}

// trim forgets the oldest ended versions, all but keep and most at once, after their
// key records were told how they ended.
func (tx *roleTx) trim(keep, most int) error {
	ended, _ := tx.rec.Ring.Forgettable(tx.now)
	for _, n := range ended[:min(max(0, len(ended)-keep), most)] {
		if err := tx.tellEnd(tx.rec.Ring.Get(n)); err != nil {
			return err
		}
		tx.rec.Ring.Forget(n)
	}
	return nil
}

// tellEnd writes into the record of the version's key how it ended.
func (tx *roleTx) tellEnd(v *keyring.Version) error {
	if v.KeyID == "" {
		return nil
	}
	stored, err := tx.b.lockedKey(tx.ctx, tx.s, v.KeyID)
	if err != nil || stored == nil || stored.End != nil {
		return err
	}
	end := *stored
	st := endOf(v)
	end.End, end.Reported, end.Code = &st, v.Reported, v.Code
	return tx.b.commitKey(tx.ctx, tx.s, stored, &end, nil)
}

// endOf is the end that is marked in a version.
func endOf(v *keyring.Version) keyEnd {
	switch {
	case !v.RevokedAt.IsZero():
		return keyEnd{State: keyring.Revoked, Reason: v.Code, At: v.RevokedAt}
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
	if m.adopt != nil {
		if err := tx.writeAdopted(m.adopt); err != nil {
			return err
		}
	} else if err := tx.b.commitKey(tx.ctx, tx.s, nil, m.record, nil); err != nil {
		return err
	}
	if m.plain == "" {
		return nil
	}
	return tx.b.storePlaintext(tx.ctx, tx.s, tx.rec, m.version, m.plain)
}

// encode makes the bytes of the record and keeps them within bounds: history goes to
// the archive, then ended versions go, then the oldest answers to request ids. No
// transition fails because there is too much of those.
func (tx *roleTx) encode() ([]byte, error) {
	if err := tx.optional(tx.archive(maxHistory)); err != nil {
		return nil, err
	}
	for {
		data, err := tx.rec.encode()
		if err != nil {
			return nil, err
		}
		if len(data) <= sizeGoal {
			return data, nil
		}
		fits := len(data) <= maxRecordSize
		smaller, err := tx.shrink(fits)
		if err := tx.optional(err); err != nil {
			return nil, err
		}
		switch {
		case smaller && err == nil:
		case fits && smaller:
			return tx.rec.encode() // some of it may have been put elsewhere
		case fits:
			return data, nil
		case tx.cut():
		default:
			return nil, fmt.Errorf("the role record has %d bytes, more than %d", len(data), maxRecordSize)
		}
	}
}

func (r *roleRecord) encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the role record: %w", err)
	}
	return data, nil
}

// shrink takes out of the record what it need not hold, and puts it where it
// belongs; false where there is nothing like that. A kill does not wait for more than
// history to go where the record fits.
func (tx *roleTx) shrink(fits bool) (bool, error) {
	if n := len(tx.rec.History); n > 0 {
		return true, tx.archive(n / 2)
	}
	if fits && tx.kill {
		return false, nil
	}
	if ended, _ := tx.rec.Ring.Forgettable(tx.now); len(ended) > keepEnded {
		return true, tx.trim(keepEnded, trimAtOnce)
	}
	if n := len(tx.rec.Requests); n > 0 {
		tx.rec.Requests = tx.rec.Requests[(n+1)/2:]
		return true, nil
	}
	return false, nil
}

// cut drops what the record cannot hold and what could not be put elsewhere: old
// history first, then answers to request ids, then what is remembered of ended
// versions. Tidy finds what hung on those. False where nothing is left to drop.
func (tx *roleTx) cut() bool {
	if n := len(tx.rec.History); n > 0 {
		tx.rec.History = append([]historyEntry(nil), tx.rec.History[(n+1)/2:]...)
		return true
	}
	if n := len(tx.rec.Requests); n > 0 {
		tx.rec.Requests = tx.rec.Requests[(n+1)/2:]
		return true
	}
	if tx.rec.owesNews() {
		tx.rec.Untold = nil
		return true
	}
	bare, lingering := tx.rec.Ring.Forgettable(tx.now)
	ended := slices.Concat(bare, lingering)
	for _, n := range ended[:(len(ended)+1)/2] {
		tx.rec.Ring.Forget(n)
	}
	return len(ended) > 0
}

// file writes the calendar entry for the next look at the role. It is left to
// unfile, after the commit, to take away the old one.
func (tx *roleTx) file() error {
	look := tx.nextLook()
	if look.IsZero() {
		tx.rec.Due = time.Time{}
		return nil
	}
	minute := tx.b.fileAt(look)
	if minute.Equal(tx.rec.Due) {
		return nil
	}
	if err := putBytes(tx.ctx, tx.s, duePath(minute, tx.rec.Name), dueValue); err != nil {
		return err
	}
	tx.rec.Due = minute
	return nil
}

// fileLate names a role that the commit could not file to the next tick, and files it
// once more for the one after a failover: its record does not know of that entry.
func (tx *roleTx) fileLate() {
	tx.b.missed.add(tx.rec.Name)
	tx.b.wake.at(tx.now)
	if look := tx.nextLook(); !look.IsZero() {
		if err := putBytes(tx.ctx, tx.s, duePath(tx.b.fileAt(look), tx.rec.Name), dueValue); err != nil {
			tx.b.Logger().Warn("a role is missing in the calendar", "role", tx.rec.Name, "error", err)
		}
	}
}

// notePrefixes writes down what the role's next keys, and those that this
// transition makes or adopts, begin with.
func (tx *roleTx) notePrefixes() error {
	if err := tx.b.notePrefix(tx.ctx, tx.s, tx.terms.Prefix, false); err != nil {
		return err
	}
	for i := range tx.minted {
		a := tx.minted[i].adopt
		if a == nil || a.prefix == "" {
			continue // the role's, or of another form, or known by its digest only
		}
		if err := tx.b.notePrefix(tx.ctx, tx.s, a.prefix, true); err != nil {
			return err
		}
	}
	return nil
}

// attend keeps the index in step with the transition: it adds the entry before
// the commit that needs it. The two records say on their own whether there is
// one already, so the usual transition writes nothing here.
func (tx *roleTx) attend() error {
	if !wantsAttention(tx.rec, tx.now) || (tx.old != nil && attended(tx.old) && !tx.back) {
		return nil
	}
	return putBytes(tx.ctx, tx.s, attentionPath(tx.rec.Name), dueValue)
}

// unattend removes, after the commit, the entry that it made unnecessary. Where
// that fails tidy does it.
func (tx *roleTx) unattend() {
	if tx.old == nil || !attended(tx.old) || attended(tx.rec) {
		return
	}
	if err := deleteRecord(tx.ctx, tx.s, attentionPath(tx.rec.Name)); err != nil {
		tx.b.Logger().Debug("a solved problem is still listed", "role", tx.rec.Name, "error", err)
	}
}
