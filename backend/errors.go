// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Three kinds of bad news: the caller's mistake is a refusal (400), absence is
// a 404, ours is any other error (500). respond is the one place
// that turns them into answers.

// refusal is the caller's mistake, in the form `field: value: rule: what to do`.
type refusal struct {
	field, value, rule, todo string
}

func (r *refusal) Error() string {
	parts := make([]string, 0, 4)
	for _, p := range []string{r.field, r.value, r.rule, r.todo} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// refuse makes a refusal. The value is shortened and cleared of keys; a nil
// value is left out, as it must be for fields that hold secrets.
func refuse(field string, value any, rule, todo string) error {
	text := ""
	if value != nil {
		text = shown(value)
	}
	return &refusal{field: field, value: text, rule: rule, todo: todo}
}

const maxShown = 80

// shown is how a caller's value appears in an error.
func shown(value any) string {
	text := fmt.Sprintf("%v", value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	text = keyformat.Redact(text)
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// errSchema is a record that a newer build wrote.
var errSchema = errors.New("the record was written by a newer version of this plugin: upgrade the plugin; nothing was changed")

// absence is what a caller named and what does not exist. It is told in words:
// a write to something absent must not look like an empty success.
type absence struct{ what string }

func (a *absence) Error() string { return a.what }

func noRole(name string) error {
	return &absence{what: fmt.Sprintf("role %s does not exist", shown(name))}
}

func isAbsent(err error) bool {
	var a *absence
	return errors.As(err, &a)
}

// respond turns an error into what the framework answers with.
func respond(err error) (*logical.Response, error) {
	var (
		r *refusal
		a *absence
	)
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &r):
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

func asRefusal(err error, r **refusal) bool { return errors.As(err, r) }

func answer(data map[string]any, warnings ...string) *logical.Response {
	return &logical.Response{Data: data, Warnings: warnings}
}
