// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"
)

// eventTypes are all types that an endpoint may name.
var eventTypes = []string{
	tellsStaged, tellsActivated, tellsEnding, tellsRetired, tellsRevoked, tellsExpiring, tellsReported, tellsEndedUsed,
	tellsCreated, tellsUpdated, tellsDeleted, tellsRestored, tellsOverdue, tellsFailing, tellsRecovered, tellsEndpoint,
}

// The order of deliveries across roles: what somebody has to act upon first.
const (
	urgentAlarm = iota // found in the open, or about to fail
	urgentKill         // something was ended
	urgentNews
	urgencies
)

// urgencyOf is how urgent an event is.
func urgencyOf(eventType string) int {
	switch eventType {
	case tellsReported, tellsFailing:
		return urgentAlarm
	case tellsRevoked, tellsDeleted:
		return urgentKill
	default:
		return urgentNews
	}
}

// What an endpoint gets beyond ids, versions, times, owner and reason code.
const (
	includeActor    = "actor"
	includeMetadata = "metadata"
	includeText     = "text"
)

var includes = []string{includeActor, includeMetadata, includeText}

// Formats of deliveries.
const (
	formatStandard    = "standard"
	formatCloudEvents = "cloudevents"
	formatTemplate    = "template"
)

var formats = []string{formatStandard, formatCloudEvents, formatTemplate}

// validType reports whether the pattern names at least one type.
func validType(pattern string) bool {
	if star := strings.Index(pattern, "*"); star >= 0 && star != len(pattern)-1 || strings.HasSuffix(pattern, "*") && pattern != "*" && !strings.HasSuffix(pattern, ".*") {
		return false
	}
	return slices.ContainsFunc(eventTypes, func(t string) bool { return typeMatches(pattern, t) })
}
