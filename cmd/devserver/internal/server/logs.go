// SPDX-License-Identifier: MPL-2.0

package server

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// What a client sends may be a key, wherever it stands: in a path, as a method, as the name of a mount. The log
// takes over names that the server knows, and what else it must tell without the keys in it.

// forLog is text of a client or of an error without the keys in it.
func forLog(text string) string { return keyformat.Redact(text) }

// errForLog is the text of err without the keys in it, and without a path that leads nowhere.
func errForLog(err error) string {
	text := err.Error()
	var lost *noRouteError
	if errors.As(err, &lost) {
		text = strings.ReplaceAll(text, lost.path, "…")
	}
	return forLog(text)
}

// methodForLog is a method that the server knows.
func methodForLog(method string) string {
	known := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "LIST", "SCAN", "HELP"}
	if slices.Contains(known, method) {
		return method
	}
	return "other"
}

// routeForLog is what serves a path: a mount, or the server's own route, as a pattern. Nothing else of the path is in it.
func (s *Server) routeForLog(path string) string {
	if own := strings.TrimSuffix(path, "/"); slices.Contains(statusPaths, own) {
		return own
	}
	if internalPath(path) {
		if rt, _ := s.findRoute(path); rt != nil {
			return rt.pattern
		}
		return "none"
	}
	if m, _ := s.findMount(path); m != nil {
		return forLog(m.entry.Load().Path)
	}
	return "none"
}

// noRouteError says that nothing serves a path.
type noRouteError struct {
	logical.HTTPCodedError
	// path is how it stands in the text.
	path string
}

func noRoute(path string) error {
	quoted := strconv.Quote(path)
	return &noRouteError{logical.CodedError(http.StatusNotFound, "no handler for route "+quoted+". route entry not found."), quoted}
}
