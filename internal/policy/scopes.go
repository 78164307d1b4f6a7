// SPDX-License-Identifier: MPL-2.0

package policy

import "strings"

// scopeCovers reports whether the scope have includes the scope want. A scope
// is segments joined by colons; `*` as last segment stands for any one or more
// segments, so orders:* covers orders:read and orders:items:read, and * covers
// everything.
func scopeCovers(have, want string) bool {
	if have == want || have == "*" {
		return true
	}
	base, wild := strings.CutSuffix(have, ":*")
	return wild && len(want) > len(base)+1 && strings.HasPrefix(want, base) && want[len(base)] == ':'
}

// scopesCover reports whether every wanted scope is covered.
func ScopesCover(have, want []string) bool {
	for _, w := range want {
		if !AnyCovers(have, w) {
			return false
		}
	}
	return true
}

func AnyCovers(have []string, want string) bool {
	for _, h := range have {
		if scopeCovers(h, want) {
			return true
		}
	}
	return false
}

// intersectScopes is what a key that was narrowed to own may do under a role
// that allows role now, in own's order, then role's.
func IntersectScopes(role, own []string) []string {
	out := []string{}
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, s := range own {
		if AnyCovers(role, s) {
			add(s)
		}
	}
	for _, s := range role {
		if AnyCovers(own, s) {
			add(s)
		}
	}
	return out
}
