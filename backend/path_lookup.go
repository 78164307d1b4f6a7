// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsLookup() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "lookup", verb: "look-up", suffix: "key",
		synopsis: "Whose key is this? By its id, or by the key itself.",
		fields: fieldSet{
			"key_id": {kind: kindText, secret: true, about: "The public id of the key."},
			"key":    {kind: kindText, secret: true, about: "The key itself, where that is all there is, as it was found: in quotes, after a scheme or NAME=."},
		},
		ops: map[logical.Operation]operation{
			logical.UpdateOperation: {do: b.lookup, writes: true, summary: "Whose key is this?", told: "What is known of the key.", answer: map[string]*framework.FieldSchema{
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
				"reason_code":  {Type: framework.TypeString, Description: "The reason that was given for its end: unspecified, leaked, offboarded, superseded, abuse or policy; empty if none was.", Required: true},
				"disabled":     {Type: framework.TypeBool, Description: "The role is disabled: verify refuses the key.", Required: true},
				"issued_to":    {Type: framework.TypeMap, Description: "Of a dynamic key: entity_id, display_name and label.", Required: true},
				"issued":       {Type: framework.TypeString, Description: "When the key was made (RFC 3339); empty where that is forgotten.", Required: true},
				"expires":      {Type: framework.TypeString, Description: "The earliest known end of a live key (RFC 3339); empty if none is known.", Required: true},
				"ended":        {Type: framework.TypeString, Description: "When it ended (RFC 3339); empty if it has not.", Required: true},
				"reported":     {Type: framework.TypeString, Description: "When it was reported as found in the open (RFC 3339); empty if it was not.", Required: true},
				"last_use":     {Type: framework.TypeString, Description: "Its last use, accepted or not, seen here or reported (RFC 3339); empty if none is known.", Required: true},
				"used":         {Type: framework.TypeString, Description: "usage in one line, such as: 3 accepted, last 2027-03-01T06:00:00Z by shop-gateway; 1 refused.", Required: true},
				"usage":        {Type: framework.TypeMap, Description: "How often it was used: what the server saw, and apart from it what was reported.", Required: true},
			}},
		},
		help: `
Answers the role and its owner, the key's version and state, to whom it was issued
and when it was last used. Prefer the id, which is the twelve characters after the
prefix: a key in a request can end up in logs. A key that is presented has to be
right in whole, but what stands around it does not matter. Two keys in one text
are refused with their ids. What is not known, or wrong, is a 404.`,
	})}
}

func (b *backend) lookup(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	if in.given("key") == in.given("key_id") {
		return nil, refusal.New("key_id", nil, "exactly one of key_id and key says which key is meant", "give one")
	}
	key, err := b.lookedUp(ctx, req.Storage, in)
	if err != nil {
		return nil, err
	}
	role, err := b.roleOf(ctx, req.Storage, key.Role, key.RoleID, b.clock.Now())
	if err != nil {
		return nil, err
	}
	if role == nil {
		// Deleted: until it is purged it can still say whose key this is.
		if role, err = b.kept(ctx, req.Storage, key.Role, key.RoleID); err != nil {
			return nil, err
		}
	}
	if role == nil {
		return nil, errNoKey
	}
	return b.keyFacts(ctx, req.Storage, key, role)
}

// lookedUp is the key that the request names. Unknown and wrong look the same.
func (b *backend) lookedUp(ctx context.Context, s logical.Storage, in *input) (*keyRecord, error) {
	if !in.given("key") {
		id := in.text("key_id")
		if err := wantsID("key_id", id); err != nil {
			return nil, err
		}
		key, err := b.keys.getOrAbsent(ctx, s, keyPath(id), b.clock.Now())
		if err == nil && key == nil {
			err = errNoKey
		}
		return key, err
	}
	text := in.text("key")
	if keys, more := keyformat.Find(text, maxPasted); len(keys) > 1 {
		return nil, severalKeys("key", keys, more)
	}
	found, _ := b.pastedIn(ctx, s, text)
	if found[0].err == nil && found[0].record == nil {
		return nil, errNoKey
	}
	return found[0].record, found[0].err
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
	code := cmp.Or(key.Code, role.DeletedCode)
	if st.State == keyring.Revoked {
		code = keyring.Reason(reasonOf(st))
	}
	reported := key.Reported
	if v := role.Ring.Get(key.Version); v != nil && !key.Dynamic {
		reported = v.Reported
		if st.State != keyring.Revoked {
			code = cmp.Or(v.Code, code)
		}
	}
	data := map[string]any{
		"role": role.Name, "role_id": role.ID, "role_deleted": stamp(role.Deleted), "type": role.Type,
		"owner": role.Policy.Owner, "description": role.Policy.Description,
		"key_id": key.ID, "version": key.Version, "state": string(st.State), "reason": reason, "reason_code": string(code), "disabled": role.Policy.Disabled,
		"issued_to": map[string]any{"entity_id": key.EntityID, "display_name": key.Display, "label": key.Label},
		"issued":    stamp(madeAt(key, role)), "expires": "", "ended": "", "reported": stamp(reported),
		"last_use": stamp(use.LastUse()), "usage": usageView(&use), "used": usedLine(&use),
	}
	if st.State.Ended() {
		data["ended"] = stamp(st.Until)
	} else {
		data["expires"] = stamp(st.Until)
	}
	return answer(data), nil
}
