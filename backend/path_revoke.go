// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// revokeAllRepeat is how long a repeated all=true by the same caller answers
// the first result: the replacement it got must not die by a retry.
const revokeAllRepeat = 5 * time.Minute

func (b *backend) pathsRevoke() []*framework.Path {
	return []*framework.Path{{
		Pattern: "revoke/" + nameRegex,
		Fields: fields(actionFields(), map[string]*framework.FieldSchema{
			"version": {Type: framework.TypeInt, Description: "The version to kill. For a dynamic role: every key issued in that generation."},
			"key_id":  {Type: framework.TypeString, Description: "The key to kill: one version of a static role, or one key of a dynamic one."},
			"all":     {Type: framework.TypeBool, Description: "Kill every version, the pending one included."},
			"rotate": {
				Type: framework.TypeBool, Default: true,
				Description: "Replace the current version in the same step if it is killed. false leaves the role without a current key.",
			},
		}),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: writes(&framework.PathOperation{
				Callback: handle(b.revoke), Summary: "Kill a version, all versions, or one dynamic key, at once.",
				Responses: ok("What was killed.", fields(replayFields(), map[string]*framework.FieldSchema{
					"revoked_versions": {Type: framework.TypeCommaIntSlice, Description: "The versions that are revoked now.", Required: true},
					"revoked_key_ids":  {Type: framework.TypeStringSlice, Description: "The key ids that are revoked now.", Required: true},
					"version":          {Type: framework.TypeInt, Description: "The current version; 0 if there is none.", Required: true},
					"key_id":           {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role and without one.", Required: true},
					"replaced":         {Type: framework.TypeBool, Description: "A new version was made in the same step.", Required: true},
					"next_rotation":    {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
				})),
			}),
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "revoke"},
		HelpSynopsis: "Kill a version, all versions, or one dynamic key, at once.",
		HelpDescription: `
Kills at once and for good: the next verification refuses the key. Killing the
current version makes a replacement in the same step unless rotate=false; the
replacement is always a new version, never the pending one, which whoever read
the leaked key may have read too.

Repeating a revocation is harmless.`,
	}}
}

func (b *backend) revoke(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	named := 0
	for _, f := range []string{"version", "key_id", "all"} {
		if v, ok := d.GetOk(f); ok && v != false && v != "" && v != 0 {
			named++
		}
	}
	if named != 1 {
		return nil, refuse("version", nil, "exactly one of version, key_id and all=true says what to kill", "name one")
	}
	if id := d.Get("key_id").(string); id != "" {
		if key, err := keyformat.Parse(id); err == nil {
			return nil, refuse("key_id", nil, "is a whole key, not its id: this request may have been logged", "give the id, "+key.ID())
		}
		resp, done, err := b.revokeDynamic(ctx, req, d, id)
		if done || err != nil {
			return resp, err
		}
	}
	return b.action(ctx, req, d, "revoke", func(tx *roleTx) (map[string]any, error) {
		tx.kill = true
		numbers, err := tx.toRevoke(d)
		if err != nil {
			return nil, err
		}
		if d.Get("all").(bool) {
			if first := tx.recentRevokeAll(); first != nil {
				return nil, &repeated{first: first}
			}
		}
		data, err := tx.revokeVersions(numbers, d.Get("rotate").(bool))
		if err != nil {
			return nil, err
		}
		if d.Get("all").(bool) {
			return data, tx.keepReplay("revoke", revokeAllMark, "", answer(data, tx.warnings...))
		}
		return data, nil
	})
}

// revokeAllMark keeps the result of an all=true without request id; no request
// id looks like it.
const revokeAllMark = "(all)"

// recentRevokeAll is the answer to an all=true by the same caller a moment ago.
func (tx *roleTx) recentRevokeAll() *replay {
	for i := len(tx.rec.Requests) - 1; i >= 0; i-- {
		r := &tx.rec.Requests[i]
		if r.ID == revokeAllMark && r.Caller == tx.by.caller && tx.now.Sub(r.Time) < revokeAllRepeat {
			return r
		}
	}
	return nil
}

// repeated ends an action that was carried out before: the stored answer is
// given again and nothing is written.
type repeated struct{ first *replay }

func (*repeated) Error() string { return "carried out before" }

// toRevoke reads which versions the request means.
func (tx *roleTx) toRevoke(d *framework.FieldData) ([]int, error) {
	if id := d.Get("key_id").(string); id != "" {
		v := tx.rec.Ring.ByKeyID(id)
		if v == nil {
			return nil, &absence{what: "role " + shown(tx.rec.Name) + " has no key " + shown(id) + " that could still be revoked"}
		}
		return []int{v.N}, nil
	}
	if n := d.Get("version").(int); n != 0 {
		if tx.rec.Ring.Get(n) == nil {
			if n > 0 && n <= tx.rec.Ring.Last {
				return nil, refuse("version", n, "ended so long ago that the role no longer lists it", "nothing needs to be done")
			}
			return nil, refuse("version", n, "is not a version of this role", "status/<role> lists them")
		}
		return []int{n}, nil
	}
	return tx.live(), nil
}

// live are the versions that have not ended, the pending one included.
func (tx *roleTx) live() []int {
	var live []int
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		if st, _ := tx.rec.Ring.Status(v.N, tx.now); !st.State.Ended() {
			live = append(live, v.N)
		}
	}
	return live
}

// revokeVersions kills the versions and, where the current one is among them
// and replace is set, makes its replacement in the same transition. Where there
// can be no replacement the kill stands alone.
func (tx *roleTx) revokeVersions(numbers []int, replace bool) (map[string]any, error) {
	tx.kill = true
	ring := &tx.rec.Ring
	cur := ring.Current(tx.now)
	hitsCurrent := false
	for _, n := range numbers {
		hitsCurrent = hitsCurrent || (cur != nil && n == cur.N)
	}
	events, err := ring.Revoke(tx.now, numbers...)
	if err != nil {
		return nil, err
	}
	tx.record(events, tx.by)
	replaced := false
	if hitsCurrent && replace {
		if err := tx.replace(); err != nil {
			if mustForward(err) {
				return nil, err
			}
			tx.b.Logger().Error("a killed version could not be replaced", "role", tx.rec.Name, "error", err)
			tx.warn("the version was killed, but its replacement could not be made: the periodic function tries again; rotate/<role> makes one at once")
			// The pending version dies with it as it does where there is a
			// replacement: whoever read the one may have read the other.
			if p := ring.Pending(tx.now); p != nil {
				events, err := ring.Revoke(tx.now, p.N)
				if err != nil {
					return nil, err
				}
				tx.record(events, tx.by)
			}
			tx.rec.Owed = true
		} else {
			replaced = true
		}
	}
	data := map[string]any{
		"revoked_versions": numbersOf(numbers), "revoked_key_ids": []string{},
		"version": 0, "key_id": "", "replaced": replaced, "next_rotation": stamp(tx.nextRotation()),
	}
	ids := []string{}
	for _, n := range numbers {
		if v := ring.Get(n); v.KeyID != "" {
			ids = append(ids, v.KeyID)
		}
	}
	data["revoked_key_ids"] = ids
	if cur := ring.Current(tx.now); cur != nil {
		data["version"], data["key_id"] = cur.N, cur.KeyID
	}
	return data, nil
}

func numbersOf(numbers []int) []int {
	if numbers == nil {
		return []int{}
	}
	return numbers
}

// replace makes a version in place of the current one that was just killed. Its
// records are written at once: if that fails the kill must not fail with it.
func (tx *roleTx) replace() error {
	before := len(tx.minted)
	m, err := tx.newVersion(tx.defaultGrace())
	if err != nil {
		return err
	}
	for i := before; i < len(tx.minted); i++ {
		if err := tx.writeKey(&tx.minted[i]); err != nil {
			tx.minted = tx.minted[:before]
			return err
		}
		tx.minted[i].written = true
	}
	events, err := tx.rec.Ring.Rotate(tx.now, m, true)
	if err != nil {
		tx.minted = tx.minted[:before]
		return err
	}
	tx.record(events, tx.by)
	tx.rebase(tx.now)
	tx.rotated()
	return nil
}

// revokeDynamic kills one key of a dynamic role; done is false if the id is not
// one of those.
func (b *backend) revokeDynamic(ctx context.Context, req *logical.Request, d *framework.FieldData, id string) (resp *logical.Response, done bool, err error) {
	by, err := actorOf(req, d)
	if err != nil {
		return nil, false, err
	}
	name := d.Get("name").(string)
	role, err := getRecord[roleRecord](ctx, req.Storage, rolePath(name))
	if err != nil {
		return nil, false, err
	}
	if role == nil {
		return nil, false, noRole(name)
	}
	if role.Type != typeDynamic {
		return nil, false, nil
	}
	unknown := &absence{what: "role " + shown(name) + " has no key " + shown(id)}
	if !keyformat.ValidID(id) {
		return nil, true, unknown
	}
	rec, err := b.killKey(ctx, req.Storage, id, func(rec *keyRecord) error {
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
	_, err = b.mutate(ctx, req.Storage, name, by, func(tx *roleTx) error {
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

// killKey marks the key of a dynamic role as revoked, in one Put, and returns
// its record. check may refuse what was found, nil if nothing was. A key that
// is dead already stays as it is.
func (b *backend) killKey(ctx context.Context, s logical.Storage, id string, check func(*keyRecord) error, cause, reason string) (*keyRecord, error) {
	return b.mutateKey(ctx, s, id, func(rec *keyRecord) error {
		if err := check(rec); err != nil {
			return err
		}
		now := b.now()
		if rec == nil || !rec.RevokedAt.IsZero() || rec.ExpiredSeen {
			return errUnchanged
		}
		if !now.Before(rec.Expires) {
			rec.ExpiredSeen = true // no clock that goes back revives it
			return nil
		}
		rec.RevokedAt, rec.Revoked = now, cause
		if reason != "" {
			rec.Revoked = cause + ": " + reason
		}
		return nil
	})
}
