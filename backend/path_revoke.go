// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsRevoke() []*framework.Path {
	reason := reasonField("Why; kept in the role's history.", true)
	reason.free.raw = true
	return []*framework.Path{b.path(pathSpec{
		pattern: "revoke/" + nameRegex, verb: "revoke",
		synopsis: "Kill a version, all versions, or one dynamic key, at once.",
		fields: fieldsOf(actionFields(true), fieldSet{
			"reason":  reason,
			"version": {kind: kindInteger, about: "The version to kill. For a dynamic role: every key issued in that generation."},
			"key_id": {
				kind: kindText, secret: true,
				about: "The key to kill, by its id: one version of a static role, or one key of a dynamic one. The whole key is taken, too, but requests get logged.",
			},
			"all": {kind: kindSwitch, about: "Kill every version, the pending one included."},
			"rotate": {
				kind: kindSwitch, def: true,
				about: "Replace the current version in the same step if it is killed. false leaves the role without a current key, also where a replacement is still to come.",
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

Consumers hold a killed key until they read again: after the ttl that creds told
them, at most the role's refresh_interval (5 minutes). A shorter refresh_interval
buys a shorter gap with more reads. An agent that is restarted reads at once.

A key of a role that was deleted and can be restored is killed by its id: the role
comes back without it.

The key of a dynamic role that expired before stays expired: the answer names no
revoked key and a warning says when it ended. A version that expired is marked as
revoked all the same.

Repeating a revocation is harmless. A repeated all=true on a static role would kill
the replacement that the first one made: the same request of the same caller within
5 minutes answers the first result, with a warning, as long as that replacement is
the only version that lives. With a rotation in between, other parameters or another
request_id, and on a dynamic role, it kills again; there a request_id makes a retry
harmless.`,
	})}
}

// revokeRequest is what revoke says: exactly one of version, key id and all.
type revokeRequest struct {
	*actionRequest

	version int
	keyID   string
	all     bool
	replace bool
	// killed is the key of a dynamic role that the request has ended. Its own record
	// is the commit for it.
	killed *keyRecord
}

// readRevoke reads what is to be killed. keyID is still as it was pasted.
func readRevoke(in *input) (*revokeRequest, error) {
	r := &revokeRequest{keyID: in.text("key_id"), all: in.flag("all"), replace: in.flag("rotate")}
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
	r, err := readRevoke(in)
	if err != nil {
		return nil, err
	}
	var key meantKey
	if r.keyID != "" {
		if key, err = b.keyMeant(ctx, req.Storage, "key_id", r.keyID); err != nil {
			return nil, err
		}
		// From here on the request names the id, whatever was pasted.
		r.keyID, in.values["key_id"] = key.id, key.id
	}
	if key.whole {
		in.warn("key_id: is a whole key, not its id: this request may have been logged")
	}
	in.scrub("reason", key.secret)
	if r.actionRequest, err = readAction(req, in, "revoke"); err != nil {
		return nil, err
	}
	if r.all {
		r.earlier = func(tx *roleTx) *replay { return tx.repeatedRevokeAll(r.params) }
	}
	resp, err := b.revokeNamed(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.all && r.by.requestID == "" && resp.Data["replayed"] == true {
		resp.AddWarning(repeatedNote(resp.Data))
	}
	for _, warning := range in.warnings {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// repeatedNote says that an all=true was taken for a repetition.
func repeatedNote(data map[string]any) string {
	note := fmt.Sprintf("nothing was killed: this answers the same request of %v, ", data["replayed_at"])
	if data["replaced"] == true {
		return note + fmt.Sprintf("whose replacement, version %v, is the only one that lives: version=%[1]v kills it", data["version"])
	}
	return note + "and no version lives"
}

// revokeNamed kills what the request names: of the role that has the name, or,
// where that has no such key, of the one that the key belongs to, which had the
// name and was deleted.
func (b *backend) revokeNamed(ctx context.Context, r *revokeRequest) (*logical.Response, error) {
	resp, err := b.revokeIn(ctx, r)
	if !isAbsent(err) || r.keyID == "" {
		return resp, err
	}
	key, keyErr := getRecord[keyRecord](ctx, r.storage, keyPath(r.keyID))
	switch {
	case keyErr != nil:
		return nil, keyErr
	case key == nil || key.Role != r.role && !b.renamesKnown(ctx, r.storage):
		return nil, err
	}
	r.roleID = key.RoleID
	resp, keptErr := b.revokeIn(ctx, r)
	if isAbsent(keptErr) {
		return nil, err
	}
	return resp, keptErr
}

func (b *backend) revokeIn(ctx context.Context, r *revokeRequest) (*logical.Response, error) {
	var data map[string]any
	resp, err := b.action(ctx, r.actionRequest, func(tx *roleTx) (map[string]any, error) {
		var err error
		data, err = tx.revokeAsked(r)
		if err == nil && tx.hidden {
			tx.warn("the role is deleted: if restore/%s brings it back, the key stays revoked", tx.rec.ID)
		}
		return data, err
	})
	if err != nil && r.killed != nil && !mustForward(err) {
		b.Logger().Error("a killed key is missing in the role's history", "role", r.role, "key_id", r.keyID, "error", err)
		return answer(data, "the key is killed, but the role's history could not be written"), nil
	}
	return resp, err
}

// revokeAsked kills what the request names.
func (tx *roleTx) revokeAsked(r *revokeRequest) (map[string]any, error) {
	tx.kill = true
	if r.keyID != "" && tx.rec.Type == policy.Dynamic {
		return tx.revokeKey(r)
	}
	if !r.all {
		n, err := tx.toRevoke(r)
		if err != nil {
			return nil, err
		}
		return tx.revokeVersions(killing{numbers: []int{n}, replace: r.replace})
	}
	data, err := tx.revokeVersions(killing{all: true, replace: r.replace})
	if err != nil {
		return nil, err
	}
	return data, tx.keepRevokeAll(r.params[0], answer(data, tx.warnings...))
}

// toRevoke reads which version the request means.
func (tx *roleTx) toRevoke(r *revokeRequest) (int, error) {
	if id := r.keyID; id != "" {
		v := tx.rec.Ring.ByKeyID(id)
		if v == nil {
			return 0, &absence{what: "role " + refusal.Shown(tx.rec.Name) + " has no key " + refusal.Shown(id) + " that could still be revoked"}
		}
		return v.N, nil
	}
	switch n := r.version; {
	case tx.rec.Ring.Get(n) != nil:
		return n, nil
	case n <= tx.rec.Ring.Last:
		return 0, refusal.New("version", n, "ended so long ago that the role no longer lists it", "nothing needs to be done")
	default:
		return 0, refusal.New("version", n, "is not a version of this role", "status/<role> lists them")
	}
}

// revokeKey kills one key of a dynamic role.
func (tx *roleTx) revokeKey(r *revokeRequest) (map[string]any, error) {
	ended := false
	rec, err := tx.b.killKey(tx.ctx, tx.s, r.keyID, &keyTeller{by: tx.by.tells(), role: tx.rec}, func(rec *keyRecord) (bool, error) {
		if rec == nil || rec.RoleID != tx.rec.ID || !rec.Dynamic {
			return false, &absence{what: "role " + refusal.Shown(tx.rec.Name) + " has no key " + refusal.Shown(r.keyID)}
		}
		ended = !rec.RevokedAt.IsZero() || rec.ExpiredSeen
		return true, nil
	}, causeRequest, tx.by.reason, cmp.Or(tx.by.code, keyring.Unspecified))
	if err != nil {
		return nil, err
	}
	ids := []string{rec.ID}
	if rec.RevokedAt.IsZero() {
		ids = []string{}
		tx.warn("key %s expired at %s: there was nothing left to revoke", rec.ID, stamp(rec.Expires))
	}
	if r.killed = rec; !ended && len(ids) > 0 {
		tx.note(historyEntry{Kind: string(keyring.EventRevoked), Version: rec.Version, KeyID: rec.ID})
	}
	data := map[string]any{
		"revoked_versions": []int{}, "revoked_key_ids": ids,
		"version": 0, "key_id": "", "replaced": false, "next_rotation": stamp(tx.nextRotation()),
	}
	if cur := tx.rec.Ring.Current(tx.now); cur != nil {
		data["version"] = cur.N
	}
	return data, nil
}
