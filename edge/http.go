// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/bearer"
)

// Guard says what a request must have to pass.
type Guard struct {
	// Scopes that the key must have, all of them; and AnyScope, of which one suffices.
	Scopes, AnyScope []string
	// RemoteAddr is the address of who sent the request, by default that of the
	// connection. Behind a proxy of yours set it to what that proxy says; never to what
	// the client can write.
	RemoteAddr func(*http.Request) netip.Addr
	// Client is the label for usage counts, by default that of the verifier.
	Client func(*http.Request) string
}

// Middleware lets requests pass whose key is good. The key is in Authorization: Bearer
// or in X-API-Key; a request with two is refused. What passes has the verdict in its
// context, and the key in its headers no more.
//
// The others are answered 401, 403 or 429 by the verdict's code, and 503 where nobody
// could be asked: clients throw keys away for a 401.
func (v *Verifier) Middleware(g Guard) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key, inAuthorization, err := bearer.Key(r.Header.Values(bearer.Authorization), r.Header.Values(bearer.APIKey))
			if err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
			verdict, err := v.Verify(r.Context(), g.request(r, key))
			if err != nil {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "the key cannot be verified now", http.StatusServiceUnavailable)
				return
			}
			if !verdict.Valid {
				g.refuse(w, &verdict)
				return
			}
			r = r.WithContext(NewContext(r.Context(), &verdict))
			r.Header = r.Header.Clone()
			r.Header.Del(bearer.APIKey)
			if inAuthorization {
				r.Header.Del(bearer.Authorization)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Handler is Middleware around one handler.
func (v *Verifier) Handler(g Guard, next http.Handler) http.Handler { return v.Middleware(g)(next) }

// request is the question about a request's key.
func (g *Guard) request(r *http.Request, key string) Request {
	req := Request{Key: key, Scopes: g.Scopes, AnyScope: g.AnyScope}
	if g.RemoteAddr != nil {
		req.RemoteAddr = g.RemoteAddr(r)
	} else if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		req.RemoteAddr = addr.Addr()
	}
	if g.Client != nil {
		req.Client = g.Client(r)
	}
	return req
}

// refuse answers a request whose key is not good for it.
func (g *Guard) refuse(w http.ResponseWriter, verdict *Verdict) {
	status := verdict.Status()
	if challenge := verdict.Challenge(g.Scopes); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	text := verdict.Code
	if verdict.Hint != "" {
		text += ": " + verdict.Hint
	}
	http.Error(w, text, status)
}

// Status is the verdict as an HTTP status: 200, 401 for a key that is not good, 403 for
// one that is not good for this, 429.
func (v *Verdict) Status() int {
	switch v.Code {
	case codeValid:
		return http.StatusOK
	case codeDisabled, codeScope, codeIP:
		return http.StatusForbidden
	case codeRate:
		return http.StatusTooManyRequests
	default:
		return http.StatusUnauthorized
	}
}

// Challenge is what WWW-Authenticate says of a refusal (RFC 6750, section 3), where these
// scopes were asked for; empty where it says nothing.
func (v *Verdict) Challenge(scopes []string) string {
	switch {
	case v.Status() == http.StatusUnauthorized:
		return `Bearer error="invalid_token"`
	case v.Code != codeScope:
		return ""
	case len(scopes) == 0:
		return `Bearer error="insufficient_scope"`
	}
	return `Bearer error="insufficient_scope", scope="` + strings.Join(scopes, " ") + `"`
}

type contextKey struct{}

// NewContext is ctx with the verdict about a request's key.
func NewContext(ctx context.Context, verdict *Verdict) context.Context {
	return context.WithValue(ctx, contextKey{}, verdict)
}

// FromContext is the verdict that NewContext put there; nil without one. It is shared:
// do not change it.
func FromContext(ctx context.Context) *Verdict {
	verdict, _ := ctx.Value(contextKey{}).(*Verdict)
	return verdict
}
