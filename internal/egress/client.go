// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	// Timeout is how long a request and its answer may take together.
	Timeout = 10 * time.Second
	// MaxAnswer is how much of an answer is read.
	MaxAnswer = 64 << 10
	// MaxPage is how much of a provider's list is.
	MaxPage = 1 << 20

	maxHeader = 64 << 10
	maxCA     = 64 << 10
	idleTime  = 60 * time.Second
	idleConns = 4

	// A connection of HTTP/2 outlives requests that are given up, so one on which nothing
	// arrives any more would let all later ones time out too.
	pingAfter = 3 * time.Second
	pingTime  = 3 * time.Second
)

// Options is what a client stands on. The zero value is the machine.
type Options struct {
	// Resolver asks for the addresses of a name.
	Resolver interface {
		LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	}
	// Dial connects to exactly this address.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Roots vouch for the proxy, and for other sides without a CA of their own; nil
	// means those of the system.
	Roots *x509.CertPool
}

// Client sends requests under one policy, to sides that one CA vouches for.
type Client struct {
	dialer    dialer
	transport *http.Transport
}

// NewClient makes a client. ca is the CA's certificates in PEM; empty means those of
// Options.Roots. The error is the one of ParseCA.
func NewClient(p *Policy, ca string, with Options) (*Client, error) {
	roots := with.Roots
	if ca != "" {
		var err error
		if roots, err = ParseCA("ca", ca); err != nil {
			return nil, err
		}
	}
	c := &Client{dialer: newDialer(p, roots, with)}
	c.transport = &http.Transport{
		// No Proxy: the environment's would take the addresses out of our hands.
		DialContext:            c.dialer.plain,
		DialTLSContext:         c.dialer.tls,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTime},
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // what is read is what was sent
	}
	return c, nil
}

// ParseCA reads certificates in PEM. A private key among them is refused, and nothing of
// the text is repeated.
func ParseCA(field, text string) (*x509.CertPool, error) {
	const todo = "give the certificates of the CA in PEM"
	if len(text) > maxCA {
		return nil, refusal.New(field, nil, "is longer than 64 KiB", todo)
	}
	pool, rest, found := x509.NewCertPool(), []byte(text), false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, refusal.New(field, nil, "holds something else than certificates", todo)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refusal.New(field, nil, "holds a certificate that cannot be read", todo)
		}
		pool.AddCert(cert)
		found = true
	}
	if !found || len(bytes.TrimSpace(rest)) > 0 {
		return nil, refusal.New(field, nil, "must be certificates in PEM and nothing else", todo)
	}
	return pool, nil
}

// Do sends a request and reads at most limit bytes of its answer, MaxPage if that is
// more. A redirect is an answer like others. The error is an *Error, or the one of the
// request's context if the caller gave up. The request stays as it is, its body is used
// up.
func (c *Client) Do(req *http.Request, limit int64) (*Answer, error) {
	if c.dialer.policy.paused {
		closeBody(req)
		return nil, classError(Paused)
	}
	host, port, err := target(req.URL)
	if err != nil || req.Host != "" && req.Host != req.URL.Host {
		closeBody(req)
		return nil, classError(Forbidden)
	}
	ctx, cancel := context.WithTimeout(req.Context(), Timeout)
	defer cancel()
	out := req.Clone(ctx)
	out.URL.Host = joinHost(out.URL.Scheme, host, port)
	out.Host = ""
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "vault-plugin-secrets-apikeys")
	}

	// Not through an http.Client: it would follow redirects.
	resp, err := c.transport.RoundTrip(out)
	if err != nil {
		// What the deadline of the caller says is no more than what ours does.
		if cause := req.Context().Err(); errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		if class := ClassOf(err); class != "" {
			return nil, classError(class)
		}
		return nil, classError(Unreachable)
	}
	defer resp.Body.Close()
	answer := &Answer{Status: resp.StatusCode, Header: resp.Header}
	limit = min(limit, MaxPage)
	answer.Body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if answer.Complete = err == nil && int64(len(answer.Body)) <= limit; int64(len(answer.Body)) > limit {
		answer.Body = answer.Body[:limit]
	}
	return answer, nil
}

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.transport.CloseIdleConnections() }

// closeBody does what the transport does with the body of each request.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

func tlsConfig(roots *x509.CertPool, host string, protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host, NextProtos: protocols}
}
