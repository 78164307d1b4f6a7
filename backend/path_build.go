// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"maps"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// displayPrefix begins the operation ids of the OpenAPI document.
const displayPrefix = "api-keys"

// nameField is the role that a path names.
func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: "Name of the role."}
}

const nameRegex = `(?P<name>[^/]+)`

// ok is the declared answer of an operation.
func ok(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{200: {{Description: description, Fields: fields}}}
}

func fields(sets ...map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	all := map[string]*framework.FieldSchema{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// writes marks an operation that must run on a node that may write.
func writes(op *framework.PathOperation) *framework.PathOperation {
	op.ForwardPerformanceSecondary = true
	op.ForwardPerformanceStandby = true
	return op
}

// handler is how this package writes operations: an error is turned into an
// answer in one place.
type handler func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error)

func handle(h handler) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		resp, err := h(ctx, req, d)
		if err != nil {
			return respond(err)
		}
		return resp, nil
	}
}

// policySchemas are the fields of a policy as a path declares them, for requests
// and answers alike.
func policySchemas() map[string]*framework.FieldSchema {
	types := map[policy.Kind]framework.FieldType{
		policy.Text: framework.TypeString, policy.Choice: framework.TypeString, policy.List: framework.TypeCommaStringSlice, policy.Map: framework.TypeKVPairs,
		policy.Switch: framework.TypeBool, policy.Duration: framework.TypeDurationSecond, policy.Number: framework.TypeFloat,
	}
	all := make(map[string]*framework.FieldSchema, len(policy.Fields))
	for i := range policy.Fields {
		f := &policy.Fields[i]
		s := &framework.FieldSchema{Type: types[f.Kind], Description: f.About, Default: f.Def}
		for _, c := range f.Choices {
			s.AllowedValues = append(s.AllowedValues, c)
		}
		all[f.Name] = s
	}
	return all
}
