// SPDX-License-Identifier: MPL-2.0

// Package access holds the flags by which a command reaches the engine: the same ones for
// every command, with the variables and the token file of the server's own command line.
package access

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// Flags say where the server is, where on it the engine is mounted, and how to log in.
type Flags struct {
	address, namespace, caCert string
	mount                      string
	tokenFile                  string
	auth, authMount, authRole  string
	roleID, secretIDFile, jwt  string
}

// Usage is what the help of a command says about its environment.
const Usage = `The server's address is -address, VAULT_ADDR or BAO_ADDR; the token is that of a login with
-auth, of -token-file, of VAULT_TOKEN or BAO_TOKEN, or of the file ~/.vault-token.
`

// Register adds the flags to a command.
func Register(set *flag.FlagSet) *Flags {
	f := &Flags{}
	set.StringVar(&f.address, "address", "", "`URL` of the server (default: VAULT_ADDR, or BAO_ADDR)")
	set.StringVar(&f.namespace, "namespace", "", "the server's `namespace` (default: VAULT_NAMESPACE, or BAO_NAMESPACE)")
	set.StringVar(&f.caCert, "ca-cert", "", "`file` of the certificates that the server's is checked against (default: VAULT_CACERT, or BAO_CACERT)")
	set.StringVar(&f.mount, "mount", "apikeys", "`path` where the engine is mounted")
	set.StringVar(&f.tokenFile, "token-file", "", "`file` that holds a token; it is read again when it changes")
	set.StringVar(&f.auth, "auth", "", "log in by this `method`: approle, kubernetes or jwt")
	set.StringVar(&f.authMount, "auth-mount", "", "`path` where that method is mounted (default: its name)")
	set.StringVar(&f.authRole, "auth-role", "", "the `role` of a login by kubernetes or jwt")
	set.StringVar(&f.roleID, "role-id", "", "the role `id` of a login by approle")
	set.StringVar(&f.secretIDFile, "secret-id-file", "", "`file` that holds the secret id of a login by approle")
	set.StringVar(&f.jwt, "jwt-file", "", "`file` that holds the token of a login by kubernetes or jwt (default with kubernetes: the pod's)")
	return f
}

// Mount is the path of the engine, without slashes at its ends.
func (f *Flags) Mount() string { return strings.Trim(f.mount, "/") }

// Options are the client and the login that the flags ask for. Their errors name the flag.
func (f *Flags) Options(log *slog.Logger) (vaultlogin.Options, error) {
	if f.Mount() == "" {
		return vaultlogin.Options{}, errors.New("-mount: is empty: give the path of the mount, such as apikeys")
	}
	auth, err := f.login()
	if err != nil {
		return vaultlogin.Options{}, err
	}
	if auth != nil && f.tokenFile != "" {
		return vaultlogin.Options{}, errors.New("-auth and -token-file: one of them says where the token comes from")
	}
	client, err := Reach(f.address, f.namespace, f.caCert, func(name string) string { return "-" + name })
	if err != nil {
		return vaultlogin.Options{}, err
	}
	opt := vaultlogin.Options{Client: client, Auth: auth, TokenFile: f.tokenFile, Log: log}
	if auth == nil && opt.TokenFile == "" && client.Token() == "" {
		if opt.TokenFile, err = HomeToken(); err != nil {
			return vaultlogin.Options{}, err
		}
	}
	return opt, nil
}

// Session is a client whose token is kept usable until ctx ends.
func (f *Flags) Session(ctx context.Context, done *sync.WaitGroup, log *slog.Logger) (*vaultlogin.Session, error) {
	opt, err := f.Options(log)
	if err != nil {
		return nil, err
	}
	return vaultlogin.Start(ctx, done, opt)
}

// variable is the first of the two servers' variables that is set.
func variable(name string) string {
	return cmp.Or(os.Getenv("VAULT_"+name), os.Getenv("BAO_"+name))
}

// Reach is a client for a server. What is empty is as the environment says, and the token
// is the environment's. Errors name flag's form of what is wrong.
func Reach(address, namespace, caCert string, flag func(name string) string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, fmt.Errorf("the environment: %w", config.Error)
	}
	if address != "" {
		config.AgentAddress = "" // VAULT_AGENT_ADDR, which counts for more than Address
	}
	if address = cmp.Or(address, variable("ADDR")); address != "" {
		if u, err := url.Parse(address); err != nil || !slices.Contains([]string{"http", "https", "unix"}, u.Scheme) {
			return nil, fmt.Errorf("%s: %q: is not a URL such as https://vault.example.com:8200", flag("address"), address)
		}
		config.Address = address
	}
	if file := cmp.Or(caCert, variable("CACERT")); file != "" {
		if err := config.ConfigureTLS(&api.TLSConfig{CACert: file}); err != nil {
			return nil, fmt.Errorf("%s: %w", flag("ca-cert"), err)
		}
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if namespace = cmp.Or(namespace, variable("NAMESPACE")); namespace != "" {
		client.SetNamespace(namespace)
	}
	client.SetToken(variable("TOKEN"))
	return client, nil
}

// login is the method that the flags ask for; nil if none.
func (f *Flags) login() (api.AuthMethod, error) {
	need := func(flag, value string) error {
		if value == "" {
			return fmt.Errorf("-auth %s: %s: is missing", f.auth, flag)
		}
		return nil
	}
	switch f.auth {
	case "":
		for flag, value := range map[string]string{
			"-auth-mount": f.authMount, "-auth-role": f.authRole, "-role-id": f.roleID, "-secret-id-file": f.secretIDFile, "-jwt-file": f.jwt,
		} {
			if value != "" {
				return nil, fmt.Errorf("%s: is for a login: give -auth too", flag)
			}
		}
		return nil, nil //nolint:nilnil // no login is asked for
	case "approle":
		return vaultlogin.AppRole(f.authMount, f.roleID, f.secretIDFile), need("-role-id", f.roleID)
	case "kubernetes":
		return vaultlogin.Kubernetes(f.authMount, f.authRole, f.jwt), need("-auth-role", f.authRole)
	case "jwt":
		return vaultlogin.JWT(f.authMount, f.authRole, f.jwt), errors.Join(need("-auth-role", f.authRole), need("-jwt-file", f.jwt))
	default:
		return nil, fmt.Errorf("-auth: %q: is none: give approle, kubernetes or jwt", f.auth)
	}
}

// HomeToken is the file in which the server's command line keeps its token.
func HomeToken() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no token: set VAULT_TOKEN, or name a token file or a login (%w)", err)
	}
	file := filepath.Join(home, ".vault-token")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("no token: set VAULT_TOKEN, log in with vault or bao (the file ~/.vault-token), or name a token file or a login")
	}
	return file, nil
}
