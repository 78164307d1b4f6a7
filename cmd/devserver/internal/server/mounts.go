// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/store"
)

const mountPrefix = "core/mount/"

// mountEntry is what is kept of a mount. An entry in use is never changed, it is replaced.
type mountEntry struct {
	Path     string `json:"path"`
	UUID     string `json:"uuid"`
	Accessor string `json:"accessor"`
	// Type is the plugin's name in the catalog, PluginVersion the registered version that was asked for.
	Type            string            `json:"type"`
	PluginVersion   string            `json:"plugin_version"`
	Description     string            `json:"description"`
	Local           bool              `json:"local"`
	SealWrap        bool              `json:"seal_wrap"`
	Options         map[string]string `json:"options"`
	DefaultLeaseTTL time.Duration     `json:"default_lease_ttl"`
	MaxLeaseTTL     time.Duration     `json:"max_lease_ttl"`
	ForceNoCache    bool              `json:"force_no_cache"`
	Listing         string            `json:"listing_visibility"`
	RequestHeaders  []string          `json:"passthrough_request_headers"`
	ResponseHeaders []string          `json:"allowed_response_headers"`
	AuditRequest    []string          `json:"audit_non_hmac_request_keys"`
	AuditResponse   []string          `json:"audit_non_hmac_response_keys"`
	// Tainted is set while the mount is being taken down: only revocations reach it.
	Tainted bool `json:"tainted"`
}

func (e *mountEntry) defaultTTL() time.Duration {
	if e.DefaultLeaseTTL > 0 {
		return e.DefaultLeaseTTL
	}
	return min(systemDefaultTTL, e.maxTTL())
}

func (e *mountEntry) maxTTL() time.Duration {
	if e.MaxLeaseTTL > 0 {
		return e.MaxLeaseTTL
	}
	return systemMaxTTL
}

type mount struct {
	entry   atomic.Pointer[mountEntry]
	view    *store.View
	running *host.Mount
	ticking atomic.Bool
}

func (s *Server) newMount(entry *mountEntry) *mount {
	m := &mount{view: store.NewView(s.cfg.Store, "logical/"+entry.UUID+"/")}
	m.entry.Store(entry)
	m.running = s.cfg.Host.NewMount(host.MountConfig{
		Command: func() (host.Command, error) {
			e := m.entry.Load()
			return s.command(e.Type, e.PluginVersion)
		},
		Storage: m.view,
		System:  newSystemView(s, m),
		Logger:  s.logger.Named("mount").With("path", forLog(entry.Path)),
		UUID:    entry.UUID,
		Options: entry.Options,
	})
	return m
}

// findMount returns the mount that serves path, and the path within it.
func (s *Server) findMount(path string) (*mount, string) {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	for prefix := path; ; {
		if m, ok := s.table[strings.TrimSuffix(prefix, "/")+"/"]; ok {
			rest := strings.TrimPrefix(path, strings.TrimSuffix(prefix, "/"))
			return m, strings.TrimPrefix(rest, "/")
		}
		i := strings.LastIndexByte(strings.TrimSuffix(prefix, "/"), '/')
		if i < 0 {
			return nil, ""
		}
		prefix = prefix[:i]
	}
}

// mountAt returns the mount whose own path is path.
func (s *Server) mountAt(path string) *mount {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	return s.table[path]
}

// mounts returns the table in order of path.
func (s *Server) mounts() []*mount {
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	var out []*mount
	for _, path := range slices.Sorted(maps.Keys(s.table)) {
		out = append(out, s.table[path])
	}
	return out
}

func (s *Server) setTable(path string, m *mount) {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	if m == nil {
		delete(s.table, path)
		return
	}
	s.table[path] = m
}

// loadMounts starts what the table holds. A plugin that does not start leaves its mount in place: the
// next request to it tries again and shows the reason.
func (s *Server) loadMounts(ctx context.Context) error {
	return s.walk(mountPrefix, func(key string) error {
		var entry mountEntry
		if _, err := s.load(key, &entry); err != nil {
			return err
		}
		m := s.newMount(&entry)
		if err := m.running.Start(ctx); err != nil {
			s.logger.Error("mount could not be started", "path", forLog(entry.Path), "error", errForLog(err))
		}
		s.setTable(entry.Path, m)
		return nil
	})
}

func (s *Server) saveMount(entry *mountEntry) error {
	return s.cfg.Store.Apply(put(mountPrefix+entry.UUID, entry))
}

// reservedMounts are what a server keeps for itself.
var reservedMounts = []string{"sys", "auth", "audit", "cubbyhole", "identity"}

// mountPath returns path with one trailing slash and no leading one, or why nothing can be mounted there: what
// is mounted must be reachable by its path, and two paths of the same meaning must not exist.
func mountPath(path string) (string, error) {
	refuse := func(rule string) (string, error) { return "", badRequest("path: %q: %s", path, rule) }
	clean := strings.TrimPrefix(strings.TrimSuffix(path, "/"), "/")
	switch {
	case !utf8.ValidString(clean) || strings.ContainsFunc(clean, unprintable):
		return refuse("holds what cannot be printed: use printable characters")
	case strings.TrimSpace(clean) != clean:
		return refuse("begins or ends with a space: leave it out")
	}
	segments := strings.Split(clean, "/")
	for _, segment := range segments {
		switch segment {
		case "":
			return refuse("is empty or has an empty segment: give names, with single slashes between them")
		case ".", "..":
			return refuse("is relative: give a path without . and .. as segments")
		}
	}
	if slices.Contains(reservedMounts, segments[0]) {
		return refuse("is reserved for the server: choose another first segment")
	}
	return clean + "/", nil
}

// freeMountPath is mountPath, and refuses what another mount is in the way of.
func (s *Server) freeMountPath(path string) (string, error) {
	path, err := mountPath(path)
	if err != nil {
		return "", err
	}
	s.tableMu.RLock()
	defer s.tableMu.RUnlock()
	for other := range s.table {
		if strings.HasPrefix(path, other) || strings.HasPrefix(other, path) {
			return "", badRequest("path is already in use at %s", other)
		}
	}
	return path, nil
}

// Enable mounts the registered plugin entry.Type at entry.Path.
func (s *Server) Enable(ctx context.Context, entry *mountEntry) error {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	path, err := s.freeMountPath(entry.Path)
	if err != nil {
		return err
	}
	if _, err := s.command(entry.Type, entry.PluginVersion); err != nil {
		return err
	}
	entry.Path, entry.UUID = path, newUUID()
	entry.Accessor = fmt.Sprintf("%s_%s", entry.Type, strings.ToLower(rand.Text()[:8]))
	m := s.newMount(entry)
	if err := m.running.Start(ctx); err != nil {
		return errors.Join(badRequest("%v", err), m.view.Clear(ctx))
	}
	if err := s.saveMount(entry); err != nil {
		m.running.Close()
		return errors.Join(err, m.view.Clear(ctx))
	}
	s.setTable(path, m)
	s.logger.Info("mounted", "path", forLog(path), "plugin", forLog(entry.Type), "version", m.running.Version())
	return nil
}

// EnsureMounted mounts the plugin at path unless something is mounted there already.
func (s *Server) EnsureMounted(ctx context.Context, path, plugin string) error {
	path, err := mountPath(path)
	if err != nil || s.mountAt(path) != nil {
		return err
	}
	return s.Enable(ctx, &mountEntry{Path: path, Type: plugin, Description: "API keys"})
}

// disable revokes all leases of the mount, then removes it with its storage. Until the last of that is
// done the mount stays in the table, tainted, so that a failure or a crash can be followed by a repeat.
func (s *Server) disable(ctx context.Context, path string) error {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	m := s.mountAt(path)
	if m == nil {
		return nil
	}
	entry := *m.entry.Load()
	entry.Tainted = true
	if err := s.saveMount(&entry); err != nil {
		return err
	}
	m.entry.Store(&entry)
	s.rollbackMount(ctx, m)
	if err := s.revokePrefix(ctx, path, false); err != nil {
		return err
	}
	m.running.Close()
	if err := m.view.Clear(ctx); err != nil {
		return err
	}
	if err := s.cfg.Store.Apply(del(mountPrefix + entry.UUID)); err != nil {
		return err
	}
	s.setTable(path, nil)
	return nil
}

// remount moves a mount. Its leases end, because their ids carry the old path.
func (s *Server) remount(ctx context.Context, from, to string) error {
	s.mountMu.Lock()
	defer s.mountMu.Unlock()
	m := s.mountAt(from)
	if m == nil {
		return badRequest("no matching mount at %q", from)
	}
	to, err := s.freeMountPath(to)
	if err != nil {
		return err
	}
	if err := s.revokePrefix(ctx, from, false); err != nil {
		return err
	}
	entry := *m.entry.Load()
	entry.Path = to
	if err := s.saveMount(&entry); err != nil {
		return err
	}
	m.entry.Store(&entry)
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	delete(s.table, from)
	s.table[to] = m
	return nil
}

// route sends a request that the server makes itself or that passed its checks to a mount.
func (s *Server) route(ctx context.Context, m *mount, req *logical.Request) (*logical.Response, error) {
	entry := m.entry.Load()
	if entry.Tainted {
		switch req.Operation {
		case logical.RevokeOperation, logical.RollbackOperation:
		default:
			return nil, noRoute(entry.Path + req.Path)
		}
	}
	req.MountPoint, req.MountType, req.MountAccessor = entry.Path, entry.Type, entry.Accessor
	req.Storage = m.view
	return m.running.HandleRequest(ctx, req)
}

// routedError is an error that came up after the checks of a token. A real server lists such errors,
// even a single one; what kind of error it is, and so the status, is that of the cause.
type routedError struct{ cause error }

func routed(err error) error {
	if err == nil {
		return nil
	}
	return &routedError{cause: err}
}

func (e *routedError) Error() string { return "1 error occurred:\n\t* " + e.cause.Error() + "\n\n" }
func (e *routedError) Unwrap() error { return e.cause }
