// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// OASVersion is the version of OpenAPI that the documents follow.
const OASVersion = "3.0.2"

// OASDocument is an OpenAPI document.
type OASDocument struct {
	Version    string                  `json:"openapi" mapstructure:"openapi"`
	Info       OASInfo                 `json:"info"`
	Paths      map[string]*OASPathItem `json:"paths"`
	Components OASComponents           `json:"components"`
}

// NewOASDocument returns a document without paths, for that version of the server.
func NewOASDocument(version string) *OASDocument {
	return &OASDocument{
		Version: OASVersion,
		Info: OASInfo{
			Title:       "HashiCorp Vault API",
			Description: "HTTP API that gives you full access to Vault. All API routes are prefixed with `/v1/`.",
			Version:     version,
			License: OASLicense{
				Name: "Mozilla Public License 2.0",
				URL:  "https://www.mozilla.org/en-US/MPL/2.0",
			},
		},
		Paths:      make(map[string]*OASPathItem),
		Components: OASComponents{Schemas: make(map[string]*OASSchema)},
	}
}

// NewOASDocumentFromMap restores a document that came through a plugin's wire as a map.
func NewOASDocumentFromMap(input map[string]interface{}) (*OASDocument, error) {
	encoded, err := json.Marshal(input)
	if err != nil {
		return nil, fmt.Errorf("failed to encode OpenAPI document: %w", err)
	}
	doc := new(OASDocument)
	if err := json.Unmarshal(encoded, doc); err != nil {
		return nil, fmt.Errorf("failed to decode OpenAPI document: %w", err)
	}
	return doc, nil
}

// OASComponents has the schemas that operations refer to.
type OASComponents struct {
	Schemas map[string]*OASSchema `json:"schemas"`
}

// OASInfo describes the API.
type OASInfo struct {
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Version     string     `json:"version"`
	License     OASLicense `json:"license"`
}

// OASLicense is the licence of the API description.
type OASLicense struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// OASPathItem is one path with its operations.
type OASPathItem struct {
	Description       string             `json:"description,omitempty"`
	Parameters        []OASParameter     `json:"parameters,omitempty"`
	Sudo              bool               `json:"x-vault-sudo,omitempty" mapstructure:"x-vault-sudo"`
	Unauthenticated   bool               `json:"x-vault-unauthenticated,omitempty" mapstructure:"x-vault-unauthenticated"`
	CreateSupported   bool               `json:"x-vault-createSupported,omitempty" mapstructure:"x-vault-createSupported"`
	DisplayNavigation bool               `json:"x-vault-displayNavigation,omitempty" mapstructure:"x-vault-displayNavigation"`
	DisplayAttrs      *DisplayAttributes `json:"x-vault-displayAttrs,omitempty" mapstructure:"x-vault-displayAttrs"`

	Get    *OASOperation `json:"get,omitempty"`
	Post   *OASOperation `json:"post,omitempty"`
	Patch  *OASOperation `json:"patch,omitempty"`
	Delete *OASOperation `json:"delete,omitempty"`
}

// OASOperation is one HTTP method of a path.
type OASOperation struct {
	Summary     string               `json:"summary,omitempty"`
	Description string               `json:"description,omitempty"`
	OperationID string               `json:"operationId,omitempty"`
	Tags        []string             `json:"tags,omitempty"`
	Parameters  []OASParameter       `json:"parameters,omitempty"`
	RequestBody *OASRequestBody      `json:"requestBody,omitempty"`
	Responses   map[int]*OASResponse `json:"responses"`
	Deprecated  bool                 `json:"deprecated,omitempty"`
}

// NewOASOperation returns an operation without responses.
func NewOASOperation() *OASOperation {
	return &OASOperation{Responses: make(map[int]*OASResponse)}
}

// OASParameter is a parameter in the path or the query.
type OASParameter struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	In          string     `json:"in"`
	Schema      *OASSchema `json:"schema,omitempty"`
	Required    bool       `json:"required,omitempty"`
	Deprecated  bool       `json:"deprecated,omitempty"`
}

// OASRequestBody is what a request carries.
type OASRequestBody struct {
	Description string     `json:"description,omitempty"`
	Required    bool       `json:"required,omitempty"`
	Content     OASContent `json:"content,omitempty"`
}

// OASContent is by media type.
type OASContent map[string]*OASMediaTypeObject

// OASMediaTypeObject is content of one media type.
type OASMediaTypeObject struct {
	Schema *OASSchema `json:"schema,omitempty"`
}

// OASSchema describes a value, or refers to a description.
type OASSchema struct {
	Ref         string                `json:"$ref,omitempty"`
	Type        string                `json:"type,omitempty"`
	Description string                `json:"description,omitempty"`
	Properties  map[string]*OASSchema `json:"properties,omitempty"`

	// Required lists those of the properties that must be there.
	Required []string `json:"required,omitempty"`

	Items        *OASSchema         `json:"items,omitempty"`
	Format       string             `json:"format,omitempty"`
	Pattern      string             `json:"pattern,omitempty"`
	Enum         []interface{}      `json:"enum,omitempty"`
	Default      interface{}        `json:"default,omitempty"`
	Example      interface{}        `json:"example,omitempty"`
	Deprecated   bool               `json:"deprecated,omitempty"`
	DisplayAttrs *DisplayAttributes `json:"x-vault-displayAttrs,omitempty" mapstructure:"x-vault-displayAttrs,omitempty"`
}

// OASResponse is the answer with one status.
type OASResponse struct {
	Description string     `json:"description"`
	Content     OASContent `json:"content,omitempty"`
}

var (
	// OASStdRespOK describes an operation that does not describe its response.
	OASStdRespOK = &OASResponse{Description: "OK"}

	// OASStdRespNoContent does so for deletes.
	OASStdRespNoContent = &OASResponse{Description: "empty body"}
)

// exampleResponse is a logical.Response without its nulls.
type exampleResponse struct {
	Secret   *logical.Secret        `json:"secret,omitempty"`
	Auth     *logical.Auth          `json:"auth,omitempty"`
	Data     map[string]interface{} `json:"data,omitempty"`
	Redirect string                 `json:"redirect,omitempty"`
	Warnings []string               `json:"warnings,omitempty"`
	WrapInfo interface{}            `json:"wrap_info,omitempty"`
	Headers  map[string][]string    `json:"headers,omitempty"`
}

func newExampleResponse(resp *logical.Response) *exampleResponse {
	example := &exampleResponse{
		Secret:   resp.Secret,
		Auth:     resp.Auth,
		Data:     resp.Data,
		Redirect: resp.Redirect,
		Warnings: resp.Warnings,
		Headers:  resp.Headers,
	}
	if resp.WrapInfo != nil {
		example.WrapInfo = resp.WrapInfo
	}
	return example
}
