// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// A gateway, this edge and the API behind them all read the same path. Where they could
// read it differently, as with ..%2f, a rule would be matched against another path than
// the one that is served. So what is ambiguous is refused, not mended.

var errPath = errors.New("the path is ambiguous")

// cleanPath is the path of a request's target as it came on the wire, decoded once. It
// fails where two programs could understand it differently: no path, an encoded slash,
// a backslash, dot segments, empty segments, a semicolon, a number sign, a percent sign
// that decoding leaves or cannot read, control characters, and bytes that are not UTF-8.
func cleanPath(target string) (string, error) {
	raw, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(raw, "/") {
		return "", errPath
	}
	path, err := decodeOnce(raw)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(path) || strings.Contains(path, "//") {
		return "", errPath
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return "", errPath
		}
	}
	return path, nil
}

func decodeOnce(raw string) (string, error) {
	if plain(raw) {
		return raw, nil
	}
	var out strings.Builder
	out.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		c, encoded := raw[i], false
		if c == '%' {
			if i+2 >= len(raw) {
				return "", errPath
			}
			high, low := unhex(raw[i+1]), unhex(raw[i+2])
			if high < 0 || low < 0 {
				return "", errPath
			}
			c, encoded = byte(high<<4|low), true
			i += 2
		}
		switch {
		case c < ' ', c == 0x7f, c == '\\', c == ';', c == '#', c == '%', c == '/' && encoded:
			return "", errPath
		}
		out.WriteByte(c)
	}
	return out.String(), nil
}

// plain reports whether there is nothing to decode, nor to refuse, as in most paths.
func plain(raw string) bool {
	for i := range len(raw) {
		if !plainBytes[raw[i]] {
			return false
		}
	}
	return true
}

var plainBytes = func() (plain [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		plain[c] = !strings.ContainsRune("\\;#%", rune(c))
	}
	return plain
}()

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}
