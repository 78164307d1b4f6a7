// SPDX-License-Identifier: MPL-2.0

package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// TransportOptions say to whom the key is sent, and how. Hosts is required.
type TransportOptions struct {
	// Hosts to which the key is sent: "api.example.com", or with a port other than 443
	// "api.example.com:8443"; "127.0.0.1:8080" for an API on this machine. Other hosts
	// get requests without a key.
	Hosts []string
	// Header that holds the key: Authorization by default. Scheme stands before the
	// key, by default Bearer in Authorization and nothing in another header.
	Header, Scheme string
	// Base makes the requests; http.DefaultTransport by default.
	Base http.RoundTripper
	// RefusedStatus are the answers that mean that the key is not accepted: 401 by
	// default. RefusedGRPC are the statuses of gRPC that do: 16, UNAUTHENTICATED.
	RefusedStatus, RefusedGRPC []int
}

// Transport adds the current key to requests: only over TLS or to a literal loopback
// address, only to the hosts given, and not to one to which another host has redirected.
// A request that is refused is made once more if there is another key by then, and if
// its body can be sent again (see http.Request.GetBody).
type Transport struct {
	source         *Source
	base           http.RoundTripper
	hosts          map[string]bool
	header, scheme string
	status, grpc   []int
}

// NewTransport is a Transport for the key of source.
func NewTransport(source *Source, opt TransportOptions) (*Transport, error) {
	t := &Transport{source: source, base: opt.Base, hosts: map[string]bool{}, header: opt.Header, status: opt.RefusedStatus, grpc: opt.RefusedGRPC}
	if source == nil {
		return nil, errors.New("client: a Transport needs a Source")
	}
	if len(opt.Hosts) == 0 {
		return nil, errors.New("client: Hosts: say to which hosts the key may be sent")
	}
	for _, text := range opt.Hosts {
		host, err := parseHost(text)
		if err != nil {
			return nil, fmt.Errorf("client: Hosts: %q: %w", text, err)
		}
		t.hosts[host] = true
	}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	if t.header == "" {
		t.header = "Authorization"
	}
	if !httpguts.ValidHeaderFieldName(t.header) {
		return nil, fmt.Errorf("client: Header: %q is no name of a header", t.header)
	}
	t.header = textproto.CanonicalMIMEHeaderKey(t.header)
	if slices.Contains([]string{"Host", "Connection", "Content-Length", "Content-Type", "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Cookie"}, t.header) {
		return nil, fmt.Errorf("client: Header: %s means something else", t.header)
	}
	t.scheme = opt.Scheme
	if t.scheme == "" && t.header == "Authorization" {
		t.scheme = "Bearer"
	}
	if t.scheme != "" {
		if !httpguts.ValidHeaderFieldName(t.scheme) {
			return nil, fmt.Errorf("client: Scheme: %q is not one word", t.scheme)
		}
		t.scheme += " "
	}
	if t.status == nil {
		t.status = []int{http.StatusUnauthorized}
	}
	if t.grpc == nil {
		t.grpc = []int{grpcUnauthenticated}
	}
	return t, nil
}

const grpcUnauthenticated = 16

// parseHost is a host as it is compared: lower case, with its port.
func parseHost(text string) (string, error) {
	if strings.Contains(text, "/") {
		return "", errors.New("give a host such as api.example.com, not a URL")
	}
	u, err := url.Parse("https://" + text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("give a host such as api.example.com or api.example.com:8443")
	}
	return hostOf(u), nil
}

// hostOf is the host of a URL with its port, as hosts are compared.
func hostOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port)
}

// loopback reports whether a host is a literal address of this machine. A name, also
// localhost, is what some resolver says.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// eligible reports whether the key may be sent to a URL.
func (t *Transport) eligible(u *url.URL) bool {
	return t.hosts[hostOf(u)] && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

// stayed reports whether every hop that has led to a request was to one that may have the
// key: where another host has chosen the target, it gets none.
func (t *Transport) stayed(req *http.Request) bool {
	for resp := req.Response; resp != nil; resp = resp.Request.Response {
		if resp.Request == nil || !t.eligible(resp.Request.URL) {
			return false
		}
	}
	return true
}

// ErrInsecure means that a request would have sent the key without TLS.
var ErrInsecure = errors.New("the key is not sent without TLS, but to a literal loopback address: use https")

// RoundTrip makes a request, with the key where it belongs.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.eligible(req.URL) || !t.stayed(req) {
		if req.Response == nil && t.hosts[hostOf(req.URL)] && req.URL.Scheme == "http" {
			closeBody(req)
			return nil, fmt.Errorf("client: %s: %w", req.URL.Host, ErrInsecure)
		}
		return t.base.RoundTrip(req)
	}
	h, err := t.source.current(req.Context())
	if err != nil {
		closeBody(req)
		return nil, fmt.Errorf("client: %w", err)
	}
	resp, err := t.try(req, h, req.Body)
	if err != nil || !t.refuses(resp) {
		return resp, err
	}
	next := t.source.refused(req.Context(), h)
	if next == nil {
		return resp, nil
	}
	body, ok := again(req)
	if !ok {
		t.source.free(next)
		return resp, nil
	}
	drain(resp.Body)
	resp, err = t.try(req, next, body)
	if err == nil && t.refuses(resp) {
		t.source.noteRefused(next)
	}
	return resp, err
}

const (
	// maxDrained is how much of a refusal is read, and drainTime how long.
	maxDrained = 64 << 10
	drainTime  = time.Second
)

// drain reads what is left of a refusal, so that its connection can be used again.
func drain(body io.ReadCloser) {
	late := time.AfterFunc(drainTime, func() { body.Close() })
	_, _ = io.CopyN(io.Discard, body, maxDrained)
	late.Stop()
	body.Close()
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// again is the body once more.
func again(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

// try makes a request with a key, which it lets go when the answer has been read.
func (t *Transport) try(req *http.Request, h *held, body io.ReadCloser) (*http.Response, error) {
	keyed := req.Clone(req.Context())
	keyed.Body = body
	keyed.Trailer = req.Trailer // the caller sets its values while the body is read
	if keyed.Header == nil {
		keyed.Header = http.Header{}
	}
	for name := range keyed.Header {
		// Also one that was written in another way, which a server may take for it.
		if sameHeader(name, t.header) {
			delete(keyed.Header, name)
		}
	}
	keyed.Header.Set(t.header, t.scheme+h.Value)
	resp, err := t.base.RoundTrip(keyed)
	if err != nil {
		t.source.free(h)
		return nil, err
	}
	resp.Request = req // whoever looks at it finds no key
	code, known := grpcStatus(resp.Header)
	switch {
	case slices.Contains(t.status, resp.StatusCode) || known && slices.Contains(t.grpc, code):
	case isGRPC(resp) && (!known || code != 0):
		// Its status comes after its messages, or says nothing about the key.
	case resp.StatusCode < 400:
		t.source.succeeded(h)
	}
	resp.Body = t.watch(resp, h)
	return resp, nil
}

// sameHeader reports whether two names are the same header, at servers that take - and _
// and . for each other too.
func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if folded(a[i]) != folded(b[i]) {
			return false
		}
	}
	return true
}

func folded(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_' || c == '.':
		return '-'
	}
	return c
}

// refuses reports whether an answer means that the key is not accepted. Of gRPC that is
// so where the status comes before any message.
func (t *Transport) refuses(resp *http.Response) bool {
	if slices.Contains(t.status, resp.StatusCode) {
		return true
	}
	code, known := grpcStatus(resp.Header)
	return known && isGRPC(resp) && slices.Contains(t.grpc, code)
}

func isGRPC(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc")
}

// grpcStatus is the status of a call, in a header or in a trailer.
func grpcStatus(h http.Header) (code int, known bool) {
	text := h.Get("Grpc-Status")
	if text == "" {
		return 0, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' || code > 1000 {
			return 0, false
		}
		code = code*10 + int(c-'0')
	}
	return code, true
}

// body is that of an answer, which lets the key go when it was read or is closed.
type body struct {
	io.ReadCloser

	once sync.Once
	end  func(read bool)
	some bool // something was read
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.some = b.some || n > 0
	if err != nil {
		b.once.Do(func() { b.end(errors.Is(err, io.EOF) && !b.some) })
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.end(false) })
	return err
}

// duplex is the body of an answer that has switched protocols.
type duplex struct {
	*body
	io.Writer
}

// watch is the body of an answer to a request with a key.
func (t *Transport) watch(resp *http.Response, h *held) io.ReadCloser {
	b := &body{ReadCloser: resp.Body}
	_, known := grpcStatus(resp.Header)
	late := isGRPC(resp) && !known
	b.end = func(empty bool) {
		if late {
			// Trailers alone say what came of a call without messages.
			code, known := grpcStatus(resp.Trailer)
			switch {
			case empty && known && slices.Contains(t.grpc, code):
				t.source.noteRefused(h)
			case !empty || known && code == 0:
				t.source.succeeded(h)
			}
		}
		t.source.free(h)
	}
	if w, ok := resp.Body.(io.Writer); ok {
		return &duplex{b, w}
	}
	return b
}

// CloseIdleConnections closes those of the transport below.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
