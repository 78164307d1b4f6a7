// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
)

// What a transition tells is in the outbox before its commit, whatever it does. Where the
// outbox cannot take it a kill goes on: then the record itself says what is still to be
// told, and the next look at the role tells it.

// maxUntold is how many bytes a record holds of events that the outbox could not take.
const maxUntold = 16 << 10

// foretell puts what the transition tells into the outbox. gone: it deletes the role.
func (tx *roleTx) foretell(gone bool) error {
	c := roleChanged{old: tx.old, rec: tx.rec, now: tx.now, by: tx.by.tells(), gone: gone}
	facts, err := tx.b.addressed(tx.ctx, tx.s, c.facts())
	var owed []fact
	if err == nil {
		owed, err = tx.owed()
	}
	if err != nil {
		if err := tx.optional(err); err != nil || gone || tx.hidden {
			return err
		}
		facts = c.facts() // whoever looks at the role next finds out who wants to know
		tx.rec.Told = sequence(facts, tx.rec.Told, tx.now)
		tx.rec.Untold = untoldOf(slices.Concat(tx.rec.Untold, facts))
		return nil
	}
	tx.rec.Told = sequence(facts, tx.rec.Told, tx.now)
	facts = slices.Concat(owed, facts)
	tx.rec.Untold = nil
	of := forWhat{proof: proofRole, role: tx.rec.Name, roleID: tx.rec.ID}
	if gone {
		of.proof = proofGone
	}
	tx.told, err = tx.b.foretell(tx.ctx, tx.s, facts, of)
	if err := tx.optional(err); err != nil {
		return err
	}
	if err != nil && !gone && !tx.hidden {
		tx.rec.Untold, tx.told.kept = untoldOf(facts), true
	}
	if tx.told == nil {
		return nil
	}
	tx.rec.Commits = append(tx.rec.Commits, tx.told.rec.Commit)
	return tx.optional(tx.archiveCommits(commitsKept))
}

// owed are the events that the record holds, with those who want to know.
func (tx *roleTx) owed() ([]fact, error) {
	var all []fact
	for _, f := range tx.rec.Untold {
		if len(f.To) > 0 {
			all = append(all, f)
			continue
		}
		wanted, err := tx.b.addressed(tx.ctx, tx.s, []fact{f})
		if err != nil {
			return nil, err
		}
		all = append(all, wanted...)
	}
	return all, nil
}

// untoldOf is what of the events a record holds: what is most urgent first, in their
// order.
func untoldOf(facts []fact) []fact {
	keep := make([]bool, len(facts))
	left := maxUntold
	for urgency := range urgencies {
		for i := range facts {
			if urgencyOf(facts[i].Type) != urgency {
				continue
			}
			if size := encodedSize(facts[i]); size <= left {
				keep[i], left = true, left-size
			}
		}
	}
	var kept []fact
	for i := range facts {
		if keep[i] {
			kept = append(kept, facts[i])
		}
	}
	return kept
}

// tells is who is told to have caused what a transition tells.
func (a *actor) tells() teller {
	return teller{cause: a.cause, entityID: a.entityID, display: a.display, reason: a.reason}
}

// archiveCommits moves the ids of commits out of the record that are beyond most, half of
// them at once, to a page of the archive of their own.
func (tx *roleTx) archiveCommits(most int) error {
	if len(tx.rec.Commits) <= most {
		return nil
	}
	n := len(tx.rec.Commits) - most/2
	page := &archivePage{
		Schema: recordSchema, RoleID: tx.rec.ID, Role: tx.rec.Name, Page: tx.rec.Archived, Written: tx.now,
		Entries: []historyEntry{}, Commits: tx.rec.Commits[:n],
	}
	data, err := json.Marshal(page)
	if err != nil {
		return fmt.Errorf("encoding a page of commits: %w", err)
	}
	err = putBytes(tx.ctx, tx.s, archivePath(tx.rec.ID, page.Page), data)
	if err == nil {
		tx.rec.Archived++
	} else if len(tx.rec.Commits) <= 2*most {
		return err // the next commit tries again
	}
	tx.rec.Commits = slices.Clone(tx.rec.Commits[n:])
	return err
}

// owesNews reports whether the record holds events that the outbox could not take.
func (r *roleRecord) owesNews() bool { return len(r.Untold) > 0 }
