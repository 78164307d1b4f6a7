// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

func TestExitStatus(t *testing.T) {
	// Whoever runs this may be logged in, or in a hook.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "GIT_") || strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") || name == "PRE_COMMIT" {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", "t0\n")
	good := write("good.hcl", "vault {\n address = \"http://127.0.0.1:1\"\n mount = \"apikeys\"\n token_file = \""+token+"\"\n}\nlisten \"admin\" {\n address = \"127.0.0.1:0\"\n}\n")
	bad := write("bad.hcl", "vault {\n mount = \"apikeys\"\n tokn = 1\n}\nlisten \"admin\" {\n address = \"127.0.0.1:0\"\n}\n")
	rule := write("rule.hcl", "vault {\n mount = \"apikeys\"\n token_file = \"x\"\n}\nlisten \"auth\" {\n address = \"127.0.0.1:0\"\n preset = \"nginx\"\n}\nrule {\n path = \"orders\"\n}\n")
	preset := write("preset.hcl", "vault {\n mount = \"apikeys\"\n token_file = \"x\"\n}\nlisten \"auth\" {\n address = \"127.0.0.1:0\"\n preset = \"kong\"\n}\nrule {\n path = \"/\"\n}\n")
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	const admin = "listen \"admin\" {\n address = \"127.0.0.1:0\"\n}\n"
	vault := func(more string) string {
		return "vault {\n address = \"http://127.0.0.1:1\"\n mount = \"apikeys\"\n " + more + "\n}\n"
	}
	absent := write("absent.hcl", vault(`token_file = "there/is/none"`)+admin)
	secret := write("secret.hcl", vault("auth \"approle\" {\n role_id = \"r\"\n secret_id_file = \""+filepath.Join(dir, "none")+"\"\n}")+admin)
	state := func(file, key string) string {
		return vault("token_file = \""+token+"\"") + admin + "cache {\n state_file = \"" + file + "\"\n state_key_file = \"" + key + "\"\n}\n"
	}
	nowhere := write("nowhere.hcl", state(filepath.Join(dir, "no", "state"), filepath.Join(dir, "key")))
	badKey := write("key.hcl", state(filepath.Join(dir, "state"), token))
	taken := write("taken.hcl", vault("token_file = \""+token+"\"")+"listen \"admin\" {\n address = \""+listen.Addr().String()+"\"\n}\n")
	empty := write("empty.hcl", vault("token_file = \""+write("empty", "\n")+"\"")+admin)
	k, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leak := write("leak", k.Reveal())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		args   []string
		status int
		out    string
		errs   string
	}{
		{nil, exitUsage, "", "Usage: apikeys"},
		{[]string{"help"}, exitOK, "Usage: apikeys", ""},
		{[]string{"version"}, exitOK, "apikeys " + version.Version + "\n" + version.Built() + "\n", ""},
		{[]string{"edgy"}, exitUsage, "", `"edgy" is no command`},
		{[]string{"fleet", "-h"}, exitOK, "", "Usage: apikeys fleet"},
		{[]string{"fleet", "-format", "pdf"}, exitUsage, "", "give one of csv, html, ics, json"},
		{[]string{"edge"}, exitUsage, "", "give -config"},
		{[]string{"edge", "-h"}, exitOK, "", "-config"},
		{[]string{"edge", "-nonsense"}, exitUsage, "", "nonsense"},
		{[]string{"edge", "-config", good, "more"}, exitUsage, "", "nothing else"},
		{[]string{"edge", "-config", filepath.Join(dir, "none")}, exitUsage, "", "no such file"},
		{[]string{"edge", "-check", "-config", good}, exitOK, "in order", ""},
		{[]string{"edge", "-check", "-config", bad}, exitUsage, "", "bad.hcl:3"},
		{[]string{"edge", "-config", bad}, exitUsage, "", "bad.hcl:3"},
		{[]string{"edge", "-check", "-config", rule}, exitUsage, "", `rule 1: path: "orders"`},
		{[]string{"edge", "-check", "-config", preset}, exitUsage, "", `preset: "kong": is none`},
		{[]string{"edge", "-config", good}, exitOK, "", "the edge ends"},
		{[]string{"edge", "-check", "-config", absent}, exitUsage, "", `absent.hcl: vault: token_file: "there/is/none": does not exist in`},
		{[]string{"edge", "-check", "-config", secret}, exitUsage, "", `vault: auth "approle": secret_id_file: stat`},
		{[]string{"edge", "-check", "-config", nowhere}, exitUsage, "", "cache: state_file: the directory"},
		{[]string{"edge", "-config", absent}, exitUsage, "", "paths are relative to the working directory"},
		{[]string{"edge", "-config", badKey}, exitUsage, "", "want 32 bytes in base64"},
		{[]string{"edge", "-config", empty}, exitUsage, "", "is empty"},
		{[]string{"scan"}, exitUsage, "", "what should it look at?"},
		{[]string{"scan", "-h"}, exitOK, "", "-format"},
		{[]string{"scan", "-nonsense", dir}, exitUsage, "", "nonsense"},
		{[]string{"scan", "-format", "xml", dir}, exitUsage, "", `-format: "xml": is none`},
		{[]string{"scan", "-prefix", "ak,A", dir}, exitUsage, "", `"A": a prefix is one or more parts`},
		{[]string{"scan", "-except", "x", dir}, exitUsage, "", `"x": is not the id of a key`},
		{[]string{"scan", "-", dir}, exitUsage, "", "standard input stands alone"},
		{[]string{"scan", "-history", "-"}, exitUsage, "", "standard input stands alone"},
		{[]string{"scan", good}, exitOK, "", "0 keys in 1 file"},
		{[]string{"scan", "-"}, exitOK, "", "0 keys in 1 file"},
		{[]string{"scan", leak}, exitFailed, leak + ":1:1: key " + k.ID(), "1 key in 1 file"},
		{[]string{"scan", "-format", "json", dir}, exitFailed, `"key_id": "` + k.ID(), "1 key in"},
		{[]string{"scan", "-format", "sarif", leak}, exitFailed, `"version": "2.1.0"`, ""},
		{[]string{"scan", "-prefix", "other", leak}, exitOK, "", "0 keys in 1 file"},
		{[]string{"scan", "-except", k.ID(), leak}, exitOK, "", "0 keys in 1 file"},
		{[]string{"scan", leak, filepath.Join(dir, "none")}, exitUsage, "key " + k.ID(), "none: no such file"},
		{[]string{"scan", filepath.Join(dir, "none")}, exitUsage, "", "none: no such file"},
		{[]string{"scan", "-history", dir}, exitUsage, "", "is not in a repository of git"},
		{[]string{"scan", "-report", leak}, exitUsage, "", "-report: "},
		{[]string{"edge", "-config", taken}, exitUsage, "", `the edge cannot begin: listen "admin"`},
		{[]string{"proxy"}, exitUsage, "", "apikeys proxy: the proxy cannot begin: -role: is missing"},
		{[]string{"proxy", "-h"}, exitOK, "", "Every local\nprocess that reaches the listener can use the key"},
		{[]string{"proxy", "-nonsense"}, exitUsage, "", "nonsense"},
		{[]string{"proxy", "-role", "orders", "-listen", "127.0.0.1:0", "-upstream", "https://api.example.com", "-token-file", token, "-header", "X-API-Key"}, exitOK, "", "the proxy ends"},
		{[]string{"proxy", "-role", "orders", "-listen", listen.Addr().String(), "-upstream", "https://api.example.com", "-token-file", token}, exitUsage, "", "-listen: listen tcp"},
		{[]string{"health"}, exitUsage, "", "-url: is missing"},
		{[]string{"health", "-h"}, exitOK, "", "Ends with 0"},
		{[]string{"health", "-timeout", "x"}, exitUsage, "", "invalid value"},
		{[]string{"health", "http://127.0.0.1:1/healthz"}, exitFailed, "", "127.0.0.1:1"},
	} {
		ctx := ended // an edge ends at once
		if len(test.args) > 0 && test.args[0] == "scan" {
			ctx = t.Context()
		}
		var out, errs bytes.Buffer
		if got := run(ctx, test.args, strings.NewReader(""), &out, &errs); got != test.status || !strings.Contains(out.String(), test.out) || !strings.Contains(errs.String(), test.errs) {
			t.Errorf("%v: %d\n%s%s", test.args, got, &out, &errs)
		}
	}
}
