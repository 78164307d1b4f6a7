// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

func documentPaths(b *Backend, requestResponsePrefix string, doc *OASDocument) {
	for _, p := range b.Paths {
		documentPath(p, b.SpecialPaths(), requestResponsePrefix, b.BackendType, doc)
	}
}

// documentPath adds every form of a path to the document.
func documentPath(p *Path, special *logical.Paths, requestResponsePrefix string, backendType logical.BackendType, doc *OASDocument) {
	if special == nil {
		special = &logical.Paths{}
	}
	operations := p.Operations
	if operations == nil {
		operations = make(map[logical.Operation]OperationHandler)
		for op, callback := range p.Callbacks {
			operations[op] = &PathOperation{Callback: callback, Summary: p.HelpSynopsis}
		}
	}

	forms, expressible := expandPattern(p.Pattern)
	if !expressible {
		// A reader should at least see that there is something.
		forms, operations = []string{p.Pattern}, nil
	}
	for i, form := range forms {
		item := &OASPathItem{
			Description:     squeeze(p.HelpSynopsis),
			Sudo:            specialPathMatch(form, special.Root),
			Unauthenticated: specialPathMatch(form, special.Unauthenticated),
			DisplayAttrs:    withoutOperationHints(p.DisplayAttrs),
		}
		params, body := splitFields(p.Fields, form)
		item.Parameters = params

		for op, handler := range operations {
			props := handler.Properties()
			if props.Unpublished {
				continue
			}
			if op == logical.CreateOperation {
				item.CreateSupported = true
			}
			if superseded(op, operations) {
				continue
			}
			id := constructOperationID(form, i, p.DisplayAttrs, op, props.DisplayAttrs, requestResponsePrefix)
			item.set(op, documentOperation(op, props, id, body, operations, backendType, doc))
		}
		doc.Paths["/"+form] = item
	}
}

// superseded reports whether the operation is left out for another with the same HTTP method.
func superseded(op logical.Operation, operations map[logical.Operation]OperationHandler) bool {
	switch op {
	case logical.CreateOperation:
		return operations[logical.UpdateOperation] != nil
	case logical.ListOperation:
		return operations[logical.ReadOperation] != nil
	}
	return false
}

func (item *OASPathItem) set(op logical.Operation, doc *OASOperation) {
	switch op {
	case logical.CreateOperation, logical.UpdateOperation:
		item.Post = doc
	case logical.ReadOperation, logical.ListOperation:
		item.Get = doc
	case logical.DeleteOperation:
		item.Delete = doc
	case logical.PatchOperation:
		item.Patch = doc
	}
}

func documentOperation(
	op logical.Operation,
	props OperationProperties,
	id string,
	body map[string]*FieldSchema,
	operations map[logical.Operation]OperationHandler,
	backendType logical.BackendType,
	doc *OASDocument,
) *OASOperation {
	out := NewOASOperation()
	out.Summary = props.Summary
	out.Description = props.Description
	out.Deprecated = props.Deprecated
	out.OperationID = id

	switch op {
	case logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation:
		out.RequestBody = documentBody(props, id, body, doc)
	case logical.ListOperation:
		out.Parameters = []OASParameter{{
			Name:        "list",
			Description: "Must be set to `true`",
			Required:    true,
			In:          "query",
			Schema:      &OASSchema{Type: "string", Enum: []interface{}{"true"}},
		}}
	case logical.ReadOperation:
		if operations[logical.ListOperation] != nil {
			out.Parameters = []OASParameter{{
				Name:        "list",
				Description: "Return a list if `true`",
				In:          "query",
				Schema:      &OASSchema{Type: "string"},
			}}
		}
	}

	switch backendType {
	case logical.TypeLogical:
		out.Tags = []string{"secrets"}
	case logical.TypeCredential:
		out.Tags = []string{"auth"}
	}

	documentResponses(op, props, id, doc, out)
	return out
}

func documentBody(props OperationProperties, id string, body map[string]*FieldSchema, doc *OASDocument) *OASRequestBody {
	schema := &OASSchema{Type: "object", Properties: documentFields(body)}
	for _, name := range slices.Sorted(maps.Keys(body)) {
		if body[name].Required {
			schema.Required = append(schema.Required, name)
		}
	}
	if len(props.Examples) > 0 {
		schema.Example = props.Examples[0].Data
	}
	if len(schema.Properties) == 0 && schema.Example == nil {
		return nil
	}
	name := titleCase(id) + "Request"
	doc.Components.Schemas[name] = schema
	return &OASRequestBody{Required: true, Content: refersTo(name)}
}

func documentResponses(op logical.Operation, props OperationProperties, id string, doc *OASDocument, out *OASOperation) {
	if len(props.Responses) == 0 {
		if op == logical.DeleteOperation {
			out.Responses[204] = OASStdRespNoContent
		} else {
			out.Responses[200] = OASStdRespOK
		}
		return
	}

	// In order, so that the schema is always that of the lowest status that has one.
	name, described := titleCase(id)+"Response", false
	for _, status := range slices.Sorted(maps.Keys(props.Responses)) {
		answer := &OASResponse{Content: make(OASContent)}
		for i, resp := range props.Responses[status] {
			if i == 0 {
				answer.Description = resp.Description
			}
			if resp.Example != nil {
				mediaType := cmp.Or(resp.MediaType, "application/json")
				if _, taken := answer.Content[mediaType]; !taken {
					answer.Content[mediaType] = &OASMediaTypeObject{Schema: &OASSchema{Example: newExampleResponse(resp.Example)}}
				}
			}
			if len(resp.Fields) > 0 {
				if !described {
					described = true
					doc.Components.Schemas[name] = &OASSchema{Type: "object", Properties: documentFields(resp.Fields)}
				}
				answer.Content = refersTo(name)
			}
		}
		out.Responses[status] = answer
	}
}

func refersTo(name string) OASContent {
	return OASContent{"application/json": &OASMediaTypeObject{
		Schema: &OASSchema{Ref: "#/components/schemas/" + name},
	}}
}

func documentFields(fields map[string]*FieldSchema) map[string]*OASSchema {
	out := make(map[string]*OASSchema, len(fields))
	for name, field := range fields {
		schema := oasType(field.Type)
		schema.Description = squeeze(field.Description)
		schema.Enum = field.AllowedValues
		schema.Default = field.Default
		schema.Deprecated = field.Deprecated
		schema.DisplayAttrs = withoutOperationHints(field.DisplayAttrs)
		out[name] = &schema
	}
	return out
}

// splitFields gives the parameters of a form of a path, and the fields that are left for the body.
func splitFields(fields map[string]*FieldSchema, form string) (params []OASParameter, body map[string]*FieldSchema) {
	inPath := make(map[string]bool)
	for _, match := range pathFieldRe.FindAllStringSubmatch(form, -1) {
		inPath[match[1]] = true
	}

	body = make(map[string]*FieldSchema)
	for name, field := range fields {
		if !inPath[name] && !field.Query {
			body[name] = field
			continue
		}
		param := OASParameter{
			Name:        name,
			Description: squeeze(field.Description),
			In:          "path",
			Required:    true,
			Deprecated:  field.Deprecated,
		}
		if field.Query {
			param.In, param.Required = "query", false
		}
		t := oasType(field.Type)
		param.Schema = &OASSchema{
			Type:         t.Type,
			Pattern:      t.Pattern,
			Enum:         field.AllowedValues,
			Default:      field.Default,
			DisplayAttrs: withoutOperationHints(field.DisplayAttrs),
		}
		params = append(params, param)
	}
	slices.SortFunc(params, func(a, b OASParameter) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return params, body
}

func oasType(t FieldType) OASSchema {
	switch t {
	case TypeString, TypeHeader:
		return OASSchema{Type: "string"}
	case TypeNameString:
		return OASSchema{Type: "string", Pattern: `\w([\w-.]*\w)?`}
	case TypeLowerCaseString:
		return OASSchema{Type: "string", Format: "lowercase"}
	case TypeInt:
		return OASSchema{Type: "integer"}
	case TypeInt64:
		return OASSchema{Type: "integer", Format: "int64"}
	case TypeDurationSecond, TypeSignedDurationSecond:
		return OASSchema{Type: "integer", Format: "seconds"}
	case TypeBool:
		return OASSchema{Type: "boolean"}
	case TypeMap:
		return OASSchema{Type: "object", Format: "map"}
	case TypeKVPairs:
		return OASSchema{Type: "object", Format: "kvpairs"}
	case TypeSlice:
		return OASSchema{Type: "array", Items: &OASSchema{Type: "object"}}
	case TypeStringSlice, TypeCommaStringSlice:
		return OASSchema{Type: "array", Items: &OASSchema{Type: "string"}}
	case TypeCommaIntSlice:
		return OASSchema{Type: "array", Items: &OASSchema{Type: "integer"}}
	case TypeTime:
		return OASSchema{Type: "string", Format: "date-time"}
	case TypeFloat:
		return OASSchema{Type: "number", Format: "float"}
	default:
		return OASSchema{Format: "unknown"}
	}
}

// withoutOperationHints drops what is in the operation id already. Nothing left is nil.
func withoutOperationHints(attrs *DisplayAttributes) *DisplayAttributes {
	if attrs == nil {
		return nil
	}
	shown := *attrs
	shown.OperationPrefix, shown.OperationVerb, shown.OperationSuffix = "", "", ""
	if shown == (DisplayAttributes{}) {
		return nil
	}
	return &shown
}

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }
