// SPDX-License-Identifier: MPL-2.0

package jsonutil

import (
	"bytes"
	"compress/lzw"
	"encoding/json"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	if got, err := EncodeJSON(map[string]int{"n": 1}); err != nil || string(got) != "{\"n\":1}\n" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []interface{}{nil, make(chan int)} {
		if got, err := EncodeJSON(bad); got != nil || err == nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestDecode(t *testing.T) {
	var packed bytes.Buffer
	packed.WriteByte('L')
	w := lzw.NewWriter(&packed, lzw.LSB, 8)
	if _, err := w.Write([]byte(`[9007199254740993]`)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{[]byte(`[9007199254740993]`), packed.Bytes()} {
		var out []interface{}
		if err := DecodeJSON(data, &out); err != nil || len(out) != 1 || out[0] != json.Number("9007199254740993") {
			t.Errorf("got %v, %v", out, err)
		}
	}
	var out interface{}
	for _, bad := range []string{"", "x", "L", "Gx"} {
		if err := DecodeJSON([]byte(bad), &out); err == nil {
			t.Errorf("%q decodes to %v", bad, out)
		}
	}
	if DecodeJSON([]byte("1"), nil) == nil || DecodeJSONFromReader(nil, &out) == nil || DecodeJSONFromReader(strings.NewReader("1"), nil) == nil {
		t.Error("decoded nothing, or into nothing")
	}
}
