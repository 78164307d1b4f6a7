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

// Causes of a transition.
const (
	causePeriodic = "periodic" // the clock or the automatic rotation
	causeRequest  = "request"
	causeLease    = "lease"
	causeLeak     = "leak"
	causeLimit    = "limit"
)

// Kinds of trouble, as problems/ shows them.
const (
	troubleNoCurrent = "no_current" // no version is current
	troubleReported  = "reported"   // a live key was found in the open
	troubleInUse     = "in_use"     // a version near its end is still in use
	troubleUnclaimed = "unclaimed"  // nobody has come for the current version
	troubleOverdue   = "overdue"    // the automatic rotation is late
	troubleFailing   = "failing"    // looking at the role fails
	troubleClock     = "clock"      // a wrong clock wrote ahead
	troubleRival     = "rival"      // another instance works on the storage
	troubleSchema    = "schema"     // a newer build wrote the record
	troubleEndsSoon  = "ends_soon"  // valid_until is near
)

// roleTroubles are the kinds that a role may have of its own.
var roleTroubles = []string{
	troubleFailing, troubleNoCurrent, troubleReported, troubleEndsSoon, troubleInUse, troubleUnclaimed, troubleOverdue, troubleClock, troubleSchema,
}

// What a report of a found key comes to.
const (
	leakActed    = "acted"
	leakRecorded = "recorded" // known, and nothing more was to be done
	leakDeferred = "deferred" // recorded, and waits for an operator
	leakUnknown  = "unknown"
)

// leakOrder ranks results: of several keys in one text the highest counts.
var leakOrder = []string{leakUnknown, leakRecorded, leakActed, leakDeferred}
