// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// refusal is why a request is not passed on.
type refusal struct {
	status int
	reason string // one of reasons
	text   string
}

// reasons are those of refusals, as metrics tell them.
var reasons = []string{"method", "target", "upgrade", "host", "origin", "path"}

// judge decides which requests may use the key. Whoever reaches the listener may, so what
// a web page can have a browser send there is kept out.
type judge struct {
	any   bool            // every Host will do: no browser speaks to a Unix socket
	hosts map[string]bool // with a port
	names map[string]bool // with any port
	tell  string          // what Host should be
}

// newJudge is for a listener's address. Hosts are those that are allowed beside it.
func newJudge(addr net.Addr, hosts []string) *judge {
	j := &judge{hosts: map[string]bool{}, names: map[string]bool{}}
	if addr.Network() == "unix" {
		j.any = true
		return j
	}
	_, port, _ := net.SplitHostPort(addr.String())
	j.tell = addr.String()
	j.hosts[addr.String()] = true
	j.hosts[net.JoinHostPort("localhost", port)] = true
	for _, host := range hosts {
		host = strings.ToLower(host)
		if _, _, err := net.SplitHostPort(host); err == nil {
			j.hosts[host] = true
		} else {
			j.names[strings.Trim(host, "[]")] = true
		}
	}
	return j
}

// refuse is why a request is refused; nil if it is not.
func (j *judge) refuse(r *http.Request) *refusal {
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return &refusal{http.StatusMethodNotAllowed, "method", r.Method + " is not passed on"}
	case !strings.HasPrefix(r.RequestURI, "/"):
		return &refusal{http.StatusBadRequest, "target", "the request's target must be a path: this is the address of one upstream, and no proxy for others"}
	case switchesHTTP(r.Header):
		return &refusal{http.StatusBadRequest, "upgrade", "an upgrade to HTTP/2 or TLS is not passed on: begin with HTTP/2"}
	case !j.host(r):
		return &refusal{http.StatusForbidden, "host", "the Host header must be " + j.tell + ", localhost with that port, or one of -allow-host"}
	case foreign(r):
		return &refusal{http.StatusForbidden, "origin", "requests from web pages are refused"}
	case climbs(r.RequestURI):
		return &refusal{http.StatusBadRequest, "path", "the path holds .. segments"}
	}
	return nil
}

// switchesHTTP reports whether a request wants another kind of HTTP on its connection:
// what came then would be looked at by nobody.
func switchesHTTP(h http.Header) bool {
	if len(h["Http2-Settings"]) > 0 {
		return true
	}
	for _, line := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(protocol)), "/")
			switch name {
			case "h2c", "h2", "http", "tls":
				return true
			}
		}
	}
	return false
}

func (j *judge) host(r *http.Request) bool {
	if len(r.Header["Host"]) > 0 {
		return false // HTTP/2 has it beside :authority
	}
	if j.any {
		return true
	}
	host := strings.ToLower(r.Host)
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name, host = strings.Trim(host, "[]"), host+":80"
	}
	return j.hosts[host] || j.names[name]
}

// foreign reports whether a browser sends a request for a page of another origin.
func foreign(r *http.Request) bool {
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return true
		}
	}
	for _, text := range r.Header["Origin"] {
		if !strings.EqualFold(text, "http://"+r.Host) {
			return true
		}
	}
	return false
}

// climbs reports whether a target's path may lead out of the directory that it begins
// with, to whoever reads it: also encoded, more than once, with backslashes, and with
// parameters in a segment.
func climbs(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	path, _, _ = strings.Cut(path, "#")
	for range maxDecoded {
		if !strings.Contains(path, "..") && !strings.Contains(path, "%") {
			return false
		}
		for segment := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
			name, _, _ := strings.Cut(segment, ";")
			if name == ".." {
				return true
			}
		}
		next, err := url.PathUnescape(path)
		if err != nil || next == path {
			// A percent sign that encodes nothing is none of a second decoding.
			return err != nil && strings.Contains(strings.ToLower(path), "%2e")
		}
		path = next
	}
	return true
}

// maxDecoded is how often a path is decoded before it is refused unread.
const maxDecoded = 4
