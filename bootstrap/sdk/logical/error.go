// SPDX-License-Identifier: MPL-2.0

package logical

import "errors"

// Servers map these to HTTP statuses by their text, which must therefore not change.
var (
	ErrUnsupportedOperation = errors.New("unsupported operation")
	ErrUnsupportedPath      = errors.New("unsupported path")
	ErrInvalidRequest       = errors.New("invalid request")
	ErrPermissionDenied     = errors.New("permission denied")
	ErrInvalidCredentials   = errors.New("invalid credentials")
	ErrMultiAuthzPending    = errors.New("request needs further approval")
	ErrUpstreamRateLimited  = errors.New("upstream rate limited")

	// ErrPerfStandbyPleaseForward makes a standby forward the whole request.
	ErrPerfStandbyPleaseForward = errors.New("please forward to the active node")

	ErrLeaseCountQuotaExceeded  = errors.New("lease count quota exceeded")
	ErrRateLimitQuotaExceeded   = errors.New("rate limit quota exceeded")
	ErrUnrecoverable            = errors.New("unrecoverable error")
	ErrMissingRequiredState     = errors.New("required index state not present")
	ErrPathFunctionalityRemoved = errors.New("functionality on this path has been removed")

	// ErrReadOnly makes a standby forward the whole request.
	ErrReadOnly      = errors.New("cannot write to readonly storage")
	ErrSetupReadOnly = errors.New("cannot write to storage during setup")
	ErrRelativePath  = errors.New("relative paths not supported")
)

// HTTPCodedError brings its HTTP status.
type HTTPCodedError interface {
	Error() string
	Code() int
}

// CodedError makes an error with an HTTP status.
func CodedError(status int, msg string) HTTPCodedError {
	return &codedError{status: status, message: msg}
}

type codedError struct {
	status  int
	message string
}

func (e *codedError) Error() string { return e.message }

func (e *codedError) Code() int { return e.status }

// StatusBadRequest is the caller's mistake. The pointer is the error.
type StatusBadRequest struct {
	Err string
}

func (s *StatusBadRequest) Error() string { return s.Err }

// ReplicationCodedError carries the status that another cluster gave. The pointer is the error.
type ReplicationCodedError struct {
	Msg  string
	Code int
}

func (r *ReplicationCodedError) Error() string { return r.Msg }

// KeyNotFoundError says that a cryptographic key is missing. The pointer is the error.
type KeyNotFoundError struct {
	Err error
}

// WrappedErrors lets errwrap look inside.
func (e *KeyNotFoundError) WrappedErrors() []error { return []error{e.Err} }

func (e *KeyNotFoundError) Error() string { return e.Err.Error() }
