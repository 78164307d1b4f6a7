// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/bearer"
)

// Verifier is who knows keys.
type Verifier interface {
	Verify(ctx context.Context, req edge.Request) (edge.Verdict, error)
}

// question is what a gateway asks: may this request pass?
type question struct {
	method, uri string
	header      header
	addr        netip.Addr
	trusted     bool // who asks is a proxy of ours
	joined      bool // headers that came twice are one, with a comma
}

// The codes of refusals that are no verdict about a key.
const (
	codeNoKey       = "NO_KEY"
	codeTwoKeys     = "AMBIGUOUS_KEY"
	codeNoRule      = "NO_RULE"
	codeRequest     = "AMBIGUOUS_REQUEST"
	codeUntrusted   = "UNTRUSTED_PROXY"
	codeUnavailable = "UNAVAILABLE"
)

// decision is the answer to a question.
type decision struct {
	status  int
	code    string
	hint    string
	scopes  []string // of the rule, for a key that lacks some
	verdict *edge.Verdict
}

// settings are what may change while the edge runs.
type settings struct {
	rules []*Rule
	keys  Keys
}

// decide judges a request. What is ambiguous is refused before anybody looks at its key.
func (s *settings) decide(ctx context.Context, v Verifier, q *question) decision {
	if !q.trusted {
		return decision{status: http.StatusForbidden, code: codeUntrusted}
	}
	path, err := cleanPath(q.uri)
	if err != nil || q.method == "" || s.keys.tricks(q.header) {
		return decision{status: http.StatusForbidden, code: codeRequest}
	}
	key, err := s.keys.find(q.header, q.uri)
	switch {
	case errors.Is(err, bearer.ErrNone):
		return decision{status: http.StatusUnauthorized, code: codeNoKey}
	case err != nil, q.joined && strings.Contains(key, ","):
		return decision{status: http.StatusUnauthorized, code: codeTwoKeys}
	}
	rule := ruleFor(s.rules, q.method, path)
	if rule == nil {
		return decision{status: http.StatusForbidden, code: codeNoRule}
	}
	verdict, err := v.Verify(ctx, edge.Request{Key: key, Scopes: rule.scopes, AnyScope: rule.anyScope, RemoteAddr: q.addr})
	if err != nil {
		return decision{status: http.StatusServiceUnavailable, code: codeUnavailable}
	}
	return decision{status: verdict.Status(), code: verdict.Code, hint: verdict.Hint, scopes: rule.scopes, verdict: &verdict}
}

// pair is a header of an answer.
type pair struct{ name, value string }

// maxIdentity is how long the identity headers are together: gateways read an answer's
// headers into a page of memory, and fail where that is too small.
const maxIdentity = 2 << 10

// cut stands at the end of a list of scopes that was too long.
const cut = "..."

// identityOf tells who presented a good key. Every one of the headers is there, so that
// none that the client sent stays in its place.
func identityOf(v *edge.Verdict) []pair {
	out := append(make([]pair, 0, 6),
		pair{headerRole, printable(v.Role)}, pair{headerKeyID, printable(v.KeyID)}, pair{headerVersion, strconv.Itoa(v.Version)},
		pair{headerState, printable(v.State)}, pair{headerEnds, endOf(v)},
	)
	left := maxIdentity - len(headerScopes)
	for _, p := range out {
		left -= len(p.name) + len(p.value)
	}
	var scopes strings.Builder
	scopes.Grow(64)
	for _, s := range v.Scopes {
		s = printable(s)
		if scopes.Len()+len(s)+1+len(cut)+1 > left {
			scopes.WriteString(" " + cut)
			break
		}
		if scopes.Len() > 0 {
			scopes.WriteByte(' ')
		}
		scopes.WriteString(s)
	}
	return append(out, pair{headerScopes, strings.TrimSpace(scopes.String())})
}

// endOf tells a client that its key is the previous one, and when it ends; else empty.
func endOf(v *edge.Verdict) string {
	if v.State != "previous" && v.State != "withdrawn" || v.ExpiresAt.IsZero() {
		return ""
	}
	return v.ExpiresAt.UTC().Format(time.RFC3339)
}

// printable is a text as a header may hold it: what is not printable ASCII is
// percent-encoded.
func printable(text string) string {
	plain := true
	for i := range len(text) {
		plain = plain && text[i] > ' ' && text[i] <= '~' && text[i] != '%'
	}
	if plain {
		return text
	}
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '%' {
			out.WriteString("%" + string(hex[c>>4]) + string(hex[c&15]))
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// headers are those of the answer, whatever asks.
func (d *decision) headers() []pair {
	if d.status == http.StatusOK {
		return identityOf(d.verdict)
	}
	out := []pair{{headerCode, d.code}}
	challenge := ""
	switch {
	case d.code == codeNoKey:
		challenge = "Bearer"
	case d.code == codeTwoKeys:
		challenge = `Bearer error="invalid_token"`
	case d.verdict != nil:
		challenge = d.verdict.Challenge(d.scopes)
	}
	if challenge != "" {
		out = append(out, pair{"Www-Authenticate", challenge})
	}
	if d.status == http.StatusServiceUnavailable || d.status == http.StatusTooManyRequests {
		out = append(out, pair{"Retry-After", "1"})
	}
	return out
}
