// SPDX-License-Identifier: MPL-2.0

// Package refusal is the caller's mistake, told so that the caller can mend it:
// which field, what was given, which rule it breaks, and what to do. Nothing
// in the text of a refusal is a key: values are shortened and cleared of keys,
// and fields that hold secrets are refused without their value.
package refusal

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Refusal is one mistake, in the form `field: value: rule: what to do`.
type Refusal struct {
	Field, Value, Rule, Todo string
}

func (r *Refusal) Error() string {
	parts := make([]string, 0, 4)
	for _, p := range []string{r.Field, r.Value, r.Rule, r.Todo} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// New makes a refusal. A nil value is left out of the text, as it must be for
// fields that hold secrets.
func New(field string, value any, rule, todo string) error {
	text := ""
	if value != nil {
		text = Shown(value)
	}
	return &Refusal{Field: field, Value: text, Rule: rule, Todo: todo}
}

// In returns the refusal that err is or wraps, nil if there is none.
func In(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

const maxShown = 80

// Shown is how a caller's value appears in an error: quoted if it is text,
// cleared of keys, and cut after 80 bytes.
func Shown(value any) string {
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
