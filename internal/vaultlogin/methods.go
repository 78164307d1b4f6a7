// SPDX-License-Identifier: MPL-2.0

package vaultlogin

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
)

// KubernetesToken is where a pod finds the token of its service account.
const KubernetesToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path

// method logs in at one of the server's auth methods. Its secret is in a file, which is
// read at each login: others replace it.
type method struct {
	mount  string
	public map[string]string // fields that are no secrets
	field  string            // of the secret; empty without one
	file   string
}

// AppRole logs in at an approle method. Without a file the role asks for no secret id.
func AppRole(mount, roleID, secretIDFile string) api.AuthMethod {
	m := &method{mount: orElse(mount, "approle"), public: map[string]string{"role_id": roleID}}
	if secretIDFile != "" {
		m.field, m.file = "secret_id", secretIDFile
	}
	return m
}

// Kubernetes logs in with the token of a service account, KubernetesToken by default.
func Kubernetes(mount, role, tokenFile string) api.AuthMethod {
	return &method{orElse(mount, "kubernetes"), map[string]string{"role": role}, "jwt", orElse(tokenFile, KubernetesToken)}
}

// JWT logs in with a token that an identity provider has put into a file.
func JWT(mount, role, tokenFile string) api.AuthMethod {
	return &method{orElse(mount, "jwt"), map[string]string{"role": role}, "jwt", tokenFile}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// Login gets a token.
func (m *method) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	body := map[string]any{}
	for name, value := range m.public {
		body[name] = value
	}
	if m.field != "" {
		raw, err := os.ReadFile(m.file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.field, err)
		}
		secret := strings.TrimSpace(string(raw))
		if secret == "" {
			return nil, fmt.Errorf("%s: %s is empty", m.field, m.file)
		}
		body[m.field] = secret
	}
	return client.Logical().WriteWithContext(ctx, "auth/"+strings.Trim(m.mount, "/")+"/login", body)
}
