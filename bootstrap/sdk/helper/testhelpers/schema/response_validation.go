// SPDX-License-Identifier: MPL-2.0

// Package schema checks responses against the schemas that their operations declare.
package schema

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// rawKeys make a response raw and are not part of its data.
var rawKeys = []string{
	logical.HTTPContentType,
	logical.HTTPRawBody,
	logical.HTTPStatusCode,
	logical.HTTPRawBodyAlreadyJSONDecoded,
	logical.HTTPCacheControlHeader,
	logical.HTTPPragmaHeader,
	logical.HTTPWWWAuthenticateHeader,
}

// ValidateResponse fails unless the response's data can be converted as the schema says. In strict mode there must be
// no other fields, and no required one missing.
func ValidateResponse(t *testing.T, schema *framework.Response, response *logical.Response, strict bool) {
	t.Helper()
	var data map[string]interface{}
	if response != nil {
		data = response.Data
	}
	ValidateResponseData(t, schema, data, strict)
}

// ValidateResponseData does so for data.
func ValidateResponseData(t *testing.T, schema *framework.Response, data map[string]interface{}, strict bool) {
	t.Helper()
	if err := validate(schema, data, strict); err != nil {
		t.Fatalf("validation error: %v; response data: %#v", err, data)
	}
}

func validate(schema *framework.Response, data map[string]interface{}, strict bool) error {
	if schema == nil {
		return nil
	}
	if status, ok := data[logical.HTTPStatusCode].(int); ok && (status < 200 || status > 299) {
		return nil
	}

	// What counts is what the client sees.
	encoded, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("failed to encode data: %w", err)
	}
	var seen map[string]interface{}
	if err := json.Unmarshal(encoded, &seen); err != nil {
		return fmt.Errorf("failed to decode data: %w", err)
	}
	for _, key := range rawKeys {
		delete(seen, key)
		if _, ok := schema.Fields[key]; ok {
			return fmt.Errorf("encountered a reserved field in response schema: %s", key)
		}
	}

	fields := framework.FieldData{Raw: seen, Schema: schema.Fields}
	if strict {
		return fields.ValidateStrict()
	}
	return fields.Validate()
}

// FindResponseSchema returns what an operation of a path declares for success.
func FindResponseSchema(t *testing.T, paths []*framework.Path, pathIdx int, operation logical.Operation) *framework.Response {
	t.Helper()
	if pathIdx >= len(paths) {
		t.Fatalf("path index %d is out of range", pathIdx)
	}
	return GetResponseSchema(t, paths[pathIdx], operation)
}

// GetResponseSchema returns what an operation of a path declares for status 200, else 202, else 204.
func GetResponseSchema(t *testing.T, path *framework.Path, operation logical.Operation) *framework.Response {
	t.Helper()
	handler, ok := path.Operations[operation]
	if !ok {
		t.Fatalf("could not find response schema: %s: %q operation does not exist", path.Pattern, operation)
	}
	responses := handler.Properties().Responses
	for _, status := range []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent} {
		declared, ok := responses[status]
		if !ok {
			continue
		}
		if len(declared) == 0 {
			break
		}
		return &declared[0]
	}
	t.Fatalf("could not find response schema: %s: %q operation: no responses found", path.Pattern, operation)
	return nil
}

// ResponseValidatingCallback returns a function that validates, strictly, a response by the request it answers.
func ResponseValidatingCallback(t *testing.T) func(logical.Backend, *logical.Request, *logical.Response) {
	return func(b logical.Backend, req *logical.Request, resp *logical.Response) {
		t.Helper()
		if b == nil {
			t.Fatal("non-nil backend required")
		}
		router, ok := b.(interface {
			Route(path string) *framework.Path
		})
		if !ok {
			t.Fatalf("could not cast %T to have `Route(string) *framework.Path`", b)
		}
		path := router.Route(strings.TrimPrefix(req.Path, req.MountPoint))
		if path == nil {
			t.Fatalf("backend %T could not find a route for %s", b, req.Path)
		}
		ValidateResponse(t, GetResponseSchema(t, path, req.Operation), resp, true)
	}
}
