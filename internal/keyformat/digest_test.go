// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestDigestTellsKeysApart(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, keyformat.DigestSecretLen)
	other := bytes.Repeat([]byte{8}, keyformat.DigestSecretLen)
	sum := keyformat.Sum(mint(t, "ak").Reveal())
	d := keyformat.Digest(secret, 3, sum)

	if !keyformat.Equal(d, secret, 3, sum) {
		t.Error("the right key is refused")
	}
	if keyformat.Equal(d, secret, 3, keyformat.Sum(mint(t, "ak").Reveal())) {
		t.Error("another key is accepted")
	}
	for i := range sum {
		near := sum
		near[i] ^= 1
		if keyformat.Equal(d, secret, 3, near) {
			t.Errorf("a sum that differs in byte %d is accepted", i)
		}
	}
	if keyformat.Equal(d, other, 3, sum) {
		t.Error("another secret is accepted")
	}
	if keyformat.Equal(d, secret, 2, sum) {
		t.Error("another version is accepted")
	}
}

// TestDigestIsHMAC covers the lengths at which HMAC treats its key differently.
func TestDigestIsHMAC(t *testing.T) {
	for _, n := range []int{0, 1, 16, 31, 32, 33, 63, 64, 65, 100, 1000} {
		secret := make([]byte, n)
		_, _ = (&xorshift{uint64(n) + 1}).Read(secret)
		sum := keyformat.Sum(strings.Repeat("k", n))
		h := hmac.New(sha256.New, secret)
		h.Write(sum[:])
		want := "v3:" + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		if got := keyformat.Digest(secret, 3, sum); got != want {
			t.Errorf("secret of %d bytes: %s, want %s", n, got, want)
		}
		if !keyformat.Equal(want, secret, 3, sum) {
			t.Errorf("secret of %d bytes: its own digest is refused", n)
		}
	}
}

// TestSum covers both sides of the length of our own longest key.
func TestSum(t *testing.T) {
	for n := range 200 {
		s := strings.Repeat("k", n)
		if keyformat.Sum(s) != sha256.Sum256([]byte(s)) {
			t.Errorf("wrong for %d characters", n)
		}
	}
}

func TestDigestForm(t *testing.T) {
	sum := keyformat.Sum("a key")
	secret := make([]byte, keyformat.DigestSecretLen)
	good := keyformat.Digest(secret, 1, sum)
	rest := strings.TrimPrefix(good, "v1:")

	for _, version := range []int{1, 9, 10, 1234567890} {
		if got, err := keyformat.DigestVersion(keyformat.Digest(secret, version, sum)); err != nil || got != version {
			t.Errorf("version %d is read as %d, %v", version, got, err)
		}
	}
	for _, bad := range []string{
		"", "v", "v1", "v1:", ":", rest, "1:" + rest, "v:" + rest, "v0:" + rest, "v01:" + rest, "v+1:" + rest, "v-1:" + rest,
		"V1:" + rest, "v1:" + rest + "A", "v1:" + rest[1:], "v1:" + rest + "=", "v1:" + rest + "\n", "v1;" + rest, "v1x:" + rest,
		"v99999999999999999999:" + rest, "v1:" + rest[:42] + "!", "v1:" + rest[:20] + "+" + rest[21:], "v1:" + rest[:20] + "\n" + rest[21:],
		// The last character carries two bits that mean nothing and must be zero.
		"v1:" + rest[:42] + "B", "v1:" + rest[:42] + "_",
	} {
		if _, err := keyformat.DigestVersion(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
		if keyformat.Equal(bad, secret, 1, sum) {
			t.Errorf("%q matches", bad)
		}
	}
}

func TestImportedID(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, keyformat.DigestSecretLen)
	sum := keyformat.Sum("legacy key number one")
	id := keyformat.ImportedID(secret, sum)
	if len(id) != keyformat.ImportedIDLen || len(id) == keyformat.IDLen || !keyformat.ValidID(id) {
		t.Errorf("id %q", id)
	}
	if id != keyformat.ImportedID(secret, sum) {
		t.Error("the same key gets another id")
	}
	if id == keyformat.ImportedID(secret, keyformat.Sum("legacy key number two")) {
		t.Error("another key gets the same id")
	}
	if id == keyformat.ImportedID(make([]byte, 32), sum) {
		t.Error("the secret of the mount does not matter")
	}
}

func TestValidID(t *testing.T) {
	id := mint(t, "ak").ID()
	if !keyformat.ValidID(id) {
		t.Fatalf("the id %q is refused", id)
	}
	forty := strings.Repeat("0a", 20)
	if !keyformat.ValidID(forty) {
		t.Error("an imported id is refused")
	}
	for _, bad := range []string{
		"", id[1:], id + "0", "_" + id[1:], id[1:] + "/", id[1:] + "\n", "../" + id[3:], id[2:] + "é",
		forty[1:], forty + "0", "A" + forty[1:], "g" + forty[1:], "/" + forty[1:],
	} {
		if keyformat.ValidID(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func BenchmarkEqual(b *testing.B) {
	secret := make([]byte, keyformat.DigestSecretLen)
	key := mint(b, "ak").Reveal()
	d := keyformat.Digest(secret, 1, keyformat.Sum(key))
	b.ReportAllocs()
	for b.Loop() {
		if !keyformat.Equal(d, secret, 1, keyformat.Sum(key)) {
			b.Fatal("refused")
		}
	}
}
