// SPDX-License-Identifier: MPL-2.0

// Package version says which version the programs of this repository are.
package version

// Version is set when a release is built.
var Version = "v0.1.0-dev"
