// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Secret is a kind of leased secret.
type Secret struct {
	// Type is stored with every lease and must stay the same.
	Type string

	// Fields are those of the response data, for Renew and Revoke to read.
	Fields map[string]*FieldSchema

	// DefaultDuration is the TTL unless the response says otherwise; 0 leaves it to the mount.
	DefaultDuration time.Duration

	// Renew makes the secret renewable.
	Renew OperationFunc

	Revoke OperationFunc
}

// Renewable reports whether there is a Renew function.
func (s *Secret) Renewable() bool { return s.Renew != nil }

// Response makes a response that carries this secret. data goes to the client, internal comes back on renewal and revocation.
func (s *Secret) Response(data, internal map[string]interface{}) *logical.Response {
	internalData := make(map[string]interface{}, len(internal)+1)
	maps.Copy(internalData, internal)
	internalData["secret_type"] = s.Type

	return &logical.Response{
		Secret: &logical.Secret{
			LeaseOptions: logical.LeaseOptions{
				TTL:       s.DefaultDuration,
				Renewable: s.Renewable(),
			},
			InternalData: internalData,
		},
		Data: data,
	}
}

// HandleRenew calls Renew.
func (s *Secret) HandleRenew(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	return s.call(ctx, req, s.Renew)
}

// HandleRevoke calls Revoke.
func (s *Secret) HandleRevoke(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	return s.call(ctx, req, s.Revoke)
}

// call does not validate the data: it is what the lease was stored with.
func (s *Secret) call(ctx context.Context, req *logical.Request, callback OperationFunc) (*logical.Response, error) {
	if callback == nil {
		return nil, logical.ErrUnsupportedOperation
	}
	return callback(ctx, req, &FieldData{Raw: req.Data, Schema: s.Fields})
}
