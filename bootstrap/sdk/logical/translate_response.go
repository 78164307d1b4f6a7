// SPDX-License-Identifier: MPL-2.0

package logical

import "time"

// HTTPResponse is the body of an HTTP answer.
type HTTPResponse struct {
	RequestID     string                 `json:"request_id"`
	LeaseID       string                 `json:"lease_id"`
	Renewable     bool                   `json:"renewable"`
	LeaseDuration int                    `json:"lease_duration"`
	Data          map[string]interface{} `json:"data"`
	WrapInfo      *HTTPWrapInfo          `json:"wrap_info"`
	Warnings      []string               `json:"warnings"`
	Headers       map[string][]string    `json:"-"`
	Auth          *HTTPAuth              `json:"auth"`
	MountType     string                 `json:"mount_type"`
}

// HTTPAuth is the auth part of it.
type HTTPAuth struct {
	ClientToken      string            `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies,omitempty"`
	IdentityPolicies []string          `json:"identity_policies,omitempty"`
	Metadata         map[string]string `json:"metadata"`
	LeaseDuration    int               `json:"lease_duration"`
	Renewable        bool              `json:"renewable"`
	EntityID         string            `json:"entity_id"`
	TokenType        string            `json:"token_type"`
	Orphan           bool              `json:"orphan"`
	MFARequirement   *MFARequirement   `json:"mfa_requirement"`
	NumUses          int               `json:"num_uses"`
}

// HTTPWrapInfo is the wrapping part of it.
type HTTPWrapInfo struct {
	Token           string `json:"token"`
	Accessor        string `json:"accessor"`
	TTL             int    `json:"ttl"`
	CreationTime    string `json:"creation_time"`
	CreationPath    string `json:"creation_path"`
	WrappedAccessor string `json:"wrapped_accessor,omitempty"`
}

// LogicalResponseToHTTPResponse leaves the request id for the caller to set.
func LogicalResponseToHTTPResponse(input *Response) *HTTPResponse {
	out := &HTTPResponse{
		Data:      input.Data,
		Warnings:  input.Warnings,
		Headers:   input.Headers,
		MountType: input.MountType,
	}
	if secret := input.Secret; secret != nil {
		out.LeaseID = secret.LeaseID
		out.Renewable = secret.Renewable
		out.LeaseDuration = int(secret.TTL.Seconds())
	}
	if auth := input.Auth; auth != nil {
		out.Auth = &HTTPAuth{
			ClientToken:      auth.ClientToken,
			Accessor:         auth.Accessor,
			Policies:         auth.Policies,
			TokenPolicies:    auth.TokenPolicies,
			IdentityPolicies: auth.IdentityPolicies,
			Metadata:         auth.Metadata,
			LeaseDuration:    int(auth.TTL.Seconds()),
			Renewable:        auth.Renewable,
			EntityID:         auth.EntityID,
			TokenType:        auth.TokenType.String(),
			Orphan:           auth.Orphan,
			MFARequirement:   auth.MFARequirement,
			NumUses:          auth.NumUses,
		}
	}
	return out
}

// HTTPResponseToLogicalResponse is the inverse, as far as there is one.
func HTTPResponseToLogicalResponse(input *HTTPResponse) *Response {
	out := &Response{
		Data:      input.Data,
		Warnings:  input.Warnings,
		Headers:   input.Headers,
		MountType: input.MountType,
	}
	if input.LeaseID != "" {
		out.Secret = &Secret{
			LeaseOptions: LeaseOptions{
				TTL:       time.Duration(input.LeaseDuration) * time.Second,
				Renewable: input.Renewable,
			},
			LeaseID: input.LeaseID,
		}
	}
	if auth := input.Auth; auth != nil {
		out.Auth = &Auth{
			LeaseOptions: LeaseOptions{
				TTL:       time.Duration(auth.LeaseDuration) * time.Second,
				Renewable: auth.Renewable,
			},
			ClientToken:      auth.ClientToken,
			Accessor:         auth.Accessor,
			Policies:         auth.Policies,
			TokenPolicies:    auth.TokenPolicies,
			IdentityPolicies: auth.IdentityPolicies,
			Metadata:         auth.Metadata,
			EntityID:         auth.EntityID,
			Orphan:           auth.Orphan,
		}
		switch auth.TokenType {
		case "service":
			out.Auth.TokenType = TokenTypeService
		case "batch":
			out.Auth.TokenType = TokenTypeBatch
		}
	}
	return out
}
