// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (b *backend) pathsRestore() []*framework.Path {
	return []*framework.Path{{
		Pattern: "restore/?",
		Fields:  pageFields(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: handle(b.listDeleted), Summary: "The deleted roles that can be restored.",
				Responses: ok("The role_ids.", listFields("By role_id: role, deleted, deleted_by and restorable_until (RFC 3339).")),
			},
		},
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "list", OperationSuffix: "deleted-roles"},
		HelpSynopsis:    "The deleted roles that can be restored.",
		HelpDescription: "Lists the roles that were deleted less than the mount's delete_recovery ago, by role_id.",
	}, {
		Pattern:      "restore/(?P<role_id>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "restore", OperationSuffix: "role"},
		Fields: map[string]*framework.FieldSchema{
			"role_id": {Type: framework.TypeString, Description: "The role_id that the deletion answered."},
			"reason":  {Type: framework.TypeString, Description: "Why; kept in the role's history. At most 512 characters."},
			"request_id": {
				Type:        framework.TypeString,
				Description: "Kept in the role's history. A restoration can be repeated with or without it.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: writes(&framework.PathOperation{
				Callback: handle(b.restoreRole), Summary: "Bring back a deleted role with its keys.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "The role is there.", Fields: map[string]*framework.FieldSchema{
						"role":            {Type: framework.TypeString, Description: "Name of the role."},
						"role_id":         {Type: framework.TypeString, Description: "Its role_id, the one it always had."},
						"current_version": {Type: framework.TypeInt, Description: "The version that is handed out; 0 if there is none."},
						"restored":        {Type: framework.TypeBool, Description: "False if the role was there already."},
					}}},
					http.StatusNotFound: {{Description: "No such role can be restored."}},
				},
			}),
		},
		HelpSynopsis: "Bring back a deleted role with its keys.",
		HelpDescription: strings.TrimSpace(`
A role deleted less than the mount's delete_recovery ago comes back as it was,
with its keys, less what ended meanwhile. It is refused while another role has
its name. Repeating it is harmless.`),
	}}
}

func (b *backend) listDeleted(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	w, err := windowAsked(d)
	if err != nil {
		return nil, err
	}
	ids, err := list(ctx, req.Storage, deletedPrefix)
	if err != nil {
		return nil, err
	}
	now := b.now()
	return w.collect(ids, func(id string) (map[string]any, error) {
		rec, err := getRecord[roleRecord](ctx, req.Storage, deletedPath(id))
		if err != nil || rec == nil || rec.stub() || !rec.restorable(now) {
			return nil, err
		}
		// A copy counts only while the role does not live.
		live, err := b.roles.get(ctx, req.Storage, rolePath(rec.Name))
		if err != nil || (live != nil && live.ID == id) {
			return nil, err
		}
		return map[string]any{
			"role": rec.Name, "deleted": stamp(rec.Deleted), "deleted_by": rec.DeletedBy, "restorable_until": stamp(rec.PurgeAt),
		}, nil
	})
}

func (b *backend) restoreRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	id := d.Get("role_id").(string)
	if !uuidForm.MatchString(id) {
		return nil, errGone(id)
	}
	by, err := actorOf(req, d)
	if err != nil {
		return nil, err
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	// The copy is where the name is found, without which there is no lock.
	seen, err := getRecord[roleRecord](ctx, req.Storage, deletedPath(id))
	if err != nil {
		return nil, err
	}
	if seen == nil {
		return nil, errGone(id)
	}
	unlock := b.lockRole(seen.Name)
	defer unlock()
	return b.restoreLocked(ctx, req.Storage, seen.Name, id, by, lim)
}

func (b *backend) restoreLocked(ctx context.Context, s logical.Storage, name, id string, by actor, lim limits) (*logical.Response, error) {
	copied, err := getRecord[roleRecord](ctx, s, deletedPath(id))
	if err != nil {
		return nil, err
	}
	live, err := getRecord[roleRecord](ctx, s, rolePath(name))
	if err != nil {
		return nil, err
	}
	switch {
	case live != nil && live.ID == id:
		b.retireCopy(ctx, s, copied)
		return restored(live, b.now(live.Committed), false), nil
	case copied == nil || copied.stub():
		return nil, errGone(id)
	}
	now := b.now(copied.Committed)
	if !copied.restorable(now) {
		return nil, errGone(id)
	}
	if live != nil {
		return nil, refuse("role_id", id, "another role has the name "+shown(name)+" now, with role_id "+live.ID, "delete that one first")
	}
	rec := copied.clone()
	rec.Deleted, rec.DeletedBy, rec.PurgeAt, rec.Due = time.Time{}, "", time.Time{}, time.Time{}
	tx := &roleTx{b: b, ctx: ctx, s: s, now: now, by: by, old: copied, rec: rec, lim: lim}
	if tx.terms, err = rec.Policy.terms(rec.ID, rec.Type, lim); err != nil {
		return nil, fmt.Errorf("role %s: %w", name, err)
	}
	tx.record(tx.rec.Ring.Settle(now), actor{cause: causePeriodic})
	tx.note(historyEntry{Kind: eventRoleRestored})
	if err := tx.commit(); err != nil {
		return nil, err
	}
	b.retireCopy(ctx, s, copied)
	return restored(tx.rec, now, true), nil
}

// stub: there is nothing in the copy to restore.
func (r *roleRecord) stub() bool { return r.Ring.Last == 0 }

// retireCopy leaves a stub of the copy of a role that lives. Where that fails
// the copy is ignored, and overwritten by the next deletion.
func (b *backend) retireCopy(ctx context.Context, s logical.Storage, copied *roleRecord) {
	if copied == nil || copied.stub() {
		return
	}
	stub := &roleRecord{
		Schema: recordSchema, Name: copied.Name, ID: copied.ID, Type: copied.Type, Created: copied.Created,
		Committed: copied.Committed, Deleted: copied.Deleted, PurgeAt: copied.PurgeAt, Due: copied.Due,
	}
	if err := putRecord(ctx, s, deletedPath(copied.ID), stub); err != nil {
		b.Logger().Warn("the copy of a restored role is removed later", "role", copied.Name, "error", err)
	}
}

func restored(rec *roleRecord, now time.Time, done bool) *logical.Response {
	current := 0
	if cur := rec.Ring.Current(now); cur != nil {
		current = cur.N
	}
	return answer(map[string]any{"role": rec.Name, "role_id": rec.ID, "current_version": current, "restored": done})
}
