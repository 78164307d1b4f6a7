// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"net/netip"
	"strings"
)

var (
	errNetwork = errors.New("must be a network or an address")
	errMapped  = errors.New("is a network of IPv4 and IPv6 addresses at once")
)

// parseNetwork reads a network, or an address, which is the network of just it.
// IPv4 in an IPv6 address's form is IPv4.
func parseNetwork(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errNetwork
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, errMapped
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

// parseNetworks reads a role's allowed_cidrs. One that cannot be read admits
// nobody.
func ParseNetworks(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := parseNetwork(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// parseRemote reads an address, with or without port, zone and brackets.
func ParseRemote(text string) (netip.Addr, bool) {
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
