// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/acl"
)

func (s *Server) wrapData(_ context.Context, r *request) (*logical.Response, error) {
	if r.WrapInfo == nil || r.WrapInfo.TTL == 0 {
		return nil, badRequest("endpoint requires response wrapping to be used")
	}
	// The data itself is the answer, which is wrapped like any other.
	return &logical.Response{Data: r.Data}, nil
}

// wrappingToken is the one that the request names, or else the one it was made with.
func (s *Server) wrappingToken(r *request) (string, error) {
	id := fields(r.Data).text("token")
	if id == "" || id == r.clientToken {
		if r.clientToken == "" {
			return "", badRequest("missing \"token\" value in input")
		}
		return r.clientToken, nil
	}
	if r.clientToken == "" {
		return id, nil
	}
	return id, s.authorize(r, acl.Update, false)
}

func (s *Server) wrapUnwrap(_ context.Context, r *request) (*logical.Response, error) {
	id, err := s.wrappingToken(r)
	if err != nil {
		return nil, err
	}
	w, err := s.unwrap(id)
	if err != nil {
		return nil, err
	}
	r.unwrapped, r.WrapInfo = w.Response, nil
	return &logical.Response{}, nil
}

func (s *Server) wrapLookup(_ context.Context, r *request) (*logical.Response, error) {
	id := fields(r.Data).text("token")
	if id == "" {
		id = r.clientToken
	}
	w, err := s.findWrap(id)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"creation_path": w.CreationPath, "creation_time": w.Created.Format(time.RFC3339Nano), "creation_ttl": int64(w.TTL.Seconds()),
	}}, nil
}

func (s *Server) wrapRewrap(_ context.Context, r *request) (*logical.Response, error) {
	id, err := s.wrappingToken(r)
	if err != nil {
		return nil, err
	}
	w, err := s.unwrap(id)
	if err != nil {
		return nil, err
	}
	info, err := s.wrapHTTP(w.Response, w.TTL, w.CreationPath)
	if err != nil {
		return nil, err
	}
	r.WrapInfo = nil
	return &logical.Response{WrapInfo: info}, nil
}
