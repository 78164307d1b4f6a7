// SPDX-License-Identifier: MPL-2.0

// Package refusal is the caller's mistake, told so that the caller can mend it:
// which field, what was given, which rule it breaks, and what to do.
//
//	return refusal.New("ttl", 5, "must be at least "+refusal.Duration(least), "give a longer one")
//	// ttl: 5: must be at least 1m (60 seconds): give a longer one
//
// The text of a refusal may go to a terminal or a log as it is. Nothing in it is
// a key, or a character that is not printable: values are cleared of both and
// shortened, and fields that hold secrets are refused without their value. Other
// parts that come from the caller have to pass through Shown first.
package refusal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Refusal is one mistake. It prints as `field: value: rule: what to do`, without
// the parts that are empty.
type Refusal struct { //nolint:errname // what it is, as the package says
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

// New makes a refusal, a *Refusal. A nil value is left out of the text, as it
// must be for fields that hold secrets.
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

// Shown is how a caller's value appears in an error: quoted if it is text or
// holds what is not printable, cleared of keys, and cut after 80 bytes.
func Shown(value any) string {
	text, quote := value.(string)
	if !quote {
		text = fmt.Sprint(value)
		quote = !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	}
	// Escapes would touch a key, and a cut leave a part of it.
	text = keyformat.Redact(text)
	if quote {
		text = strconv.Quote(text)
	}
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// Duration is how a limit appears in an error: as people write it and in the
// unit in which it is answered, such as 168h (604800 seconds). It expects whole
// seconds.
func Duration(d time.Duration) string {
	total := int64(d / time.Second)
	text := strconv.FormatInt(total, 10) + " seconds"
	if total == 1 {
		text = "1 second"
	}
	if total < 60 {
		return text
	}
	human := ""
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{3600, "h"}, {60, "m"}, {1, "s"}} {
		if n := total / unit.seconds; n > 0 {
			human += strconv.FormatInt(n, 10) + unit.name
		}
		total %= unit.seconds
	}
	return human + " (" + text + ")"
}
