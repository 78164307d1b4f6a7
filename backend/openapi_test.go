// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// namedServer is a server that says what it is, as they all do.
type namedServer struct{ logical.SystemView }

func (namedServer) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	return &logical.PluginEnvironment{VaultVersion: "1.0.0"}, nil
}

// apiDocument is the engine's OpenAPI document as a server gets it.
func apiDocument(t *testing.T) *framework.OASDocument {
	t.Helper()
	b, storage := newBackend(newFakeClock(), rand.Reader), &logical.InmemStorage{}
	conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: namedServer{logical.TestSystemView()}, StorageView: storage}
	if err := b.Setup(context.Background(), conf); err != nil {
		t.Fatal(err)
	}
	resp, err := b.HandleRequest(context.Background(), &logical.Request{Operation: logical.HelpOperation, Storage: storage})
	if err != nil || resp.IsError() {
		t.Fatalf("no help: %v %v", err, resp)
	}
	encoded, err := json.Marshal(resp.Data["openapi"])
	if err != nil {
		t.Fatal(err)
	}
	doc := new(framework.OASDocument)
	if err := json.Unmarshal(encoded, doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func operationsOf(item *framework.OASPathItem) map[string]*framework.OASOperation {
	ops := map[string]*framework.OASOperation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete}
	maps.DeleteFunc(ops, func(_ string, op *framework.OASOperation) bool { return op == nil })
	return ops
}

// refersTo is the name of the schema that a content has, empty without one.
func refersTo(content framework.OASContent) string {
	if content["application/json"] == nil || content["application/json"].Schema == nil {
		return ""
	}
	return strings.TrimPrefix(content["application/json"].Schema.Ref, "#/components/schemas/")
}

// What generates clients names the operations by their ids and the schemas by
// them, so two that have one id hide each other.
func TestEveryOperationHasItsOwnIDAndAnswer(t *testing.T) {
	doc := apiDocument(t)
	by := map[string]string{} // operations by id, and by schema
	own := func(what, id, where string) {
		if first, taken := by[what+id]; taken {
			t.Errorf("%s: its %s%q is that of %s, too", where, what, id, first)
		}
		by[what+id] = where
	}
	operations := 0
	for path, item := range doc.Paths {
		for method, op := range operationsOf(item) {
			operations++
			where := method + " " + path
			own("id ", op.OperationID, where)
			if !strings.HasPrefix(op.OperationID, displayPrefix+"-") || strings.ContainsAny(op.OperationID, "{}/?|") {
				t.Errorf("%s: its id %q is made up", where, op.OperationID)
			}
			if op.Summary == "" {
				t.Errorf("%s: no summary", where)
			}
			if op.Responses[400] == nil {
				t.Errorf("%s: it declares no 400", where)
			}
			if op.RequestBody != nil {
				own("schema ", refersTo(op.RequestBody.Content), where)
			}
			switch answer := op.Responses[200]; {
			case path == "/metrics" && answer != nil && answer.Description != "": // no JSON, and so without schema
			case answer == nil || refersTo(answer.Content) == "":
				if op.Responses[204] == nil {
					t.Errorf("%s: it declares neither a schema nor that there is no content", where)
				}
			default:
				name := refersTo(answer.Content)
				own("schema ", name, where)
				if schema := doc.Components.Schemas[name]; schema == nil || len(schema.Properties) == 0 {
					t.Errorf("%s: its schema %s tells nothing", where, name)
				}
			}
		}
	}
	if operations < 30 {
		t.Errorf("the document has %d operations", operations)
	}
}

// Servers differ in which operations of a path they document beside each other,
// such as a list beside a read: ids of all of them differ.
func TestOperationsThatShareAMethodHaveIDsOfTheirOwn(t *testing.T) {
	m := newMount(t)
	ids := map[string]string{}
	for _, p := range m.Paths {
		for on, handler := range p.Operations {
			if on == logical.CreateOperation && p.Operations[logical.UpdateOperation] != nil {
				continue // the same method with the same meaning
			}
			verb, suffix := string(on), ""
			for _, attrs := range []*framework.DisplayAttributes{p.DisplayAttrs, handler.Properties().DisplayAttrs} {
				if attrs == nil {
					continue
				}
				if attrs.OperationVerb != "" {
					verb = attrs.OperationVerb
				}
				if attrs.OperationSuffix != "" {
					suffix = attrs.OperationSuffix
				}
			}
			id, where := verb+"-"+suffix, string(on)+" "+p.Pattern
			if first, taken := ids[id]; taken {
				t.Errorf("%s and %s are both %s", where, first, id)
			}
			ids[id] = where
		}
	}
}

func TestHelpExplainsEveryPathAndField(t *testing.T) {
	m := newMount(t)
	for _, p := range m.Paths {
		if strings.TrimSpace(p.HelpSynopsis) == "" || strings.TrimSpace(p.HelpDescription) == "" {
			t.Errorf("%s has no help", p.Pattern)
		}
		for name, f := range p.Fields {
			if strings.TrimSpace(f.Description) == "" {
				t.Errorf("%s: %s is not described", p.Pattern, name)
			}
		}
		for on, handler := range p.Operations {
			for status, answers := range handler.Properties().Responses {
				for _, a := range answers {
					if strings.TrimSpace(a.Description) == "" {
						t.Errorf("%s %s: status %d is not described", on, p.Pattern, status)
					}
					for name, f := range a.Fields {
						if strings.TrimSpace(f.Description) == "" {
							t.Errorf("%s %s: %s of its answer is not described", on, p.Pattern, name)
						}
					}
				}
			}
		}
	}
	// The help of a path as a person asks for it.
	for _, path := range []string{"roles/a", "rotate/a", "creds/a", "creds/a/pending", "inventory/", "verify"} {
		resp, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: m.storage})
		if err != nil || resp.IsError() {
			t.Fatalf("%s: %v %v", path, err, resp)
		}
		if text, _ := resp.Data["help"].(string); text == "" || strings.Contains(text, "<no ") {
			t.Errorf("the help of %s is %q", path, text)
		}
	}
}

// Clients page every list alike, and send limit=-1 unless told otherwise.
func TestEveryListIsPaged(t *testing.T) {
	m := newMount(t)
	lists := 0
	for _, p := range m.Paths {
		if p.Operations[logical.ListOperation] == nil {
			continue
		}
		lists++
		for _, name := range []string{"after", "limit"} {
			if f := p.Fields[name]; f == nil || !f.Query {
				t.Errorf("the list %s takes no %s", p.Pattern, name)
			}
		}
	}
	if lists < 6 {
		t.Errorf("there are %d lists", lists)
	}
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.lease("d", nil)
	m.write("roles/s", nil)
	m.write("roles/gone", nil)
	m.must(logical.DeleteOperation, "roles/gone", nil)
	for _, path := range []string{"roles/", "inventory/", "keys/d", "restore/", "report/deferred/", "bulk/"} {
		want, _, _ := m.listed(path, nil)
		for _, limit := range []any{-1, "-1", 0, "0", json.Number("-1"), 1000000} {
			if got, _, next := m.listed(path, map[string]any{"limit": limit, "after": ""}); !slices.Equal(got, want) || next != "" {
				t.Errorf("list %s limit=%v: %v (%q), want %v", path, limit, got, next, want)
			}
		}
		m.refused(logical.ListOperation, path, map[string]any{"limit": "ten"}, "limit")
	}
}
