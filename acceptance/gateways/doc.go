// SPDX-License-Identifier: MPL-2.0

// Package gateways tests the edge where it belongs: behind gateways, with the very
// configurations of bootstrap/gateways. It is a module of its own, for Caddy's sake, and
// runs by `make gateways`.
package gateways
