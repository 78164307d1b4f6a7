// SPDX-License-Identifier: MPL-2.0

package keyformat

// ChecksumRule says in words how a string that Pattern finds is told apart from
// a key.
const ChecksumRule = "The last 6 characters are the CRC-32 (IEEE 802.3, as in zip and PNG) of everything before them, " +
	"prefix and underscore included, written in base62 with the digits 0-9 A-Z a-z, most significant first, padded with 0 on the left. " +
	"A string that matches the pattern and has another checksum is no key. The checksum proves nothing: anyone can compute it."

// GitleaksRule is one rule of a gitleaks configuration (TOML), for keys with
// this prefix. Rules of several prefixes may follow each other in one file.
func GitleaksRule(prefix string) string {
	// The expression holds no apostrophe, so a literal string takes it as it is.
	// The keyword is what gitleaks looks for, in lower case, before it tries the
	// expression.
	return "[[rules]]\n" +
		"id = \"apikeys-" + prefix + "\"\n" +
		"description = \"API key with the prefix " + prefix + "\"\n" +
		"regex = '''" + Pattern(prefix) + "'''\n" +
		"secretGroup = 1\n" +
		"keywords = [\"" + prefix + "_\"]\n"
}
