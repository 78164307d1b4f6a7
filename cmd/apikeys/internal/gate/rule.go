// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// Rule says what a key must have for the requests that it matches. The first rule that
// matches counts; what none matches is refused.
type Rule struct {
	methods          []string // none: any
	path             []string // its segments
	rest             bool     // and any number of segments more
	scopes, anyScope []string
}

// NewRule reads a rule. In the path * stands for one segment, and ** at the end for any
// number of them, none included. Without methods it matches any.
func NewRule(methods []string, path string, scopes, anyScope []string) (*Rule, error) {
	for _, m := range methods {
		if m == "" || strings.ToUpper(m) != m || strings.ContainsAny(m, " *") {
			return nil, fmt.Errorf("methods: %q: is not the name of a method: give names such as GET, or leave methods out for any", m)
		}
	}
	for field, scopes := range map[string][]string{"scopes": scopes, "any_scope": anyScope} {
		for _, s := range scopes {
			if err := policy.CheckScope(field, s); err != nil {
				return nil, err
			}
		}
	}
	for field, list := range map[string][]string{"methods": methods, "scopes": scopes, "any_scope": anyScope} {
		if list != nil && len(list) == 0 {
			return nil, fmt.Errorf("%s: is empty: leave it out, or name some", field)
		}
	}
	clean, err := cleanPath(path)
	if err != nil || clean != path || strings.Contains(path, "?") {
		return nil, fmt.Errorf("path: %q: is not a path as rules are matched against: begin with a slash, encode nothing, and leave out dot and empty segments, queries and semicolons", path)
	}
	r := &Rule{methods: methods, path: segments(path), scopes: scopes, anyScope: anyScope}
	if last := len(r.path) - 1; r.path[last] == "**" {
		r.path, r.rest = r.path[:last], true
	}
	for _, s := range r.path {
		if s != "*" && strings.Contains(s, "*") {
			return nil, fmt.Errorf("path: %q: a star stands for a whole segment, and two of them for the last ones", path)
		}
	}
	return r, nil
}

func segments(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// matches reports whether the rule is about a request; path is clean.
func (r *Rule) matches(method, path string) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, method) {
		return false
	}
	for _, want := range r.path {
		if path == "" {
			return false
		}
		var segment string
		segment, path = cutSegment(path)
		if want != "*" && want != segment || want == "*" && segment == "" {
			return false
		}
	}
	return path == "" || r.rest
}

// cutSegment is the first segment of a path that begins with a slash, and the path that
// follows; that is empty after the last segment.
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// ruleFor is the first rule that matches; nil if none does.
func ruleFor(rules []*Rule, method, path string) *Rule {
	for _, r := range rules {
		if r.matches(method, path) {
			return r
		}
	}
	return nil
}
