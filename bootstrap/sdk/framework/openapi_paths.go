// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/vault/sdk/logical"
)

var (
	nonWordRe   = regexp.MustCompile(`\W+`)
	pathFieldRe = regexp.MustCompile(`{(\w+)}`)
)

// form is one of the paths that a pattern stands for, as far as it is put together.
type form struct {
	text string

	// slashAt is the length right after an optional slash. A form that ends there is dropped: it says
	// nothing that the form without the slash doesn't.
	slashAt int
}

// expandPattern lists the paths that a pattern stands for, with named groups as {name}. It reports false for a pattern
// with an operator that OpenAPI cannot express.
func expandPattern(pattern string) ([]string, bool) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		// The pattern has been compiled before.
		panic(err)
	}
	forms, ok := expand(re, []form{{}})
	if !ok {
		return nil, false
	}
	paths := make([]string, 0, len(forms))
	for _, f := range forms {
		if f.slashAt != len(f.text) {
			paths = append(paths, f.text)
		}
	}
	return paths, true
}

// expand continues every form with everything that re stands for.
func expand(re *syntax.Regexp, forms []form) ([]form, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return forms, true

	case syntax.OpLiteral:
		return appended(forms, string(re.Rune)), true

	case syntax.OpCapture:
		if re.Name != "" {
			return appended(forms, "{"+re.Name+"}"), true
		}
		return expand(re.Sub[0], forms)

	case syntax.OpConcat:
		var ok bool
		for _, sub := range re.Sub {
			if forms, ok = expand(sub, forms); !ok {
				return nil, false
			}
		}
		return forms, true

	case syntax.OpAlternate:
		var all []form
		for _, sub := range re.Sub {
			branch, ok := expand(sub, forms)
			if !ok {
				return nil, false
			}
			all = append(all, branch...)
		}
		return all, true

	case syntax.OpQuest:
		branch, ok := expand(re.Sub[0], forms)
		if !ok {
			return nil, false
		}
		branch = slices.Clone(branch)
		if sub := re.Sub[0]; sub.Op == syntax.OpLiteral && string(sub.Rune) == "/" {
			for i := range branch {
				branch[i].slashAt = len(branch[i].text)
			}
		}
		return append(slices.Clone(forms), branch...), true
	}
	return nil, false
}

func appended(forms []form, text string) []form {
	out := slices.Clone(forms)
	for i := range out {
		out[i].text += text
	}
	return out
}

// specialPathMatch reports whether path is among special, by the rules of logical.Paths for API paths, '+' included.
func specialPathMatch(path string, special []string) bool {
	return slices.ContainsFunc(special, func(pattern string) bool {
		if pattern == path {
			return true
		}
		if prefix, found := strings.CutSuffix(pattern, "*"); found && strings.HasPrefix(path, prefix) {
			return true
		}
		return strings.Contains(pattern, "+") && segmentsMatch(strings.Split(path, "/"), strings.Split(pattern, "/"))
	})
}

func segmentsMatch(path, pattern []string) bool {
	if len(path) < len(pattern) {
		return false
	}
	for i, want := range pattern {
		if want == "+" {
			continue
		}
		if prefix, found := strings.CutSuffix(want, "*"); found && strings.HasPrefix(path[i], prefix) {
			return true
		}
		if want != path[i] {
			return false
		}
	}
	return len(path) == len(pattern)
}

// constructOperationID joins prefix, verb and suffix: those of the operation, else of the path, else made of what there is.
func constructOperationID(path string, formIndex int, pathAttrs *DisplayAttributes, op logical.Operation, opAttrs *DisplayAttributes, defaultPrefix string) string {
	var prefix, verb, suffix string
	for _, attrs := range []*DisplayAttributes{opAttrs, pathAttrs} {
		if attrs == nil {
			continue
		}
		prefix = cmp.Or(prefix, attrs.OperationPrefix)
		verb = cmp.Or(verb, attrs.OperationVerb)
		suffix = cmp.Or(suffix, attrs.OperationSuffix)
	}

	// Each form has a suffix of its own; one that is not listed falls back to the words of its path.
	missing := false
	if list := strings.Split(suffix, "|"); formIndex < len(list) {
		suffix = list[formIndex]
	} else {
		suffix, missing = "", true
	}

	if suffix == "" && (verb == "" || missing) {
		suffix = hyphenate(nonWordRe.Split(path, -1)...)
	}
	if prefix == "" && verb == "" {
		prefix = defaultPrefix
	}
	if verb == "" {
		verb = string(op)
		if op == logical.UpdateOperation {
			verb = "write"
		}
	}
	return hyphenate(prefix, verb, suffix)
}

func hyphenate(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	return strings.ToLower(strings.Join(parts, "-"))
}

// titleCase turns hyphenated words into one.
func titleCase(hyphenated string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(hyphenated, "-") {
		titled := false
		for _, r := range word {
			if !titled && unicode.IsLetter(r) {
				r, titled = unicode.ToTitle(r), true
			}
			out.WriteRune(r)
		}
	}
	return out.String()
}
