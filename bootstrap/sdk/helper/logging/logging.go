// SPDX-License-Identifier: MPL-2.0

// Package logging makes loggers like the server's.
package logging

import (
	"io"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// NewVaultLogger logs to standard error.
func NewVaultLogger(level hclog.Level) hclog.Logger {
	return NewVaultLoggerWithWriter(hclog.DefaultOutput, level)
}

// NewVaultLoggerWithWriter logs to w, as JSON if the environment asks for it.
func NewVaultLoggerWithWriter(w io.Writer, level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level:             level,
		IndependentLevels: true,
		Output:            w,
		JSONFormat:        jsonWanted(),
	})
}

// jsonWanted reports whether the log is to be JSON. BAO_LOG_FORMAT, even an empty one, goes before
// VAULT_LOG_FORMAT.
func jsonWanted() bool {
	format, ok := os.LookupEnv("BAO_LOG_FORMAT")
	if !ok {
		format = os.Getenv("VAULT_LOG_FORMAT")
	}
	switch strings.ToLower(format) {
	case "json", "vault_json", "vault-json", "vaultjson":
		return true
	}
	return false
}
