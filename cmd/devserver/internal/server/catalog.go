// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
)

const catalogPrefix = "core/plugin/"

type catalogEntry struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Command string   `json:"command"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	SHA256  string   `json:"sha256"`
}

func catalogKey(name, version string) string { return catalogPrefix + name + "/v" + version }

// command resolves a registered plugin. The binary that the server was started with needs no
// registration and no checksum: it is what lies there now, so that a rebuild takes effect at a reload.
func (s *Server) command(name, version string) (host.Command, error) {
	var e catalogEntry
	found, err := s.load(catalogKey(name, version), &e)
	if err != nil {
		return host.Command{}, err
	}
	if !found {
		if name == s.PluginName() && version == "" {
			return host.Command{Name: name, Path: s.cfg.Plugin}, nil
		}
		if version != "" {
			return host.Command{}, badRequest("plugin not found in the catalog: %s %s", name, version)
		}
		return host.Command{}, badRequest("plugin not found in the catalog: %s", name)
	}
	sum, err := hex.DecodeString(e.SHA256)
	if err != nil {
		return host.Command{}, fmt.Errorf("catalog entry %s: %w", name, err)
	}
	return host.Command{
		Name: name, Version: version, Path: filepath.Join(s.cfg.PluginDir, e.Command), Args: e.Args, Env: e.Env, SHA256: sum,
	}, nil
}

// PluginName is the catalog's name for the binary that the server was started with.
func (s *Server) PluginName() string {
	return strings.TrimSuffix(filepath.Base(s.cfg.Plugin), ".exe")
}

// register checks the binary, starts it once to see that it is a secrets engine, and stores the entry.
func (s *Server) register(ctx context.Context, e catalogEntry) error {
	if e.Command == "" {
		return badRequest("missing command value")
	}
	if filepath.Base(e.Command) != e.Command {
		return badRequest("cannot execute files outside of configured plugin directory")
	}
	want, err := hex.DecodeString(e.SHA256)
	if err != nil || len(want) != 32 {
		return badRequest("missing or malformed SHA-256 of the plugin binary")
	}
	path := filepath.Join(s.cfg.PluginDir, e.Command)
	have, err := host.Checksum(path)
	if errors.Is(err, fs.ErrNotExist) {
		return badRequest("no plugin binary %q in the plugin directory", e.Command)
	}
	if err != nil {
		return err
	}
	if string(have) != string(want) {
		return badRequest("the SHA-256 of plugin binary %q does not match", e.Command)
	}
	version, err := s.cfg.Host.Probe(ctx, host.Command{Name: e.Name, Version: e.Version, Path: path, Args: e.Args, Env: e.Env, SHA256: want})
	if err != nil {
		return badRequest("plugin %q could not be started: %v", e.Name, err)
	}
	if e.Version != "" && version != "" && strings.TrimPrefix(version, "v") != strings.TrimPrefix(e.Version, "v") {
		return badRequest("plugin version mismatch: %s reported version (%s) did not match requested version (%s)", e.Name, version, e.Version)
	}
	return s.cfg.Store.Apply(put(catalogKey(e.Name, e.Version), e))
}

// catalog lists the registered plugins, the server's own first.
func (s *Server) catalog() ([]catalogEntry, error) {
	var out []catalogEntry
	own := true
	err := s.walk(catalogPrefix, func(key string) error {
		var e catalogEntry
		if _, err := s.load(key, &e); err != nil {
			return err
		}
		own = own && (e.Name != s.PluginName() || e.Version != "")
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if own {
		sum, err := host.Checksum(s.cfg.Plugin)
		if err != nil {
			return nil, err
		}
		out = append([]catalogEntry{{Name: s.PluginName(), Command: filepath.Base(s.cfg.Plugin), SHA256: hex.EncodeToString(sum)}}, out...)
	}
	return out, nil
}
