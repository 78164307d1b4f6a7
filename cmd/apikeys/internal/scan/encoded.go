// SPDX-License-Identifier: MPL-2.0

package scan

import "github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"

const (
	// minEncoded is the length of the shortest key in base64, wherever in it the key begins.
	minEncoded = 4 * (minKey / 3)
	minKey     = 64
	// maxEncoded is how often a text may be encoded, one in another.
	maxEncoded = 3
)

// sextets are the values of the characters of base64, in both alphabets, and one more; 0
// for all others.
var sextets = func() (t [256]uint8) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") {
		t[c] = uint8(i) + 1
	}
	t['+'], t['-'], t['/'], t['_'] = 63, 63, 64, 64
	return t
}()

// locate calls yield for each key in text, as it stands there and in base64, with where it
// begins and ends. Where keyformat says that a text can be cut, base64 of a key is not cut
// either: it has + and / at its end at most.
func locate(text []byte, depth int, yield func(k keyformat.Key, start, end int)) {
	keyformat.Locate(text, yield)
	if depth == 0 {
		return
	}
	var room []byte
	for i := 0; i+minEncoded <= len(text); {
		// As in looking for keys, most bytes are never looked at.
		j := i + minEncoded - 1
		for j >= i && sextets[text[j]] != 0 {
			j--
		}
		if j >= i {
			i = j + 1
			continue
		}
		end := i + minEncoded
		for end < len(text) && sextets[text[end]] != 0 {
			end++
		}
		// What stands before it may be glued to it, so it may begin at any place.
		for start := i; start < i+4; start++ {
			room = decodeBase64(room[:0], text[start:end])
			locate(room, depth-1, func(k keyformat.Key, from, to int) {
				yield(k, start+from/3*4+from%3, start+(to*4+2)/3)
			})
		}
		i = end
	}
}

// decodeBase64 appends the bytes that the characters stand for.
func decodeBase64(dst, src []byte) []byte {
	for ; len(src) >= 4; src = src[4:] {
		v := uint32(sextets[src[0]]-1)<<18 | uint32(sextets[src[1]]-1)<<12 | uint32(sextets[src[2]]-1)<<6 | uint32(sextets[src[3]]-1)
		dst = append(dst, byte(v>>16), byte(v>>8), byte(v))
	}
	switch len(src) {
	case 2:
		dst = append(dst, (sextets[src[0]]-1)<<2|(sextets[src[1]]-1)>>4)
	case 3:
		dst = append(dst, (sextets[src[0]]-1)<<2|(sextets[src[1]]-1)>>4, (sextets[src[1]]-1)<<4|(sextets[src[2]]-1)>>2)
	}
	return dst
}
