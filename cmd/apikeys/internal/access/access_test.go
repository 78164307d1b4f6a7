// SPDX-License-Identifier: MPL-2.0

package access

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// alone takes the variables and the home of whoever runs the test away.
func alone(t *testing.T) (home string) {
	t.Helper()
	for _, name := range []string{"ADDR", "TOKEN", "NAMESPACE", "CACERT"} {
		t.Setenv("VAULT_"+name, "")
		t.Setenv("BAO_"+name, "")
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	return home
}

func TestWhereTheTokenComesFrom(t *testing.T) {
	home := alone(t)
	secret := filepath.Join(home, "secret")
	for _, name := range []string{secret, filepath.Join(home, ".vault-token")} {
		if err := os.WriteFile(name, []byte("t0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args        string
		vault, bao  string
		token, file string
		login       bool
		err         string
	}{
		{args: "", file: filepath.Join(home, ".vault-token")},
		{args: "", vault: "v", bao: "b", token: "v"},
		{args: "", bao: "b", token: "b"},
		{args: "-token-file " + secret, vault: "v", token: "v", file: secret},
		{args: "-auth approle -role-id r -secret-id-file " + secret, login: true},
		{args: "-auth kubernetes -auth-role r", login: true},
		{args: "-auth jwt -auth-role r -jwt-file " + secret, login: true},
		{args: "-auth approle", err: "-auth approle: -role-id: is missing"},
		{args: "-auth kubernetes", err: "-auth kubernetes: -auth-role: is missing"},
		{args: "-auth jwt -auth-role r", err: "-auth jwt: -jwt-file: is missing"},
		{args: "-auth ldap", err: `-auth: "ldap": is none`},
		{args: "-role-id r", err: "-role-id: is for a login: give -auth too"},
		{args: "-auth kubernetes -auth-role r -token-file " + secret, err: "one of them says where the token comes from"},
		{args: "-address vault:8200", err: `-address: "vault:8200": is not a URL`},
		{args: "-mount /", err: "-mount: is empty"},
		{args: "-ca-cert " + filepath.Join(home, "none"), err: "-ca-cert: "},
	} {
		t.Setenv("VAULT_TOKEN", test.vault)
		t.Setenv("BAO_TOKEN", test.bao)
		opt, err := parse(t, test.args).Options(slog.New(slog.DiscardHandler))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, want %q", test.args, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if opt.Client.Token() != test.token || opt.TokenFile != test.file || (opt.Auth != nil) != test.login {
			t.Errorf("%q: token %q, file %q, login %v", test.args, opt.Client.Token(), opt.TokenFile, opt.Auth != nil)
		}
	}
}

func TestNoTokenIsSaidAtOnce(t *testing.T) {
	alone(t)
	_, err := parse(t, "").Options(slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "no token: set VAULT_TOKEN") {
		t.Errorf("%v", err)
	}
}

func TestAddressAndNamespace(t *testing.T) {
	alone(t)
	t.Setenv("BAO_TOKEN", "t")
	t.Setenv("BAO_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:2")
	t.Setenv("BAO_NAMESPACE", "a")
	for args, want := range map[string]string{
		"": "http://127.0.0.1:2 a apikeys",
		"-address https://vault.example.com -namespace b -mount /keys/": "https://vault.example.com b keys",
	} {
		f := parse(t, args)
		opt, err := f.Options(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got := opt.Client.Address() + " " + opt.Client.Namespace() + " " + f.Mount(); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
}

func parse(t *testing.T, args string) *Flags {
	t.Helper()
	set := flag.NewFlagSet("test", flag.ContinueOnError)
	f := Register(set)
	if err := set.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return f
}
