// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://hooks.example.com":                "https://hooks.example.com",
		"https://hooks.example.com/":               "https://hooks.example.com/",
		"HTTPS://Hooks.EXAMPLE.com.:443/A/b?C=%2F": "https://hooks.example.com/A/b?C=%2F",
		"https://hooks.example.com:8443/x":         "https://hooks.example.com:8443/x",
		"https://intranet/x":                       "https://intranet/x",
		"https://xn--bcher-kva.example":            "https://xn--bcher-kva.example",
		"https://8.8.8.8/":                         "https://8.8.8.8/",
		"https://[2606:4700::1111]:443/":           "https://[2606:4700::1111]/",
		"https://[2606:4700:0:0::1111]:8443/":      "https://[2606:4700::1111]:8443/",
		"https://[::ffff:8.8.8.8]/":                "https://8.8.8.8/",
		"http://127.0.0.1:8080/":                   "http://127.0.0.1:8080/",
		"http://127.8.8.8:443/":                    "http://127.8.8.8:443/",
		"http://[::1]:80/":                         "http://[::1]/",
		"http://[::ffff:127.0.0.1]/":               "http://127.0.0.1/",
		"http://LOCALHOST.:8080":                   "http://localhost:8080",
		"http://app.localhost":                     "http://app.localhost",
		"https://169.254.169.254/":                 "https://169.254.169.254/", // for the policy to refuse
	} {
		u, err := ParseURL("url", text)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, u, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                      "has no host",
		"hooks.example.com":                     "has no host",
		"//hooks.example.com/x":                 "must begin with https",
		"https:hooks.example.com":               "has no host",
		"https:///x":                            "has no host",
		"https://:443/x":                        "must have a host",
		"ftp://hooks.example.com":               "must begin with https",
		"file:///etc/passwd":                    "has no host",
		"gopher://127.0.0.1:70/":                "must begin with https",
		"javascript:alert(1)":                   "has no host",
		"http://hooks.example.com":              "may leave out TLS to this machine only",
		"http://10.0.0.1":                       "may leave out TLS to this machine only",
		"http://0.0.0.0":                        "may leave out TLS to this machine only",
		"http://[::]":                           "may leave out TLS to this machine only",
		"http://[64:ff9b::7f00:1]":              "may leave out TLS to this machine only",
		"http://localhost.example.com":          "may leave out TLS to this machine only",
		"http://notlocalhost":                   "may leave out TLS to this machine only",
		"https://user@hooks.example.com":        "user name",
		"https://user:secret@hooks.example.com": "user name",
		"https://@hooks.example.com":            "user name",
		"https://hooks.example.com#x":           "fragment",
		"https://hooks.example.com:":            "has no port",
		"https://hooks.example.com:0":           "has no port",
		"https://hooks.example.com:00443":       "has no port",
		"https://hooks.example.com:65536":       "has no port",
		"https://hooks.example.com:*":           "cannot be read",
		"https://hooks.example.com:443:443":     "cannot be read",
		"https://evil.example\\@hooks.example":  "cannot be read",
		"https://hooks.example.com\t":           "cannot be read",
		"https://hooks.example.com\r\nHost: x":  "cannot be read",
		"https://hooks example.com":             "cannot be read",
		"https://%31%32%37.0.0.1/":              "cannot be read",
		"https://127.1/":                        "some read as an address",
		"https://127.0.1/":                      "some read as an address",
		"https://0177.0.0.1/":                   "some read as an address",
		"https://0x7f.0.0.1/":                   "some read as an address",
		"https://0x7f000001/":                   "some read as an address",
		"https://127.0.0.0X1/":                  "some read as an address",
		"https://2130706433/":                   "some read as an address",
		"https://017700000001/":                 "some read as an address",
		"https://127.0.0.1./":                   "some read as an address",
		"https://127.0.0.01/":                   "some read as an address",
		"https://127.0.0.256/":                  "some read as an address",
		"https://１２７.０.０.１/":                    "punycode",
		"https://ⓔxample.com/":                  "punycode",
		"https://bücher.example/":               "punycode",
		"https://example。com/":                  "punycode",
		"https://example.com../":                "must have a host",
		"https://./":                            "must have a host",
		"https://a..b/":                         "must have a host",
		"https://-a.example/":                   "must have a host",
		"https://a!b.example/":                  "must have a host",
		"https://[fe80::1%25eth0]/":             "zone",
		"https://[::1%25lo]/":                   "zone",
		"https://[127.0.0.1]/":                  "cannot be read",
		"https://[::1/":                         "cannot be read",
		"https://[::1]x/":                       "cannot be read",
		"https://[v1.x]/":                       "cannot be read",
		"https://::1/":                          "cannot be read",
		"https://" + strings.Repeat("a", 2050):  "is longer than",
	} {
		u, err := ParseURL("url", text)
		if r := refusal.In(err); r == nil || r.Field != "url" || r.Value != "" || r.Todo == "" || !strings.Contains(r.Rule, want) || u != nil {
			t.Errorf("%q: %v, want a refusal with %q", text, err, want)
		}
	}
}

// What somebody made by hand is held to the same: url.Parse would not make these.
func TestTarget(t *testing.T) {
	for host, want := range map[string]error{
		"": errOpaque, "[": errHost, "[::1": errHost, "[]": errHost, "[x]": errHost, "[::1]x": errHost, "[::1]]": errHost, "x[::1]": errURLPort, "[127.0.0.1]": errHost, "[fe80::1%eth0]": errZone,
		"[::1]:": errURLPort, "[::1]:x": errURLPort, "[::1]:443:443": errURLPort, "[::1]x:443": errHost, "::1": errURLPort, "fd12::1": errURLPort, ":443": errHost,
		"hooks.example:443:443": errURLPort, "hooks.example:*": errURLPort, "hooks.example:x": errURLPort, "hooks example": errHost, "hooks.example/x": errHost, "x@hooks.example": errHost,
		"8.8.8.8%eth0": errHost, "hooks.example\x7f": errHost, "hooks.example\u0080": errUnicode, "hooks.example\x00": errHost,
	} {
		if h, port, err := target(&url.URL{Scheme: "https", Host: host, Path: "/"}); !errors.Is(err, want) {
			t.Errorf("%q: leads to %s, %d, %v, want %v", host, h, port, err, want)
		}
	}
	for name, u := range map[string]*url.URL{
		"opaque": {Scheme: "https", Opaque: "x", Host: "hooks.example"}, "another scheme": {Scheme: "HTTPS", Host: "hooks.example"}, "no scheme": {Host: "hooks.example"},
	} {
		if h, _, err := target(u); err == nil {
			t.Errorf("%s: leads to %s", name, h)
		}
	}
	long := "https://hooks.example/" + strings.Repeat("x", maxURLLen-22)
	if _, err := ParseURL("url", long); err != nil {
		t.Errorf("%d characters: %v", len(long), err)
	}
	if _, err := ParseURL("url", long+"x"); err == nil {
		t.Errorf("%d characters are read", len(long)+1)
	}
}

// FuzzURL: what is accepted reads back as itself, and has a host that only one reader
// could mean.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://a.example/x?y=1", "http://127.0.0.1:80", "https://[::1]:9", "https://A.example.:443", "https://0x7f.1", "http://[::ffff:127.0.0.1]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL("url", text)
		if err != nil {
			if refusal.In(err) == nil {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseURL("url", u.String())
		if err != nil || again.String() != u.String() || again.Host != u.Host {
			t.Fatalf("%q reads as %s, and that as %v, %v", text, u, again, err)
		}
		if strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789-_.:[]") != "" || strings.HasSuffix(u.Hostname(), ".") {
			t.Fatalf("the host %q", u.Host)
		}
		if u.Scheme == "http" && !local(u.Hostname()) {
			t.Fatalf("%s leaves without TLS", u)
		}
	})
}
