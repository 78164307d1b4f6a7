// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// Operations that not every version of the SDK names with the type.
const (
	headerOperation logical.Operation = "header"
	scanOperation   logical.Operation = "scan"
)

type handler func(ctx context.Context, r *request) (*logical.Response, error)

type ops map[logical.Operation]handler

// route is one path of the server itself.
type route struct {
	pattern string
	match   *regexp.Regexp
	ops     ops
	help    string
	// open leaves the check of the token to the handler.
	open bool
	// sudo needs that capability too.
	sudo bool
	// inject repeats the data at the top level of the answer, as clients of old expect.
	inject bool
}

var wildcard = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

// at makes a route of a pattern: `{name}` stands for one segment, `{name...}` for one or more.
func at(pattern, help string, ops ops) route {
	// Patterns hold no other character that means something to a regular expression.
	expr := wildcard.ReplaceAllStringFunc(pattern, func(part string) string {
		m := wildcard.FindStringSubmatch(part)
		if m[2] != "" {
			return "(?P<" + m[1] + ">.+?)"
		}
		return "(?P<" + m[1] + ">[^/]+)"
	})
	return route{pattern: pattern, match: regexp.MustCompile("^" + expr + "/?$"), ops: ops, help: help}
}

func (r route) opened() route   { r.open = true; return r }
func (r route) sudoed() route   { r.sudo = true; return r }
func (r route) injected() route { r.inject = true; return r }

func (s *Server) findRoute(path string) (*route, map[string]string) {
	for i := range s.routes {
		rt := &s.routes[i]
		m := rt.match.FindStringSubmatch(path)
		if m == nil {
			continue
		}
		vars := map[string]string{}
		for j, name := range rt.match.SubexpNames() {
			if name != "" {
				vars[name] = m[j]
			}
		}
		return rt, vars
	}
	return nil, nil
}

func (s *Server) handleInternal(ctx context.Context, r *request) (*logical.Response, error) {
	r.Path = r.fullPath
	rt, vars := s.findRoute(r.fullPath)
	if rt == nil {
		if err := s.authorize(r, capabilityOf(r.Operation), false); err != nil {
			return nil, err
		}
		if r.Operation == logical.HelpOperation {
			return logical.HelpResponse(s.routeHelp(), nil, nil), nil
		}
		if strings.HasPrefix(r.fullPath, "sys/") || strings.HasPrefix(r.fullPath, "auth/token/") {
			return nil, routed(logical.ErrUnsupportedPath)
		}
		return nil, noRoute(r.fullPath)
	}
	r.vars = vars
	if !rt.open || r.Operation == logical.HelpOperation {
		if err := s.authorize(r, capabilityOf(r.Operation), rt.sudo); err != nil {
			return nil, err
		}
	}
	if r.Operation == logical.HelpOperation {
		return logical.HelpResponse("Request: "+rt.pattern+"\n\n"+rt.help, nil, nil), nil
	}
	h := rt.ops[r.Operation]
	if h == nil && r.Operation == logical.CreateOperation {
		h = rt.ops[logical.UpdateOperation]
	}
	if h == nil {
		return nil, routed(logical.ErrUnsupportedOperation)
	}
	resp, err := h(ctx, r)
	if resp == nil || err != nil {
		return resp, err
	}
	return s.wrapIfAsked(r, resp)
}

func (s *Server) routeHelp() string {
	var b strings.Builder
	b.WriteString("The part of Vault's own API that this development server serves:\n\n")
	for _, rt := range s.routes {
		b.WriteString("    " + rt.pattern + "\n        " + rt.help + "\n")
	}
	return b.String()
}

func (s *Server) buildRoutes() []route {
	const (
		read   = logical.ReadOperation
		update = logical.UpdateOperation
		list   = logical.ListOperation
		remove = logical.DeleteOperation
	)
	return []route{
		at("auth/token/create", "Create a token.", ops{update: s.tokenCreate}),
		at("auth/token/create-orphan", "Create a token that outlives its creator.", ops{update: s.tokenCreateOrphan}).sudoed(),
		at("auth/token/lookup", "Look a token up.", ops{read: s.tokenLookupSelf, update: s.tokenLookup}),
		at("auth/token/lookup-self", "Look the calling token up.", ops{read: s.tokenLookupSelf, update: s.tokenLookupSelf}),
		at("auth/token/lookup-accessor", "Look a token up by its accessor.", ops{update: s.tokenLookupAccessor}),
		at("auth/token/renew", "Renew a token.", ops{update: s.tokenRenew}),
		at("auth/token/renew-self", "Renew the calling token.", ops{update: s.tokenRenewSelf}),
		at("auth/token/renew-accessor", "Renew a token by its accessor.", ops{update: s.tokenRenewAccessor}),
		at("auth/token/revoke", "Revoke a token, its children and their leases.", ops{update: s.tokenRevoke}),
		at("auth/token/revoke-self", "Revoke the calling token.", ops{update: s.tokenRevokeSelf}),
		at("auth/token/revoke-orphan", "Revoke a token but not its children.", ops{update: s.tokenRevokeOrphan}).sudoed(),
		at("auth/token/revoke-accessor", "Revoke a token by its accessor.", ops{update: s.tokenRevokeAccessor}),
		at("auth/token/accessors", "List accessors.", ops{list: s.tokenAccessors}).sudoed(),

		at("sys/mounts", "List mounts.", ops{read: s.mountsRead}).injected(),
		at("sys/mounts/{path...}/tune", "Read or change a mount's settings.", ops{read: s.mountTuneRead, update: s.mountTune}).injected(),
		at("sys/mounts/{path...}", "Mount, read or unmount a secrets engine.", ops{read: s.mountRead, update: s.mountEnable, remove: s.mountDisable}).injected(),
		at("sys/remount", "Move a mount.", ops{update: s.mountMove}).sudoed().injected(),
		at("sys/remount/status/{id}", "State of a move.", ops{read: s.mountMoveStatus}),
		at("sys/auth", "List auth methods: only token.", ops{read: s.authRead}).injected(),
		at("sys/audit", "List audit devices: none.", ops{read: s.auditRead}).sudoed().injected(),
		at("sys/internal/ui/mounts", "Mounts the caller may use.", ops{read: s.uiMounts}).opened(),
		at("sys/internal/ui/mounts/{path...}", "The mount that serves a path.", ops{read: s.uiMount}),
		at("sys/internal/specs/openapi", "OpenAPI document of all mounts.", ops{read: s.openAPI, update: s.openAPI}).opened(),

		at("sys/plugins/catalog", "List registered plugins.", ops{read: s.pluginsRead, list: s.pluginsRead}),
		at("sys/plugins/catalog/{type}", "List registered plugins of a type.", ops{list: s.pluginsOfType}),
		at("sys/plugins/catalog/{type}/{name}", "Register, read or remove a plugin.", ops{read: s.pluginRead, update: s.pluginRegister, remove: s.pluginRemove}).sudoed(),
		at("sys/plugins/reload/backend", "Reload plugins by name or mount.", ops{update: s.pluginReload}).sudoed(),
		at("sys/plugins/reload/{type}/{name}", "Reload a plugin.", ops{update: s.pluginReload}).sudoed(),

		at("sys/policies/acl", "List ACL policies.", ops{list: s.policiesList, read: s.policiesList}),
		at("sys/policies/acl/{name}", "Write, read or delete an ACL policy.", ops{read: s.policyRead, update: s.policyWrite, remove: s.policyRemove}),
		at("sys/policies/password", "List password policies.", ops{list: s.passwordsList}),
		at("sys/policies/password/{name}", "Write, read or delete a password policy.", ops{read: s.passwordRead, update: s.passwordWrite, remove: s.passwordRemove}),
		at("sys/policies/password/{name}/generate", "Generate a password.", ops{read: s.passwordGenerate}),
		at("sys/policy", "List ACL policies.", ops{read: s.policiesList, list: s.policiesList}).injected(),
		at("sys/policy/{name}", "Write, read or delete an ACL policy.", ops{read: s.policyReadOld, update: s.policyWrite, remove: s.policyRemove}).injected(),
		at("sys/capabilities", "What a token may do.", ops{update: s.capabilities}).injected(),
		at("sys/capabilities-self", "What the calling token may do.", ops{update: s.capabilitiesSelf}).injected(),
		at("sys/capabilities-accessor", "What a token may do, by its accessor.", ops{update: s.capabilitiesAccessor}).injected(),
		at("sys/internal/ui/resultant-acl", "Whether the calling token is root.", ops{read: s.resultantACL}),

		at("sys/leases/lookup", "Look a lease up.", ops{update: s.leaseLookup, list: s.leaseList}),
		at("sys/leases/lookup/{prefix...}", "List leases.", ops{list: s.leaseList}).sudoed(),
		at("sys/leases/renew", "Renew a lease.", ops{update: s.leaseRenew}),
		at("sys/leases/renew/{lease_id...}", "Renew a lease.", ops{update: s.leaseRenew}),
		at("sys/renew", "Renew a lease.", ops{update: s.leaseRenew}),
		at("sys/renew/{lease_id...}", "Renew a lease.", ops{update: s.leaseRenew}),
		at("sys/leases/revoke", "Revoke a lease.", ops{update: s.leaseRevoke}),
		at("sys/leases/revoke/{lease_id...}", "Revoke a lease.", ops{update: s.leaseRevoke}),
		at("sys/revoke", "Revoke a lease.", ops{update: s.leaseRevoke}),
		at("sys/revoke/{lease_id...}", "Revoke a lease.", ops{update: s.leaseRevoke}),
		at("sys/leases/revoke-prefix/{prefix...}", "Revoke all leases below a prefix.", ops{update: s.leaseRevokePrefix}).sudoed(),
		at("sys/revoke-prefix/{prefix...}", "Revoke all leases below a prefix.", ops{update: s.leaseRevokePrefix}).sudoed(),
		at("sys/leases/revoke-force/{prefix...}", "Forget all leases below a prefix, revoked or not.", ops{update: s.leaseRevokeForce}).sudoed(),
		at("sys/revoke-force/{prefix...}", "Forget all leases below a prefix, revoked or not.", ops{update: s.leaseRevokeForce}).sudoed(),
		at("sys/leases/count", "Count leases.", ops{read: s.leaseCount}),

		at("sys/wrapping/wrap", "Wrap the request's own data.", ops{update: s.wrapData}).injected(),
		at("sys/wrapping/unwrap", "Fetch a wrapped answer.", ops{update: s.wrapUnwrap}).opened(),
		at("sys/wrapping/lookup", "Look at a wrapping token without using it up.", ops{read: s.wrapLookup, update: s.wrapLookup}).opened(),
		at("sys/wrapping/rewrap", "Exchange a wrapping token for a new one.", ops{update: s.wrapRewrap}).opened(),

		at("sys/seal", "Clean all plugins up and refuse requests until unsealed.", ops{update: s.seal}).sudoed(),
		at("sys/step-down", "Does nothing: there is no other node.", ops{update: s.stepDown}).sudoed(),
		at("sys/ha-status", "The nodes of the cluster: this one.", ops{read: s.haStatus}).injected(),
		at("sys/host-info", "The host this runs on.", ops{read: s.hostInfo}),
	}
}
