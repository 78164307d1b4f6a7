// SPDX-License-Identifier: MPL-2.0

// Package license names the licensable features of a server.
package license

// Features is a bit set of licensed features.
type Features uint

// FeatureNone is the empty set.
const FeatureNone Features = 0

// HasFeature reports whether flag is licensed. The community edition licenses nothing.
func (f Features) HasFeature(flag Features) bool { return false }
