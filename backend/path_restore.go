// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

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
