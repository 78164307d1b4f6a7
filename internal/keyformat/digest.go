// SPDX-License-Identifier: MPL-2.0

package keyformat

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"slices"
	"strconv"
	"sync"
)

// DigestSecretLen is how long a mount's secret for digests should be.
const DigestSecretLen = 32

// ImportedIDLen is the length of the id of a key whose form is not ours.
const ImportedIDLen = 40

const encodedDigestLen = (sha256.Size*8 + 5) / 6

var errDigest = errors.New("not a key digest: the form is v<number>:<base64url of 32 bytes>")

// Strict: of the spellings that decode to the same bytes, one is accepted.
var digestEncoding = base64.RawURLEncoding.Strict()

// Sum is the SHA-256 of a key. An importer may know just this of a key.
func Sum(key string) [sha256.Size]byte {
	// Our own keys fit into the buffer, which spares verification an allocation.
	var buf [maxKeyLen]byte
	if len(key) <= len(buf) {
		return sha256.Sum256(buf[:copy(buf[:], key)])
	}
	return sha256.Sum256([]byte(key))
}

// Secret is a mount's secret for digests, ready to be used again and again, by
// many at once. Preparing one costs more than using it: verification keeps them.
type Secret struct {
	version int
	macs    sync.Pool // of *prepared
}

// prepared is HMAC-SHA-256 (RFC 2104) under a secret, with room for what goes in
// and comes out, so that using it allocates nothing.
type prepared struct {
	hash    hash.Hash
	in, out [sha256.Size]byte
}

// NewSecret prepares the secret with that number.
func NewSecret(version int, secret []byte) *Secret {
	secret = slices.Clone(secret)
	return &Secret{version: version, macs: sync.Pool{New: func() any { return &prepared{hash: hmac.New(sha256.New, secret)} }}}
}

// Digest is what is stored of a key in order to recognise it: the HMAC-SHA-256
// of its sum under the mount's secret, after the number of that secret, as in
// "v1:…". Without the secret a stolen copy of the storage cannot even be used
// to test guesses, which matters for imported keys of little strength.
func (s *Secret) Digest(sum [sha256.Size]byte) string {
	m := s.mac(sum)
	buf := make([]byte, 0, len("v:")+20+encodedDigestLen)
	buf = append(buf, 'v')
	buf = strconv.AppendInt(buf, int64(s.version), 10)
	buf = append(buf, ':')
	return string(digestEncoding.AppendEncode(buf, m[:]))
}

// Digest is the digest under a secret that is used once.
func Digest(secret []byte, version int, sum [sha256.Size]byte) string {
	return NewSecret(version, secret).Digest(sum)
}

// DigestVersion is the number of the secret that a stored digest was made with.
func DigestVersion(d string) (int, error) {
	var m [sha256.Size]byte
	version, ok := splitDigest(&m, d)
	if !ok {
		return 0, errDigest
	}
	return version, nil
}

// Equal reports whether stored is the digest of sum under this secret. It
// computes exactly one HMAC whatever stored is, so that a digest which is absent,
// damaged or of another version takes as long as a wrong key.
func (s *Secret) Equal(stored string, sum [sha256.Size]byte) bool {
	var got [sha256.Size]byte
	want := s.mac(sum)
	v, ok := splitDigest(&got, stored)
	same := subtle.ConstantTimeCompare(want[:], got[:]) == 1
	return same && ok && v == s.version
}

// Equal is the comparison under a secret that is used once.
func Equal(stored string, secret []byte, version int, sum [sha256.Size]byte) bool {
	return NewSecret(version, secret).Equal(stored, sum)
}

// ImportedID is the id of a key whose form is not ours: 40 lower-case
// hexadecimal digits, so it is never taken for one of our own 12-character
// ids. It is computed from the mount's secret, because the plain hash of a
// weak key would give that key away to whoever sees the id, and it is a hash
// of the HMAC rather than the HMAC itself, because ids are public and stored
// digests are not. The id is how the key is found, so a mount has to look under
// every secret that it made such ids with.
func (s *Secret) ImportedID(sum [sha256.Size]byte) string {
	m := s.mac(sum)
	h := sha256.Sum256(m[:])
	return hex.EncodeToString(h[:ImportedIDLen/2])
}

// ImportedID is the id under a secret that is used once.
func ImportedID(secret []byte, sum [sha256.Size]byte) string {
	return NewSecret(0, secret).ImportedID(sum)
}

// ValidID reports whether s has the form of a key id, our own or an imported one.
func ValidID(s string) bool {
	switch len(s) {
	case IDLen:
		return isBase62(s)
	case ImportedIDLen:
		for i := range len(s) {
			if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
		return true
	default:
		return false
	}
}

func (s *Secret) mac(sum [sha256.Size]byte) [sha256.Size]byte {
	p, _ := s.macs.Get().(*prepared) // nothing else is put there
	defer s.macs.Put(p)
	p.hash.Reset()
	p.in = sum
	p.hash.Write(p.in[:])
	p.hash.Sum(p.out[:0])
	return p.out
}

func splitDigest(dst *[sha256.Size]byte, d string) (version int, ok bool) {
	// The part after the colon has one length only, so its place is known.
	colon := len(d) - encodedDigestLen - 1
	if colon < 2 || d[0] != 'v' || d[colon] != ':' || d[1] < '1' || d[1] > '9' {
		return 0, false
	}
	version, err := strconv.Atoi(d[1:colon])
	if err != nil {
		return 0, false
	}
	var buf [encodedDigestLen]byte
	copy(buf[:], d[colon+1:])
	n, err := digestEncoding.Decode(dst[:], buf[:])
	return version, err == nil && n == len(dst)
}
