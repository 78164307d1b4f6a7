// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func policy(t testing.TB, allow ...string) *Policy {
	t.Helper()
	p, err := Parse(Config{Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEntries(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"hooks.example.com", "hooks.example.com"},
		{"HOOKS.Example.COM.", "hooks.example.com"},
		{"hooks.example.com:443", "hooks.example.com"},
		{"hooks.example.com:8443", "hooks.example.com:8443"},
		{"hooks.example.com:*", "hooks.example.com:*"},
		{"*.example.com", "*.example.com"},
		{"*.Example.com.:8443", "*.example.com:8443"},
		{"intranet", "intranet"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"a_b.example.com", "a_b.example.com"},
		{"1.2.3.example", "1.2.3.example"},
		{"10.20.0.0/16", "10.20.0.0/16"},
		{"10.20.0.0/16:443", "10.20.0.0/16"},
		{"10.20.0.0/16:8443", "10.20.0.0/16:8443"},
		{"10.1.2.3", "10.1.2.3/32"},
		{"10.1.2.3:*", "10.1.2.3/32:*"},
		{"fd12:3456::/32", "fd12:3456::/32"},
		{"FD12:3456:0::/32:8443", "fd12:3456::/32:8443"},
		{"fd12::1", "fd12::1/128"},
		{"[fd12::1]", "fd12::1/128"},
		{"[fd12::1]:8443", "fd12::1/128:8443"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8"},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1/32:80"},
		{"::ffff:0.0.0.0/96", "0.0.0.0/0"},
		{strings.Repeat("a", 63) + ".example", strings.Repeat("a", 63) + ".example"},
		{strings.Repeat("a.", 126) + "b", strings.Repeat("a.", 126) + "b"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"::/0", "::/0"},
		{"169.0.0.0/8", "169.0.0.0/8"},
		{"!hooks.example.com", "!hooks.example.com"},
		{"!hooks.example.com:443", "!hooks.example.com:443"},
		{"!hooks.example.com:*", "!hooks.example.com"},
		{"!*.internal", "!*.internal"},
		{"!localhost", "!localhost"},
		{"!10.20.0.5", "!10.20.0.5/32"},
		{"!169.254.0.0/16", "!169.254.0.0/16"},
	} {
		p, err := Parse(Config{Allow: []string{c.text}})
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := p.Entries(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: read as %v, want %s", c.text, got, c.want)
		}
		if again := policy(t, c.want); !again.Equal(p) {
			t.Errorf("%s: the canonical form reads as %v", c.text, again.Entries())
		}
	}
	if got := policy(t, "a.example", "A.example:443", "10.0.0.0/8", "a.example.").Entries(); !slices.Equal(got, []string{"a.example", "10.0.0.0/8"}) {
		t.Errorf("entries that mean the same: %v", got)
	}
}

func TestWhatNoEntryMaySay(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "must have a host",
		"!":                               "must have a host",
		"*":                               "names everything",
		"*.":                              "names everything",
		"*.com":                           "takes in a whole top-level domain",
		"*example.com":                    "must have a host",
		"a.*.example.com":                 "must have a host",
		"hooks.*":                         "must have a host",
		"**.example.com":                  "must have a host",
		"*.*.example.com":                 "must have a host",
		"!!a.example":                     "must have a host",
		"https://hooks.example.com:443/x": "is a URL",
		"hooks.example.com/":              "must be a network",
		"hooks.example.com/x":             "must be a network",
		"hooks..example.com":              "must have a host",
		".example.com":                    "must have a host",
		"hooks.example.com..":             "must have a host",
		"-a.example.com":                  "must have a host",
		"a-.example.com":                  "must have a host",
		"a b.example.com":                 "must have a host",
		"user@hooks.example.com":          "must have a host",
		"bücher.example":                  "punycode",
		"１２７.0.0.1":                       "punycode",
		"hooks。example.com":               "punycode",
		strings.Repeat("a", 64) + ".b":    "must have a host",
		strings.Repeat("a.", 127) + "b":   "must have a host",
		strings.Repeat("a", 301):          "is longer than 300 characters",
		"hooks.example.com:":              "behind its colon",
		"hooks.example.com:0":             "behind its colon",
		"hooks.example.com:0443":          "behind its colon",
		"hooks.example.com:+443":          "behind its colon",
		"hooks.example.com:65536":         "behind its colon",
		"hooks.example.com:https":         "behind its colon",
		"hooks.example.com:80:90":         "must be a network",
		"localhost":                       "is this machine",
		"app.localhost:8080":              "is this machine",
		"127.1":                           "some read as an address",
		"0177.0.0.1":                      "some read as an address",
		"0x7f000001":                      "some read as an address",
		"0x7f.0x1":                        "some read as an address",
		"a.0x7f":                          "some read as an address",
		"2130706433":                      "some read as an address",
		"1.2.3.4.5":                       "some read as an address",
		"256.1.1.1":                       "some read as an address",
		"*.1":                             "some read as an address",
		"10.0.0.0/33":                     "must be a network",
		"10.0.0.0/-1":                     "must be a network",
		"10.0.0.0/":                       "must be a network",
		"10.0.0.0/8/8":                    "must be a network",
		"010.0.0.0/8":                     "must be a network",
		"10/8":                            "must be a network",
		"[10.0.0.1]":                      "must be a network",
		"[fd12::1":                        "must be a network",
		"[fd12::/32]":                     "must be a network",
		"[fd12::1]8443":                   "must be a network",
		"fd12::1]":                        "must be a network",
		"fe80::1%eth0":                    "must be a network",
		"[fe80::1%25eth0]":                "must be a network",
		"fd12::zz":                        "must be a network",
		"::ffff:0:0/64":                   "IPv4 and IPv6 addresses at once",
		"::ffff:0:0/95":                   "IPv4 and IPv6 addresses at once",
		"a\x7f.example":                   "must have a host",
		strings.Repeat("a.", 126) + "bb":  "must have a host",
		"[x]":                             "must be a network",
		"[]":                              "must be a network",
		":443":                            "must have a host",
		"/8":                              "must be a network",
		"10.1.2.3/8":                      "is 10.0.0.0/8 meant?",
		"fd12::1/32":                      "is fd12::/32 meant?",
		"169.254.169.254":                 "is never reached",
		"169.254.0.0/16:80":               "is never reached",
		"fe80::/64":                       "is never reached",
		"fd00:ec2::254":                   "is never reached",
		"100.100.100.200":                 "is never reached",
		"0.0.0.0":                         "is never reached",
		"224.0.0.1":                       "is never reached",
		"::":                              "is never reached",
	} {
		p, err := Parse(Config{Allow: []string{text}})
		if r := refusal.In(err); r == nil || r.Field != "egress_allow" || r.Todo == "" || !strings.Contains(r.Rule, want) || p != nil {
			t.Errorf("%q: %v, want a refusal with %q", text, err, want)
		}
	}
	if _, err := Parse(Config{Allow: slices.Repeat([]string{"a.example"}, 257)}); err == nil || !strings.Contains(err.Error(), "egress_allow: 257: has more than 256 entries") {
		t.Errorf("257 entries: %v", err)
	}
	policy(t, slices.Repeat([]string{"a.example"}, 256)...)
}

func TestProxyField(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "http://proxy.example.com:3128": "http://proxy.example.com:3128", "HTTP://Proxy.Example.com.:3128/": "http://proxy.example.com:3128",
		"https://proxy.example.com": "https://proxy.example.com", "http://10.0.0.1:80": "http://10.0.0.1", "http://[fd12::1]:443": "http://[fd12::1]:443",
		"https://10.0.0.1:443": "https://10.0.0.1", "http://127.0.0.1:3128": "http://127.0.0.1:3128",
	} {
		if p, err := Parse(Config{Proxy: text}); err != nil || p.Proxy() != want {
			t.Errorf("%q: %q, %v, want %q", text, p.Proxy(), err, want)
		}
	}
	for _, text := range []string{
		"proxy.example.com:3128", "socks5://proxy.example.com", "http://", "http://user:pass-word@proxy.example.com", "http://proxy.example.com/path", "http://proxy.example.com?x",
		"http://proxy.example.com?", "http://proxy.example.com#x", "http://proxy.example.com:", "http://proxy.example.com:0", "http://127.1:80", "http://pröxy.example.com", "http://a b", "http://[fe80::1%25eth0]:80",
	} {
		p, err := Parse(Config{Proxy: text})
		if r := refusal.In(err); r == nil || r.Field != "egress_proxy" || r.Rule == "" || strings.Contains(err.Error(), "pass-word") || p != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPermits(t *testing.T) {
	for _, c := range []struct {
		name  string
		allow []string
		yes   []string // host port address
		no    []string
	}{
		{
			"nothing", nil, nil,
			[]string{"hooks.example.com 443 8.8.8.8", "8.8.8.8 443 8.8.8.8", "localhost 443 127.0.0.1"},
		},
		{
			"a host",
			[]string{"hooks.example.com"},
			[]string{
				"hooks.example.com 443 8.8.8.8", "hooks.example.com 443 2606:4700::1111", "hooks.example.com 443 ::ffff:8.8.8.8",
				// Nearly ISATAP.
				"hooks.example.com 443 2606:4700::400:5efe:a00:1", "hooks.example.com 443 2606:4700::1:5efe:a00:1", "hooks.example.com 443 2606:4700::5fff:a00:1", "hooks.example.com 443 2606:4700::5eff:a00:1", "hooks.example.com 443 2606:4700::5ffe:a00:1",
			},
			[]string{
				"hooks.example.com 80 8.8.8.8", "hooks.example.com 8443 8.8.8.8", "hooks.example.com 0 8.8.8.8", "example.com 443 8.8.8.8", "a.hooks.example.com 443 8.8.8.8",
				"xhooks.example.com 443 8.8.8.8", "hooks.example.com.evil.example 443 8.8.8.8", "hooks.example.com 443 10.0.0.1", "hooks.example.com 443 127.0.0.1", "8.8.8.8 443 8.8.8.8",
				"hooks.example.com 443 2606:4700::1111%eth0", "hooks.example.com 443 2606:4700:1234:5678:0:5efe:a00:1", "hooks.example.com 443 2606:4700::200:5efe:a00:1",
			},
		},
		{
			"a pattern",
			[]string{"*.example.com:8443"},
			[]string{"a.example.com 8443 8.8.8.8", "a.b.example.com 8443 8.8.8.8"},
			[]string{"example.com 8443 8.8.8.8", "a.example.com 443 8.8.8.8", "aexample.com 8443 8.8.8.8", "a.example.com 8443 192.168.1.1", "a.example.com 8443 ::1"},
		},
		{
			"all ports",
			[]string{"hooks.example.com:*", "10.0.0.0/8:*"},
			[]string{"hooks.example.com 1 8.8.8.8", "hooks.example.com 65535 8.8.8.8", "x 9 10.1.1.1"},
			[]string{"hooks.example.com 0 8.8.8.8", "x 0 10.1.1.1"},
		},
		{
			"a network",
			[]string{"10.20.0.0/16"},
			[]string{"anything.example 443 10.20.3.4", "10.20.3.4 443 10.20.3.4", "x 443 ::ffff:10.20.3.4"},
			[]string{"x 443 10.21.0.0", "x 80 10.20.3.4", "x 443 8.8.8.8", "x 443 ::10.20.3.4", "x 443 64:ff9b::10.20.3.4"},
		},
		{
			"a public network",
			[]string{"8.8.8.0/24"},
			[]string{"x 443 8.8.8.8"},
			[]string{"x 443 8.8.9.8", "x 443 64:ff9b::808:808"},
		},
		{
			"this machine",
			[]string{"127.0.0.1:8080", "[::1]:8080"},
			[]string{"localhost 8080 127.0.0.1", "localhost 8080 ::1", "localhost 8080 ::ffff:127.0.0.1"},
			[]string{"localhost 8080 127.0.0.2", "localhost 443 127.0.0.1", "localhost 8080 0.0.0.0", "localhost 8080 ::", "localhost 8080 64:ff9b::7f00:1"},
		},
		{
			"everything that there is",
			[]string{"0.0.0.0/0:*", "::/0:*"},
			[]string{"x 80 10.0.0.1", "x 80 127.0.0.1", "x 80 ::1", "x 80 fd12::1", "x 80 8.8.8.8", "x 80 64:ff9b::7f00:1", "x 80 2002:0a00:0001::1", "x 80 240.0.0.1"},
			[]string{
				"x 80 169.254.169.254", "x 80 169.254.0.1", "x 80 ::ffff:169.254.169.254", "x 80 ::169.254.169.254", "x 80 64:ff9b::a9fe:a9fe", "x 80 ::ffff:0:169.254.169.254",
				"x 80 2002:a9fe:a9fe::1", "x 80 2001:0:a9fe:a9fe::", "x 80 2001:0:808:808:0:0:5601:5601", "x 80 2606:4700::5efe:169.254.169.254", "x 80 2606:4700::200:5efe:169.254.169.254",
				"x 80 64:ff9b:1:a9fe:a9:fe00::", "x 80 64:ff9b:1:a9:fe:a9fe::", "x 80 64:ff9b:1:0:a9:fea9:fe00:0", "x 80 64:ff9b:1::169.254.169.254",
				"x 80 fe80::1", "x 80 fe80::1%eth0", "x 80 febf::1", "x 80 fd00:ec2::254", "x 80 fd00:ec2::23", "x 80 fd20:ce::254", "x 80 fd00:c1::a9fe:a9fe", "x 80 fd00:42::42",
				"x 80 100.100.100.200", "x 80 64:ff9b::6464:64c8", "x 80 168.63.129.16", "x 80 192.0.0.192", "x 80 0.0.0.0", "x 80 0.1.2.3", "x 80 ::", "x 80 224.0.0.1", "x 80 239.255.255.255",
				"x 80 255.255.255.255", "x 80 ff02::1", "x 80 64:ff9b::", "x 80 64:ff9b::ffff:ffff",
			},
		},
		{
			"exclusions",
			[]string{"10.0.0.0/8:*", "!10.0.0.5", "!10.1.0.0/16:8200", "*.example.com", "!secret.example.com", "!*.internal.example.com", "!8.8.4.0/24", "::/0", "!fd12::/16"},
			[]string{"x 80 10.0.0.4", "x 80 10.1.0.1", "a.example.com 443 8.8.8.8", "internal.example.com 443 8.8.8.8", "x 443 fd13::1"},
			[]string{
				"x 80 10.0.0.5", "x 443 ::ffff:10.0.0.5", "x 443 64:ff9b::a00:5", "x 443 64:ff9b:1:a00:0:500::", "x 8200 10.1.0.1", "secret.example.com 443 8.8.8.8", "secret.example.com 443 10.0.0.1",
				"a.internal.example.com 443 8.8.8.8", "a.internal.example.com 443 10.0.0.1", "a.example.com 443 8.8.4.4", "x 443 fd12::1",
			},
		},
		{
			"NAT64",
			[]string{"hooks.example.com"},
			[]string{"hooks.example.com 443 64:ff9b::808:808"},
			[]string{"hooks.example.com 443 64:ff9b::a00:1", "hooks.example.com 443 64:ff9b::7f00:1", "hooks.example.com 443 64:ff9b:1::808:808", "hooks.example.com 443 64:ff9b:0:0:1::808:808"},
		},
		{
			"a NAT64 network",
			[]string{"64:ff9b:1::/96", "64:ff9b::/96"},
			[]string{"x 443 64:ff9b:1::a00:1", "x 443 64:ff9b::808:808"},
			[]string{"x 443 64:ff9b::a00:1", "x 443 64:ff9b:1::a9fe:a9fe", "x 443 64:ff9b:1:1::a00:1"},
		},
		{
			"a tunnel and what it carries",
			[]string{"2002::/16", "2001::/32", "::/96", "10.0.0.0/8"},
			[]string{"x 443 2002:a00:1::1", "x 443 2002:808:808::1", "x 443 2001:0:a00:1::f7f7:f7f7", "x 443 ::10.0.0.1"},
			[]string{"x 443 2002:c0a8:1::1", "x 443 2001:0:c0a8:1::f7f7:f7f7", "x 443 2001:0:a00:1::3f57:fffe", "x 443 ::192.168.0.1"},
		},
	} {
		p := policy(t, c.allow...)
		for want, list := range map[bool][]string{true: c.yes, false: c.no} {
			for _, line := range list {
				host, port, addr := scan(t, line)
				if p.Permits(host, port, addr) != want {
					t.Errorf("%s: %s: permitted: %v", c.name, line, !want)
				}
			}
		}
	}
	if (&Policy{}).Permits("x", 443, netip.MustParseAddr("8.8.8.8")) || policy(t, "x.example").Permits("x.example", 443, netip.Addr{}) {
		t.Error("the zero policy, or the zero address, is permitted")
	}
}

func scan(t *testing.T, line string) (string, uint16, netip.Addr) {
	t.Helper()
	f := strings.Fields(line)
	port, err := parsePort(f[1])
	if f[1] == "0" {
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return f[0], port, netip.MustParseAddr(f[2])
}

// The first and the last address of each network that no host pattern may reach, and
// their neighbours where those are public.
func TestPublic(t *testing.T) {
	p := policy(t, "h.example")
	may := func(a netip.Addr) bool { return p.Permits("h.example", 443, a) }
	for _, c := range []struct{ first, last, before, after string }{
		{"0.0.0.0", "0.255.255.255", "", "1.0.0.0"},
		{"10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"},
		{"100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"},
		{"127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"},
		{"169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"},
		{"172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"},
		{"192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"},
		{"192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"},
		{"192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"},
		{"192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"},
		{"198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"},
		{"198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"},
		{"203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"},
		{"224.0.0.0", "255.255.255.255", "223.255.255.255", ""},
		{"100.100.100.200", "100.100.100.200", "", ""},
		{"168.63.129.16", "168.63.129.16", "168.63.129.15", "168.63.129.17"},
		{"::", "::ffff:ffff", "", ""},
		{"::1", "::1", "", ""},
		{"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"100::", "100::ffff:ffff:ffff:ffff", "", ""},
		{"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
		{"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"},
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"},
		{"4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
		{"5f00::", "5f00::1", "", ""},
		{"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"fec0::", "feff::1", "", ""},
		{"ff00::", "ff0e::1", "", ""},
		{"::ffff:0:8.8.8.8", "::ffff:0:8.8.8.8", "", ""},
		{"::8.8.8.8", "::8.8.8.8", "", ""},
		{"2002:808:808::1", "2001:0:808:808::f7f7:f7f7", "", ""},
	} {
		for _, inside := range []string{c.first, c.last} {
			if may(netip.MustParseAddr(inside)) {
				t.Errorf("%s counts as public", inside)
			}
		}
		for _, outside := range []string{c.before, c.after} {
			if outside != "" && !may(netip.MustParseAddr(outside)) {
				t.Errorf("%s does not count as public", outside)
			}
		}
	}
}

// forms are the ways to carry an IPv4 address in an IPv6 one, a public prefix in front
// wherever a form has one of its own choice.
func forms(v4 netip.Addr) map[string]netip.Addr {
	b := v4.As4()
	at := func(prefix string, i, j, k, l int) netip.Addr {
		out := netip.MustParseAddr(prefix).As16()
		out[i], out[j], out[k], out[l] = b[0], b[1], b[2], b[3]
		return netip.AddrFrom16(out)
	}
	out := map[string]netip.Addr{
		"mapped":             at("::ffff:0:0", 12, 13, 14, 15),
		"compatible":         at("::", 12, 13, 14, 15),
		"translated":         at("::ffff:0:0:0", 12, 13, 14, 15),
		"NAT64":              at("64:ff9b::", 12, 13, 14, 15),
		"local NAT64 /48":    at("64:ff9b:1::", 6, 7, 9, 10),
		"local NAT64 /56":    at("64:ff9b:1:aa00::", 7, 9, 10, 11),
		"local NAT64 /64":    at("64:ff9b:1:aaaa::", 9, 10, 11, 12),
		"local NAT64 /96":    at("64:ff9b:1:aaaa:aa:aaaa::", 12, 13, 14, 15),
		"6to4":               at("2002::1", 2, 3, 4, 5),
		"Teredo, the server": at("2001::f7f7:f7f7", 4, 5, 6, 7),
		"ISATAP":             at("2606:4700::5efe:0:0", 12, 13, 14, 15),
		"ISATAP, universal":  at("2606:4700::200:5efe:0:0", 12, 13, 14, 15),
		"ISATAP, group":      at("2606:4700::300:5efe:0:0", 12, 13, 14, 15),
		"ISATAP below a ULA": at("fd12::200:5efe:0:0", 12, 13, 14, 15),
		"a gateway's /32":    at("2606:4700::", 4, 5, 6, 7),
		"a gateway's /40":    at("2606:4700:aa00::", 5, 6, 7, 9),
		"a gateway's /48":    at("2606:4700:aaaa::", 6, 7, 9, 10),
		"a gateway's /56":    at("2606:4700:aaaa:aa00::", 7, 9, 10, 11),
		"a gateway's /64":    at("2606:4700:aaaa:aaaa::", 9, 10, 11, 12),
		"a gateway's /96":    at("2606:4700:aaaa:aaaa:0:aaaa::", 12, 13, 14, 15),
		"ISATAP, link-local": at("fe80::5efe:0:0", 12, 13, 14, 15),
	}
	for i := range b {
		b[i] = ^b[i]
	}
	out["Teredo, the client"] = at("2001:0:808:808::", 12, 13, 14, 15)
	return out
}

// No form of an address that is barred passes, whatever the list says, and none of a
// private one by the name of its host.
func TestCarriedAddresses(t *testing.T) {
	named, everything := policy(t, "h.example:*"), policy(t, "h.example:*", "0.0.0.0/0:*", "::/0:*")
	for _, text := range []string{"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "169.254.7.9"} {
		for form, addr := range forms(netip.MustParseAddr(text)) {
			if text == "169.254.7.9" && strings.HasPrefix(form, "a gateway's") {
				continue // no service
			}
			if everything.Permits("h.example", 80, addr) || named.Permits("h.example", 80, addr) {
				t.Errorf("%s as %s (%s) is permitted", text, form, addr)
			}
		}
	}
	for _, text := range []string{"10.0.0.1", "127.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"} {
		for form, addr := range forms(netip.MustParseAddr(text)) {
			// A gateway with a prefix of its own cannot be told from others' addresses.
			if named.Permits("h.example", 80, addr) && !strings.HasPrefix(form, "a gateway's") {
				t.Errorf("%s as %s (%s) is permitted", text, form, addr)
			}
		}
	}
	excluding := policy(t, "0.0.0.0/0", "::/0", "!11.22.33.44")
	for form, addr := range forms(netip.MustParseAddr("11.22.33.44")) {
		if excluding.Permits("x", 443, addr) && !strings.HasPrefix(form, "a gateway's") {
			t.Errorf("11.22.33.44 as %s (%s) is not excluded", form, addr)
		}
	}
}

func TestNames(t *testing.T) {
	p := policy(t, "hooks.example.com", "*.corp.example:8443", "10.0.0.0/8:9000", "127.0.0.1:8080", "!bad.corp.example")
	if p.Names(&url.URL{Scheme: "ftp", Host: "hooks.example.com:443"}) {
		t.Error("what is no URL of ours is named")
	}
	for text, want := range map[string]bool{
		"https://hooks.example.com/x": true, "https://hooks.example.com:8443/": false, "https://a.corp.example:8443": true, "https://bad.corp.example:8443": false,
		"https://unknown.example": false, "https://unknown.example:9000": true, "https://10.1.1.1:9000": true, "https://11.1.1.1:9000": false,
		"http://127.0.0.1:8080": true, "http://localhost:8080": true, "http://127.0.0.2:8080": false, "https://bad.corp.example:9000": false,
	} {
		u, err := ParseURL("url", text)
		if err != nil {
			t.Fatal(err)
		}
		if p.Names(u) != want {
			t.Errorf("%s is named: %v", text, !want)
		}
	}
}

func TestEqual(t *testing.T) {
	base := Config{Allow: []string{"a.example"}, Proxy: "http://p.example:3128"}
	p, err := Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"paused": {base.Allow, base.Proxy, true}, "no proxy": {base.Allow, "", false}, "nothing": {nil, base.Proxy, false}, "more": {[]string{"a.example", "b.example"}, base.Proxy, false},
	} {
		if q, err := Parse(c); err != nil || p.Equal(q) || q.Equal(p) {
			t.Errorf("%s: equal, or %v", name, err)
		}
	}
	if q, err := Parse(Config{[]string{"A.example:443"}, "http://P.example:3128/", false}); err != nil || !p.Equal(q) {
		t.Errorf("the same in other words is another policy: %v", err)
	}
}
