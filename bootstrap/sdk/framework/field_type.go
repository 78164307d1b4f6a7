// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"net/http"
	"time"
)

// FieldType is what a field's value is converted to.
type FieldType uint

const (
	TypeInvalid FieldType = iota

	// TypeString gives a string.
	TypeString

	// TypeInt gives an int.
	TypeInt

	// TypeInt64 gives an int64.
	TypeInt64

	// TypeBool gives a bool.
	TypeBool

	// TypeMap gives a map[string]interface{}.
	TypeMap

	// TypeDurationSecond gives an int, from a number of seconds or a duration such as "24h". Not negative.
	TypeDurationSecond

	// TypeSignedDurationSecond is the same, and may be negative.
	TypeSignedDurationSecond

	// TypeSlice gives a []interface{}.
	TypeSlice

	// TypeStringSlice gives a []string; a single string is one element.
	TypeStringSlice

	// TypeCommaStringSlice gives a []string; a single string is split at commas.
	TypeCommaStringSlice

	// TypeLowerCaseString gives a string in lower case.
	TypeLowerCaseString

	// TypeNameString gives a string of word characters, '-' and '.', that starts and ends with a word character.
	TypeNameString

	// TypeKVPairs gives a map[string]string, from a map or from "k=v" strings.
	TypeKVPairs

	// TypeCommaIntSlice gives a []int; a single string is split at commas.
	TypeCommaIntSlice

	// TypeHeader gives an http.Header.
	TypeHeader

	// TypeFloat gives a float64.
	TypeFloat

	// TypeTime gives a time.Time in UTC, from RFC 3339 or seconds since the epoch.
	TypeTime
)

func (t FieldType) String() string {
	switch t {
	case TypeString:
		return "string"
	case TypeLowerCaseString:
		return "lowercase string"
	case TypeNameString:
		return "name string"
	case TypeInt:
		return "int"
	case TypeInt64:
		return "int64"
	case TypeBool:
		return "bool"
	case TypeMap:
		return "map"
	case TypeKVPairs:
		return "keypair"
	case TypeDurationSecond, TypeSignedDurationSecond:
		return "duration (sec)"
	case TypeSlice, TypeStringSlice, TypeCommaStringSlice, TypeCommaIntSlice:
		return "slice"
	case TypeHeader:
		return "header"
	case TypeFloat:
		return "float"
	case TypeTime:
		return "time"
	default:
		return "unknown type"
	}
}

// Zero is the value of a field that is not set and has no default.
func (t FieldType) Zero() interface{} {
	switch t {
	case TypeString, TypeNameString, TypeLowerCaseString:
		return ""
	case TypeInt, TypeDurationSecond, TypeSignedDurationSecond:
		return 0
	case TypeInt64:
		return int64(0)
	case TypeBool:
		return false
	case TypeMap:
		return map[string]interface{}{}
	case TypeKVPairs:
		return map[string]string{}
	case TypeSlice:
		return []interface{}{}
	case TypeStringSlice, TypeCommaStringSlice:
		return []string{}
	case TypeCommaIntSlice:
		return []int{}
	case TypeHeader:
		return http.Header{}
	case TypeFloat:
		return 0.0
	case TypeTime:
		return time.Time{}
	default:
		panic("unknown type: " + t.String())
	}
}
