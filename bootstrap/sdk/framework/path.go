// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"strings"

	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/logical"
)

// GenericNameRegex captures a name of word characters, '-' and '.', that starts and ends with a word character.
func GenericNameRegex(name string) string {
	return `(?P<` + name + `>\w(([\w-.]+)?\w)?)`
}

// GenericNameWithAtRegex also allows '@' inside.
func GenericNameWithAtRegex(name string) string {
	return `(?P<` + name + `>\w(([\w-.@]+)?\w)?)`
}

// OptionalParamRegex captures what follows a slash, if anything does.
func OptionalParamRegex(name string) string {
	return `(/(?P<` + name + `>.+))?`
}

// MatchAllRegex captures anything.
func MatchAllRegex(name string) string {
	return `(?P<` + name + `>.*)`
}

// PathAppend concatenates.
func PathAppend(paths ...[]*Path) []*Path {
	var all []*Path
	for _, p := range paths {
		all = append(all, p...)
	}
	return all
}

// Path is a line of a backend's table.
type Path struct {
	// Pattern is a regular expression, anchored at both ends. Named groups set the fields of the same
	// name. It must not require a trailing slash, and for lists it must allow one.
	Pattern string

	Fields map[string]*FieldSchema

	// Operations replaces Callbacks if it is not nil.
	Operations map[logical.Operation]OperationHandler

	// Deprecated: use Operations.
	Callbacks map[logical.Operation]OperationFunc

	// ExistenceCheck lets the server tell create from update. With it both must be handled.
	ExistenceCheck ExistenceFunc

	// FeatureRequired refuses every operation where the server has no licence for it.
	FeatureRequired license.Features

	// Deprecated is documentation.
	Deprecated bool

	HelpSynopsis    string
	HelpDescription string

	DisplayAttrs *DisplayAttributes

	// TakesArbitraryInput silences the warning about unknown parameters.
	TakesArbitraryInput bool
}

func (p *Path) hasOperation(op logical.Operation) bool {
	if p.Operations != nil {
		return p.Operations[op] != nil
	}
	return p.Callbacks[op] != nil
}

// OperationHandler answers and describes one operation on a path.
type OperationHandler interface {
	Handler() OperationFunc
	Properties() OperationProperties
}

// OperationProperties describe an operation.
type OperationProperties struct {
	Summary     string
	Description string
	Examples    []RequestExample

	// Responses by HTTP status.
	Responses map[int][]Response

	// Unpublished keeps the operation out of the OpenAPI document.
	Unpublished bool

	Deprecated bool

	// ForwardPerformanceStandby and ForwardPerformanceSecondary leave the operation to the active node and to
	// the primary cluster. Only an operation that changes something elsewhere before it first writes needs them.
	ForwardPerformanceStandby   bool
	ForwardPerformanceSecondary bool

	DisplayAttrs *DisplayAttributes
}

// DisplayAttributes are hints for user interfaces and generated clients.
type DisplayAttributes struct {
	Name        string      `json:"name,omitempty"`
	Description string      `json:"description,omitempty"`
	Value       interface{} `json:"value,omitempty"`
	Sensitive   bool        `json:"sensitive,omitempty"`
	Navigation  bool        `json:"navigation,omitempty"`
	ItemType    string      `json:"itemType,omitempty"`
	Group       string      `json:"group,omitempty"`
	Action      string      `json:"action,omitempty"`

	// The three parts of the OpenAPI operation id. A path with several forms gives a suffix for each, separated by '|'.
	OperationPrefix string `json:"operationPrefix,omitempty"`
	OperationVerb   string `json:"operationVerb,omitempty"`
	OperationSuffix string `json:"operationSuffix,omitempty"`

	EditType string `json:"editType,omitempty"`
}

// RequestExample is a sample request.
type RequestExample struct {
	Description string
	Data        map[string]interface{}
	Response    *Response
}

// Response describes an answer.
type Response struct {
	Description string

	// MediaType is application/json if empty.
	MediaType string

	Fields  map[string]*FieldSchema
	Example *logical.Response
}

// PathOperation is an OperationHandler.
type PathOperation struct {
	Callback                    OperationFunc
	Summary                     string
	Description                 string
	Examples                    []RequestExample
	Responses                   map[int][]Response
	Unpublished                 bool
	Deprecated                  bool
	ForwardPerformanceSecondary bool
	ForwardPerformanceStandby   bool
	DisplayAttrs                *DisplayAttributes
}

var _ OperationHandler = (*PathOperation)(nil)

// Handler implements OperationHandler.
func (p *PathOperation) Handler() OperationFunc { return p.Callback }

// Properties implements OperationHandler.
func (p *PathOperation) Properties() OperationProperties {
	return OperationProperties{
		Summary:                     strings.TrimSpace(p.Summary),
		Description:                 strings.TrimSpace(p.Description),
		Examples:                    p.Examples,
		Responses:                   p.Responses,
		Unpublished:                 p.Unpublished,
		Deprecated:                  p.Deprecated,
		ForwardPerformanceStandby:   p.ForwardPerformanceStandby,
		ForwardPerformanceSecondary: p.ForwardPerformanceSecondary,
		DisplayAttrs:                p.DisplayAttrs,
	}
}
