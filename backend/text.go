// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

// maxName is how many characters of a caller's name are kept.
const maxName = 256

// displayName is the name under which the server knows the caller, fit to be
// kept: what people chose it may hold anything.
func displayName(req *logical.Request) string {
	clean, _ := policy.CleanText(req.DisplayName, maxName, false)
	return keyformat.Redact(clean)
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
