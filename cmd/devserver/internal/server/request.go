// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"crypto/sha1" //nolint:gosec // the host's salted token id is defined so
	"encoding/hex"
	"errors"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/acl"
)

// request is one call of a client on its way through the server.
type request struct {
	*logical.Request
	// fullPath is the path below /v1/; Request.Path is that within the mount.
	fullPath string
	// clientToken is what the client presented. It goes no further than this package.
	clientToken string
	token       *token
	acl         *acl.ACL
	// vars are the named parts of an internal route.
	vars map[string]string
	// unwrapped is an answer that is passed on as it was stored.
	unwrapped *logical.HTTPResponse
}

var errInternal = errors.New("internal error")

// handle takes a request to its answer: token, policies, route, lease, wrapping.
func (s *Server) handle(ctx context.Context, r *request) (*logical.Response, error) {
	if s.sealed.Load() {
		return nil, errSealed
	}
	if strings.HasSuffix(r.fullPath, "/") && (r.Operation == logical.UpdateOperation || r.Operation == logical.PatchOperation) {
		return nil, badRequest("cannot write to a path ending in '/'")
	}
	var resp *logical.Response
	var err error
	if internalPath(r.fullPath) {
		resp, err = s.handleInternal(ctx, r)
	} else {
		resp, err = s.handleMount(ctx, r)
	}
	if r.token != nil && r.token.UsedUp {
		s.schedule(dueToken, r.token.Digest, s.now())
	}
	if err != nil && s.sealed.Load() {
		// Whatever it was that failed under way, that is why.
		return nil, errSealed
	}
	return resp, err
}

func internalPath(path string) bool {
	for _, p := range []string{"sys", "auth", "cubbyhole", "identity"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func (s *Server) handleMount(ctx context.Context, r *request) (*logical.Response, error) {
	m, path := s.findMount(r.fullPath)
	if m == nil {
		// Who may not know what is mounted learns nothing here.
		if err := s.authorize(r, capabilityOf(r.Operation), false); err != nil {
			return nil, err
		}
		return nil, noRoute(r.fullPath)
	}
	entry := m.entry.Load()
	r.Path = path
	r.MountPoint, r.MountType, r.MountAccessor = entry.Path, entry.Type, entry.Accessor
	r.Storage = m.view
	r.Headers = passthrough(r.Headers, entry.RequestHeaders)

	special := m.running.SpecialPaths()
	open := matchSpecial(special.Unauthenticated, path)
	if open {
		r.Unauthenticated = true
	} else if err := s.authenticate(r); err != nil {
		return nil, err
	}
	r.ClientToken = salted(entry.UUID, r.clientToken)
	if r.Operation == logical.UpdateOperation {
		if err := s.decideCreate(ctx, m, r); err != nil {
			return nil, err
		}
	}
	if !open {
		if err := s.permit(r, capabilityOf(r.Operation), matchSpecial(special.Root, path)); err != nil {
			return nil, err
		}
	}
	resp, err := s.route(ctx, m, r.Request)
	if resp == nil || err != nil {
		return resp, routed(err)
	}
	if resp.WrapInfo != nil {
		// An engine says for how long; the token is made here.
		resp.WrapInfo.Token = ""
	}
	resp.Headers = passthrough(resp.Headers, entry.ResponseHeaders)
	if resp.Auth != nil {
		s.logger.Error("a secrets engine answered with a login", "mount", forLog(entry.Path))
		return nil, errInternal
	}
	if resp.Secret != nil && !resp.IsError() {
		if err := s.registerLease(ctx, r, m, resp); err != nil {
			return nil, err
		}
	}
	return s.wrapIfAsked(r, resp)
}

// decideCreate turns a write into a create where the engine says that nothing is there yet.
func (s *Server) decideCreate(ctx context.Context, m *mount, r *request) error {
	if m.entry.Load().Tainted {
		return noRoute(r.fullPath)
	}
	found, exists, err := m.running.HandleExistenceCheck(ctx, r.Request)
	var user errutil.UserError
	switch {
	case err == nil:
		if found && !exists {
			r.Operation = logical.CreateOperation
		}
		return nil
	case err.Error() == logical.ErrUnsupportedPath.Error():
		// The request itself will say so, after the policies had their say.
		return nil
	case errors.As(err, &user):
		return badRequest("%s", user.Err)
	}
	s.logger.Error("existence check failed", "mount", forLog(r.MountPoint), "error", errForLog(err))
	return errInternal
}

// authenticate finds the token and its policies.
func (s *Server) authenticate(r *request) error {
	if r.clientToken == "" {
		return logical.ErrPermissionDenied
	}
	t, err := s.findToken(r.clientToken)
	if err == nil && t != nil {
		t, err = s.use(t)
	}
	if err != nil {
		return err
	}
	if t == nil {
		return coded(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	}
	a, err := s.aclOf(t)
	if err != nil {
		return err
	}
	r.token, r.acl = t, a
	r.ClientTokenAccessor, r.DisplayName = t.Accessor, t.DisplayName
	return nil
}

// permit asks the policies.
func (s *Server) permit(r *request, capability string, sudo bool) error {
	if capability == "" {
		return nil
	}
	var wrap time.Duration
	if r.WrapInfo != nil {
		wrap = r.WrapInfo.TTL
	}
	if !r.acl.Allows(acl.Request{Path: r.fullPath, Capability: capability, Data: r.Data, Sudo: sudo, Wrap: wrap}) {
		return routed(logical.ErrPermissionDenied)
	}
	return nil
}

func (s *Server) authorize(r *request, capability string, sudo bool) error {
	if err := s.authenticate(r); err != nil {
		return err
	}
	return s.permit(r, capability, sudo)
}

// capabilityOf is what a policy must grant for op. Help needs a token, but no capability.
func capabilityOf(op logical.Operation) string {
	switch op {
	case logical.CreateOperation:
		return acl.Create
	case logical.ReadOperation, headerOperation:
		return acl.Read
	case logical.UpdateOperation:
		return acl.Update
	case logical.DeleteOperation:
		return acl.Delete
	case logical.ListOperation:
		return acl.List
	case logical.PatchOperation:
		return acl.Patch
	case scanOperation:
		return acl.Scan
	}
	return ""
}

// wrapIfAsked replaces an answer by the token that fetches it, where the client or the engine asks for that.
func (s *Server) wrapIfAsked(r *request, resp *logical.Response) (*logical.Response, error) {
	var ttl time.Duration
	if resp.WrapInfo != nil {
		if resp.WrapInfo.Token != "" {
			return resp, nil
		}
		ttl = resp.WrapInfo.TTL
	}
	if r.WrapInfo != nil && r.WrapInfo.TTL > 0 && (ttl == 0 || r.WrapInfo.TTL < ttl) {
		ttl = r.WrapInfo.TTL
	}
	resp.WrapInfo = nil
	if ttl == 0 || resp.IsError() || resp.Redirect != "" {
		return resp, nil
	}
	inner := logical.LogicalResponseToHTTPResponse(resp)
	inner.RequestID = r.ID
	if r.Operation == logical.ListOperation || r.Operation == logical.ReadOperation {
		// An answer that would be a 404 stays one.
		if status, _ := logical.RespondErrorCommon(r.Request, resp, nil); status != 0 {
			return resp, nil
		}
	}
	info, err := s.wrapHTTP(inner, ttl, r.fullPath)
	if err != nil {
		return nil, err
	}
	return &logical.Response{WrapInfo: info}, nil
}

func salted(mountUUID, token string) string {
	sum := sha1.Sum([]byte(mountUUID + token)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

func passthrough(headers map[string][]string, allowed []string) map[string][]string {
	var out map[string][]string
	for _, name := range allowed {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if strings.EqualFold(name, tokenHeader) || strings.EqualFold(name, "Authorization") && strings.HasPrefix(strings.Join(headers[name], ""), "Bearer ") {
			continue
		}
		if values, ok := headers[name]; ok {
			if out == nil {
				out = map[string][]string{}
			}
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// matchSpecial reports whether path is among a plugin's special paths: exact, prefix with a star, `+` segments.
func matchSpecial(patterns []string, path string) bool {
	for _, p := range patterns {
		prefix, glob := strings.CutSuffix(p, "*")
		if !strings.Contains(p, "+") {
			if p == path || glob && strings.HasPrefix(path, prefix) {
				return true
			}
			continue
		}
		want, have := strings.Split(prefix, "/"), strings.Split(path, "/")
		if len(have) < len(want) || len(have) > len(want) && !glob {
			continue
		}
		ok := true
		for i, seg := range want {
			ok = ok && (seg == "+" || seg == have[i] || glob && i == len(want)-1 && strings.HasPrefix(have[i], seg))
		}
		if ok {
			return true
		}
	}
	return false
}
