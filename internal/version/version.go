// SPDX-License-Identifier: MPL-2.0

// Package version says which version the programs of this repository are, and what they were built from.
package version

import (
	"runtime/debug"
)

// Set when a release is built. The commit is empty in any other build.
var (
	Version = "v0.1.0-dev"
	Commit  = ""
)

const (
	sdkModule = "github.com/hashicorp/vault/sdk"

	// BootstrapSDK is what SDK answers where bootstrap/sdk was built in.
	BootstrapSDK = "bootstrap"
)

// SDK tells which Vault SDK this program was built against: the version of the official one,
// "bootstrap" for the one in this repository, "" in a program that has none.
func SDK() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return sdkOf(info.Deps)
}

// sdkOf knows the official SDK by its sum: what comes from a workspace or a directory has none.
func sdkOf(deps []*debug.Module) string {
	for _, m := range deps {
		if m.Path != sdkModule {
			continue
		}
		if m.Replace != nil || m.Sum == "" {
			return BootstrapSDK
		}
		return m.Version
	}
	return ""
}

// Built tells in one line what this program was built from, for logs and people.
func Built() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return built(Commit, "", "", "", "")
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return built(Commit, info.GoVersion, settings["GOOS"], settings["GOARCH"], sdkOf(info.Deps))
}

func built(commit, goVersion, system, arch, sdk string) string {
	if commit == "" {
		commit = "not of a release"
	}
	line := "commit " + commit
	if goVersion != "" {
		line += ", " + goVersion
	}
	if system != "" {
		line += " " + system + "/" + arch
	}
	switch sdk {
	case "":
		return line
	case BootstrapSDK:
		return line + ", Vault SDK of this repository (bootstrap/sdk)"
	default:
		return line + ", official Vault SDK " + sdk
	}
}
