// SPDX-License-Identifier: MPL-2.0

package keyformat

import (
	"fmt"
	"hash/crc32"
	"io"
)

const (
	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base     = len(alphabet)

	// The largest multiple of 62 that a byte can count to. A byte from here up
	// is thrown away: taken modulo 62 it would make the first eight characters
	// of the alphabet likelier than the others.
	unbiased = 256 - 256%base
)

// isDigit is a table: one look per character of every key that is verified.
var isDigit = func() (t [256]bool) {
	for i := range len(alphabet) {
		t[alphabet[i]] = true
	}
	return t
}()

func isBase62(s string) bool {
	for i := range len(s) {
		if !isDigit[s[i]] {
			return false
		}
	}
	return true
}

// appendRandom appends n characters, each of them uniformly distributed and
// independent of the others if the bytes of rand are.
func appendRandom(dst []byte, n int, rand io.Reader) ([]byte, error) {
	var block [IDLen + SecretLen]byte
	defer clear(block[:])
	for n > 0 {
		b := block[:min(n, len(block))]
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
		for _, c := range b {
			if int(c) < unbiased {
				dst = append(dst, alphabet[int(c)%base])
				n--
			}
		}
	}
	return dst, nil
}

// Checksum is the CRC-32 (IEEE) of s in base62, most significant digit first,
// padded with zeros to ChecksumLen.
func Checksum(s string) string {
	var buf [ChecksumLen]byte
	return string(appendChecksum(buf[:0], crc(s)))
}

// crc is crc32.ChecksumIEEE for a string; that one would make a copy of every
// key on the heap first.
func crc(s string) uint32 {
	c := ^uint32(0)
	for i := range len(s) {
		c = crcStep(c, s[i])
	}
	return ^c
}

func crcStep(c uint32, b byte) uint32 { return crc32.IEEETable[byte(c)^b] ^ c>>8 }

func appendChecksum(dst []byte, sum uint32) []byte {
	var digits [ChecksumLen]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = alphabet[sum%uint32(base)]
		sum /= uint32(base)
	}
	return append(dst, digits[:]...)
}

// checksumMatches expects a string longer than a checksum.
func checksumMatches(s string) bool {
	n := len(s) - ChecksumLen
	var want [ChecksumLen]byte
	appendChecksum(want[:0], crc(s[:n]))
	return string(want[:]) == s[n:]
}
