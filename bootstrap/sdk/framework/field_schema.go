// SPDX-License-Identifier: MPL-2.0

package framework

import "github.com/hashicorp/go-secure-stdlib/parseutil"

// FieldSchema describes a field of a path, a secret or a response.
type FieldSchema struct {
	Type FieldType

	// Default is what Get returns for a field that is not set. Except for durations it is not converted.
	Default interface{}

	Description string

	// Required is documentation, and checked by FieldData.ValidateStrict only.
	Required bool

	// Deprecated is documentation.
	Deprecated bool

	// Query documents a query parameter.
	Query bool

	// AllowedValues is documentation.
	AllowedValues []interface{}

	DisplayAttrs *DisplayAttributes
}

// DefaultOrZero is the default, or the type's zero value.
func (s *FieldSchema) DefaultOrZero() interface{} {
	if s.Default == nil {
		return s.Type.Zero()
	}
	switch s.Type {
	case TypeDurationSecond, TypeSignedDurationSecond:
		d, err := parseutil.ParseDurationSecond(s.Default)
		if err != nil {
			return s.Type.Zero()
		}
		return int(d.Seconds())
	}
	return s.Default
}
