// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"maps"
	"net/http"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// displayPrefix begins the operation ids of the OpenAPI document.
const displayPrefix = "api-keys"

const nameRegex = `(?P<name>[^/]+)`

// pathSpec is one path, declared once: how it is read, documented and answered
// follows from it.
type pathSpec struct {
	pattern  string
	fields   fieldSet
	synopsis string
	help     string
	// verb and suffix make the ids of its operations, with the prefix of all.
	verb, suffix string
	// lists says what its list consists of, for user interfaces.
	lists  string
	exists framework.ExistenceFunc
	ops    map[logical.Operation]operation

	form *regexp.Regexp // with captures; nil without
	// inBody and inQuery are the fields as bodies and query parameters take them.
	inBody, inQuery fieldSet
}

// operation is one operation on a path.
type operation struct {
	do      handler
	summary string // what it does, where that is not the path's synopsis
	// verb and suffix of its id, where they are not the path's.
	verb, suffix string
	// writes says that it has to run on a node that may write.
	writes bool
	// told is what the answer is, and answer its fields; none is what an answer
	// without content means.
	told   string
	answer map[string]*framework.FieldSchema
	none   string
}

// handler is how this package writes operations: what the request says was read,
// and an error is turned into an answer in one place.
type handler func(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error)

// path makes the framework's path, and remembers how its requests are read.
func (b *backend) path(s pathSpec) *framework.Path {
	if strings.Contains(s.pattern, "(?P<") {
		s.form = regexp.MustCompile("^" + strings.TrimSuffix(s.pattern, "$") + "$")
	}
	s.inBody, s.inQuery = fieldSet{}, fieldSet{}
	for name, f := range s.fields {
		inPath := strings.Contains(s.pattern, "(?P<"+name+">")
		if inPath || !f.query {
			s.inBody[name] = f
		}
		if inPath || f.query || f.asRead {
			s.inQuery[name] = f
		}
	}
	s.help = strings.TrimSpace(s.help)
	p := &framework.Path{
		Pattern: s.pattern, Fields: s.fields.schemas(), ExistenceCheck: s.exists,
		HelpSynopsis: s.synopsis, HelpDescription: s.help,
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: displayPrefix, OperationVerb: s.verb, OperationSuffix: s.suffix, Navigation: s.lists != "", ItemType: s.lists,
		},
		Operations: make(map[logical.Operation]framework.OperationHandler, len(s.ops)),
	}
	for on, op := range s.ops {
		p.Operations[on] = s.operation(on, op)
	}
	b.specs[p] = &s
	return p
}

func (s *pathSpec) operation(on logical.Operation, op operation) *framework.PathOperation {
	o := &framework.PathOperation{
		Callback: s.callback(op.do), Summary: op.summary, Responses: map[int][]framework.Response{},
		ForwardPerformanceSecondary: op.writes, ForwardPerformanceStandby: op.writes,
	}
	if o.Summary == "" {
		o.Summary = s.synopsis
	}
	if op.verb != "" || op.suffix != "" {
		o.DisplayAttrs = &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: op.verb, OperationSuffix: op.suffix}
		if op.suffix == "" {
			o.DisplayAttrs.OperationSuffix = s.suffix
		}
	}
	if op.told != "" {
		o.Responses[http.StatusOK] = []framework.Response{{Description: op.told, Fields: op.answer}}
	}
	if op.none != "" {
		o.Responses[http.StatusNoContent] = []framework.Response{{Description: op.none}}
	}
	o.Responses[http.StatusBadRequest] = refusedAnswer
	if on != logical.ListOperation && strings.Contains(s.pattern, "(?P<") {
		o.Responses[http.StatusNotFound] = []framework.Response{{Description: "There is nothing of that name."}}
	}
	return o
}

var refusedAnswer = []framework.Response{{Description: "Refused: which field, its value, the rule, and what to do. Nothing was changed."}}

func (s *pathSpec) callback(do handler) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		in := &input{fields: s.fields, values: d.Raw, patch: req.Operation == logical.PatchOperation}
		resp, err := do(ctx, req, in)
		if err != nil {
			return respond(err)
		}
		return resp, nil
	}
}

// read reads the request's data by the rules of the path's fields.
func (s *pathSpec) read(req *logical.Request) (*input, error) {
	fields, data := s.inBody, req.Data
	if !hasBody(req.Operation) {
		fields, data = s.inQuery, withoutVerbs(data)
	}
	in, err := fields.readValues(data, req.Operation == logical.PatchOperation)
	if err != nil {
		return nil, err
	}
	for name, captured := range s.captures(req.Path) {
		// What was read can be written back, its name too.
		if in.given(name) && in.values[name] != captured {
			return nil, refusal.New(name, nil, "is not what the path names", "leave it out")
		}
		delete(in.values, name)
	}
	return in, nil
}

// withoutVerbs drops the query parameters by which clients say that they want a
// list, or none: servers leave some of them in.
func withoutVerbs(query map[string]any) map[string]any {
	if query["list"] == nil && query["scan"] == nil {
		return query
	}
	rest := maps.Clone(query)
	delete(rest, "list")
	delete(rest, "scan")
	return rest
}

// captures are the parts of a request's path that the pattern names.
func (s *pathSpec) captures(path string) map[string]string {
	if s.form == nil {
		return nil
	}
	match := s.form.FindStringSubmatch(path)
	captures := map[string]string{}
	for i, name := range s.form.SubexpNames() {
		if name != "" && i < len(match) && match[i] != "" {
			captures[name] = match[i]
		}
	}
	return captures
}

// nameOf is the field of the role that a path names.
func nameOf() fieldSet { return fieldSet{"name": {kind: kindText, about: "Name of the role."}} }

// schemas joins the declared fields of answers.
func schemas(sets ...map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	all := map[string]*framework.FieldSchema{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// policySchemas are the fields of a policy as answers declare them.
func policySchemas() map[string]*framework.FieldSchema { return policyRequestFields().schemas() }

// policyGiven is what the request says of the policy: values by field, nil for
// one that a patch resets.
func policyGiven(in *input) map[string]any {
	given := map[string]any{}
	for i := range policy.Fields {
		name := policy.Fields[i].Name
		switch {
		case in.resets(name):
			given[name] = nil
		case in.given(name):
			given[name] = in.values[name]
		}
	}
	return given
}

// handles reports whether the path has the operation, and its data is to be read.
func (s *pathSpec) handles(op logical.Operation) bool {
	_, ok := s.ops[op]
	return ok
}
