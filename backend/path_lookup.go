// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsLookup() []*framework.Path {
	return []*framework.Path{{
		Pattern: "lookup",
		Fields: map[string]*framework.FieldSchema{
			"key_id": {Type: framework.TypeString, Description: "The public id of the key."},
			"key": {
				Type: framework.TypeString, Description: "The key itself, where that is all there is.",
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: writes(&framework.PathOperation{
				Callback: handle(b.lookup), Summary: "Whose key is this?",
				Responses: ok("What is known of the key.", map[string]*framework.FieldSchema{
					"role":         {Type: framework.TypeString, Description: "The role.", Required: true},
					"role_id":      {Type: framework.TypeString, Description: "Its id, which is never reused.", Required: true},
					"role_deleted": {Type: framework.TypeString, Description: "When the role was deleted (RFC 3339): until it is restored its keys are NOT_FOUND; empty if it was not.", Required: true},
					"type":         {Type: framework.TypeString, Description: "static or dynamic.", Required: true},
					"owner":        {Type: framework.TypeString, Description: "Whom to page.", Required: true},
					"description":  {Type: framework.TypeString, Description: "What the role is for.", Required: true},
					"key_id":       {Type: framework.TypeString, Description: "The key's public id.", Required: true},
					"version":      {Type: framework.TypeInt, Description: "The version of the role that the key is, or was issued in.", Required: true},
					"state":        {Type: framework.TypeString, Description: "pending, current, previous, withdrawn, retired, expired or revoked.", Required: true},
					"reason":       {Type: framework.TypeString, Description: "Why it ended, as far as is known; else empty.", Required: true},
					"disabled":     {Type: framework.TypeBool, Description: "The role is disabled: verify refuses the key.", Required: true},
					"issued_to":    {Type: framework.TypeMap, Description: "Of a dynamic key: entity_id, display_name and label.", Required: true},
					"issued":       {Type: framework.TypeString, Description: "When the key was made (RFC 3339); empty where that is forgotten.", Required: true},
					"expires":      {Type: framework.TypeString, Description: "The earliest known end of a live key (RFC 3339); empty if none is known.", Required: true},
					"ended":        {Type: framework.TypeString, Description: "When it ended (RFC 3339); empty if it has not.", Required: true},
					"reported":     {Type: framework.TypeString, Description: "When it was reported as found in the open (RFC 3339); empty if it was not.", Required: true},
					"last_use":     {Type: framework.TypeString, Description: "Its last use, accepted or not, seen here or reported (RFC 3339); empty if none is known.", Required: true},
					"usage":        {Type: framework.TypeMap, Description: "How often it was used: what the server saw, and apart from it what was reported.", Required: true},
				}),
			}),
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "look-up", OperationSuffix: "key"},
		HelpSynopsis: "Whose key is this? By its id, or by the key itself.",
		HelpDescription: `
Answers the role and its owner, the key's version and state, to whom it was issued
and when it was last used. Prefer the id, which is the twelve characters after the
prefix: a key in a request can end up in logs. A key that is presented has to be
right in whole; if not, like for an unknown id, the answer is 404.`,
	}}
}

var errNoKey = &absence{what: "no such key is known"}

func (b *backend) lookup(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	q := question{}
	_, byKey := d.GetOk("key")
	_, byID := d.GetOk("key_id")
	if byKey == byID {
		return nil, refusal.New("key_id", nil, "exactly one of key_id and key says which key is meant", "give one")
	}
	q.key, q.keyID = d.Get("key").(string), d.Get("key_id").(string)
	key, err := b.found(ctx, req.Storage, &q, byKey)
	if err != nil {
		return nil, err
	}
	role, err := b.roles.getOrAbsent(ctx, req.Storage, rolePath(key.Role), b.clock.Now())
	if err != nil {
		return nil, err
	}
	if role == nil || role.ID != key.RoleID {
		// Deleted: until it is purged it can still say whose key this is.
		if role, err = getRecord[roleRecord](ctx, req.Storage, deletedPath(key.RoleID)); err != nil {
			return nil, err
		}
	}
	if role == nil || role.ID != key.RoleID {
		return nil, errNoKey
	}
	return b.keyFacts(ctx, req.Storage, key, role)
}

// found is the key that the request names. Unknown and wrong look the same.
func (b *backend) found(ctx context.Context, s logical.Storage, q *question, byKey bool) (*keyRecord, error) {
	if byKey {
		key, _, err := b.presented(ctx, s, q)
		if err == nil && key == nil {
			err = errNoKey
		}
		return key, err
	}
	if err := wantsID("key_id", q.keyID); err != nil {
		return nil, err
	}
	key, err := b.keys.getOrAbsent(ctx, s, keyPath(q.keyID), b.clock.Now())
	if err == nil && key == nil {
		err = errNoKey
	}
	return key, err
}

func (b *backend) keyFacts(ctx context.Context, s logical.Storage, key *keyRecord, role *roleRecord) (*logical.Response, error) {
	now := b.now(role.Committed)
	st, exists := stateIn(key, role, now)
	if !exists {
		return nil, errNoKey
	}
	use, err := b.keyUsage(ctx, s, key)
	if err != nil {
		return nil, err
	}
	reason := string(st.Reason)
	if key.Revoked != "" {
		reason = key.Revoked
	}
	reported := key.Reported
	if v := role.Ring.Get(key.Version); v != nil && !key.Dynamic {
		reported = v.Reported
	}
	data := map[string]any{
		"role": role.Name, "role_id": role.ID, "role_deleted": stamp(role.Deleted), "type": role.Type,
		"owner": role.Policy.Owner, "description": role.Policy.Description,
		"key_id": key.ID, "version": key.Version, "state": string(st.State), "reason": reason, "disabled": role.Policy.Disabled,
		"issued_to": map[string]any{"entity_id": key.EntityID, "display_name": key.Display, "label": key.Label},
		"issued":    stamp(madeAt(key, role)), "expires": "", "ended": "", "reported": stamp(reported),
		"last_use": stamp(use.LastUse()), "usage": usageView(&use),
	}
	if st.State.Ended() {
		data["ended"] = stamp(st.Until)
	} else {
		data["expires"] = stamp(st.Until)
	}
	return answer(data), nil
}
