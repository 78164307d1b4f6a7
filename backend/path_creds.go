// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsCreds() []*framework.Path {
	key := map[string]*framework.FieldSchema{
		"api_key": {Type: framework.TypeString, Description: "The key. Keep it secret.", Required: true, DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
		"key_id":  {Type: framework.TypeString, Description: "The key's public id, for logs and reports.", Required: true},
		"version": {Type: framework.TypeInt, Description: "The version of the role that the key is, or was issued in.", Required: true},
		"scopes":  {Type: framework.TypeStringSlice, Description: "What the key may do.", Required: true},
		"role":    {Type: framework.TypeString, Description: "The role.", Required: true},
	}
	return []*framework.Path{
		{
			Pattern: "creds/" + nameRegex + "/(?P<which>[^/]+)",
			Fields: map[string]*framework.FieldSchema{
				"name":  nameField(),
				"which": {Type: framework.TypeString, Description: "pending, previous, or the number of a live version."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: handle(b.credsOther), Summary: "Read another live version of a static role.",
					Responses: ok("The key.", fields(key, map[string]*framework.FieldSchema{
						"state":        {Type: framework.TypeString, Description: "pending, current, previous or withdrawn.", Required: true},
						"activates_at": {Type: framework.TypeString, Description: "Its activation (RFC 3339); empty while it is held.", Required: true},
						"valid_until":  {Type: framework.TypeString, Description: "The earliest known end (RFC 3339); empty if none is known.", Required: true},
					})),
				},
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "read", OperationSuffix: "other-credentials"},
			HelpSynopsis: "Read another live version of a static role.",
			HelpDescription: `
creds/<role>/pending is the version that waits for its activation,
creds/<role>/previous the one that is in its grace, creds/<role>/<n> version n.
They are paths of their own so that policies tell them from the current key.`,
		},
		{
			Pattern: "creds/" + nameRegex,
			Fields: map[string]*framework.FieldSchema{
				"name":   nameField(),
				"scopes": {Type: framework.TypeCommaStringSlice, Description: "Dynamic roles: issue the key with these scopes only. Each must be covered by the role's."},
				"ttl":    {Type: framework.TypeDurationSecond, Description: "Dynamic roles: a shorter lease than the role's ttl."},
				"label":  {Type: framework.TypeString, Description: "Dynamic roles: what the key is for; at most 128 characters, shown by lookup and keys/<role>."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: handle(b.creds), Summary: "Read the current key, or be issued one.",
					Responses: ok("The key.", fields(key, rotationFields())),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback: handle(b.creds), Summary: "Read the current key, or be issued one with narrower rights.",
					Responses: ok("The key.", fields(key, rotationFields())),
				},
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "read", OperationSuffix: "credentials"},
			HelpSynopsis: "Read the current key of a static role, or be issued a key of a dynamic one.",
			HelpDescription: `
For a static role the answer is the current key, with no lease. Read again after
ttl seconds: whoever does so always holds a key that verifies, whatever is
rotated meanwhile.

For a dynamic role every read issues a key of its own, with a lease. A write may
narrow its scopes and ttl and give it a label.`,
		},
	}
}

func rotationFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"ttl":                 {Type: framework.TypeInt, Description: "Static roles: read again after so many seconds."},
		"rotation_period":     {Type: framework.TypeInt, Description: "Static roles: seconds between rotations."},
		"rotation_schedule":   {Type: framework.TypeString, Description: "Static roles with a schedule: the schedule."},
		"last_vault_rotation": {Type: framework.TypeString, Description: "Static roles: since when this version has been current (RFC 3339)."},
	}
}

func (b *backend) creds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	rec, err := b.roles.get(ctx, req.Storage, rolePath(name))
	if err != nil {
		return nil, err
	}
	switch {
	case rec == nil && req.Operation == logical.ReadOperation:
		return nil, nil
	case rec == nil:
		return nil, noRole(name)
	case rec.Type == policy.Dynamic:
		return b.issue(ctx, req, d, rec, lim)
	}
	for _, f := range []string{"scopes", "ttl", "label"} {
		if v, given := d.GetOk(f); given {
			return nil, refusal.New(f, v, "a static role hands out one key to everybody", "leave it out, or use a dynamic role")
		}
	}
	return b.untilSettled(ctx, req, rec, func(rec *roleRecord) (*logical.Response, error) {
		return b.currentKey(ctx, req, rec, lim)
	})
}

// untilSettled repeats a read that commits overtake.
func (b *backend) untilSettled(ctx context.Context, req *logical.Request, rec *roleRecord, read func(*roleRecord) (*logical.Response, error)) (*logical.Response, error) {
	for attempt := 0; ; attempt++ {
		resp, err := read(rec)
		if !errors.Is(err, errOvertaken) || attempt == 4 {
			return resp, err
		}
		name := rec.Name
		if rec, err = b.roles.get(ctx, req.Storage, rolePath(name)); err != nil {
			return nil, err
		}
		if rec == nil {
			return nil, noRole(name)
		}
	}
}

// currentKey answers the current version of a static role. It writes nothing,
// but for the one time that a reveal-once version is handed out.
func (b *backend) currentKey(ctx context.Context, req *logical.Request, rec *roleRecord, lim policy.Limits) (*logical.Response, error) {
	t, err := rec.Policy.Effective(rec.ID, rec.Type, lim)
	if err != nil {
		return nil, err
	}
	now := b.now(rec.Committed)
	cur := rec.Ring.Current(now)
	if cur == nil {
		return nil, noCurrent(rec, now)
	}
	plain, rec, err := b.plaintext(ctx, req, rec, cur.N, t)
	if err != nil {
		return nil, err
	}
	if cur = rec.Ring.Get(cur.N); cur == nil {
		return nil, noCurrent(rec, now)
	}
	data := map[string]any{
		"api_key": plain, "key_id": cur.KeyID, "version": cur.N, "scopes": orEmpty(rec.Policy.Scopes), "role": rec.Name,
	}
	for k, v := range b.countdown(rec, cur, t, now) {
		data[k] = v
	}
	return answer(data), nil
}

func (b *backend) credsOther(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	rec, err := b.roles.get(ctx, req.Storage, rolePath(d.Get("name").(string)))
	if err != nil || rec == nil {
		return nil, err
	}
	which := d.Get("which").(string)
	if rec.Type == policy.Dynamic {
		return nil, refusal.New("role", rec.Name, "is dynamic: each of its keys was issued to one reader", "read creds/"+rec.Name)
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	t, err := rec.Policy.Effective(rec.ID, rec.Type, lim)
	if err != nil {
		return nil, err
	}
	return b.untilSettled(ctx, req, rec, func(rec *roleRecord) (*logical.Response, error) {
		return b.otherKey(ctx, req, rec, t, which)
	})
}

// otherKey answers a live version of a static role by its place or number.
func (b *backend) otherKey(ctx context.Context, req *logical.Request, rec *roleRecord, t policy.Terms, which string) (*logical.Response, error) {
	now := b.now(rec.Committed)
	var v *keyring.Version
	switch which {
	case "pending":
		v = rec.Ring.Pending(now)
	case "previous":
		v = rec.Ring.PreviousOf(now)
	default:
		n, err := strconv.Atoi(which)
		if err != nil || n < 1 || strconv.Itoa(n) != which {
			return nil, refusal.New("version", which, "is not pending, previous or the number of a version", "status/"+rec.Name+" lists the versions")
		}
		v = rec.Ring.Get(n)
	}
	if v == nil {
		return nil, nil
	}
	st, _ := rec.Ring.Status(v.N, now)
	if st.State.Ended() {
		return nil, refusal.New("version", which, fmt.Sprintf("version %d is %s since %s", v.N, st.State, stamp(st.Until)), "read creds/"+rec.Name)
	}
	plain, rec, err := b.plaintext(ctx, req, rec, v.N, t)
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{
		"api_key": plain, "key_id": v.KeyID, "version": v.N, "scopes": orEmpty(rec.Policy.Scopes), "role": rec.Name,
		"state": string(st.State), "activates_at": stamp(v.Activate), "valid_until": stamp(st.Until),
	}), nil
}
