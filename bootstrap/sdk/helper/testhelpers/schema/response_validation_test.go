// SPDX-License-Identifier: MPL-2.0

package schema

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func TestValidate(t *testing.T) {
	type m = map[string]interface{}
	declared := &framework.Response{Fields: map[string]*framework.FieldSchema{
		"s": {Type: framework.TypeString, Required: true},
		"n": {Type: framework.TypeInt},
		"l": {Type: framework.TypeStringSlice},
		"t": {Type: framework.TypeTime},
	}}
	for name, c := range map[string]struct {
		schema        *framework.Response
		data          m
		loose, strict string
	}{
		"complete":     {declared, m{"s": "x", "n": 1, "l": []string{"a"}, "t": time.Now()}, "", ""},
		"required":     {declared, m{"s": "x"}, "", ""},
		"missing":      {declared, m{"n": 1}, "", `missing required field "s"`},
		"unknown":      {declared, m{"s": "x", "other": 1}, "", `unknown field: "other"`},
		"wrong":        {declared, m{"s": "x", "n": "many"}, `field "n"`, `field "n"`},
		"nothing":      {declared, nil, "", `missing required field "s"`},
		"not JSON":     {declared, m{"s": func() {}}, "failed to encode", "failed to encode"},
		"raw":          {declared, m{"s": "x", "http_status_code": 200, "http_raw_body": "b", "http_content_type": "c"}, "", ""},
		"raw failure":  {declared, m{"http_status_code": 404}, "", ""},
		"redirect":     {declared, m{"http_status_code": 300}, "", ""},
		"raw success":  {declared, m{"http_status_code": 299}, "", `missing required field "s"`},
		"no schema":    {nil, m{"other": 1}, "", ""},
		"no fields":    {&framework.Response{}, m{"other": 1}, "", ""},
		"empty fields": {&framework.Response{Fields: map[string]*framework.FieldSchema{}}, m{"other": 1}, "", `unknown field: "other"`},
		"reserved": {
			&framework.Response{Fields: map[string]*framework.FieldSchema{"http_status_code": {Type: framework.TypeInt}}},
			m{},
			"reserved field", "reserved field",
		},
	} {
		for strict, want := range map[bool]string{false: c.loose, true: c.strict} {
			err := validate(c.schema, c.data, strict)
			if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
				t.Errorf("%s, strict %v: got %v, want %q", name, strict, err, want)
			}
		}
	}
}

func TestFindResponseSchema(t *testing.T) {
	responses := func(statuses ...int) *framework.PathOperation {
		op := &framework.PathOperation{Responses: map[int][]framework.Response{}}
		for _, status := range statuses {
			op.Responses[status] = []framework.Response{{Description: string(rune('0' + status%10))}}
		}
		return op
	}
	path := &framework.Path{Pattern: "p", Operations: map[logical.Operation]framework.OperationHandler{
		logical.ReadOperation:   responses(200, 202, 204),
		logical.UpdateOperation: responses(202, 204),
		logical.DeleteOperation: responses(204, 404),
	}}
	for op, want := range map[logical.Operation]string{logical.ReadOperation: "0", logical.UpdateOperation: "2", logical.DeleteOperation: "4"} {
		if got := FindResponseSchema(t, []*framework.Path{{}, path}, 1, op); got.Description != want {
			t.Errorf("%s: got %q, want %q", op, got.Description, want)
		}
	}
}

func TestResponseValidatingCallback(t *testing.T) {
	b := &framework.Backend{Paths: []*framework.Path{{
		Pattern: "p",
		Operations: map[logical.Operation]framework.OperationHandler{logical.ReadOperation: &framework.PathOperation{
			Responses: map[int][]framework.Response{200: {{Fields: map[string]*framework.FieldSchema{"k": {Type: framework.TypeString, Required: true}}}}},
		}},
	}}}
	req := &logical.Request{Operation: logical.ReadOperation, MountPoint: "mount/", Path: "mount/p"}
	ResponseValidatingCallback(t)(b, req, &logical.Response{Data: map[string]interface{}{"k": "v"}})
	ValidateResponse(t, nil, nil, true)
}
