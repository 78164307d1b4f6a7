// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxURLLen = 2048

// ParseURL reads where a request may go, as far as can be known without a policy:
// https, or http to this machine; a host in plain form; nothing that a reader of the URL
// could take for another host. The host of the result is canonical. A URL may hold a
// secret, so the refusals do not repeat it.
func ParseURL(field, text string) (*url.URL, error) {
	refuse := func(rule, todo string) (*url.URL, error) { return nil, refusal.New(field, nil, rule, todo) }
	const todo = "write something like https://hooks.example.com/apikeys"
	if len(text) > maxURLLen {
		return refuse("is longer than 2048 characters", "give a shorter one")
	}
	u, err := url.Parse(text)
	if err != nil {
		return refuse("cannot be read as a URL", todo)
	}
	host, port, err := target(u)
	if err != nil {
		return refuse(err.Error(), todo)
	}
	u.Host = joinHost(u.Scheme, host, port)
	return u, nil
}

var (
	errScheme   = errors.New("must begin with https://")
	errInsecure = errors.New("may leave out TLS to this machine only: localhost, 127.0.0.1 or [::1]")
	errUser     = errors.New("holds a user name or password before its host")
	errFragment = errors.New("has a fragment, which is never sent")
	errOpaque   = errors.New("has no host")
	errURLPort  = errors.New("has no port behind the colon of its host")
	errHost     = errors.New("must have a host of letters, digits, hyphens and dots")
	errUnicode  = errors.New("has a host that is not ASCII: write its punycode form (xn--…)")
	errNumber   = errors.New("has a host that some read as an address and others do not: write four decimal numbers")
	errZone     = errors.New("has an address with a zone")
)

// target is where a URL leads: its host in the canonical form, and the port. They come
// with errInsecure too.
func target(u *url.URL) (host string, port uint16, err error) {
	switch {
	case u.Opaque != "" || u.Host == "":
		return "", 0, errOpaque
	case u.Scheme != "https" && u.Scheme != "http":
		return "", 0, errScheme
	case u.User != nil:
		return "", 0, errUser
	case u.Fragment != "":
		return "", 0, errFragment
	}
	host = u.Host
	bracketed := strings.HasPrefix(host, "[")
	end := strings.IndexByte(host, ':')
	if bracketed {
		closing := strings.IndexByte(host, ']')
		if closing < 0 {
			return "", 0, errHost
		}
		if end = strings.IndexByte(host[closing:], ':'); end >= 0 {
			end += closing
		}
	}
	port = schemePort(u.Scheme)
	if end >= 0 {
		if port, err = parsePort(host[end+1:]); err != nil || port == anyPort {
			return "", 0, errURLPort
		}
		host = host[:end]
	}
	if host, err = canonicalTarget(host); err != nil {
		return "", 0, err
	}
	if u.Scheme == "http" && !local(host) {
		return host, port, errInsecure
	}
	return host, port, nil
}

// canonicalTarget is the one form of a URL's host: an address without brackets, or a
// name.
func canonicalTarget(text string) (string, error) {
	if inner, opens := strings.CutPrefix(text, "["); opens {
		inner, closes := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		switch {
		case !closes || err != nil || addr.Is4():
			return "", errHost
		case addr.Zone() != "":
			return "", errZone
		}
		return addr.Unmap().String(), nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() {
		return addr.String(), nil
	}
	return canonicalHost(text)
}

// canonicalHost is a name in lower case without the dot that may end it. Names that
// resolvers and browsers read as an address, such as 0x7f.1 and 2130706433, are none.
func canonicalHost(text string) (string, error) {
	host := strings.TrimSuffix(text, ".")
	if host == "" || len(host) > 253 {
		return "", errHost
	}
	for _, r := range host {
		if r >= utf8.RuneSelf {
			return "", errUnicode
		}
	}
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", errHost
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", errNumber
	}
	return host, nil
}

// local reports whether a host is this machine by its spelling.
func local(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func schemePort(scheme string) uint16 {
	if scheme == "http" {
		return 80
	}
	return 443
}

// joinHost is a canonical host and port as a URL has them.
func joinHost(scheme, host string, port uint16) string {
	if port != schemePort(scheme) {
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// proxy is egress_proxy, read.
type proxy struct {
	scheme, host string
	port         uint16
}

func (p *proxy) String() string { return p.scheme + "://" + joinHost(p.scheme, p.host, p.port) }

// parseProxy reads egress_proxy. Where it is, is the operator's to say: its host is held
// to no list.
func parseProxy(text string) (*proxy, error) {
	refuse := func(rule string) (*proxy, error) {
		return nil, refusal.New(ProxyField, nil, rule, "write something like http://proxy.example.com:3128")
	}
	u, err := url.Parse(text)
	if err != nil {
		return refuse("cannot be read as a URL")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery {
		return refuse("has a path or a query")
	}
	host, port, err := target(u)
	if err != nil && !errors.Is(err, errInsecure) {
		return refuse(err.Error())
	}
	return &proxy{u.Scheme, host, port}, nil
}
