// SPDX-License-Identifier: MPL-2.0

// Package wrapping describes wrapped responses.
package wrapping

import "time"

// ResponseWrapInfo asks for a response to be wrapped, or describes one that was.
type ResponseWrapInfo struct {
	// TTL of the wrapping token; positive asks for wrapping.
	TTL time.Duration `json:"ttl"`

	Token    string `json:"token"`
	Accessor string `json:"accessor"`

	CreationTime time.Time `json:"creation_time"`

	// WrappedAccessor is the accessor of a token inside the wrapping.
	WrappedAccessor string `json:"wrapped_accessor"`

	// WrappedEntityID is the entity that asked for the wrapping.
	WrappedEntityID string `json:"wrapped_entity_id"`

	// Format of the token; internal to the server.
	Format string `json:"format"`

	CreationPath string `json:"creation_path"`

	SealWrap bool `json:"seal_wrap"`
}
