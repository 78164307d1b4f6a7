// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
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
		b.path(pathSpec{
			pattern: "creds/" + nameRegex + "/(?P<which>[^/]+)", suffix: "other-credentials",
			synopsis: "Read another live version of a static role.",
			fields:   fieldsOf(nameOf(), repeatableField(), fieldSet{"which": {kind: kindText, about: "pending, previous, or the number of a live version."}}),
			ops: map[logical.Operation]operation{
				logical.ReadOperation: {
					do: b.credsOther, told: "The key.",
					answer: schemas(key, map[string]*framework.FieldSchema{
						"state":        {Type: framework.TypeString, Description: "pending, current, previous or withdrawn.", Required: true},
						"activates_at": {Type: framework.TypeString, Description: "Its activation (RFC 3339); empty while it is held.", Required: true},
						"valid_until":  {Type: framework.TypeString, Description: "The earliest known end (RFC 3339); empty if none is known.", Required: true},
					}),
				},
			},
			help: `
creds/<role>/pending is the version that waits for its activation,
creds/<role>/previous the one that is in its grace, creds/<role>/<n> version n. What
a rollback took back is at its number only.
They are paths of their own so that policies tell them from the current key.
repeatable is as for creds/<role>.`,
		}),
		b.path(pathSpec{
			pattern: "creds/" + nameRegex, suffix: "credentials",
			synopsis: "Read the current key of a static role, or be issued a key of a dynamic one.",
			fields:   fieldsOf(nameOf(), repeatableField(), issueFields()),
			ops: map[logical.Operation]operation{
				logical.ReadOperation: {
					do: b.creds, summary: "Read the current key, or be issued one.", told: "The key.", answer: schemas(key, rotationFields()),
				},
				logical.UpdateOperation: {
					do: b.creds, verb: "issue", summary: "Read the current key, or be issued one with narrower rights.",
					told: "The key.", answer: schemas(key, rotationFields()),
				},
			},
			help: `
For a static role the answer is the current key, with no lease. Read again after
ttl seconds: whoever does so always holds a key that verifies, whatever is
rotated meanwhile. Of a role that is rotated by hand only, rotation_period is the
ttl: what reads keys needs one; roles/<role> and status/<role> say what is planned.

A role with reveal=once hands out each version once; repeatable=true, which agents
and clients that read again should give, refuses it before anything is used up.

For a dynamic role every read issues a key of its own, with a lease. scopes, ttl
and label, in the body of a write or as query parameters of a read, narrow it and
say what it is for.`,
		}),
	}
}

// repeatableField is how somebody who reads again and again says so.
func repeatableField() fieldSet {
	return fieldSet{"repeatable": {
		kind: kindSwitch, asRead: true,
		about: "The reader will come back for this key: refuse a role whose keys are handed out once only (reveal=once), before this read uses one up. Default: false.",
	}}
}

// oneTime refuses to hand out a key that cannot be read again to somebody who means
// to.
func oneTime(r *roleNow) error {
	if r.terms.Reveal != policy.RevealOnce {
		return nil
	}
	return refusal.New("repeatable", true, "role "+r.rec.Name+" hands out each version once only (reveal=once), and nothing was handed out",
		"read it without repeatable, once, and keep the key; or write the role with reveal=always")
}

// issueFields are what a reader may ask of a key that is issued to it.
func issueFields() fieldSet {
	return fieldSet{
		"scopes": {
			kind: kindList, empty: emptyNever, asRead: true,
			about: "Dynamic roles: issue the key with these scopes only. Each must be covered by the role's.",
		},
		"ttl": {kind: kindDuration, asRead: true, about: "Dynamic roles: a shorter lease than the role's ttl."},
		"label": {
			kind: kindText, empty: emptyTaken, free: &freeText{limit: maxLabel}, asRead: true,
			about: "Dynamic roles: what the key is for; at most 128 characters, shown by lookup and keys/<role>.",
		},
	}
}

// readIssue reads what the caller asks of its key.
func readIssue(req *logical.Request, in *input) (*issueRequest, error) {
	r := &issueRequest{
		entityID: req.EntityID, display: displayName(req),
		scopes: in.list("scopes"), label: keyformat.Redact(in.text("label")),
	}
	if r.scopes != nil {
		// In the form that a role's scopes have: * covers any text.
		if _, _, err := new(policy.Policy).With(map[string]any{"scopes": r.scopes}); err != nil {
			return nil, err
		}
	}
	if ttl, ok := in.seconds("ttl"); ok {
		r.ttl = &ttl
	}
	return r, nil
}

func rotationFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"ttl":                 {Type: framework.TypeInt, Description: "Static roles: read again after so many seconds."},
		"rotation_period":     {Type: framework.TypeInt, Description: "Static roles: seconds between rotations. Where no rotation is planned it is the ttl, since agents and operators need a value: status/<role> says whether the role rotates."},
		"rotation_schedule":   {Type: framework.TypeString, Description: "Static roles with a schedule: the schedule."},
		"last_vault_rotation": {Type: framework.TypeString, Description: "Static roles: since when this version has been current (RFC 3339)."},
	}
}

func (b *backend) creds(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	want, err := readIssue(req, in)
	if err != nil {
		return nil, err
	}
	r, err := b.lookToRead(ctx, req.Storage, name)
	switch {
	case err != nil:
		return nil, err
	case r == nil && req.Operation == logical.ReadOperation:
		return nil, nil
	case r == nil:
		return nil, noRole(name)
	case r.rec.Type == policy.Dynamic:
		if err := b.noteLease(ctx, req.Storage, r, r.terms.TTL); err != nil {
			return nil, err
		}
		return b.issue(ctx, req.Storage, want, r)
	}
	for _, f := range []string{"scopes", "ttl", "label"} {
		if in.given(f) {
			return nil, refusal.New(f, in.values[f], "a static role hands out one key to everybody", "leave it out, or use a dynamic role")
		}
	}
	return b.untilSettled(ctx, req, r, in.flag("repeatable"), b.currentKey)
}

// keyRead answers a key of the role; settled is false where a commit came between.
type keyRead func(context.Context, *logical.Request, *roleNow) (resp *logical.Response, settled bool, err error)

// untilSettled repeats a read that commits overtake. A role that hands out its keys
// once only is refused to readers who are to be able to repeat theirs, also where it
// became one meanwhile.
func (b *backend) untilSettled(ctx context.Context, req *logical.Request, r *roleNow, repeatable bool, read keyRead) (*logical.Response, error) {
	for range 5 {
		if repeatable {
			if err := oneTime(r); err != nil {
				return nil, err
			}
		}
		resp, settled, err := read(ctx, req, r)
		if settled || err != nil {
			return resp, err
		}
		name := r.rec.Name
		if r, err = b.lookToRead(ctx, req.Storage, name); err != nil {
			return nil, err
		}
		if r == nil {
			return nil, noRole(name)
		}
	}
	return nil, errors.New("the role changed while it was read: try again")
}

// currentKey answers the current version of a static role. It writes nothing,
// but for the one time that a reveal-once version is handed out.
func (b *backend) currentKey(ctx context.Context, req *logical.Request, r *roleNow) (*logical.Response, bool, error) {
	rec, now := r.rec, r.now
	cur := rec.Ring.Current(now)
	if cur == nil {
		return nil, false, noCurrent(rec, now)
	}
	plain, rec, err := b.handOut(ctx, req, r, cur.N)
	if err != nil || rec == nil {
		return nil, false, err
	}
	if cur = rec.Ring.Get(cur.N); cur == nil {
		return nil, false, noCurrent(rec, now)
	}
	data := map[string]any{
		"api_key": plain, "key_id": cur.KeyID, "version": cur.N, "scopes": orEmpty(rec.Policy.Scopes), "role": rec.Name,
	}
	for k, v := range b.countdown(&roleNow{rec: rec, terms: r.terms, now: now}, cur) {
		data[k] = v
	}
	return answer(data), true, nil
}

func (b *backend) credsOther(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := b.lookToRead(ctx, req.Storage, in.text("name"))
	if err != nil || r == nil {
		return nil, err
	}
	which := in.text("which")
	if name := r.rec.Name; r.rec.Type == policy.Dynamic {
		return nil, refusal.New("role", name, "is dynamic: each of its keys was issued to one reader", "read creds/"+name)
	}
	return b.untilSettled(ctx, req, r, in.flag("repeatable"), func(ctx context.Context, req *logical.Request, r *roleNow) (*logical.Response, bool, error) {
		return b.otherKey(ctx, req, r, which)
	})
}

// absentVersion says where the version is that somebody may look for under that
// name: after a rollback the one that was in use is no previous one, but withdrawn.
func absentVersion(rec *roleRecord, which string, now time.Time) error {
	if which != "previous" {
		return nil
	}
	for _, v := range slices.Backward(rec.Ring.Versions) {
		if st, _ := rec.Ring.Status(v.N, now); st.State == keyring.Withdrawn {
			return &absence{what: fmt.Sprintf("role %s has no previous version: version %d was taken back at %s and is accepted until %s: read creds/%s/%d",
				rec.Name, v.N, stamp(v.Withdrawn), stamp(st.Until), rec.Name, v.N)}
		}
	}
	return nil
}

// otherKey answers a live version of a static role by its place or number.
func (b *backend) otherKey(ctx context.Context, req *logical.Request, r *roleNow, which string) (*logical.Response, bool, error) {
	rec, now := r.rec, r.now
	var v *keyring.Version
	switch which {
	case "pending":
		v = rec.Ring.Pending(now)
	case "previous":
		v = rec.Ring.PreviousOf(now)
	default:
		n, err := strconv.Atoi(which)
		if err != nil || n < 1 || strconv.Itoa(n) != which {
			return nil, false, refusal.New("version", which, "is not pending, previous or the number of a version", "status/"+rec.Name+" lists the versions")
		}
		v = rec.Ring.Get(n)
	}
	if v == nil {
		return nil, true, absentVersion(rec, which, now)
	}
	st, _ := rec.Ring.Status(v.N, now)
	if st.State.Ended() {
		return nil, false, refusal.New("version", which, fmt.Sprintf("version %d is %s since %s", v.N, st.State, stamp(st.Until)), "read creds/"+rec.Name)
	}
	plain, rec, err := b.handOut(ctx, req, r, v.N)
	if err != nil || rec == nil {
		return nil, false, err
	}
	return answer(map[string]any{
		"api_key": plain, "key_id": v.KeyID, "version": v.N, "scopes": orEmpty(rec.Policy.Scopes), "role": rec.Name,
		"state": string(st.State), "activates_at": stamp(v.Activate), "valid_until": stamp(st.Until),
	}), true, nil
}
