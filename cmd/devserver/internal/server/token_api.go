// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/acl"
)

var displayNameJunk = regexp.MustCompile(`[^a-zA-Z0-9-]`)

func (s *Server) tokenCreate(_ context.Context, r *request) (*logical.Response, error) {
	noParent, err := fields(r.Data).flag("no_parent", false)
	if err != nil {
		return nil, err
	}
	return s.tokenMake(r, noParent)
}

func (s *Server) tokenCreateOrphan(_ context.Context, r *request) (*logical.Response, error) {
	return s.tokenMake(r, true)
}

func (s *Server) tokenMake(r *request, orphan bool) (*logical.Response, error) {
	f := fields(r.Data)
	sudo := r.token.root() || slices.Contains(r.acl.Capabilities(r.fullPath), acl.Sudo)
	id := f.text("id")
	switch kind := f.text("type"); {
	case r.token.NumUses > 0:
		return nil, badRequest("restricted use token cannot generate child tokens")
	case kind != "" && kind != "service":
		return nil, badRequest("this development server has service tokens only")
	case f.has("entity_alias") && f.text("entity_alias") != "":
		return nil, badRequest("this development server has no entities")
	case (id != "" || orphan) && !sudo:
		return nil, badRequest("root or sudo privileges required to create orphan token or to specify its id")
	case strings.HasPrefix(id, "s.") || strings.ContainsAny(id, " \n\t"):
		return nil, badRequest("custom token ID cannot have the 's.' prefix or contain white space")
	}
	noDefault, err := f.flag("no_default_policy", false)
	if err != nil {
		return nil, err
	}
	t := &token{Path: r.fullPath, Created: s.now(), DisplayName: "token"}
	t.Policies = cleanPolicies(f.list("policies"), false)
	switch {
	case len(t.Policies) == 0:
		t.Policies = r.token.Policies
	case !sudo:
		for _, p := range t.Policies {
			if !slices.Contains(r.token.Policies, p) && p != defaultPolicy {
				return nil, badRequest("child policies must be subset of parent")
			}
		}
	}
	if noDefault {
		t.Policies = slices.DeleteFunc(slices.Clone(t.Policies), func(p string) bool { return p == defaultPolicy })
	} else {
		t.Policies = cleanPolicies(t.Policies, true)
	}
	if t.root() && !r.token.root() {
		return nil, badRequest("root tokens may not be created without parent token being root")
	}
	if t.Meta, err = f.pairs("meta"); err != nil {
		return nil, err
	}
	if name := f.text("display_name"); name != "" {
		t.DisplayName = strings.TrimSuffix("token-"+displayNameJunk.ReplaceAllString(name, "-"), "-")
	}
	if t.NumUses, err = f.count("num_uses"); err != nil || t.NumUses < 0 {
		return nil, badRequest("number of uses cannot be negative")
	}
	if t.Renewable, err = f.flag("renewable", true); err != nil {
		return nil, err
	}
	warnings, err := s.tokenTimes(t, f, sudo)
	if err != nil {
		return nil, err
	}
	if !orphan {
		t.Parent = r.token.Digest
	}
	if id != "" {
		if existing, err := s.findToken(id); err != nil || existing != nil {
			return nil, badRequest("cannot create a token with a duplicate ID")
		}
	}
	if id, err = s.createToken(id, t); err != nil {
		return nil, err
	}
	return &logical.Response{Auth: s.authOf(t, id), Warnings: warnings}, nil
}

// tokenTimes sets how long a new token lives.
func (s *Server) tokenTimes(t *token, f fields, sudo bool) (warnings []string, err error) {
	ttl, err := f.duration("ttl")
	if err != nil {
		return nil, err
	}
	if ttl == 0 {
		if ttl, err = f.duration("lease"); err != nil {
			return nil, err
		}
	}
	if t.ExplicitMaxTTL, err = f.duration("explicit_max_ttl"); err != nil {
		return nil, err
	}
	if t.Period, err = f.duration("period"); err != nil {
		return nil, err
	}
	if t.Period > 0 && !sudo {
		return nil, badRequest("root or sudo privileges required to create periodic token")
	}
	if t.root() && ttl == 0 && t.Period == 0 && t.ExplicitMaxTTL == 0 {
		return nil, nil
	}
	now := s.now()
	t.TTL, warnings, err = leaseTTL(ttlInput{
		now: now, start: now, ttl: ttl, period: t.Period, explicitMax: t.ExplicitMaxTTL,
		mountDefault: systemDefaultTTL, mountMax: systemMaxTTL,
	})
	if err != nil {
		return nil, badRequest("%v", err)
	}
	return warnings, nil
}

func (s *Server) describe(t *token, id string) *logical.Response {
	data := map[string]any{
		"id": id, "accessor": t.Accessor, "policies": t.Policies, "path": t.Path, "meta": t.Meta, "display_name": t.DisplayName,
		"num_uses": t.NumUses, "orphan": t.Parent == "", "creation_time": t.Created.Unix(), "creation_ttl": int64(t.TTL.Seconds()),
		"ttl": int64(t.remaining(s.now()).Seconds()), "explicit_max_ttl": int64(t.ExplicitMaxTTL.Seconds()),
		"entity_id": "", "type": "service", "expire_time": nil,
	}
	if t.Period > 0 {
		data["period"] = int64(t.Period.Seconds())
	}
	if !t.Expires.IsZero() {
		data["issue_time"], data["expire_time"], data["renewable"] = t.Created, t.Expires, t.Renewable
		if !t.LastRenewal.IsZero() {
			data["last_renewal"], data["last_renewal_time"] = t.LastRenewal, t.LastRenewal.Unix()
		}
	}
	return &logical.Response{Data: data}
}

func (s *Server) tokenLookupSelf(_ context.Context, r *request) (*logical.Response, error) {
	return s.describe(r.token, r.clientToken), nil
}

// named finds the token that a request speaks of.
func (s *Server) named(r *request) (*token, string, error) {
	id := fields(r.Data).text("token")
	if id == "" {
		return nil, "", badRequest("missing token ID")
	}
	t, err := s.findToken(id)
	if err == nil && t == nil {
		err = coded(403, "bad token")
	}
	return t, id, err
}

func (s *Server) namedByAccessor(r *request) (*token, error) {
	accessor := fields(r.Data).text("accessor")
	if accessor == "" {
		return nil, badRequest("missing accessor")
	}
	t, err := s.findTokenByAccessor(accessor)
	if err == nil && t == nil {
		err = coded(403, "invalid accessor")
	}
	return t, err
}

func (s *Server) tokenLookup(_ context.Context, r *request) (*logical.Response, error) {
	t, id, err := s.named(r)
	if err != nil {
		return nil, err
	}
	return s.describe(t, id), nil
}

func (s *Server) tokenLookupAccessor(_ context.Context, r *request) (*logical.Response, error) {
	t, err := s.namedByAccessor(r)
	if err != nil {
		return nil, err
	}
	return s.describe(t, ""), nil
}

func (s *Server) renewed(r *request, t *token, id string) (*logical.Response, error) {
	increment, err := fields(r.Data).duration("increment")
	if err != nil {
		return nil, err
	}
	t, warnings, err := s.renewToken(t, increment)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Auth: s.authOf(t, id), Warnings: warnings}, nil
}

func (s *Server) tokenRenewSelf(_ context.Context, r *request) (*logical.Response, error) {
	return s.renewed(r, r.token, r.clientToken)
}

func (s *Server) tokenRenew(_ context.Context, r *request) (*logical.Response, error) {
	t, id, err := s.named(r)
	if err != nil {
		return nil, err
	}
	return s.renewed(r, t, id)
}

func (s *Server) tokenRenewAccessor(_ context.Context, r *request) (*logical.Response, error) {
	t, err := s.namedByAccessor(r)
	if err != nil {
		return nil, err
	}
	return s.renewed(r, t, "")
}

func (s *Server) tokenRevokeSelf(_ context.Context, r *request) (*logical.Response, error) {
	return nil, s.revokeToken(r.token.Digest, false)
}

func (s *Server) tokenRevoke(_ context.Context, r *request) (*logical.Response, error) {
	return s.revokeNamed(r, false)
}

func (s *Server) tokenRevokeOrphan(_ context.Context, r *request) (*logical.Response, error) {
	return s.revokeNamed(r, true)
}

// revokeNamed succeeds for a token that does not exist: it is revoked.
func (s *Server) revokeNamed(r *request, orphanChildren bool) (*logical.Response, error) {
	id := fields(r.Data).text("token")
	if id == "" {
		return nil, badRequest("missing token ID")
	}
	return nil, s.revokeToken(digest(id), orphanChildren)
}

func (s *Server) tokenRevokeAccessor(_ context.Context, r *request) (*logical.Response, error) {
	t, err := s.namedByAccessor(r)
	if err != nil {
		return nil, err
	}
	return nil, s.revokeToken(t.Digest, false)
}

func (s *Server) tokenAccessors(context.Context, *request) (*logical.Response, error) {
	keys, err := s.cfg.Store.List(accessorPrefix, "", -1)
	if err != nil {
		return nil, fmt.Errorf("list accessors: %w", err)
	}
	return logical.ListResponse(keys), nil
}
