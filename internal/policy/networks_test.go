// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"testing"
)

func TestParseNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":           "[10.0.0.0/8]",
		"10.1.2.3/8":           "[10.0.0.0/8]",
		"0.0.0.0/0":            "[0.0.0.0/0]",
		"192.0.2.7":            "[192.0.2.7/32]",
		"2001:db8::/32":        "[2001:db8::/32]",
		"::/0":                 "[::/0]",
		"::1":                  "[::1/128]",
		"::ffff:192.0.2.0/120": "[192.0.2.0/24]",
		"::ffff:0:0/96":        "[0.0.0.0/0]",
		"::ffff:192.0.2.7":     "[192.0.2.7/32]",
		"::ffff:0:0/95":        "[]",
		"":                     "[]",
		" 10.0.0.1":            "[]",
		"10.0.0.0/33":          "[]",
		"10.0.0.0/-1":          "[]",
		"10.0.0.0/08":          "[]",
		"10.0.0.256":           "[]",
		"010.0.0.1":            "[]",
		"fe80::1%eth0":         "[]",
		"fe80::1%eth0/64":      "[]",
		"localhost":            "[]",
		"10.0.0.1:80":          "[]",
	} {
		if got := fmt.Sprint(ParseNetworks([]string{text})); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
	if got := fmt.Sprint(ParseNetworks([]string{"10.0.0.0/8", "x", "::1"})); got != "[10.0.0.0/8 ::1/128]" {
		t.Errorf("what can be read of a list: %s", got)
	}
}

func TestParseRemote(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1":               "10.0.0.1",
		"10.0.0.1:443":           "10.0.0.1",
		"[10.0.0.1]":             "10.0.0.1",
		"::1":                    "::1",
		"[::1]":                  "::1",
		"[::1]:443":              "::1",
		"::ffff:10.0.0.1":        "10.0.0.1",
		"[::ffff:10.0.0.1]:443":  "10.0.0.1",
		"fe80::1%eth0":           "fe80::1",
		"[fe80::1%eth0]:443":     "fe80::1",
		"::ffff:10.0.0.1%eth0":   "10.0.0.1",
		"":                       "",
		"[]":                     "",
		"[::1":                   "",
		"::1]":                   "",
		"[[::1]]":                "",
		"]::1[":                  "",
		"10.0.0.1, 203.0.113.9":  "",
		"10.0.0.1:99999":         "",
		"localhost":              "",
		"10.0.0.0/8":             "",
		" 10.0.0.1":              "",
		"[2001:db8::1]:8443junk": "",
	} {
		addr, ok := ParseRemote(text)
		if ok != (want != "") || ok && addr.String() != want {
			t.Errorf("%q is %s, %v; want %q", text, addr, ok, want)
		}
	}
}
