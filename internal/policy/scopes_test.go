// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestScopesCover(t *testing.T) {
	for _, c := range []struct {
		have []string
		want []string
		yes  bool
	}{
		{nil, nil, true},
		{nil, []string{"a"}, false},
		{[]string{"a"}, nil, true},
		{[]string{"a"}, []string{"a"}, true},
		{[]string{"a"}, []string{"a:b"}, false},
		{[]string{"a"}, []string{"ab"}, false},
		{[]string{"a:b"}, []string{"a"}, false},
		{[]string{"a:*"}, []string{"a:b"}, true},
		{[]string{"a:*"}, []string{"a:b:c"}, true},
		{[]string{"a:*"}, []string{"a:*"}, true},
		{[]string{"a:*"}, []string{"a:b:*"}, true},
		{[]string{"a:b:*"}, []string{"a:*"}, false},
		{[]string{"a:*"}, []string{"a"}, false},
		{[]string{"a:*"}, []string{"a:"}, false},
		{[]string{"a:*"}, []string{"ab:c"}, false},
		{[]string{"a:*"}, []string{"b:c"}, false},
		{[]string{"a:*"}, []string{"*"}, false},
		{[]string{"a*"}, []string{"ab"}, false},
		{[]string{"*"}, []string{"a:b", "*"}, true},
		{[]string{"x", "a:*"}, []string{"a:b", "x"}, true},
		{[]string{"x", "a:*"}, []string{"a:b", "y"}, false},
		{[]string{"x", "a:*"}, []string{"y", "a:b"}, false},
		{[]string{"A"}, []string{"a"}, false},
	} {
		if got := ScopesCover(c.have, c.want...); got != c.yes {
			t.Errorf("%v covers %v: %v", c.have, c.want, got)
		}
	}
}

func TestIntersectScopes(t *testing.T) {
	for _, c := range []struct{ role, own, want []string }{
		{nil, nil, nil},
		{[]string{"a"}, nil, nil},
		{nil, []string{"a"}, nil},
		{[]string{"a", "b"}, []string{"b", "a"}, []string{"b", "a"}},
		{[]string{"a:*"}, []string{"a:x", "b"}, []string{"a:x"}},
		{[]string{"a:x", "b"}, []string{"a:*"}, []string{"a:x"}},
		{[]string{"*"}, []string{"b", "a"}, []string{"b", "a"}},
		{[]string{"b", "a"}, []string{"*"}, []string{"b", "a"}},
		{[]string{"a:b:*", "c"}, []string{"c", "a:*", "c"}, []string{"c", "a:b:*"}},
		{[]string{"a:*", "b:x"}, []string{"b:*", "a:y"}, []string{"a:y", "b:x"}},
	} {
		got := IntersectScopes(c.role, c.own)
		if got == nil || !slices.Equal(got, c.want) {
			t.Errorf("%v under %v: %#v, want %v", c.own, c.role, got, c.want)
		}
	}
}

// The intersection covers exactly what both cover.
func TestIntersectionProperties(t *testing.T) {
	scope := rapid.SampledFrom([]string{"*", "a", "b", "a:*", "a:b", "a:b:*", "a:b:c", "b:*", "b:c", "ab:c"})
	rapid.Check(t, func(rt *rapid.T) {
		role := rapid.SliceOfN(scope, 0, 4).Draw(rt, "role")
		own := rapid.SliceOfN(scope, 0, 4).Draw(rt, "own")
		got := IntersectScopes(role, own)
		for _, s := range []string{"*", "a", "a:b", "a:b:c", "a:b:c:d", "a:x", "b", "b:c", "c", "ab:c", "ab"} {
			if both := ScopesCover(role, s) && ScopesCover(own, s); both != ScopesCover(got, s) {
				rt.Fatalf("%v under %v is %v: %s", own, role, got, s)
			}
		}
		for i, s := range got {
			if slices.Contains(got[:i], s) {
				rt.Fatalf("%v under %v is %v", own, role, got)
			}
		}
	})
}
