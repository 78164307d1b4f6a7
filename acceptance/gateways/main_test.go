// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository's directory, shipped is what users begin with.
const (
	root    = "../.."
	shipped = root + "/bootstrap/gateways"
)

// traefikVariable names the program of a Traefik. Unset, a proxy that asks as Traefik
// does stands in for it.
const traefikVariable = "TRAEFIK_BIN"

// serverVariable names the program of a real server. Unset, no failover is played.
const serverVariable = "SERVER_BIN"

// programs are what is tested, built once, and the gateways.
var programs struct {
	dir, plugin, devserver, apikeys string

	nginx, haproxy, caddy, traefik string
	// server is a Vault or OpenBao, or empty.
	server string
}

func TestMain(m *testing.M) {
	if addr := os.Getenv(emptyVariable); addr != "" {
		fmt.Fprintln(os.Stderr, serveEmpty(addr))
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "gateways:", err)
		return 1
	}
	defer os.RemoveAll(programs.dir)
	return m.Run()
}

func prepare() error {
	var missing []error
	find := func(name string) string {
		path, err := exec.LookPath(name)
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if err != nil {
				path, err = exec.LookPath(filepath.Join(dir, name))
			}
		}
		if err != nil {
			missing = append(missing, fmt.Errorf("%s is missing: apt-get install -y --no-install-recommends %s", name, name))
		}
		return path
	}
	programs.nginx, programs.haproxy = find("nginx"), find("haproxy")
	if err := errors.Join(missing...); err != nil {
		return err
	}
	for variable, to := range map[string]*string{traefikVariable: &programs.traefik, serverVariable: &programs.server} {
		name := os.Getenv(variable)
		if name == "" {
			continue
		}
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
		if *to, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	// What a developer exported for servers of his own must not reach those here.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	var err error
	if programs.dir, err = os.MkdirTemp("", "gw"); err != nil {
		return err
	}
	// The workspace has the official SDK's stand-in, Caddy's requirements stay out of it.
	for _, b := range []struct {
		to        *string
		from, pkg string
		env       string
	}{
		{&programs.plugin, root, "./cmd/vault-plugin-secrets-apikeys", ""},
		{&programs.devserver, root, "./cmd/devserver", ""},
		{&programs.apikeys, root, "./cmd/apikeys", ""},
		{&programs.caddy, ".", "./caddy", "GOWORK=off"},
	} {
		*b.to = filepath.Join(programs.dir, filepath.Base(b.pkg))
		build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-o", *b.to, b.pkg)
		build.Dir = b.from
		build.Env = append(environ("GOWORK"), "CGO_ENABLED=0")
		if b.env != "" {
			build.Env = append(build.Env, b.env)
		}
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.pkg, err, text)
		}
	}
	return nil
}

// environ is the environment without a variable.
func environ(without string) []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, without+"=") {
			out = append(out, kv)
		}
	}
	return out
}
