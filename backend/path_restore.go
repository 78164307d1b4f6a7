// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
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
			synopsis: "Bring back a deleted role with its keys, under its name or another one.",
			fields: fieldSet{
				"role_id": {kind: kindText, about: "The role_id that the deletion answered."},
				"name": {kind: kindText, about: "What the role is to be called from now on; left out, it is called as before. Its keys stay as they are, and verify " +
					"answers the new name."},
				"force":      {kind: kindSwitch, about: "If another role has the name: delete it, so that it can be restored, provided that its keys were never used."},
				"reason":     reasonField("Why; kept in the role's history.", false),
				"request_id": {kind: kindText, about: "Kept in the role's history. A restoration can be repeated with or without it."},
			},
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.restore, writes: true, told: "The role is there.",
					answer: map[string]*framework.FieldSchema{
						"role":             {Type: framework.TypeString, Description: "Name of the role."},
						"role_id":          {Type: framework.TypeString, Description: "Its role_id, the one it always had."},
						"current_version":  {Type: framework.TypeInt, Description: "The version that is handed out; 0 if there is none."},
						"restored":         {Type: framework.TypeBool, Description: "False if the role was there already."},
						"renamed_from":     {Type: framework.TypeString, Description: "What the role was called before this request; empty if it is called as before."},
						"replaced_role_id": {Type: framework.TypeString, Description: "The role that force=true deleted, by its role_id; empty if there was none."},
					},
				},
			},
			help: `
A role deleted less than the mount's delete_recovery ago comes back as it was,
with its keys, less what ended meanwhile. With name it comes back under another
name: a rename. Its role_id, keys, leases, history and counts stay, and requests
about its keys go to the new name.

It is refused while another role has the name. If that one was just made and its
keys were never used, as after a rename in Terraform, force=true deletes it first;
it can be restored in its turn. Repeating the request is harmless.

Rename roles only when all nodes of the server run a build that can: others do
not find a renamed role's keys.`,
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
		live, err := b.storedOf(ctx, req.Storage, rec.Name, id)
		if err != nil || live != nil {
			return nil, err
		}
		return map[string]any{
			"role": rec.Name, "deleted": stamp(rec.Deleted), "deleted_by": rec.DeletedBy, "restorable_until": stamp(rec.PurgeAt),
		}, nil
	})
}

func (b *backend) restore(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	want, err := readRestoration(req, in)
	if err != nil {
		return nil, err
	}
	got, err := b.restoreRole(ctx, req.Storage, want)
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"role": got.rec.Name, "role_id": got.rec.ID, "current_version": numberOf(got.rec.Ring.Current(got.now)),
		"restored": got.done, "renamed_from": got.from, "replaced_role_id": got.replaced,
	}), nil
}

func readRestoration(req *logical.Request, in *input) (*restoration, error) {
	r := &restoration{id: in.text("role_id"), name: in.text("name"), force: in.flag("force")}
	if !uuidForm.MatchString(r.id) {
		return nil, errGone(r.id)
	}
	if in.given("name") && !validName(r.name) {
		return nil, refusal.New("name", r.name, nameRule, "choose another name")
	}
	var err error
	r.by, err = readActor(req, in)
	return r, err
}
