// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// shell runs a command line as somebody types it, with apikeys in PATH, and returns its
// exit status and what it wrote.
func shell(t *testing.T, dir, line string, env ...string) (int, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GIT_") && !strings.HasPrefix(kv, "PRE_COMMIT=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(programs.apikeys)+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+t.TempDir(),
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		t.Fatal(err)
	}
	if failed {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// exits runs a line that has to end so, and to say this, and returns all it said.
func exits(t *testing.T, dir string, status int, line string, words ...string) string {
	t.Helper()
	got, out := shell(t, dir, line)
	for _, word := range words {
		if got == status && !strings.Contains(out, word) {
			got = -1
		}
	}
	if got != status {
		t.Errorf("%s: status %d, want %d and %q\n%s", line, got, status, words, keyformat.Redact(out))
	}
	if keyformat.Redact(out) != out {
		t.Errorf("%s: a key is shown", line)
	}
	return out
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// scannerReports lets a scanner that may do nothing else report what it finds.
func scannerReports(t *testing.T, e *env) {
	e.write("roles/r", data{"on_leak": "revoke"})
	e.write("roles/kept", data{})
	k, kept := e.creds("r"), e.creds("kept")
	client := e.tokenFor(t, `path "`+e.mount+`/report" { capabilities = ["update"] }`)
	dir := t.TempDir()
	writeFile(t, dir, "app.log", "GET /?key="+strings.ReplaceAll(k.secret, "_", "%5F")+"\n")
	writeFile(t, dir, "near.log", kept.secret[:len(kept.secret)-1]+"\n")
	server := []string{"VAULT_ADDR=" + client.Address(), "VAULT_TOKEN=" + client.Token()}
	line := "apikeys scan -report -mount " + e.mount + " ."

	status, out := shell(t, dir, line, append(server, "GIT_INDEX_FILE=.git/index")...)
	if status != 2 || !strings.Contains(out, "is not for a hook of git") {
		t.Errorf("in a hook: %d %s", status, out)
	}
	e.judged(k, "VALID")
	status, out = shell(t, dir, line, server...)
	if want := "apikeys scan: reported " + k.id + ": acted\n"; status != 1 || !strings.Contains(out, want) || !strings.Contains(out, "app.log:1:11: key "+k.id) {
		t.Errorf("%d %s", status, keyformat.Redact(out))
	}
	e.becomes(k, "REVOKED")
	e.judged(kept, "VALID")
	if again := e.creds("r"); again.id == k.id {
		t.Error("the key has no successor")
	}
	if status, out := shell(t, dir, line, server...); status != 1 || !strings.Contains(out, k.id+": recorded\n") {
		t.Errorf("again: %d %s", status, keyformat.Redact(out))
	}
	if status, out := shell(t, dir, line, server[0], "VAULT_TOKEN=nobody"); status != 2 || !strings.Contains(out, "permission denied") {
		t.Errorf("without permission: %d %s", status, keyformat.Redact(out))
	}
}

// TestScanAsWritten runs the lines of the documentation, and the hook, with the real git.
func TestScanAsWritten(t *testing.T) {
	t.Parallel()
	key, err := keyformat.Mint("ak", strings.NewReader(strings.Repeat("not a secret of anybody's ", 10)))
	if err != nil {
		t.Fatal(err)
	}
	leak := key.Reveal()
	near := leak[:len(leak)-1] + map[bool]string{true: "1", false: "0"}[leak[len(leak)-1] == '0']
	dir := t.TempDir()
	exits(t, dir, 0, "git init -q -b main . && git commit -q --allow-empty -m root")
	writeFile(t, dir, "app.yaml", "key: "+near+"\n")
	exits(t, dir, 0, "apikeys scan -format json .", `"findings": []`)
	exits(t, dir, 0, "git add . && git diff --cached | apikeys scan -", "0 keys in 1 file")
	writeFile(t, dir, "config.yaml", "orders:\n  key: "+leak+"\n")
	exits(t, dir, 1, "apikeys scan -format json .", `"path": "config.yaml"`, `"line": 2`, `"key_id": "`+key.ID()+`"`)
	exits(t, dir, 1, "git add . && git diff --cached | apikeys scan -", "config.yaml:2:8: key "+key.ID())
	exits(t, dir, 2, "apikeys scan nowhere", "nowhere: no such file or directory")

	// The hook, installed as its README says.
	ci, err := filepath.Abs("../bootstrap/ci/scan")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(ci, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	install := regexp.MustCompile(`(?m)^    (cp pre-commit .*)$`).FindSubmatch(readme)
	if install == nil {
		t.Fatal("the README does not say how to install the hook")
	}
	exits(t, dir, 0, "cp '"+ci+"/pre-commit' . && "+string(install[1])+" && rm pre-commit")
	commits := func() string { return exits(t, dir, 0, "git rev-list --count main") }
	before := commits()
	exits(t, dir, 1, "git commit -q -m leak", "config.yaml:2:8: key "+key.ID(), "take the key out")
	if commits() != before {
		t.Fatal("the hook lets a key pass")
	}
	exits(t, dir, 0, "git rm -q --cached config.yaml && git commit -q -m near", "0 keys in 1 file")
	if commits() == before {
		t.Fatal("the hook refuses a look-alike")
	}
	// Of binary files, whatever the repository says of diffs, and with a diff of its own.
	writeFile(t, dir, "binary", "\x00\x01"+leak)
	writeFile(t, dir, ".gitattributes", "* -diff\n")
	exits(t, dir, 1, "git config diff.noprefix true && git config diff.external true && git config color.ui always && git add binary .gitattributes && git commit -q -m binary", "binary:1:3: key "+key.ID())
	exits(t, dir, 0, "git reset -q && rm binary .gitattributes && git commit -q --no-verify --allow-empty -m anyway")
	// What was committed before is no reason to refuse, nor is taking it out.
	exits(t, dir, 0, "git add config.yaml && git commit -q --no-verify -m leaked")
	writeFile(t, dir, "config.yaml", "orders:\n  key: "+leak+"\n  more: 1\n")
	exits(t, dir, 0, "git commit -q -a -m more")
	writeFile(t, dir, "config.yaml", "orders: {}\n")
	exits(t, dir, 0, "git commit -q -a -m removed")
	exits(t, dir, 1, "apikeys scan -history .", ":config.yaml:2:8: key "+key.ID())
	// What cannot be looked at is refused.
	writeFile(t, dir, "app.yaml", "changed\n")
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "git"), []byte("#!/bin/sh\n[ \"$1\" != diff ] || exit 3\nexec '"+git+"' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	hook := "hook=$PWD/.git/hooks/pre-commit; git add app.yaml && "
	exits(t, dir, 2, hook+"PATH='"+broken+"':$PATH \"$hook\"", "could not be looked at")
	exits(t, dir, 2, hook+"PATH=/usr/bin:/bin \"$hook\"", "apikeys is not in PATH")

	// The other hook: the names of files to the command in its entry.
	config, err := os.ReadFile(filepath.Join(ci, "pre-commit-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^ +entry: (.+)$`).FindSubmatch(config)
	if entry == nil {
		t.Fatal("no entry")
	}
	writeFile(t, dir, "-x", leak)
	exits(t, dir, 1, string(entry[1])+" app.yaml -x", "-x:1:1: key "+key.ID())
	exits(t, dir, 0, string(entry[1])+" app.yaml")

	// The workflow's steps.
	workflow, err := os.ReadFile(filepath.Join(ci, "github-actions.yml"))
	if err != nil {
		t.Fatal(err)
	}
	step := regexp.MustCompile(`(?s)- id: scan\n {8}run: \|\n(.*?)\n\n`).FindSubmatch(workflow)
	if step == nil {
		t.Fatal("no step")
	}
	output := filepath.Join(t.TempDir(), "output")
	exits(t, dir, 0, "set -e; GITHUB_OUTPUT='"+output+"'\n"+string(step[1]))
	if raw, err := os.ReadFile(output); err != nil || !bytes.Equal(raw, []byte("status=1\n")) {
		t.Errorf("%q, %v", raw, err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "apikeys.sarif")); err != nil || !bytes.Contains(raw, []byte(`"partialFingerprints"`)) {
		t.Errorf("%s, %v", raw, err)
	}
}
