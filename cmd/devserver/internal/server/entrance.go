// SPDX-License-Identifier: MPL-2.0

package server

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNotText      = errors.New("the request holds bytes that are not UTF-8")
	errNotPrintable = errors.New("the path holds characters that cannot be printed")
	errRelativePath = errors.New("relative paths not supported")
)

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
