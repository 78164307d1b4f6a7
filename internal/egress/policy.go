// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// The fields of config that make a policy, as refusals name them.
const (
	AllowField = "egress_allow"
	ProxyField = "egress_proxy"
)

const (
	// MaxEntries is how long egress_allow can be.
	MaxEntries = 256

	maxEntryLen = 300
	anyPort     = 0
	defaultPort = 443
)

// Config is what an operator wrote.
type Config struct {
	// Allow has entries of these forms; see the package comment.
	//
	//	hooks.example.com  *.example.com:8443  10.20.0.0/16  fd12:3456::/32:*  !10.20.0.5
	Allow []string
	// Proxy is the URL of a proxy, http or https, that takes all connections but those
	// to this machine. Empty means none.
	Proxy string
	// Paused stops everything.
	Paused bool
}

// Policy says what may leave. It never changes. The zero Policy lets nothing leave.
type Policy struct {
	allow, deny []entry
	entries     []string
	proxy       *proxy
	paused      bool
}

// entry is one of egress_allow: a host pattern if network is not valid.
type entry struct {
	host     string // canonical; *.example.com has the host .example.com
	wildcard bool
	network  netip.Prefix
	port     uint16 // or anyPort
}

// Parse reads what an operator wrote. Its errors are refusals of AllowField and
// ProxyField.
func Parse(c Config) (*Policy, error) {
	p := &Policy{paused: c.Paused}
	if len(c.Allow) > MaxEntries {
		return nil, refusal.New(AllowField, len(c.Allow), fmt.Sprintf("has more than %d entries", MaxEntries), "combine some into patterns or larger networks")
	}
	for _, text := range c.Allow {
		e, excludes, err := parseEntry(text)
		if err != nil {
			return nil, err
		}
		canonical := e.text(excludes)
		if slices.Contains(p.entries, canonical) {
			continue
		}
		p.entries = append(p.entries, canonical)
		if excludes {
			p.deny = append(p.deny, e)
		} else {
			p.allow = append(p.allow, e)
		}
	}
	if c.Proxy != "" {
		var err error
		if p.proxy, err = parseProxy(c.Proxy); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Entries is egress_allow in the canonical form, each entry once, in the order given.
func (p *Policy) Entries() []string { return slices.Clone(p.entries) }

// Proxy is egress_proxy in the canonical form.
func (p *Policy) Proxy() string {
	if p.proxy == nil {
		return ""
	}
	return p.proxy.String()
}

// Paused reports whether everything is stopped.
func (p *Policy) Paused() bool { return p.paused }

// Equal reports whether two policies say the same in the same words.
func (p *Policy) Equal(q *Policy) bool {
	return p.paused == q.paused && p.Proxy() == q.Proxy() && slices.Equal(p.entries, q.entries)
}

// Names reports whether the policy may let a request to this URL leave, as far as can
// be known without asking for addresses: a request that it does not name never leaves.
// It is meant for warnings when the URL is written. A pause is left out of it.
func (p *Policy) Names(u *url.URL) bool {
	host, port, err := target(u)
	if err != nil {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.Permits(host, port, addr)
	}
	return p.mayName(host, port)
}

// mayName reports whether any address of a host could be permitted. Names for which none
// can are not even asked for.
func (p *Policy) mayName(host string, port uint16) bool {
	return !p.excludesHost(host, port) && (p.namesHost(host, port) || p.hasNetworks(port))
}

// Permits reports whether a connection for this host, in the canonical form, may go to
// this address and port. A pause is left out of it.
//
// An IPv4 address that is written as an IPv6 one is the IPv4 address. An IPv6 address
// that carries an IPv4 one needs both of them to be public or listed.
func (p *Policy) Permits(host string, port uint16, addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" || port == 0 || p.excludesHost(host, port) {
		return false
	}
	addr = addr.Unmap()
	if p.bars(addr, port) {
		return false
	}
	if !p.lists(addr, port) && !(p.namesHost(host, port) && public(addr)) {
		return false
	}
	certain, possible := carried(addr)
	for _, inner := range certain {
		if p.bars(inner, port) || !p.lists(inner, port) && !public(inner) {
			return false
		}
	}
	// Most of these are no addresses at all, so they are only looked for among those
	// that nobody wants to reach.
	for _, inner := range possible {
		if within(metadata, inner) || p.excludes(inner, port) {
			return false
		}
	}
	return true
}

// bars reports whether no entry can allow the address.
func (p *Policy) bars(a netip.Addr, port uint16) bool {
	return within(metadata, a) || hides(a) || within(nowhere, a) || p.excludes(a, port)
}

func (p *Policy) excludes(a netip.Addr, port uint16) bool {
	return slices.ContainsFunc(p.deny, func(e entry) bool { return e.holds(a, port) })
}

func (p *Policy) lists(a netip.Addr, port uint16) bool {
	return slices.ContainsFunc(p.allow, func(e entry) bool { return e.holds(a, port) })
}

func (p *Policy) excludesHost(host string, port uint16) bool {
	return slices.ContainsFunc(p.deny, func(e entry) bool { return e.matches(host, port) })
}

func (p *Policy) namesHost(host string, port uint16) bool {
	return slices.ContainsFunc(p.allow, func(e entry) bool { return e.matches(host, port) })
}

func (p *Policy) hasNetworks(port uint16) bool {
	return slices.ContainsFunc(p.allow, func(e entry) bool { return e.network.IsValid() && e.onPort(port) })
}

func (e entry) onPort(port uint16) bool { return e.port == anyPort || e.port == port }

func (e entry) holds(a netip.Addr, port uint16) bool {
	return e.network.IsValid() && e.onPort(port) && e.network.Contains(a)
}

func (e entry) matches(host string, port uint16) bool {
	if e.network.IsValid() || !e.onPort(port) {
		return false
	}
	if e.wildcard {
		return strings.HasSuffix(host, e.host)
	}
	return host == e.host
}

func (e entry) text(excludes bool) string {
	text := e.host
	if e.network.IsValid() {
		text = e.network.String()
	} else if e.wildcard {
		text = "*" + e.host
	}
	if excludes {
		text = "!" + text
	}
	unsaid := uint16(defaultPort)
	if excludes {
		unsaid = anyPort
	}
	switch {
	case e.port == unsaid:
		return text
	case e.port == anyPort:
		return text + ":*"
	}
	return text + ":" + strconv.Itoa(int(e.port))
}

// parseEntry reads one entry. Where it says no port, an allowing one means 443 and an
// excluding one means all.
func parseEntry(text string) (e entry, excludes bool, err error) {
	refuse := func(rule, todo string) (entry, bool, error) {
		return entry{}, false, refusal.New(AllowField, text, rule, todo)
	}
	const forms = "write host[:port], *.domain[:port] or network/bits[:port]"
	if len(text) > maxEntryLen {
		return refuse(fmt.Sprintf("is longer than %d characters", maxEntryLen), forms)
	}
	if strings.Contains(text, "://") {
		return refuse("is a URL", "write its host: "+forms)
	}
	rest, excludes := strings.CutPrefix(text, "!")
	if e.port = defaultPort; excludes {
		e.port = anyPort
	}

	name, port := splitEntry(rest)
	if port != nil {
		if e.port, err = parsePort(*port); err != nil {
			return refuse(err.Error(), "write a number up to 65535, or * for all")
		}
	}
	if network, isNetwork, err := parseNetwork(name); isNetwork {
		if err != nil {
			return refuse(err.Error(), "write something like 10.20.0.0/16, 10.1.2.3 or fd12:3456::/32:8443")
		}
		if !excludes && unreachable(network) {
			return refuse("is never reached: metadata services and link-local addresses are barred", "leave it out")
		}
		e.network = network
		return e, excludes, nil
	}

	host, wildcard := strings.CutPrefix(name, "*.")
	host, err = canonicalHost(host)
	switch {
	case name == "*" || name == "*.":
		return refuse("names everything", "name the hosts, or networks such as 0.0.0.0/0")
	case err != nil:
		return refuse(err.Error(), forms)
	case !excludes && (host == "localhost" || strings.HasSuffix(host, ".localhost")):
		return refuse("is this machine, and patterns name public addresses only", "name the network, such as 127.0.0.1/32:8080")
	case wildcard && !excludes && !strings.Contains(host, "."):
		return refuse("takes in a whole top-level domain", "name a domain, such as *.example.com")
	}
	if e.host, e.wildcard = host, wildcard; wildcard {
		e.host = "." + host
	}
	return e, excludes, nil
}

// splitEntry cuts the port off. Without brackets or a network's length, the colons of
// an IPv6 address are its own.
func splitEntry(text string) (name string, port *string) {
	after := 0
	if i := strings.LastIndexAny(text, "/]"); i >= 0 {
		after = i
	} else if strings.Count(text, ":") > 1 {
		return text, nil
	}
	if i := strings.IndexByte(text[after:], ':'); i >= 0 {
		p := text[after+i+1:]
		return text[:after+i], &p
	}
	return text, nil
}

var errPort = errors.New("has no port behind its colon")

func parsePort(text string) (uint16, error) {
	if text == "*" {
		return anyPort, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || text[0] == '0' {
		return 0, errPort
	}
	return uint16(n), nil
}

// parseNetwork reads a network, or an address, which is the network of just it.
// isNetwork reports whether the text is meant to be one.
func parseNetwork(text string) (_ netip.Prefix, isNetwork bool, err error) {
	bare, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var closed bool
		if bare, closed = strings.CutSuffix(bare, "]"); !closed {
			return netip.Prefix{}, true, errNetwork
		}
	}
	var network netip.Prefix
	if strings.Contains(bare, "/") {
		if network, err = netip.ParsePrefix(bare); err != nil || bracketed {
			return netip.Prefix{}, true, errNetwork
		}
	} else {
		addr, err := netip.ParseAddr(bare)
		if err != nil && !bracketed && !strings.Contains(bare, ":") {
			return netip.Prefix{}, false, nil //nolint:nilerr // a name, then
		}
		if err != nil || addr.Zone() != "" || bracketed && addr.Is4() {
			return netip.Prefix{}, true, errNetwork
		}
		network = netip.PrefixFrom(addr, addr.BitLen())
	}
	if network.Addr().Is4In6() {
		if network.Bits() < 96 {
			return netip.Prefix{}, true, errMapped
		}
		network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-96)
	}
	if network != network.Masked() {
		return netip.Prefix{}, true, fmt.Errorf("has bits set after its length: is %s meant?", network.Masked())
	}
	return network, true, nil
}

var (
	errNetwork = errors.New("must be a network or an address")
	errMapped  = errors.New("is a network of IPv4 and IPv6 addresses at once")
)

// unreachable reports whether all of a network is barred.
func unreachable(n netip.Prefix) bool {
	for _, list := range [][]netip.Prefix{metadata, nowhere} {
		for _, p := range list {
			if p.Bits() <= n.Bits() && p.Contains(n.Addr()) {
				return true
			}
		}
	}
	return false
}
