// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func checkFree(field, text string, limit int, lines bool) error {
	if clean, changed := cleanFree(text, limit, lines); changed {
		if utf8.RuneCountInString(text) > limit {
			return refusal.New(field, utf8.RuneCountInString(text), "has too many characters", "shorten it")
		}
		return refusal.New(field, clean, "holds control characters", "take them out")
	}
	return nil
}

func cleanFree(text string, limit int, lines bool) (string, bool) {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && (!lines || (r != '\n' && r != '\t')) {
			return ' '
		}
		return r
	}, text)
	if utf8.RuneCountInString(clean) > limit {
		clean = string([]rune(clean)[:limit])
	}
	return clean, clean != text
}
