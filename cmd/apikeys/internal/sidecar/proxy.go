// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

// retryAfter is what whoever comes while there is no key is told to wait, in seconds.
const retryAfter = "5"

// flushWithin is how long a part of an answer may stay here whose length is known: most
// such answers are over by then, and are sent as one. Streams are flushed at once.
const flushWithin = time.Millisecond

// proxy passes requests on to the upstream, with the key.
type proxy struct {
	upstream *url.URL
	header   string // that of the key
	judge    *judge
	reverse  *httputil.ReverseProxy
	metrics  *metrics
	log      *slog.Logger
	failures rate.Sometimes
	life     context.Context //nolint:containedctx // connections that have switched protocols end with it
	running  sync.WaitGroup
}

// exchange is a request that is passed on.
type exchange struct {
	began    time.Time
	attempts int
	body     *body
	upgraded bool
	empty    bool // the answer has no body
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// newProxy passes on over transport, which adds the key.
func newProxy(life context.Context, upstream *url.URL, header string, transport http.RoundTripper, m *metrics, log *slog.Logger) *proxy {
	p := &proxy{upstream: upstream, header: header, metrics: m, log: log, failures: rate.Sometimes{First: 1, Interval: 10 * time.Second}, life: life}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: p.rewrite, Transport: transport, FlushInterval: flushWithin, BufferPool: pooled,
		ModifyResponse: p.answered, ErrorHandler: p.failed, ErrorLog: complaintsTo(log),
	}
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if no := p.judge.refuse(r); no != nil {
		p.metrics.refused.WithLabelValues(no.reason).Inc()
		p.log.Debug("a request was refused", "reason", no.reason)
		tell(w, no.status, "http_request_denied", no.text)
		return
	}
	p.running.Add(1)
	defer p.running.Done()
	p.metrics.inFlight.Inc()
	defer p.metrics.inFlight.Dec()
	x := &exchange{began: time.Now()}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	defer func() {
		if x.body != nil {
			x.body.end()
		}
		if x.upgraded {
			p.metrics.upgraded.Dec()
		}
	}()
	// Answers may begin while the body still comes; with HTTP/2 they may anyway.
	_ = http.NewResponseController(w).EnableFullDuplex()
	p.reverse.ServeHTTP(&writer{w, x}, r)
}

// writer passes an answer on. One without a body is not flushed before it is over: with
// HTTP/2 its header is its end, and gRPC tells by that where the status is.
type writer struct {
	http.ResponseWriter

	x *exchange
}

// FlushError is what a ResponseController calls.
func (w *writer) FlushError() error {
	if w.x.empty {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for a ResponseController too.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// forwarded are headers that httputil takes away. The program and its sidecar are one to
// the upstream: what the program says of whom it works for is passed on, and nothing is
// added.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// rewrite directs a request to the upstream. Headers that concern the connection are gone
// by then; the transport sets the key later.
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	to := *p.upstream
	to.Path = strings.TrimSuffix(to.Path, "/") + in.URL.Path
	to.RawPath = strings.TrimSuffix(p.upstream.EscapedPath(), "/") + in.URL.EscapedPath()
	to.RawQuery, to.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery // as it came
	out.URL = &to
	out.Host = ""
	for _, name := range forwarded {
		if values := in.Header[name]; len(values) > 0 && !httpguts.HeaderValuesContainsToken(in.Header["Connection"], name) {
			out.Header[name] = values
		}
	}
	if out.Header.Get("Origin") != "" {
		// It was that of this address, which the upstream does not know.
		out.Header.Set("Origin", p.upstream.Scheme+"://"+p.upstream.Host)
	}
	out.Trailer = nil
	if out.Body == nil {
		return
	}
	x := exchangeOf(in.Context())
	x.body = newBody(in.Body, in.ContentLength)
	out.Body, out.GetBody, out.Trailer = x.body.current, x.body.again, p.trailer(in.Trailer)
	x.body.atEnd = func() {
		for name := range out.Trailer {
			out.Trailer[name] = in.Trailer[name]
		}
	}
}

// trailer is what comes after a body, as far as it is passed on: its values come later.
func (p *proxy) trailer(announced http.Header) http.Header {
	var trailer http.Header
	for name := range announced {
		if !strings.EqualFold(plainName.Replace(name), plainName.Replace(p.header)) {
			if trailer == nil {
				trailer = http.Header{}
			}
			trailer[name] = nil
		}
	}
	return trailer
}

// plainName is how servers may understand the name of a header.
var plainName = strings.NewReplacer("_", "-", ".", "-")

// answered looks at the upstream's answer before it is passed on.
func (p *proxy) answered(resp *http.Response) error {
	p.metrics.requests.WithLabelValues(class(resp.StatusCode)).Inc()
	x := exchangeOf(resp.Request.Context())
	if x != nil {
		p.metrics.seconds.Observe(time.Since(x.began).Seconds())
		x.empty = resp.ContentLength == 0
		if resp.StatusCode == http.StatusSwitchingProtocols {
			x.upgraded = true
			p.metrics.upgraded.Inc()
		}
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		p.stay(resp.Header)
	}
	return nil
}

// stay has a redirect within the upstream lead here again, and not past this proxy.
func (p *proxy) stay(h http.Header) {
	to, err := url.Parse(h.Get("Location"))
	if err != nil || to.User != nil || to.Opaque != "" {
		return
	}
	if to.Host == "" && to.Scheme == "" {
		if p.upstream.Path == "" {
			return // it leads here anyway
		}
	} else if !strings.EqualFold(to.Host, p.upstream.Host) || to.Scheme != "" && to.Scheme != p.upstream.Scheme {
		return
	}
	path, ok := strings.CutPrefix(to.EscapedPath(), strings.TrimSuffix(p.upstream.EscapedPath(), "/"))
	if !ok || path != "" && path[0] != '/' || strings.HasPrefix(path, "//") || to.Path == "" && to.Host == "" {
		return
	}
	if path == "" {
		path = "/"
	}
	if to.RawQuery != "" || to.ForceQuery {
		path += "?" + to.RawQuery
	}
	if to.Fragment != "" {
		path += "#" + to.EscapedFragment()
	}
	h.Set("Location", path)
}

// failed answers a request for which there is no answer of the upstream.
func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	switch {
	case p.life.Err() != nil:
		p.metrics.failures.WithLabelValues("ending").Inc()
		w.Header().Set("Retry-After", "1")
		tell(w, http.StatusServiceUnavailable, "connection_terminated", "the proxy ends")
	case r.Context().Err() != nil:
		p.metrics.failures.WithLabelValues("canceled").Inc()
		tell(w, http.StatusBadGateway, "connection_terminated", "the request was given up")
	case errors.Is(err, client.ErrNoKey):
		p.metrics.failures.WithLabelValues("no_key").Inc()
		w.Header().Set("Retry-After", retryAfter)
		tell(w, http.StatusServiceUnavailable, "proxy_internal_error", "there is no key yet: the proxy's log says why")
	case x != nil && x.body != nil && x.body.failed() != nil:
		p.metrics.failures.WithLabelValues("body").Inc()
		tell(w, http.StatusBadRequest, "http_request_error", "the request's body broke off")
	default:
		p.metrics.failures.WithLabelValues("upstream").Inc()
		p.failures.Do(func() { p.log.Warn("the upstream does not answer", "upstream", p.upstream.Host, "error", cause(err)) })
		tell(w, http.StatusBadGateway, "destination_unavailable", "the upstream does not answer: the proxy's log says why")
	}
}

// cause is an error without what an upstream has sent: that may be anything, also what it
// was sent.
func cause(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &op) || errors.As(err, &dns) || isTLS(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err.Error()
	}
	return fmt.Sprintf("the answer is none, or broke off (%T)", err)
}

// tell answers by itself. Proxy-Status (RFC 9209) tells such answers from the upstream's.
func tell(w http.ResponseWriter, status int, kind, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Proxy-Status", "apikeys; error="+kind)
	w.WriteHeader(status)
	fmt.Fprintf(w, "apikeys proxy: %s\n", text) //nolint:gosec // plain text, of constants
}

func class(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return string(rune('0'+status/100)) + "xx"
}

// buffers are those that bodies are copied with.
type buffers struct{ pool sync.Pool }

var pooled = &buffers{}

type buffer [32 << 10]byte

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*buffer); ok {
		return buf[:]
	}
	return new(buffer)[:]
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*buffer)(buf)) }
