// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathsRestore() []*framework.Path {
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "restore/?", suffix: "deleted-roles", lists: "Deleted role",
			synopsis: "The deleted roles that can be restored.",
			fields:   pageFieldSet(true),
			ops: map[logical.Operation]operation{
				logical.ListOperation: {
					do: b.listDeleted, told: "The role_ids.",
					answer: listFields("By role_id: role, deleted, deleted_by and restorable_until (RFC 3339)."),
				},
			},
			help: "Lists the roles that were deleted less than the mount's delete_recovery ago, by role_id.",
		}),
		b.path(pathSpec{
			pattern: "restore/(?P<role_id>[^/]+)", verb: "restore", suffix: "role",
			synopsis: "Bring back a deleted role with its keys.",
			fields: fieldSet{
				"role_id":    {kind: kindText, about: "The role_id that the deletion answered."},
				"reason":     reasonField("Why; kept in the role's history.", false),
				"request_id": {kind: kindText, about: "Kept in the role's history. A restoration can be repeated with or without it."},
			},
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.restoreRole, writes: true, told: "The role is there.",
					answer: map[string]*framework.FieldSchema{
						"role":            {Type: framework.TypeString, Description: "Name of the role."},
						"role_id":         {Type: framework.TypeString, Description: "Its role_id, the one it always had."},
						"current_version": {Type: framework.TypeInt, Description: "The version that is handed out; 0 if there is none."},
						"restored":        {Type: framework.TypeBool, Description: "False if the role was there already."},
					},
				},
			},
			help: `
A role deleted less than the mount's delete_recovery ago comes back as it was,
with its keys, less what ended meanwhile. It is refused while another role has
its name. Repeating it is harmless.`,
		}),
	}
}

func (b *backend) listDeleted(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	ids, err := list(ctx, req.Storage, deletedPrefix)
	if err != nil {
		return nil, err
	}
	now := b.now()
	return windowOf(in).collect(ids, func(id string) (map[string]any, error) {
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

func (b *backend) restoreRole(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	id := in.text("role_id")
	if !uuidForm.MatchString(id) {
		return nil, errGone(id)
	}
	by, err := readActor(req, in)
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
