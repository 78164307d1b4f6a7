// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsKeys() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "keys/" + nameRegex + "/?", suffix: "keys",
		synopsis: "The live keys of a dynamic role: issued to whom, when, until when.",
		fields:   fieldsOf(nameOf(), pageFieldSet(true)),
		ops: map[logical.Operation]operation{
			logical.ListOperation: {
				do: b.listKeys, summary: "The live keys of a dynamic role.", told: "The key ids.",
				answer: listFields("By key id: entity_id, display_name and label of whom it was issued to, issued, valid_until, version, " +
					"state, scopes, and reported if it was found in the open."),
			},
		},
		help: `
Lists the ids of the keys of a dynamic role that are accepted now, with whom each
was issued to, when, and until when it is valid. Keys that have ended are not
listed; lookup tells how one ended. Use after and limit to read page by page.`,
	})}
}

func (b *backend) listKeys(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	role, err := b.roleNamed(ctx, req.Storage, in.text("name"))
	if err != nil || role == nil {
		return nil, err
	}
	if role.Type != policy.Dynamic {
		return nil, refusal.New("role", role.Name, "is static: all its readers share one key", "read status/"+role.Name+", which lists its versions")
	}
	names, err := list(ctx, req.Storage, issuedPrefix+role.ID+"/")
	if err != nil {
		return nil, err
	}
	now := b.now(role.Committed)
	return windowOf(in).collect(names, func(id string) (map[string]any, error) {
		if !keyformat.ValidID(id) {
			return nil, nil
		}
		// Not through the cache, which is for the keys in use: a long list would
		// push those out.
		rec, err := getRecord[keyRecord](ctx, req.Storage, keyPath(id))
		if err != nil || rec == nil || rec.RoleID != role.ID || !rec.Dynamic {
			return nil, err
		}
		st := keyStatus(rec, role, now)
		if st.State.Ended() {
			return nil, nil
		}
		return map[string]any{
			"entity_id": rec.EntityID, "display_name": rec.Display, "label": rec.Label,
			"issued": stamp(rec.Issued), "valid_until": stamp(st.Until), "version": rec.Version, "state": string(st.State),
			"scopes": keyScopes(role, rec), "reported": stamp(rec.Reported),
		}, nil
	})
}
