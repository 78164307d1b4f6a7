// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// A key that is presented after its end is told once a day. The entry in the outbox is
// the mark, too: it has a name that follows from version and day, and stays for that day.

// maxEndedUses is how many ended keys a node tells of in a day at most.
const maxEndedUses = 4096

// endedUse is the first use of the day.
type endedUse struct {
	fact   fact
	day    time.Time
	role   string
	roleID string
	told   bool
}

// noteEndedUse notes that a key was presented whose end is over. It makes no call: the
// next step tells it.
func (b *backend) noteEndedUse(role *roleRecord, key *keyRecord, st keyring.Status, now time.Time) {
	o := &b.outbox
	of := role.ID + "/" + strconv.Itoa(key.Version)
	if key.Dynamic {
		of = key.ID
	}
	day := now.UTC().Truncate(24 * time.Hour)
	o.mu.Lock()
	defer o.mu.Unlock()
	if u := o.ended[of]; u != nil && u.day.Equal(day) || u == nil && len(o.ended) >= maxEndedUses {
		return
	}
	if o.ended == nil {
		o.ended = map[string]*endedUse{}
	}
	o.ended[of] = &endedUse{
		day: day, role: role.Name, roleID: role.ID,
		fact: factAbout(role, tellsEndedUsed, now, map[string]any{
			"version": key.Version, "key_id": key.ID, "state": string(st.State), "reason": string(st.Reason), "ended_at": stamp(st.Until),
			"used_at": stamp(now), "cause": "use",
		}),
	}
	b.wakeOutbox()
}

// tellEndedUses tells what verifications have noted.
func (b *backend) tellEndedUses(ctx context.Context, w *tending) error {
	o, now := &b.outbox, b.clock.Now()
	today := now.UTC().Truncate(24 * time.Hour)
	due := map[string]*endedUse{}
	o.mu.Lock()
	for of, u := range o.ended {
		switch {
		case !u.told:
			due[of] = u
		case u.day.Before(today):
			delete(o.ended, of)
		}
	}
	o.mu.Unlock()
	for of, u := range due {
		if err := b.tellEndedUse(ctx, w, of, u); err != nil {
			return err
		}
		o.mu.Lock()
		u.told = true
		o.mu.Unlock()
	}
	return nil
}

func (b *backend) tellEndedUse(ctx context.Context, w *tending, of string, u *endedUse) error {
	sum := sha256.Sum256([]byte(of))
	commit := "used" + tagForm.EncodeToString(sum[:10])
	path := outboxPath(u.day, commit)
	there, err := getRecord[outboxRecord](ctx, w.s, path)
	if err != nil || there != nil {
		return err
	}
	facts, err := b.addressed(ctx, w.s, []fact{u.fact})
	if err != nil || len(facts) == 0 {
		return err
	}
	if err := w.fence(); err != nil {
		return err
	}
	b.numberLoose(facts, u.roleID)
	t := &telling{path: path, rec: &outboxRecord{
		Schema: recordSchema, Commit: commit, At: b.clock.Now().Truncate(time.Second), Proof: proofSelf,
		Role: u.role, RoleID: u.roleID, Facts: facts, Mark: true,
	}}
	if err := b.store(ctx, w.s, t); err != nil {
		return err
	}
	b.toldOutcome(t, nil)
	return nil
}

// marksUntil is until when the entry stays although all have been told.
func (r *outboxRecord) marksUntil() time.Time {
	if !r.Mark {
		return time.Time{}
	}
	return r.At.UTC().Truncate(24 * time.Hour).Add(25 * time.Hour)
}
