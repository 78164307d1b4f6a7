// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

const licencesFile = "THIRD-PARTY-LICENSES.txt"

// A pkg is what `go list` says of a package that is linked in.
type pkg struct {
	Dir      string `json:"Dir"`
	Standard bool   `json:"Standard"`
	Module   *mod   `json:"Module"`
}

type mod struct {
	Path    string `json:"Path"`
	Version string `json:"Version"`
	Dir     string `json:"Dir"`
	Main    bool   `json:"Main"`
}

// legal are files whose text a licence wants to travel along.
var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents|authors)([-._].*)?$`)

// writeLicences collects the texts of all modules that a binary of this release has in it, from
// where they were built: of each package linked in, the files beside it and above it.
func (r *release) writeLicences(ctx context.Context) error {
	texts, err := r.licences(ctx)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, licencesFile), texts, 0o644)
}

func (r *release) licences(ctx context.Context) ([]byte, error) {
	files := map[string]map[string]bool{} // module and version: its files
	dirs := map[string]string{}
	for _, b := range r.binaries {
		packages, err := linked(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name(), err)
		}
		for _, p := range packages {
			if p.Standard || p.Module == nil || p.Module.Main {
				continue
			}
			name := p.Module.Path + " " + p.Module.Version
			if files[name] == nil {
				files[name], dirs[name] = map[string]bool{}, p.Module.Dir
			}
			if err := legalAbove(p.Dir, p.Module.Dir, files[name]); err != nil {
				return nil, err
			}
		}
	}
	root, err := goRoot(ctx)
	if err != nil {
		return nil, err
	}
	goName := "Go, its standard library and runtime " + r.toolchain
	files[goName], dirs[goName] = map[string]bool{}, root
	if err := legalAbove(root, root, files[goName]); err != nil {
		return nil, err
	}

	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var out bytes.Buffer
	fmt.Fprintf(&out, "Licences of what is linked into the programs of %s %s.\nThat itself is under MPL-2.0; its source is commit %s.\n", plugin, r.version, r.commit)
	for _, name := range names {
		if len(files[name]) == 0 {
			return nil, fmt.Errorf("%s: no licence found in %s", name, dirs[name])
		}
		if err := appendTexts(&out, name, dirs[name], files[name]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func appendTexts(out *bytes.Buffer, name, dir string, files map[string]bool) error {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	fmt.Fprintf(out, "\n%s\n%s\n", strings.Repeat("=", 78), name)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		fmt.Fprintf(out, "\n--- %s\n\n%s\n", filepath.ToSlash(rel), bytes.TrimSpace(text))
	}
	return nil
}

// legalAbove adds the legal files of dir and of the directories above it, up to root.
func legalAbove(dir, root string, files map[string]bool) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() && legal.MatchString(e.Name()) && filepath.Ext(e.Name()) != ".go" {
				files[filepath.Join(dir, e.Name())] = true
			}
		}
		if dir == root {
			return nil
		}
		if dir = filepath.Dir(dir); !strings.HasPrefix(dir, root) {
			return fmt.Errorf("%s is not within %s", dir, root)
		}
	}
}

// linked lists the packages of a binary, as the go command that built it resolves them.
func linked(ctx context.Context, b binary) ([]pkg, error) {
	out, err := goCommand(ctx, []string{"GOOS=" + b.system, "GOARCH=" + b.arch, "CGO_ENABLED=0"}, "list", "-deps", "-json=Dir,Standard,Module", "./cmd/"+b.program)
	if err != nil {
		return nil, err
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
}

func goRoot(ctx context.Context) (string, error) {
	out, err := goCommand(ctx, nil, "env", "GOROOT")
	return strings.TrimSpace(string(out)), err
}

func goCommand(ctx context.Context, env []string, args ...string) ([]byte, error) {
	name := os.Getenv("GO")
	if name == "" {
		name = "go"
	}
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // GO is the go command that builds
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}
