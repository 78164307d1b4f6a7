// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Three kinds of bad news: the caller's mistake is a refusal (400), absence is
// a 404, ours is any other error (500). respond is the one place
// that turns them into answers.

// errSchema is a record that a newer build wrote.
var errSchema = errors.New("the record was " + newerRecord + "; nothing was changed")

// errDecoding is a record that is none: storage, or somebody in it, has damaged it.
var errDecoding = errors.New("decoding")

const newerRecord = "written by a newer version of this plugin: upgrade the plugin"

// absence is what a caller named and what does not exist. It is told in words:
// a write to something absent must not look like an empty success.
type absence struct{ what string }

func (a *absence) Error() string { return a.what }

func noRole(name string) error {
	return &absence{what: fmt.Sprintf("role %s does not exist", refusal.Shown(name))}
}

func isAbsent(err error) bool {
	var a *absence
	return errors.As(err, &a)
}

// respond turns an error into what the framework answers with.
func respond(err error) (*logical.Response, error) {
	var a *absence
	r := refusal.In(err)
	switch {
	case err == nil:
		return nil, nil
	case r != nil:
		return logical.ErrorResponse(r.Error()), logical.ErrInvalidRequest
	case errors.As(err, &a):
		return nil, logical.CodedError(http.StatusNotFound, a.what)
	case mustForward(err):
		// Servers compare whole texts: a wrapped error would not make them
		// forward the request to the node that may write.
		return nil, logical.ErrReadOnly
	default:
		return nil, err
	}
}

// mustForward: storage refused because this node may not write.
func mustForward(err error) bool {
	text := err.Error()
	return errors.Is(err, logical.ErrReadOnly) || errors.Is(err, logical.ErrPerfStandbyPleaseForward) ||
		strings.Contains(text, logical.ErrReadOnly.Error()) ||
		strings.Contains(text, logical.ErrPerfStandbyPleaseForward.Error())
}

func answer(data map[string]any, warnings ...string) *logical.Response {
	return &logical.Response{Data: data, Warnings: warnings}
}

// errWorkPanic is what became of a part of the background work that panicked.
var errWorkPanic = errors.New("internal error: the work was given up; the server's log has the details")

// guarded runs a part of the background work, and makes a panic its error: outside
// of a request a panic ends the plugin, and with it every mount of it.
func (b *backend) guarded(what string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// The value of a panic may hold anything, a key too.
			b.Logger().Error("background work panicked", "work", what, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = errWorkPanic
		}
	}()
	return fn()
}
