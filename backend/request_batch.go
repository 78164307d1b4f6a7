// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Servers refuse bodies with more than about a thousand strings and bodies that
// are arrays, so a batch travels as one string.
const (
	maxBatchItems = 1000
	maxBatchBytes = 1 << 20
)

// batchItems splits a batch. A line that is no JSON is an item like any other:
// only that one fails. Texts never repeat what was given: it may hold keys.
func batchItems(text string) ([]json.RawMessage, error) {
	if len(text) > maxBatchBytes {
		return nil, refusal.New("batch", len(text), fmt.Sprintf("has more than %d bytes", maxBatchBytes), "send it in parts")
	}
	text = strings.TrimSpace(text)
	var items []json.RawMessage
	if strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &items); err != nil {
			return nil, refusal.New("batch", nil, "is not a JSON array", "give one JSON object per line, or a JSON array as text")
		}
	} else {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				items = append(items, json.RawMessage(line))
			}
		}
	}
	switch {
	case len(items) == 0:
		return nil, refusal.New("batch", nil, "has no items", "give at least one JSON object")
	case len(items) > maxBatchItems:
		return nil, refusal.New("batch", len(items), fmt.Sprintf("has more than %d items", maxBatchItems), "send it in parts")
	}
	return items, nil
}

// batchOf is the field of a batch whose items are what.
func batchOf(what string) field {
	return field{
		kind: kindText, secret: true,
		about: what + " One string: JSON objects on lines of their own, or a JSON array as text; at most 1000 items and 1 MiB. " +
			"The answer's results has one entry per item, in order.",
	}
}

// readItem reads one item of a batch by the rules of these fields.
func (s fieldSet) readItem(item json.RawMessage) (*input, error) {
	object, plain := plainObject(string(item))
	if plain {
		return s.readInPlace(object, false)
	}
	object, err := decodeObject(string(item))
	twice := (*duplicate)(nil)
	switch {
	case errors.As(err, &twice):
		if _, known := s[twice.name]; known {
			return nil, refusal.New(twice.name, nil, "an item has this name twice", "give it once")
		}
		return nil, refusal.New("batch", nil, "an item has a name twice", "give each name once")
	case err != nil:
		return nil, refusal.New("batch", nil, "an item is not a JSON object with the fields of this path", "see the path's help")
	}
	return s.readInPlace(object, false)
}

// only leaves out the members of an item that these fields do not know, for items
// that others make and add to.
func (s fieldSet) only(object map[string]any) map[string]any {
	known := map[string]any{}
	for name, value := range object {
		if _, ok := s[name]; ok {
			known[name] = value
		}
	}
	return known
}

// plainObject reads an object that is as plain as nearly all items are: texts
// and lists of texts, of printable ASCII without escapes, each name once. false:
// it is not, and decodeObject is to be asked, which takes three times as long; a
// batch of a thousand would miss what docs/performance.md promises.
func plainObject(text string) (map[string]any, bool) {
	p := plainText{rest: text}
	if !p.eat('{') {
		return nil, false
	}
	object := make(map[string]any, 2)
	for first := true; !p.eat('}'); first = false {
		if !first && !p.eat(',') {
			return nil, false
		}
		name, ok := p.text()
		if _, twice := object[name]; !ok || twice || !p.eat(':') {
			return nil, false
		}
		value, ok := p.value()
		if !ok {
			return nil, false
		}
		object[name] = value
	}
	p.space()
	return object, p.rest == ""
}

type plainText struct{ rest string }

func (p *plainText) space() {
	for p.rest != "" && (p.rest[0] == ' ' || p.rest[0] == '\t' || p.rest[0] == '\n' || p.rest[0] == '\r') {
		p.rest = p.rest[1:]
	}
}

func (p *plainText) eat(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// value reads a text or a list of texts.
func (p *plainText) value() (any, bool) {
	if !p.eat('[') {
		text, ok := p.text()
		return text, ok
	}
	list := []any{}
	for !p.eat(']') {
		if len(list) > 0 && !p.eat(',') {
			return nil, false
		}
		text, ok := p.text()
		if !ok {
			return nil, false
		}
		list = append(list, text)
	}
	return list, true
}

// text reads a text of printable ASCII without escapes.
func (p *plainText) text() (string, bool) {
	if !p.eat('"') {
		return "", false
	}
	for i := range len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			return text, true
		case c < ' ' || c > '~' || c == '\\':
			return "", false
		}
	}
	return "", false
}
