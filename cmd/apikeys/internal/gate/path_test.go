// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"net/url"
	"strings"
	"testing"
)

func TestCleanPath(t *testing.T) {
	for target, want := range map[string]string{
		"/":                       "/",
		"/orders/7":               "/orders/7",
		"/orders/7?x=/../y;#%2f%": "/orders/7",
		"/orders/":                "/orders/",
		"/caf%C3%A9":              "/café",
		"/café":                   "/café",
		"/a%20b":                  "/a b",
		"/%6frders":               "/orders",
		"/a..b/.c":                "/a..b/.c",
		"/a:b@c,d=e&f+g~h":        "/a:b@c,d=e&f+g~h",
		"/%3F":                    "/?",
	} {
		if got, err := cleanPath(target); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", target, got, err, want)
		}
	}
	for _, target := range []string{
		"", "*", "orders", "?x", "http://host/orders", "//orders", "/a//b", "/a/%2Fb", "/a%2fb", "/a%2Fb", "/a/../b", "/..", "/.", "/a/./b", "/a/..",
		"/%2e%2e/b", "/%2E./b", "/a\\b", "/a%5cb", "/a;b", "/a%3Bb", "/a#b", "/a%23b", "/a%", "/a%2", "/a%zz", "/a%2z", "/a%z2", "/a%25", "/a%252fb", "/a%00b",
		"/a\x00b", "/a\nb", "/a%0d%0ab", "/a%7f", "/a\xff", "/a%ff", "/a%C3", "/a%c0%af", "/a%u002f",
	} {
		if got, err := cleanPath(target); err == nil {
			t.Errorf("%q is taken for %q", target, got)
		}
	}
}

// What is taken is what other readers make of it, too.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"/", "/a%20b?c", "/%2e%2e", "/a;b", "/caf%C3%A9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, err := cleanPath(target)
		if err != nil {
			return
		}
		raw, _, _ := strings.Cut(target, "?")
		if u, err := url.PathUnescape(raw); err != nil || u != got {
			t.Errorf("%q: %q, and %q, %v", target, got, u, err)
		}
		if again, err := url.PathUnescape(got); err != nil || again != got {
			t.Errorf("%q: decoding once more makes %q of it", target, again)
		}
		if strings.Count(raw, "/") != strings.Count(got, "/") {
			t.Errorf("%q: %q has other segments", target, got)
		}
	})
}

func TestRules(t *testing.T) {
	for _, test := range []struct {
		methods string
		path    string
		yes, no []string
	}{
		{"GET HEAD", "/orders/**", []string{"GET /orders/7", "HEAD /orders/7/items", "GET /orders", "GET /orders/"}, []string{"POST /orders/7", "get /orders/7", "GET /ordersx", "GET /order", "GET /"}},
		{"", "/orders/*", []string{"GET /orders/7", "POST /orders/x"}, []string{"GET /orders", "GET /orders/", "GET /orders/7/", "GET /orders/7/8"}},
		{"", "/orders/*/items", []string{"GET /orders/7/items"}, []string{"GET /orders//items", "GET /orders/items", "GET /orders/7/items/1", "GET /orders/7/Items"}},
		{"", "/status", []string{"GET /status"}, []string{"GET /status/", "GET /statusx", "GET /", "GET /a/status"}},
		{"", "/", []string{"GET /"}, []string{"GET /a"}},
		{"", "/a/", []string{"GET /a/"}, []string{"GET /a", "GET /a/b"}},
		{"", "/**", []string{"GET /", "GET /a", "DELETE /a/b/"}, nil},
		{"", "/*/**", []string{"GET /a", "GET /a/b"}, []string{"GET /"}},
	} {
		r, err := NewRule(names(test.methods), test.path, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for want, requests := range map[bool][]string{true: test.yes, false: test.no} {
			for _, request := range requests {
				method, path, _ := strings.Cut(request, " ")
				if r.matches(method, path) != want {
					t.Errorf("%s %s matches %s: %t", test.methods, test.path, request, !want)
				}
			}
		}
	}
	for _, path := range []string{"", "orders", "/a//b", "/a/**/b", "/a*", "/a/***", "/a/../b", "/a%20b", "/a?b", "/a;b", "/**/"} {
		if _, err := NewRule(nil, path, nil, nil); err == nil {
			t.Errorf("the path %q is a rule's", path)
		}
	}
	for _, method := range []string{"", "get", "*", "GET POST"} {
		if _, err := NewRule([]string{method}, "/", nil, nil); err == nil {
			t.Errorf("the method %q is a rule's", method)
		}
	}
}

// Lists that say nothing are mistakes, and so are scopes that no role can have.
func TestRulesThatSayNothing(t *testing.T) {
	for want, test := range map[string]struct{ methods, scopes, any []string }{
		"methods: is empty":   {methods: []string{}},
		"scopes: is empty":    {scopes: []string{}},
		"any_scope: is empty": {any: []string{}},
		"scopes: ":            {scopes: []string{"orders: read"}},
		"any_scope: ":         {any: []string{"a", ""}},
	} {
		if _, err := NewRule(test.methods, "/", test.scopes, test.any); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", test, err, want)
		}
	}
}

func TestFirstRuleCounts(t *testing.T) {
	narrow, err := NewRule([]string{"GET"}, "/orders/*", []string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := NewRule(nil, "/orders/**", []string{"b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rules := []*Rule{narrow, wide}
	if ruleFor(rules, "GET", "/orders/7") != narrow || ruleFor(rules, "POST", "/orders/7") != wide || ruleFor(rules, "GET", "/other") != nil {
		t.Error("the first rule that matches counts")
	}
}
