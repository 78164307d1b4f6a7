// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func (b *backend) secrets() []*framework.Secret {
	return []*framework.Secret{{
		Type: secretType,
		Fields: map[string]*framework.FieldSchema{
			"api_key": {Type: framework.TypeString, Description: "The key."},
			"key_id":  {Type: framework.TypeString, Description: "The key's public id."},
		},
		Renew:  b.renew,
		Revoke: b.revokeLease,
	}}
}

// renew extends the lease of a live key, and the key with it.
func (b *backend) renew(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	var resp *logical.Response
	err := b.noteRenewal(ctx, req)
	if err == nil {
		resp, err = b.renewKey(ctx, req)
	}
	if err != nil {
		return respond(err)
	}
	return resp, nil
}

// revokeLease ends a key because its lease ended. It may come twice, late, or
// after the role is gone, and succeeds then too.
func (b *backend) revokeLease(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	id, _, roleID := leaseData(req)
	if !keyformat.ValidID(id) {
		return nil, nil
	}
	_, err := b.killKey(ctx, req.Storage, id, nil, func(rec *keyRecord) (bool, error) {
		return rec != nil && rec.RoleID == roleID, nil
	}, causeLease, "", "")
	if err != nil {
		return respond(err)
	}
	return nil, nil
}
