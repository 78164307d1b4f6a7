// SPDX-License-Identifier: MPL-2.0

package keyformat

// Form says what a presented string can be.
type Form int

const (
	// Invalid can be no key at all.
	Invalid Form = iota
	// Own is a well-formed key of this package.
	Own
	// Foreign can be a key that was made elsewhere and imported.
	Foreign
)

// The length of a foreign key.
const (
	MinForeignLen = 16
	MaxForeignLen = 8192 // tokens of providers are JWTs
)

func (f Form) String() string {
	switch f {
	case Own:
		return "own"
	case Foreign:
		return "foreign"
	default:
		return "invalid"
	}
}

// Classify says what s can be, without looking anything up. A string in our
// form with a wrong checksum is Foreign like any other: another issuer's keys
// may happen to look like ours.
func Classify(s string) Form {
	if _, err := check(s); err == nil {
		return Own
	}
	if isForeign(s) {
		return Foreign
	}
	return Invalid
}

// isForeign reports whether s is printable ASCII of such a length. A space at either end is refused, since
// it is lost on the way through an HTTP header: such a key never verifies.
func isForeign(s string) bool {
	return len(s) >= MinForeignLen && len(s) <= MaxForeignLen && isPrintable(s)
}

// isPrintable reports whether s is printable ASCII without a space at either end.
func isPrintable(s string) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Pattern is a regular expression, in the syntax of RE2 and of gitleaks, for
// keys with this prefix; the first group is the key. It needs no word boundary
// in front, where escaped text (\nak_…, %3Dak_…) has none, and refuses a body
// that goes on for longer. It cannot know the checksum: Parse what it finds.
func Pattern(prefix string) string {
	// A valid prefix holds no character that means something in a pattern.
	return "(" + prefix + "_[0-9A-Za-z]{61})(?:[^0-9A-Za-z]|$)"
}

// Presentable reports whether a gateway could present s as a key of any form: at
// most MaxForeignLen characters of printable ASCII, with no space at its ends.
func Presentable(s string) bool {
	if s == "" || len(s) > MaxForeignLen || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
