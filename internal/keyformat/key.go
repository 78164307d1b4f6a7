// SPDX-License-Identifier: MPL-2.0

// Package keyformat mints, parses, digests and recognises API keys.
//
// A key has one strict form:
//
//	<prefix>_<id><secret><checksum>
//
// The id (12 characters) is public: it names the key in storage, logs and
// reports. The secret (43 characters, 256 bits) is what proves possession. The
// checksum (6 characters, CRC-32 of everything before it) lets scanners and
// clients reject typing errors without asking anybody; it protects against
// nothing else, anyone can compute it. The last three are base62 and have a
// fixed width, so a key is read from its right end, and the prefix may contain
// the separator.
//
// The form is published in docs/key-format.md with vectors that other
// implementations can test against. It never changes in place: there is no
// second spelling of a key, and no tolerance for surrounding space.
package keyformat

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
)

// Widths of the parts that follow the prefix.
const (
	IDLen       = 12
	SecretLen   = 43
	ChecksumLen = 6

	bodyLen = IDLen + SecretLen + ChecksumLen
)

const (
	separator = '_'
	minKeyLen = minPrefixLen + 1 + bodyLen
	maxKeyLen = maxPrefixLen + 1 + bodyLen
)

// ErrMalformed is wrapped by every error that Parse returns. No error of this
// package contains any part of the string that was refused.
var ErrMalformed = errors.New("not a key of this format")

// The reasons are fixed values so that a flood of bad keys allocates nothing.
var (
	errLength   = fmt.Errorf("%w: wrong length", ErrMalformed)
	errPrefix   = fmt.Errorf("%w: wrong prefix", ErrMalformed)
	errBody     = fmt.Errorf("%w: character that is not base62", ErrMalformed)
	errChecksum = fmt.Errorf("%w: wrong checksum", ErrMalformed)
)

// Key is a well-formed key. The secret leaves it through Reveal only: every
// other way of printing, formatting, logging or encoding a Key shows its
// public handle. The zero Key is not a key; its parts are empty.
type Key struct {
	// A pointer, because fmt cannot call the methods of a Key that sits in an
	// unexported field of somebody's struct, and would print a string there.
	// Straight to the string: fmt follows a pointer to a struct when the verb
	// is not made for pointers, one to a string never.
	s         *string
	prefixLen int
}

// Mint makes a new key with this prefix out of the randomness of rand.
func Mint(prefix string, rand io.Reader) (Key, error) {
	if err := ValidPrefix(prefix); err != nil {
		return Key{}, fmt.Errorf("mint key: %w", err)
	}
	buf := make([]byte, 0, len(prefix)+1+bodyLen)
	buf = append(buf, prefix...)
	buf = append(buf, separator)
	buf, err := appendRandom(buf, IDLen+SecretLen, rand)
	if err != nil {
		return Key{}, fmt.Errorf("mint key: %w", err)
	}
	buf = appendChecksum(buf, crc32.ChecksumIEEE(buf))
	s := string(buf)
	return Key{&s, len(prefix)}, nil
}

// Parse accepts exactly what Mint produces.
func Parse(s string) (k Key, err error) {
	// Written to stay within what the compiler inlines: then a key that does
	// not outlive its caller costs no allocation.
	if k.prefixLen, err = check(s); err == nil {
		k.s = &s
	}
	return k, err
}

// check returns the length of the prefix of a well-formed key, 0 with an error.
func check(s string) (int, error) {
	if len(s) < minKeyLen || len(s) > maxKeyLen {
		return 0, errLength
	}
	n := len(s) - bodyLen - 1
	if s[n] != separator || !isPrefix(s[:n]) {
		return 0, errPrefix
	}
	if !isBase62(s[n+1:]) {
		return 0, errBody
	}
	if !checksumMatches(s) {
		return 0, errChecksum
	}
	return n, nil
}

// Prefix is what the key begins with, without the separator.
func (k Key) Prefix() string {
	if k.s == nil {
		return ""
	}
	return (*k.s)[:k.prefixLen]
}

// ID is the public name of the key.
func (k Key) ID() string {
	if k.s == nil {
		return ""
	}
	start := k.prefixLen + 1
	return (*k.s)[start : start+IDLen]
}

// Reveal is the whole key, secret included. Hand it to the one who asked for
// the key, or to Sum; never to a log, an error, a label or a path.
func (k Key) Reveal() string {
	if k.s == nil {
		return ""
	}
	return *k.s
}

// String is the handle by which people may speak of the key.
func (k Key) String() string {
	if k.s == nil {
		return "(no key)"
	}
	return (*k.s)[:k.prefixLen+1+IDLen] + "…"
}

// GoString is the handle too.
func (k Key) GoString() string { return "keyformat.Key(" + k.String() + ")" }

// Format prints the handle for every verb: a %x or %d must not be a way round
// String.
func (k Key) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = io.WriteString(f, k.GoString())
		return
	}
	_, _ = io.WriteString(f, k.String())
}

// MarshalText encodes the handle. There is no way back from it.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON encodes the handle. There is no way back from it.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// LogValue logs the handle.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
