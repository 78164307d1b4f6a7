// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// checkText refuses what can not be stored as it is, or is too long.
func checkText(field, text string, limit int) error {
	if !utf8.ValidString(text) {
		return refusal.New(field, nil, "is not valid UTF-8", "send text in UTF-8")
	}
	if n := utf8.RuneCountInString(text); n > limit {
		return refusal.New(field, n, fmt.Sprintf("has more than %d characters", limit), "shorten it")
	}
	return nil
}

// holdsKey: one of our keys is in the text, where it could not be replaced.
func holdsKey(text string) bool { return keyformat.Redact(text) != text }
