// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// vectors is the published file. It was computed by another program than this
// package, and other implementations rely on it: entries are added, not changed.
type vectors struct {
	Alphabet string
	Valid    []struct {
		Key, Prefix, ID, Secret, Checksum, SHA256 string
	}
	Malformed []struct {
		String, Why string
	}
	Checksums []struct {
		Input, Checksum string
	}
	Prefixes struct {
		Valid, Invalid []string
	}
	Digests []struct {
		SecretHex  string `json:"secret_hex"`
		Version    int
		Key        string
		Digest     string
		ImportedID string `json:"imported_id"`
	}
	Redaction []struct {
		Text, Redacted string
	}
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	raw, err := os.ReadFile("../../docs/key-format-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Valid) == 0 || len(v.Malformed) == 0 || len(v.Checksums) == 0 || len(v.Prefixes.Valid) == 0 ||
		len(v.Prefixes.Invalid) == 0 || len(v.Digests) == 0 || len(v.Redaction) == 0 {
		t.Fatal("a section of the vectors is empty")
	}
	return v
}

func TestVectorsValid(t *testing.T) {
	for _, v := range readVectors(t).Valid {
		k, err := keyformat.Parse(v.Key)
		if err != nil {
			t.Errorf("id %s: %v", v.ID, err)
			continue
		}
		if k.Prefix() != v.Prefix || k.ID() != v.ID || k.Reveal() != v.Key {
			t.Errorf("id %s: parsed as %q %q", v.ID, k.Prefix(), k.ID())
		}
		unsigned := v.Prefix + "_" + v.ID + v.Secret
		if got := keyformat.Checksum(unsigned); got != v.Checksum || unsigned+got != v.Key {
			t.Errorf("id %s: checksum %s, want %s", v.ID, got, v.Checksum)
		}
		if sum := keyformat.Sum(v.Key); hex.EncodeToString(sum[:]) != v.SHA256 {
			t.Errorf("id %s: sum %x, want %s", v.ID, sum, v.SHA256)
		}
		if !keyformat.ValidID(v.ID) {
			t.Errorf("id %s: not a valid id", v.ID)
		}
		if got := keyformat.Classify(v.Key); got != keyformat.Own {
			t.Errorf("id %s: classified as %v", v.ID, got)
		}
	}
}

func TestVectorsMalformed(t *testing.T) {
	for _, v := range readVectors(t).Malformed {
		k, err := keyformat.Parse(v.String)
		if !errors.Is(err, keyformat.ErrMalformed) {
			t.Errorf("%s: error %v", v.Why, err)
			continue
		}
		if k != (keyformat.Key{}) {
			t.Errorf("%s: a key came with the error", v.Why)
		}
		if len(v.String) >= 8 && strings.Contains(err.Error(), v.String[:8]) {
			t.Errorf("%s: the error shows the string: %v", v.Why, err)
		}
		if got := keyformat.Classify(v.String); got == keyformat.Own {
			t.Errorf("%s: classified as own", v.Why)
		}
	}
}

func TestVectorsChecksums(t *testing.T) {
	for _, v := range readVectors(t).Checksums {
		if got := keyformat.Checksum(v.Input); got != v.Checksum {
			t.Errorf("%q: %s, want %s", v.Input, got, v.Checksum)
		}
	}
}

func TestVectorsPrefixes(t *testing.T) {
	p := readVectors(t).Prefixes
	for _, s := range p.Valid {
		if err := keyformat.ValidPrefix(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range p.Invalid {
		err := keyformat.ValidPrefix(s)
		if err == nil {
			t.Errorf("%q is accepted", s)
			continue
		}
		for _, rule := range []string{"lower-case letter", "1 to 15", "joined by _", "32"} {
			if !strings.Contains(err.Error(), rule) {
				t.Errorf("%q: the error does not say %q: %v", s, rule, err)
			}
		}
	}
}

func TestVectorsDigests(t *testing.T) {
	for _, v := range readVectors(t).Digests {
		secret, err := hex.DecodeString(v.SecretHex)
		if err != nil {
			t.Fatal(err)
		}
		sum := keyformat.Sum(v.Key)
		if got := keyformat.Digest(secret, v.Version, sum); got != v.Digest {
			t.Errorf("digest %s, want %s", got, v.Digest)
		}
		if n, err := keyformat.DigestVersion(v.Digest); err != nil || n != v.Version {
			t.Errorf("%s: version %d, %v", v.Digest, n, err)
		}
		if !keyformat.Equal(v.Digest, secret, v.Version, sum) {
			t.Errorf("%s: does not match its own key", v.Digest)
		}
		if got := keyformat.ImportedID(secret, sum); got != v.ImportedID {
			t.Errorf("imported id %s, want %s", got, v.ImportedID)
		}
		if !keyformat.ValidID(v.ImportedID) {
			t.Errorf("%s: not a valid id", v.ImportedID)
		}
	}
}

func TestVectorsRedaction(t *testing.T) {
	for i, v := range readVectors(t).Redaction {
		if got := keyformat.Redact(v.Text); got != v.Redacted {
			t.Errorf("entry %d: got %q, want %q", i, got, v.Redacted)
		}
	}
}
