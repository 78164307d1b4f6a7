// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"net/url"
	"slices"
	"strings"
)

const maxURLLen = 2048

// URL is a URL, or the path of one, in whose path and query names may stand. It never
// changes.
type URL struct {
	origin   string // scheme and host, empty for a path
	segments []leaf
	query    leaf
	hasQuery bool
	used     []string
}

// ParseURL reads the template of a URL. Its scheme and host are constants; where they may
// lead is not judged here: that is done with Sample. The errors are refusals of the
// field. A URL may hold a secret, so it is not repeated.
func ParseURL(field, text string, known []string) (*URL, error) {
	p := &parser{field: field, known: known}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || strings.ContainsAny(scheme, "/?#$") {
		return nil, p.refuse("", nil, "must begin with a constant scheme, such as https://", urlTodo)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if rest[:end] == "" || strings.Contains(rest[:end], "$") {
		return nil, p.refuse("", nil, "must have a constant host", urlTodo)
	}
	return p.url(scheme+"://"+rest[:end], rest[end:], len(text))
}

// ParsePath reads the template of a path, with or without a query.
func ParsePath(field, text string, known []string) (*URL, error) {
	p := &parser{field: field, known: known}
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") {
		return nil, p.refuse("", nil, "must begin with one /", "write something like /v1/keys/${id}")
	}
	return p.url("", text, len(text))
}

const urlTodo = "write something like https://hooks.example.com/x/${secret.x}"

func (p *parser) url(origin, rest string, length int) (*URL, error) {
	if length > maxURLLen {
		return nil, p.refuse("", nil, "is longer than 2048 characters", "give a shorter one")
	}
	if strings.Contains(rest, "#") {
		return nil, p.refuse("", nil, "has a fragment, which is never sent", "leave it out")
	}
	u := &URL{origin: origin}
	path, query, hasQuery := strings.Cut(rest, "?")
	u.hasQuery = hasQuery
	var err error
	if u.query, err = p.urlLeaf(query); err != nil {
		return nil, err
	}
	if path != "" {
		for _, segment := range strings.Split(path[1:], "/") {
			l, err := p.urlLeaf(segment)
			if err != nil {
				return nil, err
			}
			u.segments = append(u.segments, l)
		}
	}
	u.used = p.used
	sample := u.Sample()
	parsed, err := url.Parse(sample)
	if err != nil {
		return nil, p.refuse("", nil, "cannot be read as a URL", urlTodo)
	}
	if _, err := url.QueryUnescape(parsed.RawQuery); err != nil {
		return nil, p.refuse("", nil, "has a % in its query that escapes nothing", "write %25 for a percent sign")
	}
	for _, segment := range u.segments {
		if segment.constant() && dots(segment.sample()) {
			return nil, p.refuse("", nil, "has a segment . or ..", "write the path that is meant")
		}
	}
	return u, nil
}

func (p *parser) urlLeaf(text string) (leaf, error) {
	l, err := p.leaf("", text)
	if err != nil {
		return nil, err
	}
	for _, part := range l {
		if strings.ContainsFunc(part.text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"<>\\^`{|}", r) }) {
			return nil, p.refuse("", nil, "has a character that URLs do not have", "write it as % and two digits")
		}
	}
	return l, nil
}

// Names lists the names that the URL has, each once.
func (u *URL) Names() []string { return slices.Clone(u.used) }

// Sample is the URL with an x for each name, to be judged when it is written.
func (u *URL) Sample() string {
	text := u.origin
	for _, s := range u.segments {
		text += "/" + s.sample()
	}
	if u.hasQuery {
		text += "?" + u.query.sample()
	}
	return text
}

func (l leaf) sample() string {
	text := ""
	for _, p := range l {
		if p.name != "" {
			text += "x"
		}
		text += p.text
	}
	return text
}

// Fill makes the URL. A value is part of one segment of the path, or of one value of the
// query, whatever it contains: all but letters, digits and -._~ is written as %XX. It
// must not be empty, and not be read as a step up by whoever decodes too early. The error
// is an *Error.
func (u *URL) Fill(values Values) (string, error) {
	var b strings.Builder
	b.WriteString(u.origin)
	for _, s := range u.segments {
		b.WriteByte('/')
		text, err := s.escaped(values, true)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	if u.hasQuery {
		b.WriteByte('?')
		text, err := u.query.escaped(values, false)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (l leaf) escaped(values Values, segment bool) (string, error) {
	var b strings.Builder
	for _, p := range l {
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
			return "", &Error{"", p.name, "is empty, which no part of a URL may be"}
		case segment && steps(text):
			return "", &Error{"", p.name, "has . or .. as a segment"}
		}
		if b.WriteString(escape(text)); b.Len() > MaxFilled {
			return "", ErrTooLong
		}
	}
	return b.String(), nil
}

// steps reports whether a value, decoded too early, has a segment . or .. in it, or makes
// one of the constants around it: for that it must be dots itself, as it is not empty.
func steps(text string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return r == '/' || r == '\\' }), func(s string) bool { return s == "." || s == ".." })
}

// dots reports whether a segment is . or .. however it is written.
func dots(segment string) bool {
	plain, err := url.PathUnescape(segment)
	return err == nil && (plain == "." || plain == "..")
}

func escape(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
