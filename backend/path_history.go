// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// maxHistoryAnswer is more than a record or a page of the archive holds.
const maxHistoryAnswer = 1000

func (b *backend) pathsHistory() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "history/" + nameRegex + "/?", suffix: "history",
		synopsis: "What happened to the role: what, when, by whom, why.",
		fields: fieldsOf(nameOf(), fieldSet{
			"limit": {kind: kindInteger, query: true, def: maxHistoryAnswer, about: "Answer so many entries at most, the newest; from 1 to 1000. In a list 0 or less is no limit."},
			"after": {kind: kindText, query: true, empty: emptyTaken, about: "Lists only: list what is older than this entry."},
			"page": {
				kind: kindInteger, query: true,
				about: "Answer this page of the archive in place of the newest entries: older_page of an answer names the next.",
			},
			"role_id": {kind: kindText, query: true, about: "The role of that name that had this role_id, which may be deleted."},
		}),
		ops: map[logical.Operation]operation{
			logical.ReadOperation: {
				do: b.history, told: "The history.",
				answer: map[string]*framework.FieldSchema{
					"role":       {Type: framework.TypeString, Description: "The role.", Required: true},
					"role_id":    {Type: framework.TypeString, Description: "Its id, which is never reused.", Required: true},
					"deleted":    {Type: framework.TypeBool, Description: "The role that had this role_id is deleted.", Required: true},
					"page":       {Type: framework.TypeInt, Description: "The page of the archive; -1 for the newest entries.", Required: true},
					"older_page": {Type: framework.TypeInt, Description: "The page of the archive with what came before; -1 if there is none.", Required: true},
					"entries": {Type: framework.TypeSlice, Required: true, Description: "Newest first: time, kind, version, key_id, cause (periodic, request, lease, leak or limit), " +
						"entity_id, display_name, request_id, reason, reason_code, until, and for changes of the policy fields: each with old and new."},
					"noise": {Type: framework.TypeMap, Required: true, Description: "What may happen often and is counted rather than listed: by kind, its count, first and last time."},
				},
			},
			logical.ListOperation: {
				do: b.listHistory, verb: "list", summary: "What happened to the role, as a table.", told: "The entries, newest first, by their times.",
				answer: listFields("By entry: kind, version, cause, by (whom), and the reason; texts are cut."),
			},
		},
		help: `
Lists the transitions of the role and its versions, newest first, with their
causes: periodic is the clock or the automatic rotation, request an operator's
action, lease the end of a lease, leak the report of a key found in the open,
limit a bound of the mount or the role. What may happen often is counted apart.

Older entries are in an archive, which is kept for 400 days, also after the role
was deleted: give page=<older_page> of the previous answer to read it, and
role_id=<role_id> for a role that is gone.

As a list it is a table of the same entries that fits a screen; a read tells all of
each:

    vault list -detailed apikeys/history/<role>`,
	})}
}

// historyRequest is which part of a role's history a request asks for.
type historyRequest struct {
	name, roleID string
	limit, page  int // page -1: the newest entries
}

func readHistory(in *input, listed bool) (*historyRequest, error) {
	r := &historyRequest{name: in.text("name"), roleID: in.text("role_id"), page: -1}
	limit := in.integer("limit")
	switch {
	case listed:
		limit = maxHistoryAnswer // the list's window cuts
	case in.text("after") != "":
		return nil, refusal.New("after", nil, "is for lists", "list history/"+r.name+", or give page=<older_page>")
	}
	if limit < 1 || limit > maxHistoryAnswer {
		return nil, refusal.New("limit", limit, "must be from 1 to 1000", "leave it out for all of a page")
	}
	r.limit = int(limit)
	if in.given("page") {
		page := in.integer("page")
		if page < 0 || page > math.MaxInt32 {
			return nil, refusal.New("page", page, "is not a page of the archive", "leave it out for the newest entries")
		}
		r.page = int(page)
	}
	if r.roleID != "" && !uuidForm.MatchString(r.roleID) {
		return nil, refusal.New("role_id", r.roleID, "is not a role_id", "role_id is in the answer of the deletion, and of status/<role>")
	}
	return r, nil
}

func (b *backend) history(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readHistory(in, false)
	if err != nil {
		return nil, err
	}
	rec, entries, older, err := b.historyPage(ctx, req.Storage, r)
	if err != nil || rec == nil {
		return nil, err
	}
	use, err := b.usageOf(ctx, req.Storage, rec)
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"role": rec.Name, "role_id": rec.ID, "deleted": !rec.Deleted.IsZero(), "page": r.page, "older_page": older,
		"entries": historyView(entries, r.limit), "noise": noiseView(noiseWith(use, rec)),
	}), nil
}

// listHistory is history as a table. An entry goes by its time; of those of one
// second the later ones by a number, too.
func (b *backend) listHistory(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readHistory(in, true)
	if err != nil {
		return nil, err
	}
	rec, entries, older, err := b.historyPage(ctx, req.Storage, r)
	if err != nil || rec == nil {
		return nil, err
	}
	w := windowOf(in)
	byName := map[string]*historyEntry{}
	var names []string
	for _, e := range slices.Backward(newestFirstOf(entries)) {
		name := stamp(e.Time)
		for n := 2; byName[name] != nil; n++ {
			name = fmt.Sprintf("%s-%02d", stamp(e.Time), n)
		}
		byName[name] = &e
		if w.after == "" || name < w.after {
			names = append(names, name)
		}
	}
	slices.Reverse(names)
	resp, err := w.collectRest(names, func(name string) (map[string]any, error) {
		e := byName[name]
		return map[string]any{
			"kind": e.Kind, "version": e.Version, "cause": e.Cause, "by": column(e.Display, nameColumn), "reason": column(e.Reason, reasonColumn),
		}, nil
	})
	if err == nil && older >= 0 && resp.Data["next_after"] == nil {
		resp.AddWarning(fmt.Sprintf("older entries are in the archive: give page=%d", older))
	}
	return resp, err
}

// historyPage is what a request asks for of a role's history, and the page with what
// came before, -1 if there is none. No record: there is no such role.
func (b *backend) historyPage(ctx context.Context, s logical.Storage, r *historyRequest) (rec *roleRecord, entries []historyEntry, older int, err error) {
	rec, err = b.historyOf(ctx, s, r.name, r.roleID)
	if err != nil || rec == nil {
		return nil, nil, -1, err
	}
	oldest := rec.Archived
	if r.page < 0 {
		entries = b.recentHistory(rec)
	} else {
		if r.page >= rec.Archived {
			return nil, nil, -1, refusal.New("page", r.page, fmt.Sprintf("the archive has %d pages, from 0", rec.Archived), "begin with the older_page of the newest entries")
		}
		page, err := getRecord[archivePage](ctx, s, archivePath(rec.ID, r.page))
		if err != nil {
			return nil, nil, -1, err
		}
		if page == nil {
			return nil, nil, -1, refusal.New("page", r.page, "is not kept any more", "the archive goes back 400 days")
		}
		entries, oldest = page.Entries, r.page
	}
	older = -1
	if oldest > 0 {
		// A page that is over 400 days old may be gone: its absence is not worth
		// a promise, so it is looked for.
		page, err := s.Get(ctx, archivePath(rec.ID, oldest-1))
		if err != nil {
			return nil, nil, -1, fmt.Errorf("reading %s: %w", family(archivePrefix), err)
		}
		if page != nil {
			older = oldest - 1
		}
	}
	return rec, entries, older, nil
}

// recentHistory is what the record holds, and what the clock has done since
// its last commit.
func (b *backend) recentHistory(rec *roleRecord) []historyEntry {
	entries := slices.Clone(rec.History)
	if !rec.Deleted.IsZero() {
		return entries // its keys ended with it
	}
	ring := rec.Ring.Clone()
	now := b.now(rec.Committed)
	for _, e := range ring.Settle(now) {
		entries = append(entries, attributed(eventEntry(e), actor{cause: causePeriodic}, now))
	}
	return entries
}

// historyOf returns the record of the role of that name or, if an id is given,
// of the one that had it: the live one, the copy of a deleted one, or just what
// the archive tells of one that is gone. It returns nil if there is none.
func (b *backend) historyOf(ctx context.Context, s logical.Storage, name, id string) (*roleRecord, error) {
	live, err := b.roleNamed(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if id == "" || (live != nil && live.ID == id) {
		return live, nil
	}
	copied, err := getRecord[roleRecord](ctx, s, deletedPath(id))
	if err == nil && copied == nil {
		copied, err = b.shownOf(ctx, s, name, id)
	}
	if err != nil {
		return nil, err
	}
	// A policy may allow one role's history only: the id must not lead to
	// another's.
	if copied != nil {
		if copied.Name != name {
			return nil, nil
		}
		return copied, nil
	}
	// A role that was renamed is not gone, whatever the archive calls it.
	if home, err := b.homeOf(ctx, s, name, id); err != nil || home != name && home != nowhere {
		return nil, err
	}
	return goneRole(ctx, s, name, id)
}

// newestFirstOf are the entries by time. They come in the order in which they were
// written; what the clock did is written later than it happened.
func newestFirstOf(entries []historyEntry) []historyEntry {
	sorted := slices.Clone(entries)
	slices.Reverse(sorted)
	slices.SortStableFunc(sorted, func(a, b historyEntry) int { return b.Time.Compare(a.Time) })
	return sorted
}

// historyView shows the newest entries, newest first.
func historyView(entries []historyEntry, limit int) []any {
	sorted := newestFirstOf(entries)
	view := make([]any, 0, min(limit, len(sorted)))
	for i := range sorted[:min(limit, len(sorted))] {
		e := &sorted[i]
		fields := map[string]any{}
		for name, c := range e.Fields {
			fields[name] = map[string]any{"old": c.Old, "new": c.New}
		}
		view = append(view, map[string]any{
			"time": stamp(e.Time), "kind": e.Kind, "version": e.Version, "key_id": e.KeyID, "cause": e.Cause,
			"entity_id": e.EntityID, "display_name": e.Display, "request_id": e.RequestID, "reason": e.Reason, "reason_code": string(e.Code),
			"until": stamp(e.Until), "fields": fields,
		})
	}
	return view
}

func noiseView(counts map[string]noise) map[string]any {
	view := map[string]any{}
	for kind, n := range counts {
		view[kind] = map[string]any{"count": n.Count, "first": stamp(n.First), "last": stamp(n.Last)}
	}
	return view
}
