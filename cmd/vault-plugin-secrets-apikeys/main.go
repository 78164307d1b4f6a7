// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-apikeys is the API-key secrets engine. Vault or
// OpenBao launches it; it is of no use by hand.
package main

import (
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/backend"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		// Servers pass a plugin's JSON log on to their own.
		hclog.New(&hclog.LoggerOptions{JSONFormat: true}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(args); err != nil {
		return err
	}
	return plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: backend.Factory,
		// Yields nothing under AutoMTLS, which then secures the connection.
		TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	})
}
