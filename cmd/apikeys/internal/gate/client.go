// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the networks whose word counts about who a client is and what it asked
// for.
type proxies []netip.Prefix

// loopback are the proxies unless others are named.
var loopback = proxies{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func (p proxies) has(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// trusts reports whether the word of who sent the request counts. Whoever comes through
// a Unix socket was let through by its permissions.
func (p proxies) trusts(r *http.Request) bool {
	if local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); local != nil && local.Network() == "unix" {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && p.has(peer.Addr())
}

// client is the address of the client, as a proxy of ours says; not valid where it does
// not.
func (p proxies) client(r *http.Request, set *preset) netip.Addr {
	values := r.Header[set.address]
	if !set.forwarded {
		addr, _ := netip.ParseAddr(strings.TrimSpace(only(values)))
		return addr
	}
	return p.lastOutside(strings.Join(values, ","))
}

// lastOutside is the last address of a list that is not one of ours: what comes before
// it the client may have written.
func (p proxies) lastOutside(list string) netip.Addr {
	for list != "" {
		i := strings.LastIndexByte(list, ',')
		text := strings.TrimSpace(list[i+1:])
		list = list[:max(i, 0)]
		addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
		if err != nil {
			ap, perr := netip.ParseAddrPort(text)
			if perr != nil {
				return netip.Addr{}
			}
			addr = ap.Addr()
		}
		if !p.has(addr) || list == "" {
			return addr
		}
	}
	return netip.Addr{}
}
