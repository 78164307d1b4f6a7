// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxListLimit = 1000

func (b *backend) pathsRoles() []*framework.Path {
	attrs := &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationSuffix: "role"}
	written := map[int][]framework.Response{
		http.StatusOK:        {{Description: "Written, with warnings."}},
		http.StatusNoContent: {{Description: "Written."}},
	}
	return []*framework.Path{
		{
			Pattern:      "roles/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationSuffix: "roles", Navigation: true, ItemType: "Role"},
			Fields: map[string]*framework.FieldSchema{
				"after": {Type: framework.TypeString, Query: true, Description: "List the names that come after this one, which need not exist."},
				"limit": {Type: framework.TypeInt, Query: true, Description: "List so many names at most: 1 to 1000. Default: all."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: handle(b.listRoles), Summary: "List the roles.",
					Responses: ok("The names, sorted.", map[string]*framework.FieldSchema{
						"keys": {Type: framework.TypeStringSlice, Description: "Names of roles."},
					}),
				},
			},
			HelpSynopsis:    "List the roles.",
			HelpDescription: "Names come sorted. For a page of them give limit, and for the next page the last name of the page before as after.",
		},
		{
			Pattern:        "roles/" + nameRegex,
			DisplayAttrs:   attrs,
			Fields:         fields(policySchemas(), roleIdentity()),
			ExistenceCheck: b.roleExists,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: writes(&framework.PathOperation{
					Callback: handle(b.writeRole), Summary: "Create a role, and for a static one its first key.", Responses: written,
				}),
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.writeRole), Summary: "Change the fields that are named.", Responses: written,
				}),
				logical.PatchOperation: writes(&framework.PathOperation{
					Callback: handle(b.writeRole), Summary: "Change the fields that are named; null resets one to its default.", Responses: written,
				}),
				logical.ReadOperation: &framework.PathOperation{
					Callback: handle(b.readRole), Summary: "Read the policy of a role.",
					Responses: ok("The policy, every default filled in. Nothing in it changes by itself.", fields(policySchemas(), roleIdentity())),
				},
				logical.DeleteOperation: writes(&framework.PathOperation{
					Callback: handle(b.deleteRole), Summary: "Delete a role: its keys end at once.",
					Responses: map[int][]framework.Response{
						http.StatusOK: {{Description: "Deleted.", Fields: map[string]*framework.FieldSchema{
							"role_id":          {Type: framework.TypeString, Description: "What to restore the role by."},
							"restorable_until": {Type: framework.TypeString, Description: "Until when restore/<role_id> brings the role back with its keys (RFC 3339); empty: it can not be restored."},
						}}},
						http.StatusNoContent: {{Description: "There was no such role."}},
					},
				}),
			},
			HelpSynopsis: "Declare, read, change and delete a role.",
			HelpDescription: strings.TrimSpace(`
A role is the policy of one logical key. Creating a static role makes its first
key, which creds/<role> hands out. Names are lower-case letters, digits and
. _ - with a letter or digit first, at most 128 characters; names are visible to
who reads the server's raw storage.

A write changes only the fields it names. A patch does the same; in it null
resets a field to its default. Reading shows the policy only, never a key and
nothing that changes by itself: see status/<role> for that. What was read can be
written back and changes nothing.

Changes of the policy hold from the next rotation on where they concern how keys
are made (prefix, ttl, grace_period), and at once everywhere else.

Deleting ends the role's keys at once. Within the mount's delete_recovery the
role can be brought back, keys and all, with restore/<role_id>. A role created
anew under the same name has another role_id and never revives an old key.`),
		},
	}
}

// roleIdentity is what identifies a role. It can be written as it is, so that
// what was read can be written back.
func roleIdentity() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": nameField(),
		"type": {
			Type: framework.TypeString, Default: policy.Static, AllowedValues: []any{policy.Static, policy.Dynamic},
			Description: "static: one key, shared by everybody who may read the role. dynamic: each read makes a key of its own, with a lease. Fixed at creation.",
		},
		"role_id": {Type: framework.TypeString, Description: "Identifies the role for ever; given by the engine, never reused."},
		"created": {Type: framework.TypeString, Description: "When the role was created (RFC 3339); given by the engine."},
	}
}

// roleExists tells the server whether a write creates or updates.
func (b *backend) roleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	rec, err := b.roleNamed(ctx, req.Storage, d.Get("name").(string))
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

func (b *backend) listRoles(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := list(ctx, req.Storage, rolePrefix)
	if err != nil {
		return nil, err
	}
	if names, err = namesAsked(names, d); err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

// namesAsked sorts the names and cuts out those that after and limit ask for;
// without limit all of them: a list of mere names costs one storage call
// whatever its length.
func namesAsked(names []string, d *framework.FieldData) ([]string, error) {
	limit, limited := d.GetOk("limit")
	if limited && (limit.(int) < 1 || limit.(int) > maxListLimit) {
		return nil, refusal.New("limit", limit, fmt.Sprintf("must be from 1 to %d", maxListLimit), "leave it out for all")
	}
	names = slices.Sorted(slices.Values(names))
	if after := d.Get("after").(string); after != "" {
		i, found := slices.BinarySearch(names, after)
		if found {
			i++
		}
		names = names[i:]
	}
	if limited {
		names = names[:min(limit.(int), len(names))]
	}
	return names, nil
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	rec, err := b.roleNamed(ctx, req.Storage, d.Get("name").(string))
	if err != nil || rec == nil {
		return nil, err
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	view, err := rec.view(lim)
	if err != nil {
		return nil, err
	}
	return answer(view), nil
}

// deleteRole ends the role's keys at once and hides the role.
func (b *backend) deleteRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if !validName(name) {
		return nil, nil
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	unlock := b.lockRole(name)
	defer unlock()
	path := rolePath(name)
	old, err := getRecord[roleRecord](ctx, req.Storage, path)
	if err != nil {
		return nil, err
	}
	if old == nil {
		b.roles.drop(path)
		return nil, nil
	}
	if old.Policy.DeletionProtection {
		return nil, refusal.New("deletion_protection", true, "role "+refusal.Shown(name)+" is protected", "set it to false first")
	}
	by := requester(req)
	tx := &roleTx{b: b, ctx: ctx, s: req.Storage, now: b.now(old.Committed), by: by, old: old, rec: old.clone()}
	tx.record(tx.rec.Ring.Settle(tx.now), actor{cause: causePeriodic})
	tx.note(historyEntry{Kind: eventRoleDeleted})
	tx.rec.Deleted, tx.rec.DeletedBy, tx.rec.Committed = tx.now, by.display, tx.now
	tx.rec.PurgeAt = tx.now.Add(cfg.deleteRecovery())
	tx.rec.Seq++

	recoverable := cfg.deleteRecovery() > 0
	if recoverable {
		err = tx.keepCopy()
	} else {
		err = tx.dropCopy()
	}
	if err != nil {
		return nil, err
	}
	if err := deleteRecord(ctx, req.Storage, path); err != nil {
		b.roles.drop(path)
		return nil, err
	}
	b.roles.drop(path)

	// From here on the role is deleted; what fails is left to tidy.
	if !old.Due.IsZero() {
		b.unfile(ctx, req.Storage, old.Due, name)
	}
	b.clearProblem(ctx, req.Storage, name)
	until := ""
	if recoverable {
		until = stamp(tx.rec.PurgeAt)
	} else if err := b.deleteSecrets(ctx, req.Storage, old.ID); err != nil {
		b.Logger().Warn("plaintexts of a deleted role are left for tidy", "role", name, "error", err)
	}
	return answer(map[string]any{"role_id": old.ID, "restorable_until": until}), nil
}
