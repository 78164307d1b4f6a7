// SPDX-License-Identifier: MPL-2.0

package backend

// code is the verdict about a presented key. It is a total function of the
// state of key and role, of the request and of the instant.
type code uint8

var codeNames = [codeCount]string{
	codeValid: "VALID", codeNotFound: "NOT_FOUND", codeMalformed: "MALFORMED", codeExpired: "EXPIRED", codeRetired: "RETIRED",
	codeRevoked: "REVOKED", codeDisabled: "DISABLED", codeScope: "INSUFFICIENT_SCOPE", codeIP: "FORBIDDEN_IP",
	codeRate: "RATE_LIMITED", codeState: "STATE",
}

func (c code) String() string { return codeNames[c] }

const (
	codeValid code = iota
	codeNotFound
	codeMalformed
	codeExpired
	codeRetired
	codeRevoked
	codeDisabled
	codeScope
	codeIP
	codeRate
	codeState
	codeCount // not a code
)
