// SPDX-License-Identifier: MPL-2.0

// Package gate answers gateways: may this request, with the key that it presents, pass?
// What the gateways ask, how, and which answers they understand is in the presets; who
// knows the keys is an edge.Verifier.
package gate

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/bearer"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Gate answers with what a Verifier says, by rules.
type Gate struct {
	verifier Verifier
	settings atomic.Pointer[settings]
	log      *slog.Logger
	metrics  *Metrics
}

// New is a gate. There must be rules: without any everything would be refused.
func New(v Verifier, rules []*Rule, keys Keys, metrics *Metrics, log *slog.Logger) *Gate {
	g := &Gate{verifier: v, log: log, metrics: metrics}
	g.Set(rules, keys)
	return g
}

// Set replaces the rules, and where keys are looked for.
func (g *Gate) Set(rules []*Rule, keys Keys) {
	named := Keys{Query: keys.Query}
	for _, name := range keys.Headers {
		named.Headers = append(named.Headers, http.CanonicalHeaderKey(name))
	}
	g.settings.Store(&settings{rules: rules, keys: named})
}

// httpHeader is the header of a request over HTTP.
type httpHeader http.Header

func (h httpHeader) all(name string) []string { return h[name] }

func (h httpHeader) names(yield func(string) bool) {
	for name := range h {
		if !yield(name) {
			return
		}
	}
}

// decide judges a request, counts and tells it.
func (g *Gate) decide(ctx context.Context, gateway string, q *question) (decision, *settings) {
	began := time.Now()
	s := g.settings.Load()
	d := s.decide(ctx, g.verifier, q)
	g.metrics.decided(d.code, time.Since(began))
	g.tell(ctx, gateway, q, &d)
	return d, s
}

// tell logs a decision; never a key, nor what follows the question mark.
func (g *Gate) tell(ctx context.Context, gateway string, q *question, d *decision) {
	level := slog.LevelDebug
	if d.status != http.StatusOK {
		level = slog.LevelInfo
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	path, _, _ := strings.Cut(q.uri, "?")
	attrs := []slog.Attr{
		slog.String("gateway", gateway), slog.String("method", short(q.method)), slog.String("path", short(path)), slog.String("code", d.code), slog.Int("status", d.status),
	}
	if q.addr.IsValid() {
		attrs = append(attrs, slog.String("client", q.addr.String()))
	}
	if v := d.verdict; v != nil && v.KeyID != "" {
		attrs = append(attrs, slog.String("role", v.Role), slog.String("key_id", v.KeyID))
	}
	g.log.LogAttrs(ctx, level, "request", attrs...)
}

// short is a text that a client chose, as a log may hold it: a key in a path too is none
// of the log's business.
func short(text string) string {
	const most = 200
	text = keyformat.Redact(text) // before it is cut: a part of a key would stay
	if len(text) > most {
		text = text[:most] + cut
	}
	return text
}

// noStore has a gateway that caches answers leave these out: a revocation would wait.
var noStore = []string{"no-store"}

// Auth answers the questions of gateways of a kind, and /self. Nothing else is answered
// with a 200, and nothing without a verdict.
func (g *Gate) Auth(presetName string, trusted []netip.Prefix) (http.Handler, error) {
	set, err := presetOf(presetName)
	if err != nil {
		return nil, err
	}
	own := proxies(trusted)
	if len(own) == 0 {
		own = loopback
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Cache-Control"] = noStore
		if r.ContentLength != 0 {
			// No question has a body. What follows its header could be another question, or
			// be taken for one: there is none after it, and nobody waits for it.
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		for name := range r.Trailer {
			// net/http takes the header out where what it announces may follow.
			r.Header["Trailer"] = append(r.Header["Trailer"], name)
		}
		switch path, _, _ := strings.Cut(r.RequestURI, "?"); {
		case set.asks(r):
			q := &question{header: httpHeader(r.Header), trusted: own.trusts(r)}
			q.method, q.uri = set.target(r)
			if q.trusted {
				q.addr = own.client(r, set)
			}
			d, s := g.decide(r.Context(), presetName, q)
			set.answer(w, &d, s)
		case path == "/self":
			g.self(w, r, own, set)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}), nil
}

// answer sends a decision as the gateway understands it.
func (p *preset) answer(w http.ResponseWriter, d *decision, s *settings) {
	h := w.Header()
	pairs := d.headers()
	values := make([]string, len(pairs)) // one place for all of them
	for i, pair := range pairs {
		values[i] = pair.value
		h[pair.name] = values[i : i+1 : i+1]
	}
	status := d.status
	if status == http.StatusTooManyRequests && !p.tooMany {
		status = http.StatusForbidden // X-Apikey-Code says what it is
	}
	if status == http.StatusOK && p.removes != "" {
		h.Set(p.removes, strings.Join(s.keys.removed(), ","))
	}
	if status == http.StatusOK || p.silent {
		w.WriteHeader(status)
		return
	}
	writeJSON(w, status, refusalBody(d))
}

// removed are the headers that the API behind must not see.
func (k *Keys) removed() []string {
	out := []string{"authorization", strings.ToLower(headerCode)} // no answer of 200 has a code: one that is there is the client's
	for _, name := range k.Headers {
		out = append(out, strings.ToLower(name))
	}
	return out
}

func refusalBody(d *decision) map[string]any {
	body := map[string]any{"code": d.code}
	if d.hint != "" {
		body["hint"] = d.hint
	}
	return body
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // the client may be gone
}

// self tells the holder of a key how it is: 200 only where it is good. No rule is asked,
// so it says nothing about what the key may do.
func (g *Gate) self(w http.ResponseWriter, r *http.Request, own proxies, set *preset) {
	began := time.Now()
	s := g.settings.Load()
	h := httpHeader(r.Header)
	q := &question{header: h, method: r.Method, uri: "/self"}
	var d decision
	key, err := s.keys.find(h, r.RequestURI)
	switch {
	case s.keys.tricks(h):
		d = decision{status: http.StatusForbidden, code: codeRequest}
	case errors.Is(err, bearer.ErrNone):
		d = decision{status: http.StatusUnauthorized, code: codeNoKey}
	case err != nil:
		d = decision{status: http.StatusUnauthorized, code: codeTwoKeys}
	default:
		if own.trusts(r) {
			q.addr = own.client(r, set)
		} else if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			q.addr = peer.Addr()
		}
		verdict, err := g.verifier.Verify(r.Context(), edge.Request{Key: key, RemoteAddr: q.addr})
		if err != nil {
			d = decision{status: http.StatusServiceUnavailable, code: codeUnavailable}
		} else {
			d = decision{status: verdict.Status(), code: verdict.Code, hint: verdict.Hint, verdict: &verdict}
		}
	}
	g.metrics.decided(d.code, time.Since(began))
	g.tell(r.Context(), "self", q, &d)
	for _, pair := range d.headers() {
		if d.status != http.StatusOK { // what the API is told is none of the client's business
			w.Header().Set(pair.name, pair.value)
		}
	}
	body := refusalBody(&d)
	if v := d.verdict; v != nil {
		body["now"] = v.Now.UTC().Format(time.RFC3339)
		if v.KeyID != "" {
			body["state"], body["version"], body["key_id"], body["reason"] = v.State, v.Version, v.KeyID, v.Reason
			body["expires_at"] = ""
			if !v.ExpiresAt.IsZero() {
				body["expires_at"] = v.ExpiresAt.UTC().Format(time.RFC3339)
			}
		}
	}
	writeJSON(w, d.status, body)
}
