// SPDX-License-Identifier: MPL-2.0

package client

import (
	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// AppRole logs in at the server's approle method, mounted at approle unless mount says
// otherwise. The secret id is read from the file at each login; without a file the role
// asks for none.
func AppRole(mount, roleID, secretIDFile string) api.AuthMethod {
	return vaultlogin.AppRole(mount, roleID, secretIDFile)
}

// Kubernetes logs in with the token of the pod's service account. mount and tokenFile
// have the usual defaults.
func Kubernetes(mount, role, tokenFile string) api.AuthMethod {
	return vaultlogin.Kubernetes(mount, role, tokenFile)
}

// JWT logs in with the token in a file, at the method mounted at jwt unless mount says
// otherwise.
func JWT(mount, role, tokenFile string) api.AuthMethod {
	return vaultlogin.JWT(mount, role, tokenFile)
}
