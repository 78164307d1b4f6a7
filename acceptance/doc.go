// SPDX-License-Identifier: MPL-2.0

// Package acceptance tests the plugin binary from outside, over HTTP: one suite, behind the development
// server always, and on a real server, alone and as a cluster of three, where SERVER_BIN names its program.
package acceptance
