// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-apikeys is the API-key secrets engine. Vault or OpenBao launches it.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/backend"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		hclog.New(&hclog.LoggerOptions{JSONFormat: true}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *version {
		_, err := fmt.Println(backend.Version)
		return err
	}
	// Under AutoMTLS the provider is nil, which go-plugin needs it to be.
	tls := api.VaultPluginTLSProvider(meta.GetTLSConfig())
	return plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: backend.Factory, TLSProviderFunc: tls})
}
