// SPDX-License-Identifier: MPL-2.0

package keyformat

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What people paste where a key belongs is often a key inside something else: in
// quotes, after Bearer, as a line of a file. Nothing here decides that it is: a
// key of another maker may look like any of these.

// maxCandidates is how many lookups one pasted text may cost.
const maxCandidates = 8

// Candidates returns what a pasted text may mean, if it holds a key that was made
// elsewhere: the text as it is, then without what is around it, layer by layer
// (white space, quotes, a name as in API_KEY=…, a scheme as in Bearer …), then the
// same of the text percent-decoded. They are distinct, at most 8, and printable
// ASCII of 1 to MaxForeignLen characters; none is a key of this package, for which
// there is Find.
func Candidates(text string) []string {
	plain := peeled(text, nil)
	var rest []string
	if decoded := percentDecoded(text); decoded != text {
		rest = peeled(decoded, plain)
	}
	// Of too many the least likely are the half peeled ones: neither what was
	// pasted nor what is inside.
	for len(plain)+len(rest) > maxCandidates {
		long := &plain
		if len(rest) > len(plain) {
			long = &rest
		}
		middle := len(*long) / 2
		*long = slices.Delete(*long, middle, middle+1)
	}
	return append(plain, rest...)
}

// maxLayers is how many layers are taken off.
const maxLayers = 16

// peeled are text and what is inside it, from the outside in, as far as these can
// be keys and are not among the known ones.
func peeled(text string, known []string) []string {
	var all []string
	for range maxLayers {
		if isPrintable(text) && len(text) <= MaxForeignLen && Classify(text) != Own && !slices.Contains(known, text) {
			all = append(all, text)
		}
		inner, ok := peel(text)
		if !ok {
			break
		}
		text = inner
	}
	return all
}

// peel takes off the outermost layer, and reports whether there was one.
func peel(s string) (string, bool) {
	for _, off := range [...]func(string) string{trimmed, unpunctuated, unquoted, withoutFlag, withoutName, withoutScheme, withoutQuote} {
		if rest := off(s); len(rest) < len(s) && rest != "" {
			return rest, true
		}
	}
	return "", false
}

// trimmed is s without what cannot be seen at its ends.
func trimmed(s string) string {
	return strings.TrimFunc(s, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.Is(unicode.Cf, c)
	})
}

// unpunctuated is s without the comma or semicolon at the end of a line of code.
func unpunctuated(s string) string {
	if n := len(s) - 1; n >= 0 && (s[n] == ',' || s[n] == ';') {
		return s[:n]
	}
	return s
}

const quotes = "\"'`“”„‟‘’‚‛«»‹›"

// unquoted is s without a pair of quotes around it. Where there is another inside
// they are no pair, as in "name": "value".
func unquoted(s string) string {
	inner := withoutQuote(s)
	if opening(s) == 0 || closing(s) == 0 || strings.ContainsAny(inner, quotes) {
		return s
	}
	return inner
}

// withoutQuote is s without a quote at either end. The one at the right end is
// escaped, as in JSON, if the one at the left is.
func withoutQuote(s string) string {
	escaped := strings.HasPrefix(s, `\`)
	left := opening(s)
	s = s[left:]
	right := closing(s)
	if s = s[:len(s)-right]; right > 0 && (escaped || left == 0) {
		s = strings.TrimSuffix(s, `\`)
	}
	return s
}

// opening is the length of the quote that s begins with, a backslash before it
// included.
func opening(s string) int {
	t := strings.TrimPrefix(s, `\`)
	c, n := utf8.DecodeRuneInString(t)
	if t == "" || !strings.ContainsRune(quotes, c) {
		return 0
	}
	return len(s) - len(t) + n
}

// closing is the length of the quote that s ends with.
func closing(s string) int {
	c, n := utf8.DecodeLastRuneInString(s)
	if s == "" || !strings.ContainsRune(quotes, c) {
		return 0
	}
	return n
}

// withoutFlag is s without an option of a command in front: -H "X-API-Key: …",
// --api-key ….
func withoutFlag(s string) string {
	name := strings.TrimLeft(s, "-")
	if dashes := len(s) - len(name); dashes < 1 || dashes > 2 {
		return s
	}
	if rest := strings.TrimPrefix(name, "H"); rest != name && opening(rest) > 0 {
		return rest
	}
	end := strings.IndexAny(name, " \t")
	if end < 1 || !isName(name[:end]) {
		return s
	}
	return strings.TrimLeft(name[end:], " \t")
}

// withoutName is s without a name in front that it is assigned to: NAME=…,
// export NAME=…, Name: …, "name": "…", --name=….
func withoutName(s string) string {
	name, rest := assigned(s)
	if name == "" {
		return s
	}
	return rest
}

// assigned are the name and the value of an assignment; no name if s is none.
func assigned(s string) (name, value string) {
	rest := strings.TrimLeft(s, "-")
	for _, word := range [...]string{"export", "set", "setx", "env", "const", "let", "var"} {
		if after, ok := strings.CutPrefix(rest, word); ok && strings.TrimLeft(after, " \t") != after {
			rest = strings.TrimLeft(after, " \t")
			break
		}
	}
	if after, ok := cutFold(rest, "$env:"); ok {
		rest = after
	}
	rest = rest[opening(rest):]
	end := 0
	for end < len(rest) && isNameByte(rest[end]) {
		end++
	}
	name, rest = rest[:end], rest[end:]
	if n := opening(rest); n > 0 {
		rest = rest[n:]
	}
	rest = strings.TrimLeft(rest, " \t")
	sign := 0
	for _, s := range [...]string{":=", "=>", "=", ":"} {
		if strings.HasPrefix(rest, s) {
			sign = len(s)
			break
		}
	}
	value = strings.TrimLeft(rest[sign:], " \t")
	// What is left of base64 after its first = is no value, even in quotes, nor is
	// a URL that of its scheme.
	if !isName(name) || sign == 0 || strings.Trim(value, quotes) == "" || value[0] == '=' || strings.HasPrefix(value, "//") {
		return "", s
	}
	return name, value
}

const maxNameLen = 128

func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= maxNameLen && !isNumeral(s[0])
}

func isNameByte(c byte) bool {
	return isLetter(c) || isNumeral(c) || c == '_' || c == '-' || c == '.' || c == '$'
}

// withoutScheme is s without the scheme of an Authorization header in front.
func withoutScheme(s string) string {
	for _, scheme := range [...]string{"bearer", "apikey", "api-key", "token", "key"} {
		if rest, ok := cutFold(s, scheme); ok {
			if value := strings.TrimLeft(strings.TrimPrefix(rest, ":"), " \t"); len(value) < len(rest) {
				return value
			}
		}
	}
	return s
}

// cutFold is strings.CutPrefix for ASCII in any case.
func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// percentDecoded is s with every valid escape of a URL decoded, once.
func percentDecoded(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c, ok := percentEscape(s[i:]); ok {
			out = append(out, c)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func percentEscape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' || hexValue(s[1]) < 0 || hexValue(s[2]) < 0 {
		return 0, false
	}
	return byte(hexValue(s[1])<<4 | hexValue(s[2])), true
}

// What Hint says.
const (
	hintEmpty    = "the key is empty"
	hintSeveral  = "this holds more than one key"
	hintSpace    = "there is white space or a line break at an end of the key"
	hintQuotes   = "there are quotes around the key"
	hintName     = "there is a name in front of the key, as in API_KEY=…"
	hintScheme   = "there is a scheme in front of the key, as in Bearer …"
	hintEncoded  = "the key is percent-encoded or escaped"
	hintChecksum = "this looks like a key of this engine, but the checksum is wrong: a typing error, or a damaged copy"
	hintPart     = "this looks like a part of a key of this engine: the end is missing"
	hintHandle   = "this is the public name of a key, not the key"
	hintMore     = "this looks like a key of this engine, but it is too long"
	hintInside   = "there is white space or a line break inside the key"
	hintAround   = "there is other text around the key"
	hintLong     = "this is longer than any key"
)

// maxHinted is the length up to which Hint looks for keys inside a text.
const maxHinted = 1024

// Hint says in a fixed sentence what is odd about a text that should have been a
// key, or "". It knows nothing but the text, tells no part of it, and allocates
// nothing: it answers floods.
func Hint(text string) string {
	inner := trimmed(text)
	if text == "" || inner == "" {
		return hintEmpty
	}
	if _, err := check(text); err == nil {
		return ""
	}
	keys, spelled := 0, false
	if len(text) <= maxHinted {
		keys, spelled = count(text)
	}
	name, _ := assigned(inner)
	switch {
	case keys > 1:
		return hintSeveral
	case len(inner) < len(text):
		return hintSpace
	case len(unquoted(text)) < len(text):
		return hintQuotes
	case withoutFlag(text) != text, name != "" && (keys > 0 || ofKeys(name)):
		return hintName
	case len(withoutScheme(text)) < len(text):
		return hintScheme
	case spelled, isPercentEncoded(text):
		return hintEncoded
	case keys > 0:
		return hintAround
	}
	return hintOfForm(text)
}

// hintOfForm is the hint of a text that holds no key and has nothing around it.
func hintOfForm(text string) string {
	handle := strings.TrimSuffix(strings.TrimSuffix(text, "…"), "...")
	if len(handle) == IDLen && isBase62(handle) {
		return hintHandle
	}
	sep := strings.LastIndexByte(handle, separator)
	shaped := sep >= 0 && isPrefix(handle[:max(sep, 0)]) && isBase62(handle[sep+1:])
	switch n := len(handle) - sep - 1; {
	case shaped && n == IDLen:
		return hintHandle
	case shaped && n > IDLen && n < bodyLen && handle == text:
		return hintPart
	case shaped && n == bodyLen && handle == text:
		return hintChecksum
	case shaped && n > bodyLen && n <= 2*bodyLen && handle == text:
		return hintMore
	case holdsSpacedKey(text):
		return hintInside
	case len(text) > MaxForeignLen:
		return hintLong
	default:
		return ""
	}
}

// count is how many keys text holds, 2 for more, and whether the first one reads
// differently than it stands there.
func count(text string) (keys int, spelled bool) {
	var first [maxKeyLen]byte
	visit(text, func(f found) {
		switch {
		case keys == 0:
			keys, first, spelled = 1, f.key, f.end-f.start > f.len
		case f.key != first:
			keys = 2
		}
	})
	return keys, spelled
}

// ofKeys reports whether that is what people call something that holds a key.
func ofKeys(name string) bool {
	for _, word := range [...]string{"key", "token", "secret", "auth", "password", "credential"} {
		for i := range len(name) {
			if _, ok := cutFold(name[i:], word); ok {
				return true
			}
		}
	}
	return false
}

// isPercentEncoded reports whether a URL could hold s and s could not: there are
// escapes, and nothing that would need one.
func isPercentEncoded(s string) bool {
	escaped := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if _, ok := percentEscape(s[i:]); ok {
			escaped = true
			i += 2
		} else if !isLetter(c) && !isNumeral(c) && strings.IndexByte("-._~+", c) < 0 {
			return false
		}
	}
	return escaped
}

// holdsSpacedKey reports whether s is a key but for white space inside it.
func holdsSpacedKey(s string) bool {
	var buf [maxKeyLen]byte
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case n == len(buf):
			return false
		default:
			buf[n] = c
			n++
		}
	}
	return n > bodyLen && isKey(buf[:n], n-bodyLen-1)
}
