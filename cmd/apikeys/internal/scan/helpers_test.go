// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func mint(t testing.TB, prefix string) keyformat.Key {
	t.Helper()
	k, err := keyformat.Mint(prefix, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// lookAlike has the form of a key, and another checksum.
func lookAlike(k keyformat.Key) string {
	s := []byte(k.Reveal())
	if s[len(s)-1] == '0' {
		s[len(s)-1] = '1'
	} else {
		s[len(s)-1] = '0'
	}
	return string(s)
}

func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// outside takes the marks of a hook away, should the tests run in one.
func outside(t testing.TB) {
	t.Helper()
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "GIT_") || name == "PRE_COMMIT" {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
}

type ended struct {
	status    int
	out, errs string
}

func runScan(t testing.TB, in string, args ...string) ended {
	t.Helper()
	var out, errs bytes.Buffer
	status := Run(t.Context(), args, strings.NewReader(in), &out, &errs)
	return ended{status, out.String(), errs.String()}
}

// found scans as JSON, and returns what was found as "path:line:column id", sorted.
func found(t testing.TB, status int, in string, args ...string) []string {
	t.Helper()
	r := runScan(t, in, append([]string{"-format", "json"}, args...)...)
	if r.status != status {
		t.Errorf("%q: status %d, want %d\n%s", args, r.status, status, r.errs)
	}
	var all []string
	for _, f := range decode(t, r.out).Findings {
		for _, p := range f.Places {
			all = append(all, key(f.Path, p.Line, p.Column, f.KeyID))
		}
	}
	slices.Sort(all)
	return all
}

func decode(t testing.TB, out string) jsonOutput {
	t.Helper()
	var o jsonOutput
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return o
}

func key(path string, line, column int, id string) string {
	raw, _ := json.Marshal([]any{filepath.ToSlash(path), line, column, id})
	return string(raw)
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	want = slices.Clone(want)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// git runs git with a configuration of the test's.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return gitInput(t, dir, "", args...)
}

func gitInput(t testing.TB, dir, in string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
	cmd.Stdin = strings.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, &errs)
	}
	return out.String()
}

func newRepo(t testing.TB) string {
	t.Helper()
	outside(t)
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	return dir
}

var clock int64

func commit(t testing.TB, dir, message string) string {
	t.Helper()
	git(t, dir, "add", "-A")
	// Each is a minute younger than the one before.
	clock++
	t.Setenv("GIT_COMMITTER_DATE", fmt.Sprint(1_800_000_000+60*clock, " +0000"))
	git(t, dir, "commit", "-q", "--allow-empty", "-m", message)
	os.Unsetenv("GIT_COMMITTER_DATE")
	return strings.TrimSpace(git(t, dir, "rev-parse", "HEAD"))
}

func makePipe(t testing.TB, path string) {
	t.Helper()
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
