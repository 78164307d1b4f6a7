// SPDX-License-Identifier: MPL-2.0

// Package jsonutil encodes and decodes stored JSON.
package jsonutil

import (
	"bytes"
	"compress/gzip"
	"compress/lzw"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The first byte of a compressed value tells how it was compressed. None of them can start a JSON text.
const (
	canaryGzip byte = 'G'
	canaryLZW  byte = 'L'
)

// EncodeJSON returns the JSON of in, ending in a newline. A nil in is an error.
func EncodeJSON(in interface{}) ([]byte, error) {
	if in == nil {
		return nil, errors.New("input for encoding is nil")
	}
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(in); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// DecodeJSON decodes data, compressed or not, into out.
func DecodeJSON(data []byte, out interface{}) error {
	if len(data) == 0 {
		return errors.New("'data' being decoded is nil")
	}
	if out == nil {
		return errors.New("output parameter 'out' is nil")
	}
	plain, err := decompress(data)
	if err != nil {
		return fmt.Errorf("failed to decompress JSON: %w", err)
	}
	if len(plain) == 0 {
		return errors.New("decompressed data being decoded is invalid")
	}
	return DecodeJSONFromReader(bytes.NewReader(plain), out)
}

// DecodeJSONFromReader decodes one JSON value. Numbers that land in an interface become json.Number,
// so that integers keep all their digits.
func DecodeJSONFromReader(r io.Reader, out interface{}) error {
	if r == nil {
		return errors.New("'io.Reader' being decoded is nil")
	}
	if out == nil {
		return errors.New("output parameter 'out' is nil")
	}
	dec := json.NewDecoder(r)
	dec.UseNumber()
	return dec.Decode(out)
}

func decompress(data []byte) ([]byte, error) {
	var reader io.ReadCloser
	switch data[0] {
	case canaryGzip:
		gz, err := gzip.NewReader(bytes.NewReader(data[1:]))
		if err != nil {
			return nil, err
		}
		reader = gz
	case canaryLZW:
		reader = lzw.NewReader(bytes.NewReader(data[1:]), lzw.LSB, 8)
	default:
		return data, nil
	}
	defer reader.Close()
	return io.ReadAll(reader)
}
