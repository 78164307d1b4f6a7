// SPDX-License-Identifier: MPL-2.0

package consts

import "errors"

var (
	// ErrSealed refuses everything until the server is unsealed.
	ErrSealed = errors.New("Vault is sealed") //nolint:staticcheck // the text is part of the API

	// ErrAPILocked refuses requests to a locked namespace.
	ErrAPILocked = errors.New("API access to this namespace has been locked by an administrator")

	// ErrStandby refuses what only the active node does.
	ErrStandby = errors.New("Vault is in standby mode") //nolint:staticcheck // the text is part of the API

	// ErrPathContainsParentReferences refuses "..".
	ErrPathContainsParentReferences = errors.New("path cannot contain parent references")

	// ErrInvalidWrappingToken refuses a spent or unknown wrapping token.
	ErrInvalidWrappingToken = errors.New("wrapping token is not valid or does not exist")
)
