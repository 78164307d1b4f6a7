// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// openAPI joins the documents of all mounts that the caller may use, each below its mount's path.
func (s *Server) openAPI(ctx context.Context, r *request) (*logical.Response, error) {
	if r.clientToken != "" {
		if err := s.authenticate(r); err != nil {
			return nil, err
		}
	}
	paths, schemas := map[string]any{}, map[string]any{}
	for _, m := range s.mounts() {
		e := m.entry.Load()
		if r.acl == nil || !r.acl.Touches(e.Path) {
			continue
		}
		resp, err := s.route(ctx, m, &logical.Request{
			ID: r.ID, Operation: logical.HelpOperation, Data: map[string]any{"requestResponsePrefix": strings.TrimSuffix(e.Path, "/")},
		})
		if err != nil {
			return nil, fmt.Errorf("ask mount %s for its document: %w", e.Path, err)
		}
		if resp == nil {
			continue
		}
		doc, _ := resp.Data["openapi"].(map[string]any)
		own, _ := doc["paths"].(map[string]any)
		for p, item := range own {
			paths["/"+e.Path+strings.TrimPrefix(p, "/")] = item
		}
		components, _ := doc["components"].(map[string]any)
		own, _ = components["schemas"].(map[string]any)
		for name, schema := range own {
			schemas[name] = schema
		}
	}
	raw, err := json.Marshal(map[string]any{
		"openapi": "3.0.2",
		"info": map[string]any{
			"title": "HashiCorp Vault API", "description": "HTTP API that gives you full access to Vault. All API routes are prefixed with `/v1/`.",
			"version": Version, "license": map[string]any{"name": "Mozilla Public License 2.0", "url": "https://www.mozilla.org/en-US/MPL/2.0"},
		},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas},
	})
	if err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode: http.StatusOK, logical.HTTPRawBody: raw, logical.HTTPContentType: "application/json",
	}}, nil
}
