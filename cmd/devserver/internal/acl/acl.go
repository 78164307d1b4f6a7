// SPDX-License-Identifier: MPL-2.0

package acl

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ACL decides for one token: the union of its policies. The zero value permits nothing.
type ACL struct {
	root  bool
	exact map[string]*Rule
	// patterns holds globs and `+` patterns, most specific first.
	patterns []*Rule
}

// Root permits everything.
func Root() *ACL { return &ACL{root: true} }

// New joins policies: rules for the same pattern are merged, deny winning over all else.
func New(policies ...[]Rule) *ACL {
	merged := map[string]*Rule{}
	for _, policy := range policies {
		for _, rule := range policy {
			key := rule.Path
			if rule.Prefix {
				key += "*"
			}
			if old, ok := merged[key]; ok {
				old.merge(rule)
				continue
			}
			merged[key] = &rule
		}
	}
	a := &ACL{exact: map[string]*Rule{}}
	for _, rule := range merged {
		if rule.Prefix || hasPlus(rule.Path) {
			a.patterns = append(a.patterns, rule)
		} else {
			a.exact[rule.Path] = rule
		}
	}
	slices.SortFunc(a.patterns, func(x, y *Rule) int {
		switch {
		case moreSpecific(x, y):
			return -1
		case moreSpecific(y, x):
			return 1
		}
		return 0
	})
	return a
}

func (r *Rule) merge(other Rule) {
	switch {
	case slices.Contains(r.Capabilities, Deny):
		return
	case slices.Contains(other.Capabilities, Deny):
		r.Capabilities = []string{Deny}
		return
	}
	r.Capabilities = slices.Clone(r.Capabilities)
	for _, c := range other.Capabilities {
		if !slices.Contains(r.Capabilities, c) {
			r.Capabilities = append(r.Capabilities, c)
		}
	}
	// A policy without a restriction lifts the other's: policies add up.
	if len(r.Allowed) == 0 || len(other.Allowed) == 0 {
		r.Allowed = nil
	} else {
		r.Allowed = mergeValues(r.Allowed, other.Allowed)
	}
	r.Denied = mergeValues(r.Denied, other.Denied)
	r.Required = append(slices.Clone(r.Required), other.Required...)
	r.MinWrap = shorter(r.MinWrap, other.MinWrap)
	r.MaxWrap = max(r.MaxWrap, other.MaxWrap)
}

func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func mergeValues(a, b map[string][]any) map[string][]any {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	out := map[string][]any{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		old, ok := out[k]
		switch {
		case !ok:
			out[k] = v
		case len(old) == 0 || len(v) == 0:
			// An empty list stands for every value.
			out[k] = nil
		default:
			out[k] = append(slices.Clone(old), v...)
		}
	}
	return out
}

// moreSpecific reports whether x goes before y, in Vault's order among patterns that match the same path.
func moreSpecific(x, y *Rule) bool {
	if fx, fy := firstWildcard(x), firstWildcard(y); fx != fy {
		return fx > fy
	}
	if x.Prefix != y.Prefix {
		return !x.Prefix
	}
	if px, py := plusCount(x.Path), plusCount(y.Path); px != py {
		return px < py
	}
	if len(x.Path) != len(y.Path) {
		return len(x.Path) > len(y.Path)
	}
	return x.Path > y.Path
}

func firstWildcard(r *Rule) int {
	at := 0
	for _, segment := range strings.SplitAfter(r.Path, "/") {
		if strings.TrimSuffix(segment, "/") == "+" {
			return at
		}
		at += len(segment)
	}
	return at
}

func plusCount(path string) int {
	n := 0
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "+" {
			n++
		}
	}
	return n
}

func hasPlus(path string) bool { return plusCount(path) > 0 }

func (r *Rule) matches(path string) bool {
	if !hasPlus(r.Path) {
		return r.Prefix && strings.HasPrefix(path, r.Path)
	}
	want, have := strings.Split(r.Path, "/"), strings.Split(path, "/")
	if len(have) < len(want) || len(have) > len(want) && !r.Prefix {
		return false
	}
	for i, segment := range want {
		last := i == len(want)-1
		switch {
		case segment == "+":
		case last && r.Prefix:
			if !strings.HasPrefix(have[i], segment) {
				return false
			}
		case segment != have[i]:
			return false
		}
	}
	return true
}

// rule finds the one rule that decides for path.
func (a *ACL) rule(path string, list bool) *Rule {
	if r, ok := a.exact[path]; ok {
		return r
	}
	if list {
		if r, ok := a.exact[strings.TrimSuffix(path, "/")]; ok {
			return r
		}
	}
	for _, r := range a.patterns {
		if r.matches(path) || list && !r.Prefix && r.matches(strings.TrimSuffix(path, "/")) {
			return r
		}
	}
	return nil
}

// Capabilities are what the token may do at path, as sys/capabilities reports it.
func (a *ACL) Capabilities(path string) []string {
	if a.root {
		return []string{"root"}
	}
	r := a.rule(path, strings.HasSuffix(path, "/"))
	if r == nil || len(r.Capabilities) == 0 || slices.Contains(r.Capabilities, Deny) {
		return []string{Deny}
	}
	out := slices.Clone(r.Capabilities)
	slices.Sort(out)
	return slices.Compact(out)
}

// Request is what a decision depends on.
type Request struct {
	Path       string
	Capability string
	Data       map[string]any
	// Sudo is set for a path that needs this capability in addition.
	Sudo bool
	// Wrap is the time for which the answer shall be wrapped, if at all.
	Wrap time.Duration
}

// Allows reports whether the token may make the request.
func (a *ACL) Allows(req Request) bool {
	if a.root {
		return true
	}
	r := a.rule(req.Path, req.Capability == List)
	if r == nil || slices.Contains(r.Capabilities, Deny) || !slices.Contains(r.Capabilities, req.Capability) {
		return false
	}
	if req.Sudo && !slices.Contains(r.Capabilities, Sudo) {
		return false
	}
	if r.MaxWrap > 0 && (req.Wrap == 0 || req.Wrap > r.MaxWrap) || r.MinWrap > 0 && req.Wrap < r.MinWrap {
		return false
	}
	switch req.Capability {
	case Create, Update, Patch:
		return r.allowsData(req.Data)
	}
	return true
}

// Touches reports whether the token may do anything at all below prefix.
func (a *ACL) Touches(prefix string) bool {
	if a.root {
		return true
	}
	useful := func(r *Rule) bool {
		return len(r.Capabilities) > 0 && !slices.Contains(r.Capabilities, Deny)
	}
	for path, r := range a.exact {
		if useful(r) && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	for _, r := range a.patterns {
		literal := r.Path[:min(firstWildcard(r), len(r.Path))]
		if useful(r) && (strings.HasPrefix(literal, prefix) || strings.HasPrefix(prefix, literal)) {
			return true
		}
	}
	return false
}

func (r *Rule) allowsData(data map[string]any) bool {
	for _, name := range r.Required {
		if !hasKey(data, name) {
			return false
		}
	}
	for name, value := range data {
		name = strings.ToLower(name)
		if values, ok := r.Denied[name]; ok && (len(values) == 0 || containsValue(values, value)) {
			return false
		}
		if _, ok := r.Denied["*"]; ok {
			return false
		}
		if len(r.Allowed) == 0 {
			continue
		}
		values, ok := r.Allowed[name]
		if !ok {
			values, ok = r.Allowed["*"]
		}
		if !ok || len(values) > 0 && !containsValue(values, value) {
			return false
		}
	}
	return true
}

func hasKey(data map[string]any, name string) bool {
	for k := range data {
		if strings.EqualFold(k, name) {
			return true
		}
	}
	return false
}

// containsValue reports whether v is one of values. They are compared as text, so that a number in HCL
// equals the same number in JSON; a star at either end of a string in the policy matches any text there.
func containsValue(values []any, v any) bool {
	have := fmt.Sprint(v)
	return slices.ContainsFunc(values, func(want any) bool {
		text := fmt.Sprint(want)
		head, tail := strings.HasPrefix(text, "*"), strings.HasSuffix(text, "*")
		core := strings.TrimSuffix(strings.TrimPrefix(text, "*"), "*")
		switch {
		case text == "*" || head && tail:
			return strings.Contains(have, core)
		case head:
			return strings.HasSuffix(have, core)
		case tail:
			return strings.HasPrefix(have, core)
		}
		return have == text
	})
}
