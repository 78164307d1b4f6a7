// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"math"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsRevoke() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "revoke/" + nameRegex, verb: "revoke",
		synopsis: "Kill a version, all versions, or one dynamic key, at once.",
		fields: fieldsOf(actionFields(true), fieldSet{
			"version": {kind: kindInteger, about: "The version to kill. For a dynamic role: every key issued in that generation."},
			"key_id":  {kind: kindText, secret: true, about: "The key to kill: one version of a static role, or one key of a dynamic one."},
			"all":     {kind: kindSwitch, about: "Kill every version, the pending one included."},
			"rotate": {
				kind: kindSwitch, def: true,
				about: "Replace the current version in the same step if it is killed. false leaves the role without a current key.",
			},
		}),
		ops: map[logical.Operation]operation{
			logical.UpdateOperation: {
				do: b.revoke, writes: true, told: "What was killed.",
				answer: schemas(replayFields(), map[string]*framework.FieldSchema{
					"revoked_versions": {Type: framework.TypeCommaIntSlice, Description: "The versions that are revoked now.", Required: true},
					"revoked_key_ids":  {Type: framework.TypeStringSlice, Description: "The key ids that are revoked now.", Required: true},
					"version":          {Type: framework.TypeInt, Description: "The current version; 0 if there is none.", Required: true},
					"key_id":           {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role and without one.", Required: true},
					"replaced":         {Type: framework.TypeBool, Description: "A new version was made in the same step.", Required: true},
					"next_rotation":    {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
				}),
			},
		},
		help: `
Kills at once and for good: the next verification refuses the key. Killing the
current version makes a replacement in the same step unless rotate=false; the
replacement is always a new version, never the pending one, which whoever read
the leaked key may have read too.

Repeating a revocation is harmless.`,
	})}
}

// revokeRequest is what revoke says: exactly one of version, key id and all.
type revokeRequest struct {
	*actionRequest

	version int
	keyID   string
	all     bool
	replace bool
}

func readRevoke(req *logical.Request, in *input) (*revokeRequest, error) {
	a, err := readAction(req, in, "revoke")
	if err != nil {
		return nil, err
	}
	r := &revokeRequest{actionRequest: a, keyID: in.text("key_id"), all: in.flag("all"), replace: in.flag("rotate")}
	named := 0
	for _, given := range []bool{in.given("version"), in.given("key_id"), r.all} {
		if given {
			named++
		}
	}
	if named != 1 {
		return nil, refusal.New("version", nil, "exactly one of version, key_id and all=true says what to kill", "name one")
	}
	if in.given("version") {
		n := in.integer("version")
		if n < 1 || n > math.MaxInt32 {
			return nil, refusal.New("version", n, "is not a version", "status/<role> lists them")
		}
		r.version = int(n)
	}
	return r, nil
}

func (b *backend) revoke(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readRevoke(req, in)
	if err != nil {
		return nil, err
	}
	if r.keyID != "" {
		if key, err := keyformat.Parse(r.keyID); err == nil {
			return nil, refusal.New("key_id", nil, "is a whole key, not its id: this request may have been logged", "give the id, "+key.ID())
		}
		resp, done, err := b.revokeDynamic(ctx, r)
		if done || err != nil {
			return resp, err
		}
	}
	return b.action(ctx, r.actionRequest, func(tx *roleTx) (map[string]any, error) {
		tx.kill = true
		numbers, err := tx.toRevoke(r)
		if err != nil {
			return nil, err
		}
		if r.all {
			if first := tx.recentRevokeAll(); first != nil {
				return nil, &repeated{first: first}
			}
		}
		data, err := tx.revokeVersions(numbers, r.replace)
		if err != nil {
			return nil, err
		}
		if r.all {
			return data, tx.keepReplay("revoke", revokeAllMark, "", answer(data, tx.warnings...))
		}
		return data, nil
	})
}

// toRevoke reads which versions the request means.
func (tx *roleTx) toRevoke(r *revokeRequest) ([]int, error) {
	if id := r.keyID; id != "" {
		v := tx.rec.Ring.ByKeyID(id)
		if v == nil {
			return nil, &absence{what: "role " + refusal.Shown(tx.rec.Name) + " has no key " + refusal.Shown(id) + " that could still be revoked"}
		}
		return []int{v.N}, nil
	}
	if n := r.version; n != 0 {
		if tx.rec.Ring.Get(n) == nil {
			if n <= tx.rec.Ring.Last {
				return nil, refusal.New("version", n, "ended so long ago that the role no longer lists it", "nothing needs to be done")
			}
			return nil, refusal.New("version", n, "is not a version of this role", "status/<role> lists them")
		}
		return []int{n}, nil
	}
	return tx.live(), nil
}

// revokeDynamic kills one key of a dynamic role; done is false if the id is not
// one of those.
func (b *backend) revokeDynamic(ctx context.Context, r *revokeRequest) (resp *logical.Response, done bool, err error) {
	by, name, id := r.by, r.role, r.keyID
	role, err := getRecord[roleRecord](ctx, r.storage, rolePath(name))
	if err != nil {
		return nil, false, err
	}
	if role == nil {
		return nil, false, noRole(name)
	}
	if role.Type != policy.Dynamic {
		return nil, false, nil
	}
	unknown := &absence{what: "role " + refusal.Shown(name) + " has no key " + refusal.Shown(id)}
	if !keyformat.ValidID(id) {
		return nil, true, unknown
	}
	rec, err := b.killKey(ctx, r.storage, id, func(rec *keyRecord) error {
		if rec == nil || rec.RoleID != role.ID || !rec.Dynamic {
			return unknown
		}
		return nil
	}, causeRequest, by.reason)
	if err != nil {
		return nil, true, err
	}
	data := map[string]any{
		"revoked_versions": []int{}, "revoked_key_ids": []string{rec.ID},
		"version": 0, "key_id": "", "replaced": false, "next_rotation": "",
	}
	// Who killed it belongs to the role's history; the kill itself is committed.
	_, err = b.mutate(ctx, r.storage, name, by, func(tx *roleTx) error {
		if cur := tx.rec.Ring.Current(tx.now); cur != nil {
			data["version"] = cur.N
		}
		data["next_rotation"] = stamp(tx.nextRotation())
		tx.note(historyEntry{Kind: string(keyring.EventRevoked), Version: rec.Version, KeyID: rec.ID})
		return nil
	})
	resp = answer(data)
	if err != nil {
		b.Logger().Error("a killed key is missing in the role's history", "role", name, "key_id", id, "error", err)
		resp.AddWarning("the key is killed, but the role's history could not be written")
	}
	return resp, true, nil
}
