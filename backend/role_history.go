// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Kinds of history entries beyond those of versions (keyring.EventKind).
const (
	eventRoleCreated  = "role_created"
	eventRoleUpdated  = "role_updated"
	eventRoleDeleted  = "role_deleted"
	eventRoleRestored = "role_restored"
	eventRoleRenamed  = "role_renamed"
	eventReported     = "reported"
	eventRevealed     = "revealed"
	eventImported     = "imported"
)

const (
	// maxHistory is how many entries a role record holds before the older half
	// moves to the archive.
	maxHistory  = 64
	historyPage = 32
	// archiveKept is how long a page of the archive is kept after it was written.
	archiveKept = 400 * 24 * time.Hour

	maxReason = 512
)

// actor is who causes a transition and why.
type actor struct {
	cause     string
	entityID  string
	display   string
	caller    string // identifies the caller for request ids; never shown
	requestID string
	reason    string
	code      keyring.Reason // the reason code; empty where none is given
	bulk      bool           // a bulk job does it
}

// requester is the actor behind a request.
func requester(req *logical.Request) actor {
	a := actor{cause: causeRequest, entityID: req.EntityID, display: displayName(req)}
	switch {
	case req.EntityID != "":
		a.caller = "entity:" + req.EntityID
	case req.ClientTokenAccessor != "":
		a.caller = "accessor:" + req.ClientTokenAccessor
	default:
		a.caller = "display:" + req.DisplayName
	}
	return a
}

// note adds an entry to the role's history, as this transition's actor.
func (tx *roleTx) note(e historyEntry) {
	tx.rec.History = append(tx.rec.History, attributed(e, tx.by, tx.now))
}

func attributed(e historyEntry, by actor, now time.Time) historyEntry {
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Cause, e.EntityID, e.Display, e.RequestID, e.Code = by.cause, by.entityID, by.display, by.requestID, by.code
	if e.Reason == "" {
		e.Reason = by.reason
	}
	return e
}

// record adds what happened to versions to the role's history, and the reason code
// to the versions that it ends or gives an end.
func (tx *roleTx) record(events []keyring.Event, by actor) {
	for _, e := range events {
		entry := attributed(eventEntry(e), by, tx.now)
		if v := tx.rec.Ring.Get(e.Version); v != nil {
			switch e.Kind {
			case keyring.EventRevoked:
				v.Code = cmp.Or(by.code, v.Code, tx.unnamedCode())
				entry.Code = v.Code
				code := v.Code
				tx.tally(func(n *numbers) { n.revoked(code) })
			case keyring.EventRetired, keyring.EventCapped, keyring.EventEndSet:
				v.Code = cmp.Or(by.code, v.Code)
			default:
			}
		}
		tx.rec.History = append(tx.rec.History, entry)
	}
}

// unnamedCode is the reason code of a kill for which nobody named one: where the
// transition is not there to kill, another version has taken the place of a pending
// one.
func (tx *roleTx) unnamedCode() keyring.Reason {
	if tx.kill {
		return keyring.Unspecified
	}
	return keyring.Superseded
}

func eventEntry(e keyring.Event) historyEntry {
	return historyEntry{
		Time: e.At, Kind: string(e.Kind), Version: e.Version, KeyID: e.KeyID,
		Reason: string(e.Reason), Until: e.Until,
	}
}

// archive moves all but the newest keep entries out of the record, oldest
// first, a page at a time. Pages are written before the commit that drops their
// entries; a page of a commit that failed is overwritten by the next.
func (tx *roleTx) archive(keep int) error {
	for len(tx.rec.History) > keep {
		n := min(historyPage, len(tx.rec.History))
		page := &archivePage{
			Schema: recordSchema, RoleID: tx.rec.ID, Role: tx.rec.Name, Page: tx.rec.Archived,
			Written: tx.now, Entries: tx.rec.History[:n],
		}
		data, err := json.Marshal(page)
		for err == nil && len(data) > maxRecordSize && n > 1 {
			n /= 2
			page.Entries = tx.rec.History[:n]
			data, err = json.Marshal(page)
		}
		if err != nil {
			return fmt.Errorf("encoding a page of history: %w", err)
		}
		if err := putBytes(tx.ctx, tx.s, archivePath(tx.rec.ID, page.Page), data); err != nil {
			return err
		}
		tx.rec.Archived++
		tx.rec.History = append([]historyEntry(nil), tx.rec.History[n:]...)
	}
	return nil
}

// hear counts something that may happen often.
func (r *roleRecord) hear(kind string, n int64, first, last time.Time) {
	if r.Noise == nil {
		r.Noise = map[string]noise{}
	}
	e := r.Noise[kind]
	if e.Count == 0 || first.Before(e.First) {
		e.First = first
	}
	if last.After(e.Last) {
		e.Last = last
	}
	e.Count += n
	r.Noise[kind] = e
}

// goneRole is what the archive tells of a role of which nothing else is left;
// nil if that is nothing.
func goneRole(ctx context.Context, s logical.Storage, name, id string) (*roleRecord, error) {
	pages, err := archivePages(ctx, s, id)
	if err != nil || len(pages) == 0 {
		return nil, err
	}
	last := pages[len(pages)-1]
	page, err := getRecord[archivePage](ctx, s, archivePath(id, last))
	if err != nil || page == nil || page.Role != name {
		return nil, err
	}
	return &roleRecord{Name: name, ID: id, Archived: last + 1, Deleted: page.Written}, nil
}

// archivePages are the numbers of the pages that are kept of a role, ascending.
func archivePages(ctx context.Context, s logical.Storage, roleID string) ([]int, error) {
	names, err := list(ctx, s, archivePrefix+roleID+"/")
	if err != nil {
		return nil, err
	}
	var pages []int
	for _, name := range names {
		if n, ok := pageNumber(name); ok {
			pages = append(pages, n)
		}
	}
	slices.Sort(pages)
	return pages, nil
}
