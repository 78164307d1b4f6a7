// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// MaxScopes is how many scopes a role has at most, and may be asked for at once.
const MaxScopes = 128

const maxScopeLength = 128

// scopeForm is ASCII, so that characters of what matches are bytes.
var scopeForm = regexp.MustCompile(`^([A-Za-z0-9._-]+:)*([A-Za-z0-9._-]+|\*)$`)

// ScopesCover reports whether every wanted scope is covered by one of have. A
// scope is segments joined by colons; `*` as last segment stands for any one or
// more segments, so orders:* covers orders:read and orders:items:read, and *
// covers everything.
func ScopesCover(have []string, want ...string) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return scopeCovers(h, w) }) {
			return false
		}
	}
	return true
}

// IntersectScopes is what a key that was narrowed to own may do under a role
// that allows role now: the narrower scope of each pair, in own's order, then
// role's. It is never nil.
func IntersectScopes(role, own []string) []string {
	out := []string{}
	add := func(scopes, within []string) {
		for _, s := range scopes {
			if ScopesCover(within, s) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	add(own, role)
	add(role, own)
	return out
}

func scopeCovers(have, want string) bool {
	if have == want || have == "*" {
		return true
	}
	base, wild := strings.CutSuffix(have, ":*")
	return wild && len(want) > len(base)+1 && strings.HasPrefix(want, base) && want[len(base)] == ':'
}

func setScopes(p *Policy, v any) error {
	const field = "scopes"
	scopes := v.([]string)
	if slices.Equal(scopes, p.Scopes) {
		return nil
	}
	if len(scopes) > MaxScopes {
		return refusal.New(field, len(scopes), fmt.Sprintf("has more than %d entries", MaxScopes), "combine some with *, such as orders:*")
	}
	for _, s := range scopes {
		if err := CheckScope(field, s); err != nil {
			return err
		}
	}
	if p.Scopes = slices.Clone(scopes); len(scopes) == 0 {
		p.Scopes = nil
	}
	return nil
}

// CheckScope refuses what is no scope. The refusal names field.
func CheckScope(field, scope string) error {
	switch {
	case !scopeForm.MatchString(scope):
		return refusal.New(field, scope, "must be segments of A-Z a-z 0-9 . _ - joined by colons, with * as last segment only",
			"write orders:read, orders:* or *")
	case len(scope) > maxScopeLength:
		return refusal.New(field, scope, fmt.Sprintf("has more than %d characters", maxScopeLength), "shorten it")
	case holdsKey(scope):
		return refusal.New(field, scope, "holds an API key", "use another name")
	}
	return nil
}
