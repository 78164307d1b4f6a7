// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// rules are those of one .gitignore file. What cannot be understood ignores nothing.
type rules struct {
	base string // the directory of the file, relative to the work tree; "" is its root
	all  []rule
}

// rule is one line of the file.
type rule struct {
	negated, dirOnly bool
	anchored         bool // the whole path must match, not only its last part
	literal          string
	suffix           string // of "*" and a literal, without the star
	expr             *regexp.Regexp
}

// readRules understands a file as git does.
func readRules(base string, raw []byte) *rules {
	r := &rules{base: base}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	for len(raw) > 0 {
		var line []byte
		line, raw, _ = bytes.Cut(raw, newline)
		if one, ok := readRule(string(bytes.TrimSuffix(line, []byte("\r")))); ok {
			r.all = append(r.all, one)
		}
	}
	return r
}

func readRule(line string) (r rule, ok bool) {
	if line == "" || line[0] == '#' {
		return r, false
	}
	pattern := withoutSpaces(line)
	pattern, r.negated = strings.CutPrefix(pattern, "!")
	pattern, r.dirOnly = strings.CutSuffix(pattern, "/")
	r.anchored = strings.Contains(pattern, "/")
	pattern = strings.TrimPrefix(pattern, "/")
	const special = `*?[\`
	switch {
	case pattern == "":
		return r, false
	case !strings.ContainsAny(pattern, special):
		r.literal = pattern
	case !r.anchored && pattern[0] == '*' && !strings.ContainsAny(pattern[1:], special):
		r.suffix = pattern[1:]
	default:
		if r.expr = glob(pattern); r.expr == nil {
			return r, false
		}
	}
	return r, true
}

// withoutSpaces is a line without the spaces at its end that no backslash keeps.
func withoutSpaces(line string) string {
	end := 0
	for i := 0; i < len(line); i++ {
		if line[i] == ' ' {
			continue
		}
		if line[i] == '\\' {
			i++
		}
		end = min(i+1, len(line))
	}
	return line[:end]
}

// matches reports whether the rule is about a path below the rules' directory.
func (r *rule) matches(name string, dir bool) bool {
	if r.dirOnly && !dir {
		return false
	}
	if !r.anchored {
		name = path.Base(name)
	}
	switch {
	case r.literal != "":
		return name == r.literal
	case r.expr != nil:
		return r.expr.MatchString(bytewise(name))
	default:
		return strings.HasSuffix(name, r.suffix)
	}
}

// stack are the rules of the directories from the root of a work tree down to one.
type stack []*rules

// ignored reports whether git would leave a path out, if it does not leave out the
// directory that it is in. The path is relative to the work tree.
func (s stack) ignored(name string, dir bool) bool {
	for i := len(s) - 1; i >= 0; i-- {
		below := name
		if s[i].base != "" {
			below = name[len(s[i].base)+1:]
		}
		for j := len(s[i].all) - 1; j >= 0; j-- {
			if r := &s[i].all[j]; r.matches(below, dir) {
				return !r.negated
			}
		}
	}
	return false
}

// bytewise is text whose characters are the bytes of s: git matches bytes.
func bytewise(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] < 0x80
	}
	if plain {
		return s
	}
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// glob is an expression for what a pattern of git matches, nil if that is nothing. Its
// time is linear in the path, whatever the pattern.
func glob(pattern string) *regexp.Regexp {
	var out strings.Builder
	out.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; c {
		case '?':
			out.WriteString(`[^/]`)
			i++
		case '*':
			end := i
			for end < len(pattern) && pattern[end] == '*' {
				end++
			}
			apart := i == 0 || pattern[i-1] == '/'
			switch {
			case end-i != 1 && apart && end == len(pattern):
				out.WriteString(`.*`)
			case end-i != 1 && apart && pattern[end] == '/':
				out.WriteString(`(?:.*/)?`)
				end++
			default:
				out.WriteString(`[^/]*`)
			}
			i = end
		case '[':
			set, n := class(pattern[i:])
			if n == 0 {
				return nil
			}
			out.WriteString(set)
			i += n
		case '\\':
			if i+1 == len(pattern) {
				return nil
			}
			out.WriteString(literally(pattern[i+1]))
			i += 2
		default:
			out.WriteString(literally(c))
			i++
		}
	}
	out.WriteString(`\z`)
	expr, err := regexp.Compile(out.String())
	if err != nil {
		return nil
	}
	return expr
}

func literally(c byte) string { return regexp.QuoteMeta(string(rune(c))) }

// class is an expression for the bracket that a pattern begins with, and the bracket's
// length; 0 if it does not end.
func class(pattern string) (expr string, n int) {
	var in [256]bool
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(pattern) {
			return "", 0
		}
		c := pattern[i]
		if c == ']' && !first {
			i++
			break
		}
		if name, after, ok := posix(pattern[i:]); ok {
			set, known := posixClasses[name]
			if !known {
				return "", 0
			}
			for b := range 256 {
				in[b] = in[b] || set(byte(b))
			}
			i += after
			continue
		}
		c, i = escaped(pattern, i)
		last := c
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			last, i = escaped(pattern, i+1)
		}
		if i > len(pattern) {
			return "", 0
		}
		in[c] = true
		for b := int(c); b <= int(last); b++ {
			in[b] = true
		}
	}
	var out strings.Builder
	out.WriteString(`[`)
	some := false
	for b := range 256 {
		if in[b] != negated && b != '/' {
			out.WriteString(`\x{` + string("0123456789abcdef"[b>>4]) + string("0123456789abcdef"[b&15]) + `}`)
			some = true
		}
	}
	if !some {
		return `[^\x{0}-\x{10ffff}]`, i
	}
	out.WriteString(`]`)
	return out.String(), i
}

// escaped is the character at i, which a backslash may stand before, and where it ends:
// past the end of the pattern if there is none.
func escaped(pattern string, i int) (c byte, end int) {
	if pattern[i] == '\\' {
		i++
	}
	if i >= len(pattern) {
		return 0, len(pattern) + 1
	}
	return pattern[i], i + 1
}

// posix is the name of the class that a text begins with, as in [:alpha:].
func posix(s string) (name string, n int, ok bool) {
	if !strings.HasPrefix(s, "[:") {
		return "", 0, false
	}
	end := strings.IndexByte(s[2:], ']')
	if end < 1 || s[2+end-1] != ':' {
		return "", 0, false
	}
	return s[2 : 2+end-1], 2 + end + 1, true
}

var posixClasses = func() map[string]func(byte) bool {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	lower := func(c byte) bool { return c >= 'a' && c <= 'z' }
	upper := func(c byte) bool { return c >= 'A' && c <= 'Z' }
	alpha := func(c byte) bool { return lower(c) || upper(c) }
	alnum := func(c byte) bool { return alpha(c) || digit(c) }
	graph := func(c byte) bool { return c > ' ' && c <= '~' }
	return map[string]func(byte) bool{
		"alnum": alnum, "alpha": alpha, "digit": digit, "lower": lower, "upper": upper, "graph": graph,
		"blank": func(c byte) bool { return c == ' ' || c == '\t' },
		"cntrl": func(c byte) bool { return c < ' ' || c == 0x7f },
		"print": func(c byte) bool { return graph(c) || c == ' ' },
		"punct": func(c byte) bool { return graph(c) && !alnum(c) },
		"space": func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' },
		"xdigit": func(c byte) bool {
			return digit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		},
	}
}()
