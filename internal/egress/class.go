// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"errors"
	"net/http"
)

// Class is all that anybody is told about a request that failed.
type Class string

// The classes. Status and Redirect are those of an answer; see Answer.Class.
const (
	Paused      Class = "paused"      // everything is stopped
	Forbidden   Class = "forbidden"   // the policy does not let it leave
	Proxy       Class = "proxy"       // egress_proxy could not be reached
	Unreachable Class = "unreachable" // no address, no connection, no answer in time, or none in HTTP
	TLS         Class = "tls"         // the other side could not prove who it is
	Redirect    Class = "redirect"    // the answer points elsewhere, and is not followed
	Status      Class = "status"      // the answer has another status than 2xx
)

// Error is a request that brought no answer.
type Error struct{ Class Class }

func (e *Error) Error() string { return "egress: " + string(e.Class) }

// ClassOf is the class of an error of Do, empty if there is none: for nil, and where the
// caller gave up.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

func classError(c Class) error { return &Error{Class: c} }

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	// Body is as much of the body as was asked for.
	Body []byte
	// Complete reports whether Body is all of it. It is not where the limit cut it, or
	// the connection broke or the time was over before its end.
	Complete bool
}

// Class is empty if the request succeeded.
func (a *Answer) Class() Class {
	switch {
	case a.Status >= 200 && a.Status < 300:
		return ""
	case a.Status >= 300 && a.Status < 400:
		return Redirect
	}
	return Status
}
