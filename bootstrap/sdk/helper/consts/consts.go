// SPDX-License-Identifier: MPL-2.0

// Package consts has the constants that server and plugins share.
package consts

// HTTP headers of the API.
const (
	NamespaceHeaderName           = "X-Vault-Namespace"
	AuthHeaderName                = "X-Vault-Token"
	RequestHeaderName             = "X-Vault-Request"
	NoRequestForwardingHeaderName = "X-Vault-No-Request-Forwarding"
	MFAHeaderName                 = "X-Vault-MFA"
	WrapTTLHeaderName             = "X-Vault-Wrap-TTL"
	WrapFormatHeaderName          = "X-Vault-Wrap-Format"
	RawErrorHeaderName            = "X-Vault-Raw-Error"
	HostnameHeaderName            = "X-Vault-Hostname"
	RaftNodeIDHeaderName          = "X-Vault-Raft-Node-ID"
)
