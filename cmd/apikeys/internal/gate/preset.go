// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// preset is how one kind of gateway asks, and which answers it understands.
type preset struct {
	// method and uri are the headers that say what the client asked for. Where they are
	// empty the gateway sends the client's method and, after AuthPath, its path.
	method, uri string
	// address is the header that says where the client is; forwarded: it is a list, to
	// which each proxy adds whom it heard.
	address   string
	forwarded bool
	// silent: bodies cost the gateway its connection, or reach nobody.
	silent bool
	// tooMany: 429 reaches the client.
	tooMany bool
	// removes names the header of the answer that lists those which the gateway is to
	// take out of the request.
	removes string
}

// presets are the gateways by the names that the configuration gives them.
//
// nginx turns every answer but 2xx, 401 and 403 into a 500, reads no body of an answer
// and drops a connection that has one. Envoy sends the client's own method and path.
var presets = map[string]*preset{
	"nginx":   {method: "X-Original-Method", uri: "X-Original-Uri", address: "X-Real-Ip", silent: true},
	"haproxy": {method: "X-Original-Method", uri: "X-Original-Uri", address: "X-Real-Ip", silent: true, tooMany: true},
	"caddy":   {method: "X-Forwarded-Method", uri: "X-Forwarded-Uri", address: "X-Forwarded-For", forwarded: true, tooMany: true},
	"traefik": {method: "X-Forwarded-Method", uri: "X-Forwarded-Uri", address: "X-Forwarded-For", forwarded: true, tooMany: true},
	"apisix":  {method: "X-Forwarded-Method", uri: "X-Forwarded-Uri", address: "X-Forwarded-For", forwarded: true, tooMany: true},
	"envoy":   {address: "X-Forwarded-For", forwarded: true, tooMany: true, removes: "X-Envoy-Auth-Headers-To-Remove"},
}

func presetOf(name string) (*preset, error) {
	p := presets[name]
	if p == nil {
		return nil, fmt.Errorf("preset: %q: is none: give one of %s", name, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
	}
	return p, nil
}

// AuthPath is where gateways ask.
const AuthPath = "/auth"

// asks reports whether a request is a gateway's question.
func (p *preset) asks(r *http.Request) bool {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if p.uri == "" {
		return strings.HasPrefix(path, AuthPath+"/")
	}
	return path == AuthPath
}

// target is what the client asked for; empty where that is not said, or said twice.
func (p *preset) target(r *http.Request) (method, uri string) {
	if p.uri == "" {
		return r.Method, strings.TrimPrefix(r.RequestURI, AuthPath)
	}
	return only(r.Header[p.method]), only(r.Header[p.uri])
}

// only is the value of a header that is there once.
func only(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}
