// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// parseUpstream is the one upstream. The key goes there over TLS, or stays on this
// machine.
func parseUpstream(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%q: is not a URL such as https://api.example.com", text)
	}
	switch {
	case u.User != nil:
		return nil, errors.New("holds a user: give the URL without it") // and without telling the password
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%q: has a query or a fragment: give scheme, host and path", text)
	case climbs(u.EscapedPath()):
		return nil, fmt.Errorf("%q: its path holds .. segments", text)
	}
	if u.Scheme == "http" {
		if addr, err := netip.ParseAddr(u.Hostname()); err != nil || !addr.IsLoopback() {
			return nil, fmt.Errorf("%q: would send the key without TLS: use https, or a literal loopback address such as http://127.0.0.1:8080", text)
		}
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// hostPort is the upstream's, with its port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// connections to the upstream.
type connections struct {
	plain, h2c *http.Transport
	metrics    *metrics
}

// connect reaches the upstream, which shows a certificate of the pool; nil are the
// machine's.
func connect(pool *x509.CertPool, m *metrics) *connections {
	base := func() *http.Transport {
		return &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			// It would ask for compressed answers, and give them out in another way.
			DisableCompression:     true,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			ExpectContinueTimeout:  time.Second,
			TLSClientConfig:        &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: 1 << 20,
			// A connection that died unnoticed is found by asking.
			HTTP2:     &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
			Protocols: new(http.Protocols),
		}
	}
	c := &connections{plain: base(), h2c: base(), metrics: m}
	c.plain.Protocols.SetHTTP1(true)
	c.plain.Protocols.SetHTTP2(true)
	c.h2c.Protocols.SetUnencryptedHTTP2(true)
	return c
}

// RoundTrip makes a request.
func (c *connections) RoundTrip(r *http.Request) (*http.Response, error) {
	if x := exchangeOf(r.Context()); x != nil {
		if x.attempts++; x.attempts == 2 {
			c.metrics.retries.Inc()
		}
	}
	// There is gRPC over HTTP/2 only; without TLS nobody can negotiate it.
	if r.URL.Scheme == "http" && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return c.h2c.RoundTrip(r)
	}
	return c.plain.RoundTrip(r)
}

// CloseIdleConnections closes those that are not in use.
func (c *connections) CloseIdleConnections() {
	c.plain.CloseIdleConnections()
	c.h2c.CloseIdleConnections()
}

// readPool are the certificates in a file.
func readPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the machine's
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s: holds no certificate", file)
	}
	return pool, nil
}

// isTLS reports whether an error is one of TLS: it tells of certificates and protocols.
func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	return errors.As(err, &verification) || errors.As(err, &alert)
}
