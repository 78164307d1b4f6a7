// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// maxHistoryAnswer is more than a record or a page of the archive holds.
const maxHistoryAnswer = 1000

func (b *backend) pathsHistory() []*framework.Path {
	return []*framework.Path{{
		Pattern: "history/" + nameRegex,
		Fields: map[string]*framework.FieldSchema{
			"name":    nameField(),
			"limit":   {Type: framework.TypeInt, Query: true, Default: maxHistoryAnswer, Description: "Answer so many entries at most, the newest; from 1 to 1000."},
			"page":    {Type: framework.TypeInt, Query: true, Description: "Answer this page of the archive in place of the newest entries: older_page of an answer names the next."},
			"role_id": {Type: framework.TypeString, Query: true, Description: "The role of that name that had this role_id, which may be deleted."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: handle(b.history), Summary: "What happened to the role: what, when, by whom, why.",
				Responses: ok("The history.", map[string]*framework.FieldSchema{
					"role":       {Type: framework.TypeString, Description: "The role.", Required: true},
					"role_id":    {Type: framework.TypeString, Description: "Its id, which is never reused.", Required: true},
					"deleted":    {Type: framework.TypeBool, Description: "The role that had this role_id is deleted.", Required: true},
					"page":       {Type: framework.TypeInt, Description: "The page of the archive; -1 for the newest entries.", Required: true},
					"older_page": {Type: framework.TypeInt, Description: "The page of the archive with what came before; -1 if there is none.", Required: true},
					"entries": {Type: framework.TypeSlice, Required: true, Description: "Newest first: time, kind, version, key_id, cause (periodic, request, lease, leak or limit), " +
						"entity_id, display_name, request_id, reason, until, and for changes of the policy fields: each with old and new."},
					"noise": {Type: framework.TypeMap, Required: true, Description: "What may happen often and is counted rather than listed: by kind, its count, first and last time."},
				}),
			},
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "read", OperationSuffix: "history"},
		HelpSynopsis: "What happened to the role: what, when, by whom, why.",
		HelpDescription: `
Lists the transitions of the role and its versions, newest first, with their
causes: periodic is the clock or the automatic rotation, request an operator's
action, lease the end of a lease, leak the report of a key found in the open,
limit a bound of the mount or the role. What may happen often is counted apart.

Older entries are in an archive, which is kept for 400 days, also after the role
was deleted: give page=<older_page> of the answer before to read it, and
role_id=<role_id> for a role that is gone.`,
	}}
}

func (b *backend) history(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("limit").(int)
	if limit < 1 || limit > maxHistoryAnswer {
		return nil, refusal.New("limit", limit, "must be from 1 to 1000", "leave it out for all of a page")
	}
	asked := -1
	if v, ok := d.GetOk("page"); ok {
		if asked = v.(int); asked < 0 {
			return nil, refusal.New("page", asked, "is not a page of the archive", "leave it out for the newest entries")
		}
	}
	rec, err := b.historyOf(ctx, req.Storage, d.Get("name").(string), d.Get("role_id").(string))
	if err != nil || rec == nil {
		return nil, err
	}
	var entries []historyEntry
	oldest := rec.Archived
	if asked < 0 {
		entries = b.recentHistory(rec)
	} else {
		if asked >= rec.Archived {
			return nil, refusal.New("page", asked, fmt.Sprintf("the archive has %d pages, from 0", rec.Archived), "begin with the older_page of the newest entries")
		}
		page, err := getRecord[archivePage](ctx, req.Storage, archivePath(rec.ID, asked))
		if err != nil {
			return nil, err
		}
		if page == nil {
			return nil, refusal.New("page", asked, "is not kept any more", "the archive goes back 400 days")
		}
		if page.Role != rec.Name {
			return nil, nil
		}
		entries, oldest = page.Entries, asked
	}
	older := -1
	if oldest > 0 {
		// A page that is over 400 days old may be gone: its absence is not worth
		// a promise, so it is looked for.
		page, err := req.Storage.Get(ctx, archivePath(rec.ID, oldest-1))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", family(archivePrefix), err)
		}
		if page != nil {
			older = oldest - 1
		}
	}
	use, err := b.usageOf(ctx, req.Storage, rec)
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"role": rec.Name, "role_id": rec.ID, "deleted": !rec.Deleted.IsZero(), "page": asked, "older_page": older,
		"entries": historyView(entries, limit), "noise": noiseView(use.noiseWith(rec)),
	}), nil
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
	live, err := b.roles.get(ctx, s, rolePath(name))
	if err != nil {
		return nil, err
	}
	if id == "" || (live != nil && live.ID == id) {
		return live, nil
	}
	if !uuidForm.MatchString(id) {
		return nil, refusal.New("role_id", id, "is not a role_id", "role_id is in the answer of the deletion, and of status/<role>")
	}
	copied, err := getRecord[roleRecord](ctx, s, deletedPath(id))
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
	return goneRole(ctx, s, name, id)
}

// historyView shows the newest entries, newest first.
func historyView(entries []historyEntry, limit int) []any {
	// Entries are in the order in which they were written; what the clock did
	// is written later than it happened.
	sorted := slices.Clone(entries)
	slices.Reverse(sorted)
	slices.SortStableFunc(sorted, func(a, b historyEntry) int { return b.Time.Compare(a.Time) })
	view := make([]any, 0, min(limit, len(sorted)))
	for i := range sorted[:min(limit, len(sorted))] {
		e := &sorted[i]
		fields := map[string]any{}
		for name, c := range e.Fields {
			fields[name] = map[string]any{"old": c.Old, "new": c.New}
		}
		view = append(view, map[string]any{
			"time": stamp(e.Time), "kind": e.Kind, "version": e.Version, "key_id": e.KeyID, "cause": e.Cause,
			"entity_id": e.EntityID, "display_name": e.Display, "request_id": e.RequestID, "reason": e.Reason,
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
