// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Values is where a template's values come from. Without a value for a name that a
// template has, nothing is made of it; nil is a value, and is null in a tree and empty in
// text.
type Values func(name string) (value any, ok bool)

// Error is a value that does not fit in its place. It holds the place and the name, and
// nothing of the value.
type Error struct{ Place, Name, Rule string }

func (e *Error) Error() string {
	text := "${" + e.Name + "} " + e.Rule
	if e.Place != "" {
		text = refusal.Shown(e.Place) + ": " + text
	}
	return text
}

// part is a piece of a leaf: a constant, or a name.
type part struct{ text, name string }

type leaf []part

// whole reports whether a leaf is a name and nothing else.
func (l leaf) whole() bool { return len(l) == 1 && l[0].name != "" }

func (l leaf) constant() bool {
	return !slices.ContainsFunc(l, func(p part) bool { return p.name != "" })
}

var nameForm = regexp.MustCompile(`^[a-z][A-Za-z0-9_]*(\.[A-Za-z0-9_-]+)*(:[a-z0-9]+)?$`)

// parser reads the leaves of one field.
type parser struct {
	field string
	known []string
	used  []string
}

// refuse is a refusal of what is at a place of the field, "" for all of it.
func (p *parser) refuse(place string, value any, rule, todo string) error {
	if place != "" {
		rule = "at " + refusal.Shown(place) + " " + rule
	}
	return refusal.New(p.field, value, rule, todo)
}

// leaf reads text in which names may stand. Constants may be secrets that somebody wrote
// where they do not belong, so they are not repeated.
func (p *parser) leaf(place, text string) (leaf, error) {
	var out leaf
	var constant strings.Builder
	flush := func() {
		if constant.Len() > 0 {
			out = append(out, part{text: constant.String()})
			constant.Reset()
		}
	}
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			constant.WriteString(text)
			flush()
			return out, nil
		}
		constant.WriteString(text[:i])
		text = text[i+1:]
		switch {
		case strings.HasPrefix(text, "$"):
			constant.WriteByte('$')
			text = text[1:]
		case strings.HasPrefix(text, "{"):
			name, rest, closed := strings.Cut(text[1:], "}")
			if !closed {
				return nil, p.refuse(place, nil, "has ${ without }", "write ${name}, or $${ for the characters themselves")
			}
			if err := p.name(place, name); err != nil {
				return nil, err
			}
			flush()
			out = append(out, part{name: name})
			text = rest
		default:
			return nil, p.refuse(place, nil, "has a $ alone", "write ${name}, or $$ for a dollar sign")
		}
	}
}

const maxListed = 30

func (p *parser) name(place, name string) error {
	if !nameForm.MatchString(name) {
		return p.refuse(place, "${"+name+"}", "is no name", "write words with dots between them, such as ${data.role}")
	}
	if !slices.Contains(p.known, name) {
		todo := "use one of " + strings.Join(p.known, ", ")
		if len(p.known) == 0 {
			todo = "write constants only"
		} else if len(p.known) > maxListed {
			todo = "use one of the names that the documentation lists"
		}
		return p.refuse(place, "${"+name+"}", "is not known", todo)
	}
	if !slices.Contains(p.used, name) {
		p.used = append(p.used, name)
	}
	return nil
}

// value looks a name up.
func value(values Values, place, name string) (any, error) {
	v, ok := values(name)
	if !ok {
		return nil, &Error{place, name, "has no value"}
	}
	return v, nil
}

// text is the leaf with all values as text.
func (l leaf) text(values Values, place string) (string, error) {
	var b strings.Builder
	for _, p := range l {
		if p.name == "" {
			b.WriteString(p.text)
			continue
		}
		v, err := value(values, place, p.name)
		if err != nil {
			return "", err
		}
		text, err := textOf(v)
		if err != nil {
			return "", &Error{place, p.name, err.Error()}
		}
		if b.WriteString(text); b.Len() > MaxFilled {
			return "", ErrTooLong // before a leaf of many names grows without bound
		}
	}
	return b.String(), nil
}

var errNoText = errors.New("has a value that cannot be part of a text")

// textOf is a value as people write it: strings as they are, of a list the elements with
// commas between, and nothing for nil.
func textOf(v any) (string, error) {
	plain, err := plainOf(v)
	if err != nil {
		return "", err
	}
	elements, isList := plain.([]any)
	if !isList {
		return wordOf(plain)
	}
	out := make([]string, len(elements))
	for i, e := range elements {
		if out[i], err = wordOf(e); err != nil {
			return "", err
		}
	}
	return strings.Join(out, ", "), nil
}

func wordOf(plain any) (string, error) {
	switch v := plain.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		return v.String(), nil
	}
	return "", errNoText
}

// plainOf is a value in the types that JSON has, so that text and tree write the same.
func plainOf(v any) (any, error) {
	if _, isString := v.(string); isString {
		return v, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, errNoText
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var plain any
	if d.Decode(&plain) != nil {
		return nil, errNoText
	}
	return plain, nil
}

// scalar is a value as text where a list has no place.
func scalar(v any) (string, error) {
	plain, err := plainOf(v)
	if err != nil {
		return "", err
	}
	return wordOf(plain)
}
