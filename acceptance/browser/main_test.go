// SPDX-License-Identifier: MPL-2.0

package browser

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

// programs are what is tested, built from the sources beside this module, and the browser.
var programs struct{ dir, plugin, devserver, apikeys, chrome string }

// browserVariable names the browser; unset, the usual names are looked for.
const browserVariable = "CHROME_BIN"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		return 1
	}
	defer os.RemoveAll(programs.dir)
	return m.Run()
}

func prepare() error {
	if err := findBrowser(); err != nil {
		return err
	}
	// What a developer exported for servers of his own must not reach the command.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	var err error
	if programs.dir, err = os.MkdirTemp("", "ak"); err != nil {
		return err
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	for to, pkg := range map[*string]string{
		&programs.plugin: "./cmd/vault-plugin-secrets-apikeys", &programs.devserver: "./cmd/devserver", &programs.apikeys: "./cmd/apikeys",
	} {
		*to = filepath.Join(programs.dir, filepath.Base(pkg))
		build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-o", *to, pkg)
		build.Dir = root
		// This module stands outside the workspace, which those need.
		for _, kv := range os.Environ() {
			if !strings.HasPrefix(kv, "GOWORK=") {
				build.Env = append(build.Env, kv)
			}
		}
		build.Env = append(build.Env, "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
		}
	}
	return nil
}

func findBrowser() error {
	if name, set := os.LookupEnv(browserVariable); set {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%s: %w", browserVariable, err)
		}
		programs.chrome = path
		return nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			programs.chrome = path
			return nil
		}
	}
	return errors.New("no Chromium was found: install it (Debian: apt-get install chromium), or name it by " + browserVariable)
}
