// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"
)

const (
	// maxAddrs is how many addresses of a name are tried.
	maxAddrs = 8
	// connectTime ends before the request's time does, so that it is known what took so
	// long.
	connectTime = Timeout - 250*time.Millisecond
)

// dialer connects where its policy permits. What it judges is what it dials: an address,
// asked for once, and never the name again.
type dialer struct {
	policy *Policy
	roots  *x509.CertPool // of the other sides
	with   Options
}

func newDialer(p *Policy, roots *x509.CertPool, with Options) dialer {
	if with.Resolver == nil {
		with.Resolver = net.DefaultResolver
	}
	if with.Dial == nil {
		with.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		}
	}
	return dialer{policy: p, roots: roots, with: with}
}

// plain connects for http, which is for this machine only.
func (d dialer) plain(ctx context.Context, _, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, _, err := d.connect(ctx, hostport, true)
	return conn, err
}

// tls connects for https. The transport's context outlives its request, hence the
// time-out of its own.
func (d dialer) tls(ctx context.Context, _, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, host, err := d.connect(ctx, hostport, false)
	if err != nil {
		return nil, err
	}
	return handshake(ctx, conn, tlsConfig(d.roots, host, "h2", "http/1.1"))
}

// handshake proves who the other side is, or closes the connection.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secured := tls.Client(prompt{conn}, config)
	err := secured.HandshakeContext(ctx)
	if err == nil {
		return secured, nil
	}
	conn.Close()
	if brokeOff(err) {
		return nil, classError(Unreachable)
	}
	return nil, classError(TLS)
}

// farewell is how long the other side has to take the last words of TLS.
const farewell = 100 * time.Millisecond

// prompt is a connection that closes soon: TLS would give five seconds to a side that
// reads nothing, after all of its time is over. Nobody else sets a time for writing.
type prompt struct{ net.Conn }

func (c prompt) SetWriteDeadline(t time.Time) error {
	if soon := time.Now().Add(farewell); t.After(soon) {
		t = soon
	}
	return c.Conn.SetWriteDeadline(t)
}

// brokeOff reports whether a handshake ended with its connection, or its time: that is no
// more than one that was refused. What the other side says in TLS is a network's error
// too, but none of reading or writing.
func brokeOff(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, end) {
			return true
		}
	}
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "read" || op.Op == "write")
}

// connect resolves, judges and dials. The time that is left is shared among the
// addresses that are permitted.
func (d dialer) connect(ctx context.Context, hostport string, local bool) (_ net.Conn, host string, _ error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, "", classError(Forbidden)
	}
	port, err := parsePort(portText)
	if err != nil || !d.policy.mayName(host, port) {
		return nil, "", classError(Forbidden)
	}
	addrs, err := d.resolve(ctx, host)
	if err != nil {
		return nil, "", classError(Unreachable)
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return !d.policy.Permits(host, port, a) || local && !a.Unmap().IsLoopback()
	})
	if len(addrs) == 0 {
		return nil, "", classError(Forbidden)
	}
	addrs = addrs[:min(len(addrs), maxAddrs)]
	class := Unreachable
	for i, addr := range addrs {
		conn, err := d.dialOne(ctx, netip.AddrPortFrom(addr.Unmap(), port), len(addrs)-i)
		if err == nil {
			return conn, host, nil
		}
		if c := ClassOf(err); c != "" {
			class = c
		}
	}
	return nil, "", classError(class)
}

// resolve returns a new slice: a resolver may keep its own.
func (d dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := d.with.Resolver.LookupNetIP(ctx, "ip", host)
	return slices.Clone(addrs), err
}

// dialOne dials with one share of the time that is left.
func (d dialer) dialOne(ctx context.Context, to netip.AddrPort, shares int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	// A proxy that is asked for loopback would reach its own.
	if d.policy.proxy == nil || to.Addr().IsLoopback() {
		return d.with.Dial(ctx, to)
	}
	conn, err := d.dialProxy(ctx)
	if err != nil {
		return nil, classError(Proxy)
	}
	if err := tunnel(ctx, conn, to); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (d dialer) dialProxy(ctx context.Context) (net.Conn, error) {
	proxy := d.policy.proxy
	addrs, err := d.resolve(ctx, proxy.host)
	if err != nil {
		return nil, err
	}
	err = errors.New("the proxy has no address")
	for _, addr := range addrs {
		var conn net.Conn
		if conn, err = d.with.Dial(ctx, netip.AddrPortFrom(addr.Unmap(), proxy.port)); err != nil {
			continue
		}
		if proxy.scheme == "https" {
			return handshake(ctx, conn, tlsConfig(d.with.Roots, proxy.host, "http/1.1"))
		}
		return conn, nil
	}
	return nil, err
}

// tunnel has the proxy connect to an address. Whatever it answers but 200 is no more
// than a connection that was refused.
func tunnel(ctx context.Context, conn net.Conn, to netip.AddrPort) error {
	// An end of the context ends reads and writes.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: to.String()}}
	if err := req.Write(conn); err != nil {
		return classError(Proxy)
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	r := bufio.NewReader(limited)
	resp, err := http.ReadResponse(r, req) //nolint:bodyclose // that would wait for its end; the connection is closed instead
	if err != nil {
		return classError(Unreachable)
	}
	// In TLS it is us who speak first.
	if resp.StatusCode != http.StatusOK || r.Buffered() > 0 || !stop() {
		return classError(Unreachable)
	}
	return nil
}
