// SPDX-License-Identifier: MPL-2.0

package logical

import "crypto/tls"

// Connection tells where a request came from.
type Connection struct {
	RemoteAddr string `json:"remote_addr"`
	RemotePort int    `json:"remote_port"`

	// ConnState is nil without TLS.
	ConnState *tls.ConnectionState
}
