// SPDX-License-Identifier: MPL-2.0

package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	secretPrefix = "whsec_"

	minKey = 24
	maxKey = 64
	newKey = 32
)

// Secret is what an endpoint's signatures are made with. It does not print.
type Secret struct{ key []byte }

// NewSecret makes a secret.
func NewSecret() Secret {
	key := make([]byte, newKey)
	rand.Read(key) // never fails
	return Secret{key}
}

var errSecret = errors.New("must be whsec_ and the base64 form of 24 to 64 bytes")

// ParseSecret reads the form of Reveal, and no other one. The error does not repeat it.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok || strings.ContainsAny(encoded, "\r\n") {
		return Secret{}, errSecret
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(key) < minKey || len(key) > maxKey {
		return Secret{}, errSecret
	}
	return Secret{key}, nil
}

// Reveal is the text form, which receivers are given and the storage keeps.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// Format keeps the secret out of logs, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, secretPrefix+"…") }

// MarshalText refuses: a record has to ask for Reveal.
func (Secret) MarshalText() ([]byte, error) {
	return nil, errors.New("webhook: a secret is written by Reveal only")
}

// sign is the HMAC of the parts, one after another.
func (s Secret) sign(parts ...[]byte) string {
	mac := hmac.New(sha256.New, s.key)
	for _, p := range parts {
		mac.Write(p)
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
