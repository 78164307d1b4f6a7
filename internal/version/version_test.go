// SPDX-License-Identifier: MPL-2.0

package version

import (
	"runtime/debug"
	"testing"
)

func TestSDK(t *testing.T) {
	other := &debug.Module{Path: "example.com/other", Version: "v1.0.0", Sum: "h1:other"}
	for _, test := range []struct {
		name string
		deps []*debug.Module
		want string
	}{
		{"none", []*debug.Module{other}, ""},
		{"official", []*debug.Module{other, {Path: sdkModule, Version: "v0.26.0", Sum: "h1:sum"}}, "v0.26.0"},
		{"workspace", []*debug.Module{{Path: sdkModule, Version: "(devel)"}, other}, BootstrapSDK},
		{"replaced", []*debug.Module{{Path: sdkModule, Version: "v0.26.0", Sum: "h1:sum", Replace: &debug.Module{Path: "../sdk"}}}, BootstrapSDK},
	} {
		if got := sdkOf(test.deps); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestBuilt(t *testing.T) {
	for want, got := range map[string]string{
		"commit not of a release":                                                         built("", "", "", "", ""),
		"commit 0123, go1.26.8 linux/arm64":                                               built("0123", "go1.26.8", "linux", "arm64", ""),
		"commit 0123, go1.26.8 linux/arm64, official Vault SDK v0.26.0":                   built("0123", "go1.26.8", "linux", "arm64", "v0.26.0"),
		"commit 0123, go1.26.8 linux/arm64, Vault SDK of this repository (bootstrap/sdk)": built("0123", "go1.26.8", "linux", "arm64", BootstrapSDK),
		"commit not of a release, go1.26.8, Vault SDK of this repository (bootstrap/sdk)": built("", "go1.26.8", "", "", BootstrapSDK),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
