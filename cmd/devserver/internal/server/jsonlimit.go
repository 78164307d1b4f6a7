// SPDX-License-Identifier: MPL-2.0

package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The stricter of what Vault and OpenBao accept by default in a request body, so that what passes here
// passes there.
const (
	maxBodyBytes    = 32 << 20
	maxJSONMemory   = 32<<20 + 512<<10
	maxJSONStrings  = 1000
	maxJSONDepth    = 300
	maxJSONStringer = 1 << 20
)

var (
	errJSONMemory  = errors.New("exceeded maximum estimated memory limits")
	errJSONStrings = errors.New("exceeded maximum number of strings")
	errJSONDepth   = errors.New("exceeded maximum depth")
	errJSONLong    = errors.New("exceeded maximum length of a string")
)

// decodeBody reads a JSON object within the limits. An empty body is no object and no error.
func decodeBody(body []byte) (map[string]any, error) {
	// The decoder would put a replacement character in the place of what is not text.
	if !utf8.Valid(body) {
		return nil, errNotText
	}
	if err := checkComplexity(body); err != nil {
		return nil, err
	}
	var out map[string]any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("failed to decode JSON input: %w", err)
	}
	return out, nil
}

func checkComplexity(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	var memory, strings, depth int
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("failed to decode JSON input: %w", err)
		}
		switch tok := tok.(type) {
		case json.Delim:
			switch tok {
			case '{':
				memory += 16 + 72
				depth++
			case '[':
				memory += 16 + 24
				depth++
			default:
				depth--
			}
		case string:
			memory += 16 + 16 + len(tok)
			strings++
			if len(tok) > maxJSONStringer {
				return tooComplex(errJSONLong)
			}
		default:
			memory += 16 + 8
		}
		switch {
		case memory > maxJSONMemory:
			return tooComplex(errJSONMemory)
		case strings > maxJSONStrings:
			return tooComplex(errJSONStrings)
		case depth > maxJSONDepth:
			return tooComplex(errJSONDepth)
		}
	}
}

func tooComplex(err error) error {
	return fmt.Errorf("refused JSON input due to high complexity: %w", err)
}
