// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsRoles() []*framework.Path {
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "roles/?$", suffix: "roles", lists: "Role",
			synopsis: "List the roles.",
			fields:   pageFieldSet(false),
			ops: map[logical.Operation]operation{
				logical.ListOperation: {
					do: b.listRoles, told: "The names, sorted.",
					answer: map[string]*framework.FieldSchema{"keys": {Type: framework.TypeStringSlice, Description: "Names of roles."}},
				},
			},
			help: "Names come sorted. For a page of them give limit, and for the next page the last name of this page as after.",
		}),
		b.path(pathSpec{
			pattern: "roles/" + nameRegex, suffix: "role",
			synopsis: "Declare, read, change and delete a role.",
			fields:   fieldsOf(policyRequestFields(), roleIdentity(), replaceField("the role"), deletionFields()),
			exists:   b.roleExists,
			ops: map[logical.Operation]operation{
				logical.CreateOperation: {
					do: b.writeRole, writes: true, summary: "Create a role, and for a static one its first key.", told: "Written, with warnings.", none: "Written.",
				},
				logical.UpdateOperation: {
					do: b.writeRole, writes: true, summary: "Change the fields that are named.", told: "Written, with warnings.", none: "Written.",
				},
				logical.PatchOperation: {
					do: b.writeRole, writes: true, summary: "Change the fields that are named; null resets one to its default.",
					told: "Written, with warnings.", none: "Written.",
				},
				logical.ReadOperation: {
					do: b.readRole, summary: "Read the policy of a role.",
					told: "The policy, every default filled in. Nothing in it changes by itself.", answer: schemas(policySchemas(), roleIdentity().schemas()),
				},
				logical.DeleteOperation: {
					do: b.deleteRole, writes: true, summary: "Delete a role: its keys end at once.", told: "Deleted.", none: "There was no such role.",
					answer: map[string]*framework.FieldSchema{
						"role_id":          {Type: framework.TypeString, Description: "What to restore the role by."},
						"restorable_until": {Type: framework.TypeString, Description: "Until when restore/<role_id> brings the role back with its keys (RFC 3339); empty: it cannot be restored."},
					},
				},
			},
			help: `
A role is the policy of one logical key. Creating a static role makes its first
key, which creds/<role> hands out. Names are lower-case letters, digits and
. _ - with a letter or digit first, at most 128 characters; names are visible to
who reads the server's raw storage.

A write changes only the fields it names. A patch does the same; in it null
resets a field to its default. replace=true resets every field that the write
does not name. Reading shows the policy only, never a key and nothing that
changes by itself: see status/<role> for that. What was read can be written back
and changes nothing.

Changes of the policy hold from the next rotation on where they concern how keys
are made (prefix, ttl, grace_period), and at once everywhere else.

At valid_until the role ends: its keys expire, and none is made from then on.

Deleting ends the role's keys at once. Within the mount's delete_recovery the
role can be brought back, keys and all, with restore/<role_id>. A role created
anew under the same name has another role_id and never revives an old key.`,
		}),
	}
}

// deletionFields are what a deletion says of itself.
func deletionFields() fieldSet {
	f := codeField("With DELETE: what the reason is; kept in the history.")
	f.query = true
	return fieldSet{"reason_code": f}
}

// replaceField is the field by which a write states all of what it writes.
func replaceField(what string) fieldSet {
	return fieldSet{"replace": {
		kind: kindSwitch, about: "Put the fields of " + what + " that this write does not name back to their defaults. Never read back. Default: false.",
	}}
}

// roleIdentity is what identifies a role. It can be written as it is, so that
// what was read can be written back.
func roleIdentity() fieldSet {
	return fieldsOf(nameOf(), fieldSet{
		"type": {
			kind: kindText, def: policy.Static, choices: []string{policy.Static, policy.Dynamic},
			about: "static: one key, shared by everybody who may read the role. dynamic: each read makes a key of its own, with a lease. Fixed at creation.",
		},
		"role_id": {kind: kindText, about: "Identifies the role forever; given by the engine, never reused."},
		"created": {kind: kindText, about: "When the role was created (RFC 3339); given by the engine."},
	})
}

// roleExists tells the server whether a write creates or updates. The write may disable
// the role, and waits for moved/ no more than a transition does (heldRole).
func (b *backend) roleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	name := d.Get("name").(string)
	rec, err := b.roleNamed(ctx, req.Storage, name)
	if err != nil && !mustForward(err) {
		if stored, _ := getRecord[roleRecord](ctx, req.Storage, rolePath(name)); stored != nil && stored.Moved == nil {
			return true, nil
		}
	}
	return rec != nil, err
}

// roleNamed returns the role's record, nil if there is none.
func (b *backend) roleNamed(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	if !validName(name) {
		return nil, nil
	}
	return b.roles.get(ctx, s, rolePath(name))
}

// HandleExistenceCheck looks at the path alone: what is wrong with the data is
// told by HandleRequest, in this engine's words.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	bare := *req
	bare.Data = nil
	return b.Backend.HandleExistenceCheck(ctx, &bare)
}

func (b *backend) listRoles(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	names, err := list(ctx, req.Storage, rolePrefix)
	if err != nil {
		return nil, err
	}
	w := windowOf(in)
	names = w.rest(b.unmoved.hide(names))
	if w.limit > 0 {
		names = names[:min(w.limit, len(names))]
	}
	return logical.ListResponse(names), nil
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	if in.given("reason_code") {
		return nil, refusal.New("reason_code", in.text("reason_code"), "goes with DELETE", "leave it out")
	}
	r, err := b.lookToRead(ctx, req.Storage, in.text("name"))
	if err != nil || r == nil {
		return nil, err
	}
	return answer(r.view()), nil
}

// deleteRole ends the role's keys at once and hides the role.
func (b *backend) deleteRole(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	if !validName(name) {
		return nil, nil
	}
	by := requester(req)
	by.code = keyring.Reason(in.text("reason_code"))
	gone, err := b.endRole(ctx, req.Storage, name, by)
	if err != nil || gone == nil {
		return nil, err
	}
	until := ""
	if gone.rec.restorable(gone.rec.Deleted) {
		until = stamp(gone.rec.PurgeAt)
	}
	return answer(map[string]any{"role_id": gone.rec.ID, "restorable_until": until}, gone.warnings...), nil
}
