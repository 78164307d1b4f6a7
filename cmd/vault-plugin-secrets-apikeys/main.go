// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-apikeys is the API-key secrets engine. Vault or OpenBao launches it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/backend"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
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
	show := flags.Bool("version", false, "print the version and exit")
	showBuilt := flags.Bool("built", false, "print what it was built from and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *show {
		_, err := fmt.Println(version.Version)
		return err
	}
	if *showBuilt {
		_, err := fmt.Println(version.Built())
		return err
	}
	go exitWithParent(os.Getppid())
	// Under AutoMTLS the provider is nil, which go-plugin needs it to be.
	tls := api.VaultPluginTLSProvider(meta.GetTLSConfig())
	return plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory, TLSProviderFunc: tls})
}

// factory makes the backend of a mount, and has the server's log tell which build serves it.
func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	if conf.Logger != nil {
		conf.Logger.Info("the engine begins", "version", version.Version, "built", version.Built())
	}
	return backend.Factory(ctx, conf)
}

// exitWithParent ends the process when the one that started it is gone. A server that
// was killed leaves its plugins running, and those would wait for it in vain.
func exitWithParent(parent int) {
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			hclog.New(&hclog.LoggerOptions{JSONFormat: true}).Warn("the server is gone")
			os.Exit(1)
		}
	}
}
