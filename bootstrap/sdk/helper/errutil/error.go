// SPDX-License-Identifier: MPL-2.0

// Package errutil has the two error kinds that tell a caller's mistake from a server's.
package errutil

// UserError is caused by the caller's input. The value, not a pointer to it, is the error.
type UserError struct {
	Err string
}

func (e UserError) Error() string { return e.Err }

// InternalError is not the caller's fault. The value, not a pointer to it, is the error.
type InternalError struct {
	Err string
}

func (e InternalError) Error() string { return e.Err }
