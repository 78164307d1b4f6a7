// SPDX-License-Identifier: MPL-2.0

package acl

import (
	"reflect"
	"testing"
	"time"
)

func parse(t *testing.T, text string) []Rule {
	t.Helper()
	rules, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestWhichRuleDecides(t *testing.T) {
	a := New(parse(t, `
path "s/exact"      { capabilities = ["read"] }
path "s/*"          { capabilities = ["list"] }
path "s/ab*"        { capabilities = ["create"] }
path "s/+/leaf"     { capabilities = ["update"] }
path "s/+/+"        { capabilities = ["patch"] }
path "s/x/*"        { capabilities = ["delete"] }
path "s/+/le*"      { capabilities = ["sudo"] }
path "d/*"          { capabilities = ["read"] }
path "d/no"         { capabilities = ["deny", "read"] }
path "/lead/*"      { capabilities = ["read"] }
path "all/+/of/*"   { capabilities = ["read"] }`))
	for path, want := range map[string]string{
		"s/exact": "read", "s/other": "list", "s/abc": "create", "s/y/leaf": "update", "s/y/z": "patch", "s/x/leaf": "delete",
		"s/y/lemon": "patch", "s/y/z/deep": "list", "d/yes": "read", "d/no": "deny", "other": "deny", "lead/x": "read",
		"all/a/of/it": "read", "all/a/b/of/it": "deny", "all/a/of": "deny",
	} {
		if got := a.Capabilities(path); !reflect.DeepEqual(got, []string{want}) {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
	if got := New().Capabilities("x"); !reflect.DeepEqual(got, []string{Deny}) {
		t.Errorf("no policy at all: %v", got)
	}
	if !Root().Allows(Request{Path: "x", Capability: Delete, Sudo: true}) {
		t.Error("root was refused")
	}
}

func TestPoliciesAddUp(t *testing.T) {
	one := parse(t, `path "a" { capabilities = ["read"] } path "b" { capabilities = ["read", "list"] } path "c" { policy = "write" }`)
	two := parse(t, `path "a" { capabilities = ["update"] } path "b" { capabilities = ["deny"] }`)
	for _, a := range []*ACL{New(one, two), New(two, one)} {
		if got := a.Capabilities("a"); !reflect.DeepEqual(got, []string{"read", "update"}) {
			t.Errorf("a: %v", got)
		}
		if got := a.Capabilities("b"); !reflect.DeepEqual(got, []string{"deny"}) {
			t.Errorf("b: %v", got)
		}
		if got := a.Capabilities("c"); len(got) != 5 {
			t.Errorf("c: %v", got)
		}
	}
	if got := one[0].Capabilities; !reflect.DeepEqual(got, []string{"read"}) {
		t.Errorf("joining changed the policy to %v", got)
	}
}

func TestListsWithAndWithoutSlash(t *testing.T) {
	a := New(parse(t, `path "a" { capabilities = ["list"] } path "b/" { capabilities = ["list"] } path "+/c" { capabilities = ["list"] }`))
	for path, want := range map[string]bool{"a/": true, "b/": true, "x/c/": true, "d/": false} {
		if got := a.Allows(Request{Path: path, Capability: List}); got != want {
			t.Errorf("list %s: %v", path, got)
		}
	}
	if a.Allows(Request{Path: "a/", Capability: Read}) {
		t.Error("a read with a slash is another path")
	}
}

func TestParameters(t *testing.T) {
	a := New(parse(t, `
path "allow"  { capabilities = ["update"] allowed_parameters = { "kind" = ["static", "dyn*"], "Note" = [] } }
path "star"   { capabilities = ["update"] allowed_parameters = { "*" = [], "kind" = ["static"] } }
path "deny"   { capabilities = ["update"] denied_parameters = { "force" = [], "kind" = ["x", 3] } }
path "none"   { capabilities = ["update"] denied_parameters = { "*" = [] } }
path "need"   { capabilities = ["update", "read"] required_parameters = ["reason"] }`))
	for _, c := range []struct {
		path string
		data map[string]any
		want bool
	}{
		{"allow", map[string]any{"kind": "static", "note": "anything"}, true},
		{"allow", map[string]any{"KIND": "dynamic"}, true},
		{"allow", map[string]any{"kind": "other"}, false},
		{"allow", map[string]any{"more": 1}, false},
		{"star", map[string]any{"more": 1, "kind": "static"}, true},
		{"star", map[string]any{"kind": "other"}, false},
		{"deny", map[string]any{"kind": "y"}, true},
		{"deny", map[string]any{"kind": "x"}, false},
		{"deny", map[string]any{"kind": 3}, false},
		{"deny", map[string]any{"force": true}, false},
		{"none", map[string]any{}, true},
		{"none", map[string]any{"x": 1}, false},
		{"need", map[string]any{"Reason": "r"}, true},
		{"need", nil, false},
	} {
		if got := a.Allows(Request{Path: c.path, Capability: Update, Data: c.data}); got != c.want {
			t.Errorf("%s with %v: %v", c.path, c.data, got)
		}
	}
	if !a.Allows(Request{Path: "need", Capability: Read}) {
		t.Error("parameters bind writes only")
	}
}

func TestWrappingLimits(t *testing.T) {
	a := New(parse(t, `path "a" { capabilities = ["read"] min_wrapping_ttl = 60 max_wrapping_ttl = "5m" } path "b" { capabilities = ["read"] max_wrapping_ttl = "1m" }`))
	for _, c := range []struct {
		path string
		wrap time.Duration
		want bool
	}{
		{"a", 0, false},
		{"a", time.Minute, true},
		{"a", 59 * time.Second, false},
		{"a", 5*time.Minute + 1, false},
		{"b", 0, false},
		{"b", time.Second, true},
	} {
		if got := a.Allows(Request{Path: c.path, Capability: Read, Wrap: c.wrap}); got != c.want {
			t.Errorf("%s wrapped for %s: %v", c.path, c.wrap, got)
		}
	}
}

func TestTouches(t *testing.T) {
	a := New(parse(t, `path "one/x" { capabilities = ["read"] } path "two*" { capabilities = ["read"] } path "+/z" { capabilities = ["deny"] } path "four/" { capabilities = ["deny"] }`))
	for prefix, want := range map[string]bool{"one/": true, "two/": true, "twofold/": true, "three/": false, "four/": false} {
		if got := a.Touches(prefix); got != want {
			t.Errorf("%s: %v", prefix, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		`path "a" {`, `pats "a" {}`, `path "a" { capabilities = ["fly"] }`, `path "a" { policy = "x" }`, `path "a" { what = 1 }`,
		`path "a+*" {}`, `path "a/+*" {}`, `path "a" { min_wrapping_ttl = "5m" max_wrapping_ttl = "1m" }`, `path "a" { min_wrapping_ttl = "x" }`,
		`path "a" { capabilities = ["read"] expiration = "2030-01-01T00:00:00Z" }`,
	} {
		if rules, err := Parse(text); err == nil {
			t.Errorf("%s: parsed to %+v", text, rules)
		}
	}
	if rules, err := Parse(`{"path": {"a": {"capabilities": ["read"]}}}`); err != nil || len(rules) != 1 {
		t.Errorf("JSON: %+v, %v", rules, err)
	}
}
