// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"errors"
	"strings"

	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// The kinds of error that keep their identity on the wire.
const (
	ErrTypeUnknown uint32 = iota
	ErrTypeUserError
	ErrTypeInternalError
	ErrTypeCodedError
	ErrTypeStatusBadRequest
	ErrTypeUnsupportedOperation
	ErrTypeUnsupportedPath
	ErrTypeInvalidRequest
	ErrTypePermissionDenied
	ErrTypeMultiAuthzPending
	ErrTypeUnrecoverable
)

// sentinels arrive as the very values they were, without text of their own.
var sentinels = map[uint32]error{
	ErrTypeUnsupportedOperation: logical.ErrUnsupportedOperation,
	ErrTypeUnsupportedPath:      logical.ErrUnsupportedPath,
	ErrTypeInvalidRequest:       logical.ErrInvalidRequest,
	ErrTypePermissionDenied:     logical.ErrPermissionDenied,
	ErrTypeMultiAuthzPending:    logical.ErrMultiAuthzPending,
	ErrTypeUnrecoverable:        logical.ErrUnrecoverable,
}

// ErrToProtoErr encodes an error. Only the outermost error counts, as the
// servers' own SDKs have it: a wrapped sentinel crosses as its text.
func ErrToProtoErr(err error) *ProtoError {
	if err == nil {
		return nil
	}
	out := &ProtoError{ErrMsg: ErrToString(err)}
	for kind, sentinel := range sentinels {
		if err == sentinel { //nolint:errorlint // identity is the rule here
			out.ErrType = kind
			return out
		}
	}
	switch e := err.(type) { //nolint:errorlint // so is the outermost type
	case errutil.UserError:
		out.ErrType = ErrTypeUserError
	case errutil.InternalError:
		out.ErrType = ErrTypeInternalError
	case *logical.StatusBadRequest:
		out.ErrType = ErrTypeStatusBadRequest
	case logical.HTTPCodedError:
		out.ErrType = ErrTypeCodedError
		out.ErrCode = int64(e.Code())
	}
	return out
}

// ProtoErrToErr decodes an error. A kind nobody knows decodes to nil: every
// released server does that, and a host that were stricter would hide from a
// plugin's author what becomes of such an error in production.
func ProtoErrToErr(e *ProtoError) error {
	if e == nil {
		return nil
	}
	switch e.ErrType {
	case ErrTypeUnknown:
		return errors.New(e.ErrMsg)
	case ErrTypeUserError:
		return errutil.UserError{Err: e.ErrMsg}
	case ErrTypeInternalError:
		return errutil.InternalError{Err: e.ErrMsg}
	case ErrTypeCodedError:
		return logical.CodedError(int(e.ErrCode), e.ErrMsg)
	case ErrTypeStatusBadRequest:
		return &logical.StatusBadRequest{Err: e.ErrMsg}
	}
	return sentinels[e.ErrType]
}

// ErrToString encodes an error of which only the text crosses. Protobuf
// refuses whole messages over a byte that is not UTF-8, so those are replaced.
func ErrToString(err error) string {
	if err == nil {
		return ""
	}
	return strings.ToValidUTF8(err.Error(), "\uFFFD")
}

// ErrFromString is the reverse of ErrToString.
func ErrFromString(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}
