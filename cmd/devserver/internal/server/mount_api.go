// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func (s *Server) describeMount(m *mount) map[string]any {
	e := m.entry.Load()
	return map[string]any{
		"type": e.Type, "description": e.Description, "accessor": e.Accessor, "uuid": e.UUID, "local": e.Local, "seal_wrap": e.SealWrap,
		"external_entropy_access": false, "options": e.Options, "config": configOf(e), "plugin_version": e.PluginVersion,
		"running_plugin_version": m.running.Version(), "running_sha256": "", "deprecation_status": "",
	}
}

func configOf(e *mountEntry) map[string]any {
	config := map[string]any{
		"default_lease_ttl": int64(e.DefaultLeaseTTL.Seconds()), "max_lease_ttl": int64(e.MaxLeaseTTL.Seconds()),
		"force_no_cache": e.ForceNoCache, "listing_visibility": e.Listing,
	}
	for name, list := range map[string][]string{
		"passthrough_request_headers":  e.RequestHeaders,
		"allowed_response_headers":     e.ResponseHeaders,
		"audit_non_hmac_request_keys":  e.AuditRequest,
		"audit_non_hmac_response_keys": e.AuditResponse,
	} {
		if len(list) > 0 {
			config[name] = list
		}
	}
	return config
}

// serverMount stands for what the server itself serves.
func serverMount(kind, description string) map[string]any {
	return map[string]any{
		"type": kind, "description": description, "accessor": kind + "_dev", "uuid": "", "local": false, "seal_wrap": false,
		"external_entropy_access": false, "options": nil, "plugin_version": "", "running_plugin_version": Version, "running_sha256": "",
		"deprecation_status": "", "config": map[string]any{"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false},
	}
}

func (s *Server) mountsRead(context.Context, *request) (*logical.Response, error) {
	data := map[string]any{"sys/": serverMount("system", "system endpoints of the development server")}
	for _, m := range s.mounts() {
		data[m.entry.Load().Path] = s.describeMount(m)
	}
	return &logical.Response{Data: data}, nil
}

func (s *Server) mountRead(_ context.Context, r *request) (*logical.Response, error) {
	m := s.mountAt(strings.Trim(r.vars["path"], "/") + "/")
	if m == nil {
		return nil, badRequest("No secret engine mount at %s/", strings.Trim(r.vars["path"], "/"))
	}
	return &logical.Response{Data: s.describeMount(m)}, nil
}

func (s *Server) mountEnable(ctx context.Context, r *request) (*logical.Response, error) {
	f := fields(r.Data)
	config, _ := f["config"].(map[string]any)
	entry := &mountEntry{Path: r.vars["path"], Type: f.text("type"), Description: f.text("description"), PluginVersion: f.text("plugin_version")}
	if entry.Type == "plugin" || entry.Type == "" {
		entry.Type = f.text("plugin_name")
		if entry.Type == "" {
			entry.Type = fields(config).text("plugin_name")
		}
	}
	if entry.Type == "" {
		return nil, badRequest("backend type must be specified as a string")
	}
	var err error
	if entry.Local, err = f.flag("local", false); err != nil {
		return nil, err
	}
	if entry.SealWrap, err = f.flag("seal_wrap", false); err != nil {
		return nil, err
	}
	if entry.Options, err = f.pairs("options"); err != nil {
		return nil, err
	}
	if err := tune(entry, config); err != nil {
		return nil, err
	}
	return nil, s.Enable(ctx, entry)
}

// tune applies the settings that f names.
func tune(e *mountEntry, f fields) error {
	for name, to := range map[string]*time.Duration{"default_lease_ttl": &e.DefaultLeaseTTL, "max_lease_ttl": &e.MaxLeaseTTL} {
		if !f.has(name) || f.text(name) == "" {
			continue
		}
		if f.text(name) == "system" {
			*to = 0
			continue
		}
		d, err := f.duration(name)
		if err != nil {
			return err
		}
		*to = d
	}
	if e.defaultTTL() > e.maxTTL() {
		return badRequest("backend default lease TTL of %d would be greater than backend max lease TTL of %d", int(e.defaultTTL().Seconds()), int(e.maxTTL().Seconds()))
	}
	for name, to := range map[string]*[]string{
		"passthrough_request_headers":  &e.RequestHeaders,
		"allowed_response_headers":     &e.ResponseHeaders,
		"audit_non_hmac_request_keys":  &e.AuditRequest,
		"audit_non_hmac_response_keys": &e.AuditResponse,
	} {
		if f.has(name) {
			*to = f.list(name)
		}
	}
	if f.has("listing_visibility") {
		e.Listing = f.text("listing_visibility")
		if !slices.Contains([]string{"", "hidden", "unauth"}, e.Listing) {
			return badRequest("invalid listing_visibility %q", e.Listing)
		}
	}
	if f.has("force_no_cache") {
		v, err := f.flag("force_no_cache", false)
		if err != nil {
			return err
		}
		e.ForceNoCache = v
	}
	if f.has("description") {
		e.Description = f.text("description")
	}
	if f.has("options") {
		options, err := f.pairs("options")
		if err != nil {
			return err
		}
		e.Options = options
	}
	return nil
}

func (s *Server) mountTuneRead(_ context.Context, r *request) (*logical.Response, error) {
	m := s.mountAt(strings.Trim(r.vars["path"], "/") + "/")
	if m == nil {
		return nil, badRequest("sysview: no mount at %q", r.vars["path"])
	}
	e := m.entry.Load()
	data := configOf(e)
	data["description"], data["default_lease_ttl"], data["max_lease_ttl"] = e.Description, int64(e.defaultTTL().Seconds()), int64(e.maxTTL().Seconds())
	if len(e.Options) > 0 {
		data["options"] = e.Options
	}
	if e.PluginVersion != "" {
		data["plugin_version"] = e.PluginVersion
	}
	return &logical.Response{Data: data}, nil
}

func (s *Server) mountTune(_ context.Context, r *request) (*logical.Response, error) {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	m := s.mountAt(strings.Trim(r.vars["path"], "/") + "/")
	if m == nil {
		return nil, badRequest("no mount entry found for %q", r.vars["path"])
	}
	entry := *m.entry.Load()
	if err := tune(&entry, r.Data); err != nil {
		return nil, err
	}
	if f := fields(r.Data); f.has("plugin_version") {
		entry.PluginVersion = f.text("plugin_version")
		if _, err := s.command(entry.Type, entry.PluginVersion); err != nil {
			return nil, err
		}
	}
	if err := s.saveMount(&entry); err != nil {
		return nil, err
	}
	m.entry.Store(&entry)
	return nil, nil
}

func (s *Server) mountDisable(ctx context.Context, r *request) (*logical.Response, error) {
	return nil, s.disable(context.WithoutCancel(ctx), strings.Trim(r.vars["path"], "/")+"/")
}

func (s *Server) mountMove(ctx context.Context, r *request) (*logical.Response, error) {
	f := fields(r.Data)
	if f.text("from") == "" || f.text("to") == "" {
		return nil, badRequest("both 'from' and 'to' path must be specified as a string")
	}
	from, to := strings.Trim(f.text("from"), "/")+"/", f.text("to")
	if err := s.remount(context.WithoutCancel(ctx), from, to); err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"migration_id": newUUID()}}, nil
}

// mountMoveStatus knows only finished moves: the call that starts one waits for it.
func (s *Server) mountMoveStatus(_ context.Context, r *request) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{
		"migration_id":   r.vars["id"],
		"migration_info": map[string]any{"status": "success"},
	}}, nil
}

func (s *Server) authRead(context.Context, *request) (*logical.Response, error) {
	t := serverMount("token", "token based credentials")
	t["config"].(map[string]any)["token_type"] = "default-service"
	return &logical.Response{Data: map[string]any{"token/": t}}, nil
}

func (s *Server) auditRead(context.Context, *request) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{}}, nil
}

func (s *Server) uiMounts(_ context.Context, r *request) (*logical.Response, error) {
	// Without a token only what is listed for everybody is shown.
	if r.clientToken != "" {
		if err := s.authenticate(r); err != nil {
			return nil, err
		}
	}
	secret := map[string]any{}
	for _, m := range s.mounts() {
		e := m.entry.Load()
		if r.acl != nil && r.acl.Touches(e.Path) || e.Listing == "unauth" {
			secret[e.Path] = s.describeMount(m)
		}
	}
	auth := map[string]any{}
	if r.acl != nil {
		auth["token/"] = serverMount("token", "token based credentials")
	}
	return &logical.Response{Data: map[string]any{"secret": secret, "auth": auth}}, nil
}

func (s *Server) uiMount(_ context.Context, r *request) (*logical.Response, error) {
	m, _ := s.findMount(r.vars["path"])
	if m == nil || !r.acl.Touches(m.entry.Load().Path) {
		return nil, coded(403, "preflight capability check returned 403, please ensure client's policies grant access to path %q", strings.Trim(r.vars["path"], "/")+"/")
	}
	data := s.describeMount(m)
	data["path"] = m.entry.Load().Path
	return &logical.Response{Data: data}, nil
}
