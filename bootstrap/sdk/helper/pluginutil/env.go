// SPDX-License-Identifier: MPL-2.0

package pluginutil

import (
	"os"
	"strings"
)

// The environment a host gives to a plugin process. OpenBao sets each of them
// a second time, with BAO_ in place of VAULT_.
const (
	// PluginAutoMTLSEnv is "true" if go-plugin's own mutual TLS is in use, so
	// that the plugin must not bring a certificate of its own.
	PluginAutoMTLSEnv = "VAULT_PLUGIN_AUTOMTLS_ENABLED"

	// PluginMlockEnabled is "true" if the process shall lock its memory.
	PluginMlockEnabled = "VAULT_PLUGIN_MLOCK_ENABLED"

	// PluginVaultVersionEnv is the version of the server.
	PluginVaultVersionEnv = "VAULT_VERSION"

	// PluginMetadataModeEnv is "true" if the process is only asked for its
	// type, version and special paths.
	PluginMetadataModeEnv = "VAULT_PLUGIN_METADATA_MODE"

	// PluginUnwrapTokenEnv is the wrapping token behind which a plugin without
	// AutoMTLS finds its certificate.
	PluginUnwrapTokenEnv = "VAULT_UNWRAP_TOKEN"

	// PluginCACertPEMEnv is a CA certificate, for tests.
	PluginCACertPEMEnv = "VAULT_TESTING_PLUGIN_CA_PEM"

	// PluginMultiplexingOptOut is set on the host: a comma-separated list of
	// plugins that get one process per mount.
	PluginMultiplexingOptOut = "VAULT_PLUGIN_MULTIPLEXING_OPT_OUT"
)

const (
	vaultPrefix = "VAULT_"
	baoPrefix   = "BAO_"
)

// readEnv prefers OpenBao's name for a variable where it is present, even
// empty, as OpenBao itself does.
func readEnv(name string) string {
	if rest, ok := strings.CutPrefix(name, vaultPrefix); ok {
		if value, ok := os.LookupEnv(baoPrefix + rest); ok {
			return value
		}
	}
	return os.Getenv(name)
}

// InMetadataMode reports whether this plugin process was started only to be
// asked what it is.
func InMetadataMode() bool {
	return readEnv(PluginMetadataModeEnv) == "true"
}

// OptionallyEnableMlock locks the memory of this process if the host asked
// for it.
func OptionallyEnableMlock() error {
	if readEnv(PluginMlockEnabled) != "true" {
		return nil
	}
	return lockMemory()
}
