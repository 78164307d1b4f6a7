// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxTree is how long a template of a tree can be.
	MaxTree = 64 << 10
	// MaxFilled is how long what is made of one can be.
	MaxFilled = 256 << 10

	maxDepth = 32
)

// Tree is a JSON object or list whose strings may hold names. It never changes.
type Tree struct {
	root node
	used []string
}

// node is one of object, list, literal and leaf.
type node any

type (
	object []member
	member struct {
		key string
		of  node
	}
	list    []node
	literal string // a number, true, false or null, as it was written
)

// ParseTree reads a template in JSON and holds its names to those that are known. The
// errors are refusals of the field, with the place as a JSON pointer. Members keep their
// order, and numbers their digits.
func ParseTree(field string, raw []byte, known []string) (*Tree, error) {
	p := &parser{field: field, known: known}
	if len(raw) > MaxTree {
		return nil, p.refuse("", nil, "is longer than 64 KiB", "give a shorter one")
	}
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, p.refuse("", nil, "must be JSON", "write an object such as {\"text\": \"${type}\"}")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	root, err := p.node(d, "", 0)
	if err != nil {
		return nil, err
	}
	switch root.(type) {
	case object, list:
		return &Tree{root, p.used}, nil
	}
	return nil, p.refuse("", nil, "must be a JSON object or list", "write an object such as {\"text\": \"${type}\"}")
}

// Names lists the names that the tree has, each once.
func (t *Tree) Names() []string { return slices.Clone(t.used) }

func (p *parser) node(d *json.Decoder, place string, depth int) (node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("reading valid JSON: %w", err)
	}
	if depth > maxDepth {
		return nil, p.refuse(place, nil, fmt.Sprintf("is more than %d levels deep", maxDepth), "flatten it")
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return p.object(d, place, depth)
		}
		out := list{}
		for d.More() {
			n, err := p.node(d, place+"/"+strconv.Itoa(len(out)), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, n)
		}
		_, err := d.Token()
		return out, err
	case string:
		return p.leaf(place, token)
	case json.Number:
		return literal(token), nil
	case bool:
		return literal(strconv.FormatBool(token)), nil
	}
	return literal("null"), nil
}

func (p *parser) object(d *json.Decoder, place string, depth int) (node, error) {
	out := object{}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("reading valid JSON: %w", err)
		}
		key := token.(string)
		at := place + "/" + pointerEscape.Replace(key)
		switch {
		case seen[key]:
			return nil, p.refuse(at, nil, "is there twice", "leave one out")
		case strings.Contains(key, "${"):
			return nil, p.refuse(at, nil, "has a name that is not constant", "use ${…} in values only")
		}
		seen[key] = true
		n, err := p.node(d, at, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, member{key, n})
	}
	_, err := d.Token()
	return out, err
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// ErrTooLong means that the values make more than MaxFilled of a tree.
var ErrTooLong = errors.New("is longer than 256 KiB when filled in")

// Fill makes the JSON text. A leaf that is a name and nothing else becomes its value,
// with its type; any other leaf becomes text. The error is an *Error or ErrTooLong.
func (t *Tree) Fill(values Values) ([]byte, error) {
	w := &writer{values: values}
	if err := w.node(t.root, ""); err != nil {
		return nil, err
	}
	if w.out.Len() > MaxFilled {
		return nil, ErrTooLong
	}
	return w.out.Bytes(), nil
}

type writer struct {
	values Values
	out    bytes.Buffer
}

func (w *writer) node(n node, place string) error {
	// Not only at the end: the same long value may be there many times.
	if w.out.Len() > MaxFilled {
		return ErrTooLong
	}
	switch n := n.(type) {
	case object:
		w.out.WriteByte('{')
		for i, m := range n {
			if i > 0 {
				w.out.WriteByte(',')
			}
			if err := w.json(m.key); err != nil {
				return err
			}
			w.out.WriteByte(':')
			if err := w.node(m.of, place+"/"+pointerEscape.Replace(m.key)); err != nil {
				return err
			}
		}
		w.out.WriteByte('}')
	case list:
		w.out.WriteByte('[')
		for i, e := range n {
			if i > 0 {
				w.out.WriteByte(',')
			}
			if err := w.node(e, place+"/"+strconv.Itoa(i)); err != nil {
				return err
			}
		}
		w.out.WriteByte(']')
	case literal:
		w.out.WriteString(string(n))
	case leaf:
		return w.leaf(n, place)
	}
	return nil
}

func (w *writer) leaf(l leaf, place string) error {
	if !l.whole() {
		text, err := l.text(w.values, place)
		if err != nil {
			return err
		}
		return w.json(text)
	}
	name := l[0].name
	v, err := value(w.values, place, name)
	if err != nil {
		return err
	}
	if w.json(v) != nil {
		return &Error{place, name, "has a value that is not of JSON"}
	}
	return nil
}

// json writes a value, or nothing of it if it is none of JSON's.
func (w *writer) json(v any) error {
	before := w.out.Len()
	e := json.NewEncoder(&w.out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		w.out.Truncate(before)
		return err
	}
	w.out.Truncate(w.out.Len() - 1) // the encoder ends with a newline
	return nil
}
