// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/helper/wrapping"
)

// Keys of Data that make a response raw: the server sends HTTPRawBody as it is. Not for secrets or logins.
const (
	// HTTPContentType is optional only for status 204.
	HTTPContentType = "http_content_type"

	// HTTPRawBody is a []byte or a string.
	HTTPRawBody = "http_raw_body"

	// HTTPStatusCode is an int; its presence makes the response raw.
	HTTPStatusCode = "http_status_code"

	// HTTPRawBodyAlreadyJSONDecoded is for unwrapping only.
	HTTPRawBodyAlreadyJSONDecoded = "http_raw_body_already_json_decoded"

	HTTPCacheControlHeader    = "http_raw_cache_control"
	HTTPPragmaHeader          = "http_raw_pragma"
	HTTPWWWAuthenticateHeader = "http_www_authenticate"
)

// Response is the answer to a request.
type Response struct {
	// Secret makes it a leased secret.
	Secret *Secret `json:"secret"`

	// Auth makes it a login.
	Auth *Auth `json:"auth"`

	Data map[string]interface{} `json:"data"`

	// Redirect is the URL to answer with, for auth methods.
	Redirect string `json:"redirect"`

	Warnings []string `json:"warnings"`

	WrapInfo *wrapping.ResponseWrapInfo `json:"wrap_info"`

	// Headers reach the client if the mount allows them.
	Headers map[string][]string `json:"headers"`

	MountType string `json:"mount_type"`
}

// AddWarning adds text for the client to see.
func (r *Response) AddWarning(warning string) {
	r.Warnings = append(r.Warnings, warning)
}

// IsError reports whether Data is an error, possibly with data of its own, and nothing else.
func (r *Response) IsError() bool {
	if r == nil || r.Data["error"] == nil {
		return false
	}
	return len(r.Data) == 1 || (len(r.Data) == 2 && r.Data["data"] != nil)
}

// Error returns the error if there is one.
func (r *Response) Error() error {
	if !r.IsError() {
		return nil
	}
	switch e := r.Data["error"].(type) {
	case string:
		return errors.New(e)
	case error:
		return e
	}
	return nil
}

// HelpResponse answers a help operation.
func HelpResponse(text string, seeAlso []string, oapiDoc interface{}) *Response {
	return &Response{Data: map[string]interface{}{
		"help":     text,
		"see_also": seeAlso,
		"openapi":  oapiDoc,
	}}
}

// ErrorResponse refuses a request for a reason that the client can see. Without vargs a '%' in text is itself.
func ErrorResponse(text string, vargs ...interface{}) *Response {
	if len(vargs) > 0 {
		text = fmt.Sprintf(text, vargs...)
	}
	return &Response{Data: map[string]interface{}{"error": text}}
}

// ErrorResponseWithData is an ErrorResponse with data.
func ErrorResponseWithData(data interface{}, text string, vargs ...interface{}) *Response {
	resp := ErrorResponse(text, vargs...)
	resp.Data["data"] = data
	return resp
}

// ListResponse answers a list operation.
func ListResponse(keys []string) *Response {
	resp := &Response{Data: map[string]interface{}{}}
	if len(keys) != 0 {
		resp.Data["keys"] = keys
	}
	return resp
}

// ListResponseWithInfo adds what keyInfo has for the listed keys.
func ListResponseWithInfo(keys []string, keyInfo map[string]interface{}) *Response {
	resp := ListResponse(keys)

	infos := map[string]interface{}{}
	for _, key := range keys {
		if info, ok := keyInfo[key]; ok {
			infos[key] = info
		}
	}
	if len(infos) > 0 {
		resp.Data["key_info"] = infos
	}
	return resp
}

// RespondWithStatusCode turns a response into a raw one with that HTTP status.
func RespondWithStatusCode(resp *Response, req *Request, code int) (*Response, error) {
	raw := &Response{Data: map[string]interface{}{
		HTTPContentType: "application/json",
		HTTPStatusCode:  code,
	}}
	if resp == nil {
		return raw, nil
	}

	httpResp := LogicalResponseToHTTPResponse(resp)
	if req != nil {
		httpResp.RequestID = req.ID
	}
	body, err := json.Marshal(httpResp)
	if err != nil {
		return nil, err
	}
	// A string, because audit devices hash strings but show bytes.
	raw.Data[HTTPRawBody] = string(body)
	return raw, nil
}

// ResolveRoleResponse answers a resolve-role operation.
func ResolveRoleResponse(roleName string) (*Response, error) {
	return &Response{Data: map[string]interface{}{"role": roleName}}, nil
}
