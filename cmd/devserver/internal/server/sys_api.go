// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

func (s *Server) listNames(prefix string) (*logical.Response, error) {
	keys, err := s.cfg.Store.List(prefix, "", -1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kindOf(prefix), err)
	}
	return logical.ListResponse(keys), nil
}

func (s *Server) policiesList(context.Context, *request) (*logical.Response, error) {
	keys, err := s.cfg.Store.List(policyPrefix, "", -1)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	keys = append(keys, rootPolicy)
	return &logical.Response{Data: map[string]any{"keys": keys, "policies": keys}}, nil
}

func policyName(r *request) string { return strings.ToLower(r.vars["name"]) }

func (s *Server) policyRead(_ context.Context, r *request) (*logical.Response, error) {
	return s.describePolicy(policyName(r), "policy")
}

func (s *Server) policyReadOld(_ context.Context, r *request) (*logical.Response, error) {
	return s.describePolicy(policyName(r), "rules")
}

func (s *Server) describePolicy(name, member string) (*logical.Response, error) {
	if name == rootPolicy {
		return &logical.Response{Data: map[string]any{"name": name, member: ""}}, nil
	}
	text, found, err := s.policy(name)
	if err != nil || !found {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"name": name, member: text}}, nil
}

func (s *Server) policyWrite(_ context.Context, r *request) (*logical.Response, error) {
	name, f := policyName(r), fields(r.Data)
	text := f.text("policy")
	if text == "" {
		text = f.text("rules")
	}
	switch {
	case name == rootPolicy:
		return nil, badRequest("cannot update %q policy", name)
	case text == "":
		return nil, badRequest("'policy' parameter not supplied or empty")
	}
	return nil, s.writePolicy(name, plain(text))
}

// plain undoes base64, in which a policy may be sent.
func plain(text string) string {
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil {
		return string(decoded)
	}
	return text
}

func (s *Server) policyRemove(_ context.Context, r *request) (*logical.Response, error) {
	name := policyName(r)
	if name == rootPolicy || name == defaultPolicy {
		return nil, badRequest("cannot delete %q policy", name)
	}
	return nil, s.deletePolicy(name)
}

func (s *Server) passwordsList(context.Context, *request) (*logical.Response, error) {
	return s.listNames(passwordPrefix)
}

func (s *Server) passwordRead(_ context.Context, r *request) (*logical.Response, error) {
	var text string
	found, err := s.load(passwordPrefix+r.vars["name"], &text)
	if err != nil || !found {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"policy": text}}, nil
}

func (s *Server) passwordWrite(_ context.Context, r *request) (*logical.Response, error) {
	text := plain(fields(r.Data).text("policy"))
	if text == "" {
		return nil, badRequest("missing policy")
	}
	p, err := parsePasswordPolicy(text)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	if _, err := p.generate(); err != nil {
		return nil, err
	}
	return nil, s.cfg.Store.Apply(put(passwordPrefix+r.vars["name"], text))
}

func (s *Server) passwordRemove(_ context.Context, r *request) (*logical.Response, error) {
	return nil, s.cfg.Store.Apply(del(passwordPrefix + r.vars["name"]))
}

func (s *Server) passwordGenerate(_ context.Context, r *request) (*logical.Response, error) {
	password, err := s.generatePassword(r.vars["name"])
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"password": password}}, nil
}

func (s *Server) capabilities(_ context.Context, r *request) (*logical.Response, error) {
	t, _, err := s.named(r)
	if err != nil {
		return nil, err
	}
	return s.capabilitiesOf(t, r)
}

func (s *Server) capabilitiesAccessor(_ context.Context, r *request) (*logical.Response, error) {
	t, err := s.namedByAccessor(r)
	if err != nil {
		return nil, err
	}
	return s.capabilitiesOf(t, r)
}

func (s *Server) capabilitiesSelf(_ context.Context, r *request) (*logical.Response, error) {
	return s.capabilitiesOf(r.token, r)
}

func (s *Server) capabilitiesOf(t *token, r *request) (*logical.Response, error) {
	a, err := s.aclOf(t)
	if err != nil {
		return nil, err
	}
	f := fields(r.Data)
	paths := f.list("paths")
	if len(paths) == 0 {
		paths = f.list("path")
	}
	if len(paths) == 0 {
		return nil, badRequest("paths must be supplied")
	}
	data := map[string]any{}
	for _, p := range paths {
		p = strings.TrimPrefix(p, "/")
		data[p] = a.Capabilities(p)
		if len(paths) == 1 {
			data["capabilities"] = data[p]
		}
	}
	return &logical.Response{Data: data}, nil
}

func (s *Server) resultantACL(_ context.Context, r *request) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{"root": r.token.root(), "exact_paths": map[string]any{}, "glob_paths": map[string]any{}}}, nil
}

func (s *Server) pluginsRead(context.Context, *request) (*logical.Response, error) {
	entries, err := s.catalog()
	if err != nil {
		return nil, err
	}
	names, detailed := []string{}, []map[string]any{}
	for _, e := range entries {
		if !slices.Contains(names, e.Name) {
			names = append(names, e.Name)
		}
		detailed = append(detailed, map[string]any{"type": "secret", "name": e.Name, "version": e.Version, "builtin": false, "sha256": e.SHA256})
	}
	return &logical.Response{Data: map[string]any{"secret": names, "auth": []string{}, "database": []string{}, "detailed": detailed}}, nil
}

func (s *Server) pluginsOfType(_ context.Context, r *request) (*logical.Response, error) {
	if r.vars["type"] != "secret" {
		return logical.ListResponse(nil), nil
	}
	entries, err := s.catalog()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !slices.Contains(names, e.Name) {
			names = append(names, e.Name)
		}
	}
	return logical.ListResponse(names), nil
}

func pluginType(r *request) error {
	if r.vars["type"] != "secret" {
		return badRequest("this development server runs plugins of type secret only")
	}
	return nil
}

func (s *Server) pluginRead(_ context.Context, r *request) (*logical.Response, error) {
	if err := pluginType(r); err != nil {
		return nil, err
	}
	entries, err := s.catalog()
	if err != nil {
		return nil, err
	}
	version := fields(r.Data).text("version")
	for _, e := range entries {
		if e.Name == r.vars["name"] && e.Version == version {
			return &logical.Response{Data: map[string]any{
				"name": e.Name, "version": e.Version, "command": e.Command, "args": e.Args, "sha256": e.SHA256, "builtin": false,
			}}, nil
		}
	}
	return nil, nil
}

func (s *Server) pluginRegister(ctx context.Context, r *request) (*logical.Response, error) {
	if err := pluginType(r); err != nil {
		return nil, err
	}
	f := fields(r.Data)
	sum := f.text("sha256")
	if sum == "" {
		sum = f.text("sha_256")
	}
	if raw, err := base64.StdEncoding.DecodeString(sum); err == nil && len(raw) == 32 {
		sum = hex.EncodeToString(raw)
	}
	return nil, s.register(ctx, catalogEntry{
		Name: r.vars["name"], Version: f.text("version"), Command: f.text("command"), Args: f.list("args"), Env: f.list("env"), SHA256: sum,
	})
}

func (s *Server) pluginRemove(_ context.Context, r *request) (*logical.Response, error) {
	if err := pluginType(r); err != nil {
		return nil, err
	}
	return nil, s.cfg.Store.Apply(del(catalogKey(r.vars["name"], fields(r.Data).text("version"))))
}

func (s *Server) pluginReload(ctx context.Context, r *request) (*logical.Response, error) {
	f := fields(r.Data)
	name, paths := f.text("plugin"), f.list("mounts")
	if r.vars["name"] != "" {
		name, paths = r.vars["name"], nil
	}
	if name == "" && len(paths) == 0 {
		return nil, badRequest("plugin or mounts must be provided")
	}
	for i := range paths {
		paths[i] = strings.Trim(paths[i], "/") + "/"
		if s.mountAt(paths[i]) == nil {
			return nil, badRequest("no mount at %q", paths[i])
		}
	}
	for _, m := range s.mounts() {
		e := m.entry.Load()
		if e.Type != name && !slices.Contains(paths, e.Path) {
			continue
		}
		if err := m.running.Reload(context.WithoutCancel(ctx)); err != nil {
			return nil, fmt.Errorf("reload mount %s: %w", e.Path, err)
		}
	}
	return &logical.Response{Data: map[string]any{"reload_id": newUUID()}}, nil
}

func (s *Server) seal(context.Context, *request) (*logical.Response, error) {
	s.Seal()
	return nil, nil
}

func (s *Server) stepDown(context.Context, *request) (*logical.Response, error) { return nil, nil }

func (s *Server) haStatus(context.Context, *request) (*logical.Response, error) {
	host, _ := os.Hostname()
	return &logical.Response{Data: map[string]any{"nodes": []map[string]any{{"hostname": host, "api_address": "", "cluster_address": "", "active_node": true, "version": Version}}}}, nil
}

func (s *Server) hostInfo(context.Context, *request) (*logical.Response, error) {
	host, _ := os.Hostname()
	return &logical.Response{Data: map[string]any{"host": map[string]any{"hostname": host, "os": runtime.GOOS, "kernelArch": runtime.GOARCH}, "timestamp": s.now().UTC()}}, nil
}
