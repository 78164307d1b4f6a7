// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"net/url"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/bearer"
)

// Keys say where a key may be presented: in Authorization: Bearer and in the headers,
// and in query parameters only where somebody insists on it: those are in the logs of
// every program on the way.
type Keys struct {
	Headers []string
	Query   []string
}

// DefaultHeaders are where a key may be beside Authorization.
var DefaultHeaders = []string{bearer.APIKey}

// header is the part of a request's header that this package reads.
type header interface {
	// all are the values of a header by its name as http.CanonicalHeaderKey makes it.
	all(name string) []string
	names(yield func(string) bool)
}

// find is the key that was presented. It must be there once: another reader of the
// same request might take another one.
func (k *Keys) find(h header, uri string) (string, error) {
	var others []string
	for _, name := range k.Headers {
		others = append(others, h.all(name)...)
	}
	if len(k.Query) > 0 {
		_, raw, _ := strings.Cut(uri, "?")
		query, err := url.ParseQuery(raw)
		if err != nil {
			return "", bearer.ErrAmbiguous
		}
		for _, name := range k.Query {
			others = append(others, query[name]...)
		}
	}
	key, _, err := bearer.Key(h.all(bearer.Authorization), others)
	return key, err
}

// Identity headers tell the API who presented the key.
const (
	headerRole    = "X-Apikey-Role"
	headerKeyID   = "X-Apikey-Key-Id"
	headerVersion = "X-Apikey-Version"
	headerScopes  = "X-Apikey-Scopes"
	headerState   = "X-Apikey-State"
	headerEnds    = "X-Apikey-Ends"
	// headerCode tells the gateway why a request is refused.
	headerCode = "X-Apikey-Code"
)

var identity = []string{headerRole, headerKeyID, headerVersion, headerScopes, headerState, headerEnds, headerCode}

// overrides are headers with which some frameworks replace the method or the path: the
// rule would have been matched with another one.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// tricks reports whether the headers of a request could make the API behind read another
// identity, key or method than this edge has judged.
func (k *Keys) tricks(h header) bool {
	for name := range h.names {
		if slices.Contains(overrides, name) {
			return true
		}
		if strings.ContainsAny(name, "_.") {
			name = folded.Replace(name)
			is := func(other string) bool { return strings.EqualFold(other, name) }
			if k.protects(name) || slices.ContainsFunc(overrides, is) {
				return true
			}
		}
	}
	// A proxy takes out what Connection names, and what Trailer names comes after the
	// verdict.
	for _, header := range []string{"Connection", "Trailer"} {
		for _, list := range h.all(header) {
			for name := range strings.SplitSeq(list, ",") {
				if k.protects(folded.Replace(strings.TrimSpace(name))) {
					return true
				}
			}
		}
	}
	return false
}

// folded is what CGI and others make one name of.
var folded = strings.NewReplacer("_", "-", ".", "-")

// protects reports whether a header is one of identity or of keys.
func (k *Keys) protects(name string) bool {
	is := func(other string) bool { return strings.EqualFold(other, name) }
	return is(bearer.Authorization) || slices.ContainsFunc(identity, is) || slices.ContainsFunc(k.Headers, is)
}
