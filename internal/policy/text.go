// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Limits of text, in characters, and of metadata.
const (
	maxText         = 512
	maxMetadata     = 64
	maxMetadataName = 64
)

// CheckText refuses free text that is not valid UTF-8, has more than limit
// characters, or holds what a terminal or a log would not show as it is: control
// characters, line and paragraph separators, and what changes the direction of
// text. lines says that newline and tab are welcome, as in a description. The
// refusal names field and shows the text quoted.
//
// Text that must never be refused is for CleanText.
func CheckText(field, text string, limit int, lines bool) error {
	if isPlain(text, lines) && len(text) <= limit {
		return nil
	}
	if !utf8.ValidString(text) {
		return refusal.New(field, text, "is not valid UTF-8", "send text in UTF-8")
	}
	n := 0
	for _, r := range text {
		n++
		if what := unwelcome(r, lines); what != "" {
			return refusal.New(field, text, fmt.Sprintf("holds %s (U+%04X), as character %d", what, r, n), "remove it")
		}
	}
	if n > limit {
		return refusal.New(field, n, fmt.Sprintf("has more than %d characters", limit), "shorten it")
	}
	return nil
}

// CleanText makes text acceptable to CheckText, for text that comes along with
// what must not fail: what is not UTF-8, control characters and separators
// become spaces, what changes the direction of text goes, and what exceeds limit
// characters is cut off. changed reports whether anything of that was done.
//
// Keys in the text are redacted, which only this order makes sure of: after what
// stood inside of a key has gone, and before a cut leaves a part of one. That
// alone does not count as a change.
func CleanText(text string, limit int, lines bool) (clean string, changed bool) {
	clean = text
	if !isPlain(text, lines) {
		clean = strings.ReplaceAll(clean, "\r\n", "\n")
		clean = strings.ToValidUTF8(clean, " ")
		clean = strings.Map(func(r rune) rune {
			switch {
			case unicode.Is(unicode.Bidi_Control, r):
				return -1
			case unwelcome(r, lines) != "":
				return ' '
			}
			return r
		}, clean)
		changed = clean != text
	}
	clean = keyformat.Redact(clean)
	if len(clean) <= limit {
		return clean, changed
	}
	n := 0
	for i := range clean {
		if n == limit {
			return clean[:i], true
		}
		n++
	}
	return clean, changed
}

// isPlain reports whether text is nothing but printable ASCII, and newlines and
// tabs where lines allows them: nearly all text is.
func isPlain(text string, lines bool) bool {
	for i := range len(text) {
		c := text[i]
		if (c < ' ' || c > '~') && (!lines || c != '\n' && c != '\t') {
			return false
		}
	}
	return true
}

// unwelcome says what r is that free text may not hold, "" if it may.
func unwelcome(r rune, lines bool) string {
	switch {
	case lines && (r == '\n' || r == '\t'):
		return ""
	case r == '\n', r == '\r', r == '\u0085', r == '\u2028', r == '\u2029':
		return "a line break"
	case unicode.IsControl(r):
		return "a control character"
	case unicode.Is(unicode.Bidi_Control, r):
		return "a mark that changes the direction of text"
	}
	return ""
}

// holdsKey reports whether one of our keys is in the text, for text in which it
// cannot be replaced.
func holdsKey(text string) bool { return keyformat.Redact(text) != text }

func setText(field string, lines bool, at func(*Policy) *string) func(*Policy, any) error {
	return func(p *Policy, v any) error {
		text := v.(string)
		if text != *at(p) {
			if err := CheckText(field, text, maxText, lines); err != nil {
				return err
			}
		}
		*at(p) = keyformat.Redact(text)
		return nil
	}
}

func setMetadata(p *Policy, v any) error {
	const field = "metadata"
	pairs := v.(map[string]string)
	if len(pairs) > maxMetadata {
		return refusal.New(field, len(pairs), fmt.Sprintf("has more than %d names", maxMetadata), "remove some")
	}
	m := make(map[string]string, len(pairs))
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		old, known := p.Metadata[name]
		if !known {
			if err := checkMetadataName(field, name); err != nil {
				return err
			}
		}
		if !known || pairs[name] != old {
			if err := CheckText(field+" "+refusal.Shown(name), pairs[name], maxText, false); err != nil {
				return err
			}
		}
		m[name] = keyformat.Redact(pairs[name])
	}
	if p.Metadata = m; len(m) == 0 {
		p.Metadata = nil
	}
	return nil
}

func checkMetadataName(field, name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return refusal.New(field, name, "a name is empty", "name every value")
	case holdsKey(name):
		return refusal.New(field, name, "a name holds an API key", "use another name")
	}
	return CheckText(field+" name", name, maxMetadataName, false)
}

// merged is old after a patch of it, in which nil removes a name.
func merged(old map[string]string, patch map[string]any) (map[string]string, error) {
	m := shownMap(old)
	for name, v := range patch {
		switch v := v.(type) {
		case string:
			m[name] = v
		case nil:
			delete(m, name)
		default:
			return nil, fmt.Errorf("a %T is given for a name", v)
		}
	}
	return m, nil
}

// shownMap is a copy that is never nil.
func shownMap(m map[string]string) map[string]string {
	shown := make(map[string]string, len(m))
	maps.Copy(shown, m)
	return shown
}
