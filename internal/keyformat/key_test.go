// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func mint(t testing.TB, prefix string) keyformat.Key {
	t.Helper()
	k, err := keyformat.Mint(prefix, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestMintRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for _, prefix := range []string{"ak", "acme_live", "abcdefghijklmno_abcdefghijklmnop"} {
		for range 200 {
			k := mint(t, prefix)
			s := k.Reveal()
			if len(s) != len(prefix)+1+keyformat.IDLen+keyformat.SecretLen+keyformat.ChecksumLen {
				t.Fatalf("%d characters", len(s))
			}
			p, err := keyformat.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			if p.Prefix() != prefix || k.Prefix() != prefix || p.ID() != k.ID() || p.Reveal() != s {
				t.Fatal("parsed differently than minted")
			}
			secret := s[len(prefix)+1+keyformat.IDLen:][:keyformat.SecretLen]
			if seen[k.ID()] || seen[secret] {
				t.Fatal("the same part came twice")
			}
			seen[k.ID()], seen[secret] = true, true
		}
	}
}

func TestMintRefuses(t *testing.T) {
	if _, err := keyformat.Mint("Ak", rand.Reader); err == nil {
		t.Error("a wrong prefix is accepted")
	}
	broken := errors.New("no randomness today")
	// The reader breaks after each number of bytes that could tempt an
	// implementation to go on with what it has.
	for n := range 55 {
		r := io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(broken))
		k, err := keyformat.Mint("ak", r)
		if !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: error %v", n, err)
		}
		if k.Reveal() != "" {
			t.Fatalf("after %d bytes: a key came with the error", n)
		}
	}
}

// TestSamplingIsUnbiased feeds every byte value equally often: a fair mapping
// then gives every character equally often, exactly, and a modulo without
// rejection does not.
func TestSamplingIsUnbiased(t *testing.T) {
	cycle := &counter{}
	count := map[byte]int{}
	const rounds, drawn = 62 * 4, keyformat.IDLen + keyformat.SecretLen
	for range rounds {
		k, err := keyformat.Mint("ak", cycle)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []byte(k.Reveal()[len("ak_"):][:drawn]) {
			count[c]++
		}
	}
	// 248 × 55 characters are 55 whole cycles of the 248 accepted values.
	for i := range len(base62) {
		if got := count[base62[i]]; got != rounds*drawn/62 {
			t.Errorf("%c came %d times, want %d", base62[i], got, rounds*drawn/62)
		}
	}
}

// TestSamplingStatistics does the same for the whole key with pseudo-random
// bytes of a fixed seed, and bounds chi-squared at each position. With 61
// degrees of freedom 140 is exceeded once in ten million.
func TestSamplingStatistics(t *testing.T) {
	const n = 6200
	r := &xorshift{0x9E3779B97F4A7C15}
	var count [keyformat.IDLen + keyformat.SecretLen][256]int
	for range n {
		k, err := keyformat.Mint("ak", r)
		if err != nil {
			t.Fatal(err)
		}
		body := k.Reveal()[len("ak_"):]
		for i := range count {
			count[i][body[i]]++
		}
	}
	for pos := range count {
		chi, total := 0.0, 0
		for i := range len(base62) {
			c := count[pos][base62[i]]
			total += c
			d := float64(c) - n/62
			chi += d * d / (n / 62)
		}
		if total != n {
			t.Errorf("position %d: a character outside the alphabet", pos)
		}
		if chi > 140 {
			t.Errorf("position %d: chi-squared %.1f", pos, chi)
		}
	}
}

type counter struct{ next byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return len(p), nil
}

type xorshift struct{ x uint64 }

func (r *xorshift) Read(p []byte) (int, error) {
	for i := range p {
		r.x ^= r.x << 13
		r.x ^= r.x >> 7
		r.x ^= r.x << 17
		p[i] = byte(r.x >> 32)
	}
	return len(p), nil
}

// TestNearMisses changes a good key in every way that a slip can: each
// character to each other byte, each character lost, doubled or swapped.
func TestNearMisses(t *testing.T) {
	s := mint(t, "acme_live").Reveal()
	refuse := func(what string, i int, near string) {
		t.Helper()
		if near == s {
			return
		}
		if _, err := keyformat.Parse(near); !errors.Is(err, keyformat.ErrMalformed) {
			t.Errorf("%s at %d is accepted", what, i)
		}
	}
	for i := range len(s) {
		for c := range 256 {
			refuse(fmt.Sprintf("byte %#x", c), i, s[:i]+string([]byte{byte(c)})+s[i+1:])
		}
		refuse("loss", i, s[:i]+s[i+1:])
		refuse("doubling", i, s[:i+1]+s[i:])
		if i > 0 {
			refuse("swap", i, s[:i-1]+string([]byte{s[i], s[i-1]})+s[i+1:])
			refuse("cut", i, s[:i])
			refuse("newline", i, s[:i]+"\n"+s[i:])
		}
	}
}

// TestNothingPrintsTheSecret goes through every usual way of printing a value.
func TestNothingPrintsTheSecret(t *testing.T) {
	type holder struct {
		Public keyformat.Key
		hidden keyformat.Key
		ptr    *keyformat.Key
	}
	k := mint(t, "acme_live")
	handle := "acme_live_" + k.ID() + "…"
	secret := k.Reveal()[len("acme_live_")+keyformat.IDLen:][:keyformat.SecretLen]

	var out bytes.Buffer
	for _, v := range []any{
		k, &k,
		[]keyformat.Key{k},
		map[string]keyformat.Key{"k": k},
		map[keyformat.Key]int{k: 1},
		holder{k, k, &k},
		&holder{k, k, &k}, fmt.Errorf("about %v", k),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%08.3f", "% x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
		if x, err := xml.Marshal(v); err == nil {
			out.Write(x)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("key", "key", v)
		}
	}
	text := out.String()
	if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) ||
		strings.Contains(text, strings.Trim(fmt.Sprint([]byte(secret)), "[]")) {
		t.Error("the secret was printed")
	}

	for _, got := range []string{k.String(), fmt.Sprint(k), fmt.Sprintf("%s", k), fmt.Sprintf("%x", k), k.LogValue().String()} {
		if got != handle {
			t.Errorf("printed %q, want %q", got, handle)
		}
	}
	if got, want := fmt.Sprintf("%#v", k), "keyformat.Key("+handle+")"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if j, err := json.Marshal(k); err != nil || string(j) != `"`+handle+`"` {
		t.Errorf("JSON %s, %v", j, err)
	}
}

func TestZeroKey(t *testing.T) {
	var k keyformat.Key
	if k.Prefix() != "" || k.ID() != "" || k.Reveal() != "" || k.String() != "(no key)" {
		t.Error("the zero key has parts")
	}
}

func TestParseAllocates(t *testing.T) {
	s := mint(t, "acme_live").Reveal()
	bad := s[:len(s)-1] + "!"
	secret := make([]byte, keyformat.DigestSecretLen)
	sum := keyformat.Sum(s)
	digest := keyformat.Digest(secret, 1, sum)
	text := strings.Repeat("nothing_to_hide_here ", 20)
	ready := keyformat.NewSecret(1, secret)
	escaped := "https://example.com/?" + strings.Repeat("a=%5F&b=&#95;\\u005f_", 20)
	for _, c := range []struct {
		what string
		most float64
		do   func()
	}{
		{"Parse", 0, func() {
			if k, err := keyformat.Parse(s); err != nil || k.ID() == "" || k.Prefix() == "" {
				t.Fail()
			}
		}},
		{"Parse of a bad key", 0, func() {
			if _, err := keyformat.Parse(bad); err == nil {
				t.Fail()
			}
		}},
		{"Classify", 0, func() { keyformat.Classify(bad) }},
		{"Sum", 0, func() { keyformat.Sum(s) }},
		{"Equal", 0, func() { ready.Equal(digest, sum) }},
		{"Redact of harmless text", 0, func() { keyformat.Redact(text) }},
		{"Redact of harmless escapes", 0, func() { keyformat.Redact(escaped) }},
	} {
		if n := testing.AllocsPerRun(200, c.do); n > c.most && !(raced && c.what == "Equal") {
			t.Errorf("%s: %v allocations, at most %v are needed", c.what, n, c.most)
		}
	}
}

func FuzzParse(f *testing.F) {
	v := readVectors(f)
	for _, x := range v.Valid {
		f.Add(x.Key)
	}
	for _, x := range v.Malformed {
		f.Add(x.String)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := keyformat.Parse(s)
		own := keyformat.Classify(s) == keyformat.Own
		redacted := keyformat.Redact(s)
		if err != nil {
			if !errors.Is(err, keyformat.ErrMalformed) || own || k.Reveal() != "" {
				t.Fatal("a refusal of the wrong kind")
			}
			return
		}
		if !own || k.Reveal() != s || redacted != "[key "+k.ID()+"]" {
			t.Fatal("accepted, but not as itself")
		}
		body := s[len(k.Prefix())+1:]
		if keyformat.ValidPrefix(k.Prefix()) != nil || !keyformat.ValidID(k.ID()) || len(body) != 61 ||
			strings.Trim(body, base62) != "" || keyformat.Checksum(s[:len(s)-6]) != s[len(s)-6:] {
			t.Fatal("accepted against the rules")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	s := mint(b, "acme_live").Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keyformat.Parse(s); err != nil {
			b.Fatal(err)
		}
	}
}
