// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxCIDRs = 256

var (
	errNetwork = errors.New("must be a network or an address")
	errMapped  = errors.New("is a network of IPv4 and IPv6 addresses at once")
)

// ParseNetworks reads a role's allowed_cidrs. One that cannot be read admits
// nobody: it is left out, so a list of which nothing is left still restricts.
func ParseNetworks(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := parseNetwork(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// ParseRemote reads a caller's address, with or without port, zone and
// brackets, as the networks of ParseNetworks can hold it: IPv4 in the form of an
// IPv6 address is IPv4, and the zone is dropped.
func ParseRemote(text string) (netip.Addr, bool) {
	bare := text
	if inner, opens := strings.CutPrefix(text, "["); opens {
		if inner, closes := strings.CutSuffix(inner, "]"); closes {
			bare = inner
		}
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// parseNetwork reads a network, or an address, which is the network of just it.
// IPv4 in the form of an IPv6 address is IPv4.
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

func setCIDRs(p *Policy, v any) error {
	const field = "allowed_cidrs"
	cidrs := v.([]string)
	if slices.Equal(cidrs, p.AllowedCIDRs) {
		return nil
	}
	if len(cidrs) > maxCIDRs {
		return refusal.New(field, len(cidrs), fmt.Sprintf("has more than %d entries", maxCIDRs), "combine some into larger networks")
	}
	for _, c := range cidrs {
		if _, err := parseNetwork(c); err != nil {
			return refusal.New(field, c, err.Error(), "write something like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")
		}
	}
	if p.AllowedCIDRs = slices.Clone(cidrs); len(cidrs) == 0 {
		p.AllowedCIDRs = nil
	}
	return nil
}
