// SPDX-License-Identifier: MPL-2.0

package server

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNotText      = errors.New("the request holds bytes that are not UTF-8")
	errNotPrintable = errors.New("the path holds characters that cannot be printed")
	errRelativePath = errors.New("relative paths not supported")

	errForeignHost = errors.New("the Host of the request is not this machine: use localhost, 127.0.0.1 or [::1]")
	errForeignPage = errors.New("the request was made by a page of another site")
)

// checkSource reports why a request cannot come from a program on this machine that means this server. A page in
// a browser reaches a loopback address too: by its own name, which it lets resolve to that address, or as a
// request to another site.
func checkSource(r *http.Request) error {
	if !loopbackHost(r.Host) {
		return errForeignHost
	}
	for _, origin := range r.Header["Origin"] {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !loopbackHost(u.Host) {
			return errForeignPage
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "none" && site != "same-origin" && site != "same-site" {
			return errForeignPage
		}
	}
	return nil
}

// loopbackHost reports whether host, with or without a port, is a name or an address of the loopback interface.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		name = strings.TrimSuffix(inner, "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// checkText reports why the address or a header of a request cannot be passed on. What reaches a plugin is
// text in UTF-8, since the protocol carries nothing else; a body is looked at where it is read.
func checkText(r *http.Request) error {
	if !utf8.ValidString(r.URL.Path) {
		return errNotText
	}
	if !validText(r.URL.Query()) || !validText(r.Header) {
		return errNotText
	}
	if strings.ContainsFunc(r.URL.Path, unprintable) {
		return errNotPrintable
	}
	for segment := range strings.SplitSeq(r.URL.Path, "/") {
		if segment == "." || segment == ".." {
			return errRelativePath
		}
	}
	return nil
}

// validText reports whether names and values are UTF-8.
func validText(pairs map[string][]string) bool {
	for name, values := range pairs {
		if !utf8.ValidString(name) || slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
			return false
		}
	}
	return true
}

func unprintable(c rune) bool { return !unicode.IsPrint(c) }
