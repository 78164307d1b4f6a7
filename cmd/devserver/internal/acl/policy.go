// SPDX-License-Identifier: MPL-2.0

// Package acl reads Vault's ACL policies and decides by them.
package acl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
)

// The capabilities a policy can name.
const (
	Deny      = "deny"
	Create    = "create"
	Read      = "read"
	Update    = "update"
	Delete    = "delete"
	List      = "list"
	Sudo      = "sudo"
	Patch     = "patch"
	Subscribe = "subscribe"
	Recover   = "recover"
	Scan      = "scan"
)

var capabilities = []string{Deny, Create, Read, Update, Delete, List, Sudo, Patch, Subscribe, Recover, Scan}

// shorthand is the old `policy = "..."` attribute.
var shorthand = map[string][]string{
	"deny":  {Deny},
	"read":  {Read, List},
	"write": {Create, Read, Update, Delete, List},
	"sudo":  {Create, Read, Update, Delete, List, Sudo},
}

// Rule is one path stanza of a policy.
type Rule struct {
	// Path is the pattern without its trailing star.
	Path string
	// Prefix says that the pattern ended in a star.
	Prefix       bool
	Capabilities []string
	Allowed      map[string][]any
	Denied       map[string][]any
	Required     []string
	MinWrap      time.Duration
	MaxWrap      time.Duration
}

type stanza struct {
	Policy            string           `hcl:"policy"`
	Capabilities      []string         `hcl:"capabilities"`
	AllowedParameters map[string][]any `hcl:"allowed_parameters"`
	DeniedParameters  map[string][]any `hcl:"denied_parameters"`
	Required          []string         `hcl:"required_parameters"`
	MinWrappingTTL    any              `hcl:"min_wrapping_ttl"`
	MaxWrappingTTL    any              `hcl:"max_wrapping_ttl"`
}

// Parse reads a policy in HCL or JSON.
func Parse(text string) ([]Rule, error) {
	file, err := hcl.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("failed to parse policy: %w", err)
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, errors.New("failed to parse policy: does not contain a root object")
	}
	for _, item := range list.Items {
		if key := item.Keys[0].Token.Value().(string); key != "path" && key != "name" {
			return nil, fmt.Errorf("failed to parse policy: invalid key %q on line %d", key, item.Pos().Line)
		}
	}
	var rules []Rule
	for _, item := range list.Filter("path").Items {
		if len(item.Keys) == 0 {
			return nil, errors.New("failed to parse policy: a path stanza has no path")
		}
		rule, err := parseStanza(item.Keys[0].Token.Value().(string), item.Val)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func parseStanza(path string, val ast.Node) (Rule, error) {
	fail := func(format string, args ...any) (Rule, error) {
		return Rule{}, fmt.Errorf("path %q: %w", path, fmt.Errorf(format, args...))
	}
	if obj, ok := val.(*ast.ObjectType); ok {
		known := []string{"policy", "capabilities", "allowed_parameters", "denied_parameters", "required_parameters", "min_wrapping_ttl", "max_wrapping_ttl", "comment", "expiration"}
		for _, item := range obj.List.Items {
			if key := item.Keys[0].Token.Value().(string); !slices.Contains(known, key) {
				return fail("invalid key %q on line %d", key, item.Pos().Line)
			}
			// A rule that would stop to hold one day, or not at all, must not be kept as if it held forever.
			if key := item.Keys[0].Token.Value().(string); key == "expiration" {
				return fail("expiration is not supported by this development server")
			}
		}
	}
	var st stanza
	if err := hcl.DecodeObject(&st, val); err != nil {
		return fail("%w", err)
	}
	caps := st.Capabilities
	if st.Policy != "" {
		old, ok := shorthand[st.Policy]
		if !ok {
			return fail("invalid policy %q", st.Policy)
		}
		caps = append(caps, old...)
	}
	for _, c := range caps {
		if !slices.Contains(capabilities, c) {
			return fail("invalid capability %q", c)
		}
	}
	if slices.Contains(caps, Deny) {
		caps = []string{Deny}
	}
	rule := Rule{Path: strings.TrimPrefix(path, "/"), Capabilities: caps, Allowed: lowerKeys(st.AllowedParameters), Denied: lowerKeys(st.DeniedParameters), Required: st.Required}
	rule.Path, rule.Prefix = strings.CutSuffix(rule.Path, "*")
	if strings.Contains(rule.Path, "+*") || strings.HasSuffix(rule.Path, "+") && rule.Prefix {
		return fail("invalid use of wildcards ('+*' is forbidden)")
	}
	var err error
	if rule.MinWrap, err = duration(st.MinWrappingTTL); err != nil {
		return fail("min_wrapping_ttl: %w", err)
	}
	if rule.MaxWrap, err = duration(st.MaxWrappingTTL); err != nil {
		return fail("max_wrapping_ttl: %w", err)
	}
	if rule.MinWrap != 0 && rule.MaxWrap != 0 && rule.MaxWrap < rule.MinWrap {
		return fail("max_wrapping_ttl cannot be less than min_wrapping_ttl")
	}
	return rule, nil
}

func lowerKeys(in map[string][]any) map[string][]any {
	if in == nil {
		return nil
	}
	out := make(map[string][]any, len(in))
	for k, v := range in {
		out[strings.ToLower(k)] = v
	}
	return out
}

func duration(v any) (time.Duration, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case int:
		return time.Duration(v) * time.Second, nil
	case float64:
		return time.Duration(v * float64(time.Second)), nil
	case string:
		return time.ParseDuration(v)
	default:
		return 0, fmt.Errorf("not a duration: %v", v)
	}
}
