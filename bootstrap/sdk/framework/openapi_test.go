// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestExpandPattern(t *testing.T) {
	for pattern, want := range map[string][]string{
		"a":                                    {"a"},
		"^a/?$":                                {"a"},
		"a/" + GenericNameRegex("name"):        {"a/{name}"},
		"a/" + GenericNameRegex("name") + "/?": {"a/{name}"},
		"a" + OptionalParamRegex("rest"):       {"a", "a/{rest}"},
		MatchAllRegex("rest"):                  {"{rest}"},
		"k/(in|out|kms)":                       {"k/in", "k/out", "k/kms"},
		"crl(/pem|/delta(/pem)?)?":             {"crl", "crl/pem", "crl/delta", "crl/delta/pem"},
		"a/?b":                                 {"ab", "a/b"},
		"(a/)?b":                               {"b", "a/b"},
		"a(?P<x>b)?(?P<y>c)?":                  {"a", "a{y}", "a{x}", "a{x}{y}"},
		"abc?":                                 {"ab", "abc"},
		"a(b|c/)?d":                            {"ad", "abd", "ac/d"},
		"a(bc)?":                               {"a", "abc"},
		"a.b":                                  nil,
		"a/.*":                                 nil,
		"a/[^/]+":                              nil,
		"(a.|b)":                               nil,
		"(a.)?":                                nil,
	} {
		got, ok := expandPattern(pattern)
		slices.Sort(got)
		slices.Sort(want)
		if ok != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%s expands to %q, %v, want %q", pattern, got, ok, want)
		}
	}
}

func TestSpecialPathMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/bc", false},
		{"a/*", "a/b/c", true},
		{"a/*", "a", false},
		{"a*", "abc", true},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a/b/d", false},
		{"a/+/c", "a/b/c/d", false},
		{"a/+/c", "a/b", false},
		{"a/+/c*", "a/b/cd/e", true},
		{"+/b", "a/b", true},
		{"a/b", "", false},
	} {
		if got := specialPathMatch(c.path, []string{"never", c.pattern}); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.path, got)
		}
	}
}

func TestOperationID(t *testing.T) {
	hints := func(prefix, verb, suffix string) *DisplayAttributes {
		return &DisplayAttributes{OperationPrefix: prefix, OperationVerb: verb, OperationSuffix: suffix}
	}
	for _, c := range []struct {
		path  string
		index int
		attrs *DisplayAttributes
		op    logical.Operation
		own   *DisplayAttributes
		want  string
	}{
		{"a/{name}", 0, nil, logical.ReadOperation, nil, "kv-read-a-name"},
		{"a/{name}", 0, nil, logical.UpdateOperation, nil, "kv-write-a-name"},
		{"a/{name}", 0, nil, logical.CreateOperation, nil, "kv-create-a-name"},
		{"a", 0, hints("p", "", ""), logical.ListOperation, nil, "p-list-a"},
		{"a", 0, hints("p", "", "s"), logical.ListOperation, nil, "p-list-s"},
		{"a", 0, hints("p", "v", "s"), logical.ListOperation, nil, "p-v-s"},
		{"a", 0, hints("p", "v", ""), logical.ListOperation, nil, "p-v"},
		{"a", 0, hints("", "v", ""), logical.ListOperation, nil, "v"},
		{"a", 0, hints("p", "v", "s"), logical.ListOperation, hints("q", "w", "t"), "q-w-t"},
		{"a", 0, hints("p", "v", "s"), logical.ListOperation, hints("", "w", ""), "p-w-s"},
		{"a", 1, hints("p", "", "s|t"), logical.ListOperation, nil, "p-list-t"},
		{"a", 2, hints("p", "v", "s|t"), logical.ListOperation, nil, "p-v-a"},
		{"a", 1, hints("p", "", "s"), logical.ListOperation, nil, "p-list-a"},
		{"A/B", 0, hints("P", "", ""), logical.ReadOperation, nil, "p-read-a-b"},
	} {
		if got := constructOperationID(c.path, c.index, c.attrs, c.op, c.own, "kv"); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.op, c.path, got, c.want)
		}
	}
	for in, want := range map[string]string{"a-bc-d": "ABcD", "": "", "key_id-x": "Key_idX", "2fa-x": "2FaX", "über": "Über"} {
		if got := titleCase(in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

func TestFieldMapping(t *testing.T) {
	for ft, want := range map[FieldType]OASSchema{
		TypeString:               {Type: "string"},
		TypeHeader:               {Type: "string"},
		TypeNameString:           {Type: "string", Pattern: `\w([\w-.]*\w)?`},
		TypeLowerCaseString:      {Type: "string", Format: "lowercase"},
		TypeInt:                  {Type: "integer"},
		TypeInt64:                {Type: "integer", Format: "int64"},
		TypeDurationSecond:       {Type: "integer", Format: "seconds"},
		TypeSignedDurationSecond: {Type: "integer", Format: "seconds"},
		TypeBool:                 {Type: "boolean"},
		TypeMap:                  {Type: "object", Format: "map"},
		TypeKVPairs:              {Type: "object", Format: "kvpairs"},
		TypeSlice:                {Type: "array", Items: &OASSchema{Type: "object"}},
		TypeStringSlice:          {Type: "array", Items: &OASSchema{Type: "string"}},
		TypeCommaStringSlice:     {Type: "array", Items: &OASSchema{Type: "string"}},
		TypeCommaIntSlice:        {Type: "array", Items: &OASSchema{Type: "integer"}},
		TypeTime:                 {Type: "string", Format: "date-time"},
		TypeFloat:                {Type: "number", Format: "float"},
		TypeInvalid:              {Format: "unknown"},
	} {
		if got := oasType(ft); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", ft, got, want)
		}
	}
}

func documentOf(t *testing.T, special *logical.Paths, backendType logical.BackendType, paths ...*Path) map[string]interface{} {
	t.Helper()
	doc := NewOASDocument("1.0")
	documentPaths(&Backend{Paths: paths, PathsSpecial: special, BackendType: backendType}, "kv", doc)
	encoded, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]interface{}
	if err := json.Unmarshal(encoded, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantJSON(t *testing.T, got interface{}, want string) {
	t.Helper()
	var wanted interface{}
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		shown, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("got %s\nwant %s", shown, want)
	}
}

func TestDocumentSkeleton(t *testing.T) {
	wantJSON(t, documentOf(t, nil, logical.TypeLogical), `{
		"openapi": "3.0.2",
		"info": {
			"title": "HashiCorp Vault API",
			"description": "HTTP API that gives you full access to Vault. All API routes are prefixed with `+"`/v1/`"+`.",
			"version": "1.0",
			"license": {"name": "Mozilla Public License 2.0", "url": "https://www.mozilla.org/en-US/MPL/2.0"}
		},
		"paths": {},
		"components": {"schemas": {}}
	}`)
}

func TestDocumentPath(t *testing.T) {
	special := &logical.Paths{Root: []string{"a/*"}, Unauthenticated: []string{"a/+"}}
	doc := documentOf(t, special, logical.TypeLogical, &Path{
		Pattern:      "a/" + GenericNameRegex("name"),
		HelpSynopsis: " One\n  thing. ",
		DisplayAttrs: &DisplayAttributes{OperationPrefix: "p", OperationSuffix: "thing", ItemType: "Thing"},
		Fields: map[string]*FieldSchema{
			"name": {Type: TypeNameString, Description: "Its\nname.", Required: true},
			"page": {Type: TypeInt, Query: true, Default: 3},
			"list": {
				Type: TypeStringSlice, Required: true, Deprecated: true, AllowedValues: []interface{}{"x"},
				DisplayAttrs: &DisplayAttributes{Name: "List", OperationVerb: "v"},
			},
			"also": {Type: TypeDurationSecond, Required: true, DisplayAttrs: &DisplayAttributes{OperationVerb: "v"}},
		},
		ExistenceCheck: nil,
		Operations: map[logical.Operation]OperationHandler{
			logical.ReadOperation: &PathOperation{Summary: " Read it. ", Description: "Long.", Responses: map[int][]Response{
				200: {{Description: "OK", Fields: map[string]*FieldSchema{"n": {Type: TypeInt, Description: "N."}}}},
				404: {{Description: "None", Example: &logical.Response{Data: map[string]interface{}{"k": 1}}}},
			}},
			logical.ListOperation:   &PathOperation{},
			logical.CreateOperation: &PathOperation{Summary: "never shown"},
			logical.UpdateOperation: &PathOperation{Deprecated: true, Examples: []RequestExample{{Data: map[string]interface{}{"e": 1}}, {}}},
			logical.PatchOperation:  &PathOperation{Unpublished: true},
			logical.DeleteOperation: &PathOperation{},
			logical.RenewOperation:  &PathOperation{},
		},
	})
	wantJSON(t, doc["paths"], `{"/a/{name}": {
		"description": "One thing.",
		"parameters": [
			{"name": "name", "description": "Its name.", "in": "path", "required": true, "schema": {"type": "string", "pattern": "\\w([\\w-.]*\\w)?"}},
			{"name": "page", "in": "query", "schema": {"type": "integer", "default": 3}}
		],
		"x-vault-sudo": true,
		"x-vault-unauthenticated": true,
		"x-vault-createSupported": true,
		"x-vault-displayAttrs": {"itemType": "Thing"},
		"get": {
			"summary": "Read it.", "description": "Long.", "operationId": "p-read-thing", "tags": ["secrets"],
			"parameters": [{"name": "list", "description": "Return a list if `+"`true`"+`", "in": "query", "schema": {"type": "string"}}],
			"responses": {
				"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PReadThingResponse"}}}},
				"404": {"description": "None", "content": {"application/json": {"schema": {"example": {"data": {"k": 1}}}}}}
			}
		},
		"post": {
			"operationId": "p-write-thing", "tags": ["secrets"], "deprecated": true,
			"requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PWriteThingRequest"}}}},
			"responses": {"200": {"description": "OK"}}
		},
		"delete": {"operationId": "p-delete-thing", "tags": ["secrets"], "responses": {"204": {"description": "empty body"}}}
	}}`)
	wantJSON(t, doc["components"], `{"schemas": {
		"PReadThingResponse": {"type": "object", "properties": {"n": {"type": "integer", "description": "N."}}},
		"PWriteThingRequest": {
			"type": "object", "required": ["also", "list"], "example": {"e": 1},
			"properties": {
				"also": {"type": "integer", "format": "seconds"},
				"list": {"type": "array", "items": {"type": "string"}, "enum": ["x"], "deprecated": true, "x-vault-displayAttrs": {"name": "List"}}
			}
		}
	}}`)
}

func TestDocumentOtherPaths(t *testing.T) {
	callbacks := map[logical.Operation]OperationFunc{logical.CreateOperation: answer("")}
	doc := documentOf(t, nil, logical.TypeCredential,
		&Path{Pattern: "l/?", Operations: map[logical.Operation]OperationHandler{logical.ListOperation: &PathOperation{}}},
		&Path{Pattern: "raw/.*", Operations: reads("")},
		&Path{Pattern: "old(/x)?", Callbacks: callbacks, HelpSynopsis: "Old."},
	)
	wantJSON(t, doc["paths"], `{
		"/l": {"get": {
			"operationId": "kv-list-l", "tags": ["auth"],
			"parameters": [{"name": "list", "description": "Must be set to `+"`true`"+`", "in": "query", "required": true, "schema": {"type": "string", "enum": ["true"]}}],
			"responses": {"200": {"description": "OK"}}
		}},
		"/raw/.*": {},
		"/old": {
			"description": "Old.", "x-vault-createSupported": true,
			"post": {"summary": "Old.", "operationId": "kv-create-old", "tags": ["auth"], "responses": {"200": {"description": "OK"}}}
		},
		"/old/x": {
			"description": "Old.", "x-vault-createSupported": true,
			"post": {"summary": "Old.", "operationId": "kv-create-old-x", "tags": ["auth"], "responses": {"200": {"description": "OK"}}}
		}
	}`)
}

func TestOneSchemaForSeveralStatuses(t *testing.T) {
	for range 20 {
		doc := documentOf(t, nil, logical.TypeUnknown, &Path{Pattern: "a", Operations: map[logical.Operation]OperationHandler{
			logical.ReadOperation: &PathOperation{Responses: map[int][]Response{
				202: {{Fields: map[string]*FieldSchema{"later": {Type: TypeInt}}}},
				200: {{Fields: map[string]*FieldSchema{"now": {Type: TypeInt}}}},
			}},
		}})
		wantJSON(t, doc["components"], `{"schemas": {"KvReadAResponse": {"type": "object", "properties": {"now": {"type": "integer"}}}}}`)
	}
}

func TestDocumentFromMap(t *testing.T) {
	doc := NewOASDocument("1.0")
	documentPath(&Path{
		Pattern: "a", Fields: map[string]*FieldSchema{"f": {Type: TypeString, DisplayAttrs: &DisplayAttributes{Name: "F"}}},
		Operations: map[logical.Operation]OperationHandler{logical.UpdateOperation: &PathOperation{}, logical.DeleteOperation: &PathOperation{}},
	}, nil, "kv", logical.TypeLogical, doc)
	encoded, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var asMap map[string]interface{}
	if err := json.Unmarshal(encoded, &asMap); err != nil {
		t.Fatal(err)
	}
	restored, err := NewOASDocumentFromMap(asMap)
	if err != nil {
		t.Fatal(err)
	}
	if restored.Paths["/a"].Delete.Responses[204].Description != "empty body" {
		t.Errorf("responses are %v", restored.Paths["/a"].Delete.Responses)
	}
	again, err := json.Marshal(restored)
	if err != nil || string(again) != string(encoded) {
		t.Errorf("got %s, %v\nwant %s", again, err, encoded)
	}
	if _, err := NewOASDocumentFromMap(map[string]interface{}{"paths": 1}); err == nil {
		t.Error("restored nonsense")
	}
}
