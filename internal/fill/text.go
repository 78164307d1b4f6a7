// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"slices"
	"strings"
)

const maxTextLen = 8192

// Text is one line in which names may stand, such as a header's value. It never changes.
type Text struct {
	leaf leaf
	used []string
}

// ParseText reads the template of a line. The errors are refusals of the field. A line
// may hold a secret, so it is not repeated.
func ParseText(field, text string, known []string) (*Text, error) {
	p := &parser{field: field, known: known}
	if len(text) > maxTextLen {
		return nil, p.refuse("", nil, "is longer than 8192 characters", "give a shorter one")
	}
	l, err := p.leaf("", text)
	if err != nil {
		return nil, err
	}
	for _, part := range l {
		if !printable(part.text) {
			return nil, p.refuse("", nil, "has a character that is not printable ASCII", "leave it out")
		}
	}
	if text == "" || strings.Trim(text, " ") != text {
		return nil, p.refuse("", nil, "is empty or has a space at an end", "write something like Bearer ${secret.token}")
	}
	return &Text{l, p.used}, nil
}

// Names lists the names that the line has, each once.
func (t *Text) Names() []string { return slices.Clone(t.used) }

// Header makes a header's value: printable ASCII, no line end, no value empty and no
// space at an end. The error is an *Error.
func (t *Text) Header(values Values) (string, error) {
	var b strings.Builder
	for _, p := range t.leaf {
		if p.name == "" {
			b.WriteString(p.text)
			continue
		}
		v, err := value(values, "", p.name)
		if err != nil {
			return "", err
		}
		text, err := scalar(v)
		switch {
		case err != nil:
			return "", &Error{"", p.name, err.Error()}
		case text == "":
			return "", &Error{"", p.name, "is empty, which no part of a header may be"}
		case !printable(text):
			return "", &Error{"", p.name, "has a character, perhaps a line end, that no header may have"}
		case strings.Trim(text, " ") != text:
			return "", &Error{"", p.name, "has a space at an end"}
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// barred are the headers that say how a request travels, or where to.
var barred = []string{
	"connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
	"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// CheckHeaderName holds the name of a header to what a template may set. The error is a
// refusal of the field.
func CheckHeaderName(field, name string) error {
	p := &parser{field: field}
	lower := strings.ToLower(name)
	if name == "" || len(name) > 128 || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return p.refuse("", name, "is no name of a header", "use letters, digits, - and _")
	}
	if slices.Contains(barred, lower) {
		return p.refuse("", name, "says how a request travels", "leave it out: it is set as it must be")
	}
	return nil
}
