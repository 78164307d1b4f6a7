// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"net/netip"
	"slices"
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, text := range list {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

var (
	// metadata is where clouds hand out credentials to whoever asks from inside, all of
	// link-local among it.
	metadata = prefixes(
		"169.254.0.0/16", "fe80::/10",
		"fd00:ec2::/32",          // AWS
		"100.100.100.200/32",     // Alibaba
		"168.63.129.16/32",       // Azure
		"192.0.0.192/32",         // Oracle
		"fd00:c1::a9fe:a9fe/128", // Oracle
		"fd20:ce::254/128",       // Google
		"fd00:42::42/128",        // Scaleway
	)

	// services are the IPv4 addresses of single metadata services. Gateways between IPv6
	// and IPv4 may have any prefix, so these are looked for wherever RFC 6052 has an
	// address; no other address ends in them but by chance.
	services = prefixes(
		"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "169.254.42.42/32",
		"100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
	)

	// nowhere is what no connection can mean. The unspecified addresses reach this
	// machine on many systems.
	nowhere = prefixes("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/128", "ff00::/8")

	// special is what the registries of special-purpose addresses keep out of the
	// public Internet.
	special = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	)

	// global is all of IPv6 that is given out for public use.
	global = netip.MustParsePrefix("2000::/3")

	compatible = netip.MustParsePrefix("::/96")
	translated = netip.MustParsePrefix("::ffff:0:0:0/96")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	teredo     = netip.MustParsePrefix("2001::/32")
	sixToFour  = netip.MustParsePrefix("2002::/16")
)

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// public reports whether an address that is neither mapped nor barred is one of the public
// Internet. What an IPv6 address carries is judged apart.
func public(a netip.Addr) bool {
	return !within(special, a) && (a.Is4() || global.Contains(a) || nat64.Contains(a))
}

// picker reads four bytes of an IPv6 address as an IPv4 one.
func picker(b [16]byte) func(i, j, k, l int) netip.Addr {
	return func(i, j, k, l int) netip.Addr { return netip.AddrFrom4([4]byte{b[i], b[j], b[k], b[l]}) }
}

// hides reports whether an IPv6 address has that of a metadata service in it, in one of
// the places that gateways read. Byte 8 is skipped in all of them.
func hides(a netip.Addr) bool {
	four := picker(a.As16())
	return slices.ContainsFunc([]netip.Addr{
		four(4, 5, 6, 7), four(5, 6, 7, 9), four(6, 7, 9, 10), four(7, 9, 10, 11), four(9, 10, 11, 12), four(12, 13, 14, 15),
	}, func(inner netip.Addr) bool { return within(services, inner) })
}

// carried lists the IPv4 addresses inside an IPv6 address: a gateway or a tunnel on the
// way, or on this machine, would connect to those. Of certain ones it is known, as the
// prefix says how they are written. Of possible ones the length of the gateway's prefix
// is not known, and all but one of them is noise. A mapped address carries nothing: it
// is another way to write the IPv4 address.
func carried(a netip.Addr) (certain, possible []netip.Addr) {
	b := a.As16()
	four := picker(b)
	last := four(12, 13, 14, 15)
	switch {
	case compatible.Contains(a) && a != netip.IPv6Loopback():
		certain = append(certain, last)
	case translated.Contains(a), nat64.Contains(a):
		certain = append(certain, last)
	case localNAT64.Contains(a):
		// Byte 8 is skipped in all of these forms.
		possible = append(possible, four(6, 7, 9, 10), four(7, 9, 10, 11), four(9, 10, 11, 12), last)
	case sixToFour.Contains(a):
		certain = append(certain, four(2, 3, 4, 5))
	case teredo.Contains(a):
		// The relay, and the client with all bits turned.
		certain = append(certain, four(4, 5, 6, 7), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	}
	// ISATAP is told by the interface's half, behind whatever prefix a site has.
	if b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		certain = append(certain, last)
	}
	return certain, possible
}
