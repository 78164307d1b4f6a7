// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// FuzzPolicy: whatever a list says, no parse panics, the canonical form says the same,
// and what is permitted is public or listed and never barred.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []struct {
		list, host string
		port       uint16
		addr       []byte
	}{
		{"hooks.example.com,*.example.com:8443,10.0.0.0/8:*,!10.0.0.5", "hooks.example.com", 443, []byte{8, 8, 8, 8}},
		{"0.0.0.0/0:*,::/0:*", "x", 80, netip.MustParseAddr("64:ff9b::a9fe:a9fe").AsSlice()},
		{"::/0", "x", 443, netip.MustParseAddr("2001:0:a00:1::f7f7:f7f7").AsSlice()},
		{"h.example", "h.example", 443, netip.MustParseAddr("2606:4700::5efe:a00:1").AsSlice()},
		{"[::1]:8080,::ffff:10.0.0.0/104", "localhost", 8080, netip.IPv6Loopback().AsSlice()},
	} {
		f.Add(seed.list, seed.host, seed.port, seed.addr)
	}
	f.Fuzz(func(t *testing.T, list, host string, port uint16, raw []byte) {
		p, err := Parse(Config{Allow: strings.Split(list, ",")})
		if err != nil {
			if refusal.In(err) == nil {
				t.Fatal(err)
			}
			return
		}
		again, err := Parse(Config{Allow: p.Entries()})
		if err != nil || !again.Equal(p) {
			t.Fatalf("%v reads as %v", p.Entries(), err)
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok || !p.Permits(host, port, addr) {
			return
		}
		if !again.Permits(host, port, addr) {
			t.Fatalf("%v in the canonical form does not permit %s", p.Entries(), addr)
		}
		listed := slices.ContainsFunc(p.Entries(), func(e string) bool {
			text, _, _ := strings.Cut(e, "/")
			if _, err := netip.ParseAddr(text); err != nil {
				return false
			}
			bits := e[len(text)+1:]
			bits, _, _ = strings.Cut(bits, ":")
			return netip.MustParsePrefix(text + "/" + bits).Contains(addr.Unmap())
		})
		if !listed && !ordinary(addr) {
			t.Fatalf("%v permits %s, which is neither public nor listed", p.Entries(), addr)
		}
		if addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || strings.HasSuffix(addr.StringExpanded(), "a9fe:a9fe") {
			t.Fatalf("%v permits %s", p.Entries(), addr)
		}
	})
}

// ordinary reports whether an address is public by what the standard library knows, which
// is less than we do.
func ordinary(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is6() && strings.HasPrefix(a.StringExpanded(), "0064:ff9b:0000:0000:0000:0000:") {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.Is6() && a.As16()[0]>>5 != 1 {
		return false
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !netip.MustParsePrefix("240.0.0.0/4").Contains(a) && !netip.MustParsePrefix("100.64.0.0/10").Contains(a)
}
