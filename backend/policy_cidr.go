// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/netip"
	"strings"
)

// parseCIDRs reads a role's allowed_cidrs. One that can not be read admits
// nobody.
func parseCIDRs(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		// IPv4 addresses written as IPv6 are IPv4 addresses.
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		out = append(out, p)
	}
	return out
}

// parseRemote reads an address, with or without port, zone and brackets.
func parseRemote(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
