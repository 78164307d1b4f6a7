// SPDX-License-Identifier: MPL-2.0

package pluginutil

import "time"

// IdentityTokenRequest asks the server for a token that identifies the plugin.
type IdentityTokenRequest struct {
	Audience string
	TTL      time.Duration
}

// IdentityTokenResponse is a token that identifies the plugin.
type IdentityTokenResponse struct {
	Token IdentityToken
	TTL   time.Duration
}

const redactedToken = "ey***"

// IdentityToken keeps its value out of logs and formatted text.
type IdentityToken string

// String returns a placeholder.
func (t IdentityToken) String() string { return redactedToken }

// GoString returns a placeholder, for %#v.
func (t IdentityToken) GoString() string { return redactedToken }

// Token returns the value.
func (t IdentityToken) Token() string { return string(t) }
