// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestKeyFormatFindsTheKeysOfTheMount(t *testing.T) {
	m := newMount(t)
	if got := m.read("key-format"); len(got["prefixes"].([]string)) > 0 || got["gitleaks"] != "" {
		t.Errorf("an empty mount has %v", got)
	}
	m.write("roles/a", nil)
	m.write("roles/b", map[string]any{"prefix": "acme_live"})
	m.write("roles/d", map[string]any{"type": "dynamic", "prefix": "job"})
	var keys []string
	for _, role := range []string{"a", "b", "d"} {
		keys = append(keys, m.read("creds/" + role)["api_key"].(string))
	}
	got := m.read("key-format")
	if want := []string{"acme_live", "ak", "job"}; !slices.Equal(got["prefixes"].([]string), want) {
		t.Fatalf("prefixes %v, want %v", got["prefixes"], want)
	}
	patterns := got["patterns"].(map[string]any)
	for _, key := range keys {
		parsed, err := keyformat.Parse(key)
		if err != nil {
			t.Fatal(err)
		}
		prefix := parsed.Prefix()
		pattern, _ := patterns[prefix].(string)
		if found := regexp.MustCompile(pattern).FindStringSubmatch("key=" + key + "\n"); len(found) < 2 || found[1] != key {
			t.Errorf("the pattern of %s does not find its key", prefix)
		}
		if !strings.Contains(got["gitleaks"].(string), "regex = '''"+pattern+"'''") {
			t.Errorf("no rule has the pattern of %s", prefix)
		}
	}
	if got["complete"] != true || !strings.Contains(got["checksum"].(string), "CRC-32") {
		t.Errorf("%v", got)
	}
}

// TestPrefixesStay: a prefix that was changed, or whose role was deleted, may
// still stand in old files.
func TestPrefixesStay(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"prefix": "first"})
	m.write("roles/a", map[string]any{"prefix": "second"})
	m.must(logical.DeleteOperation, "roles/a", nil)
	key, err := keyformat.Mint("elsewhere", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m.write("import", map[string]any{"batch": fmt.Sprintf(`{"role":"b","key":%q,"prefix":"here"}`, key.Reveal())})
	want := []string{"elsewhere", "first", "here", "second"}
	for _, node := range []*testMount{m, m.restart()} {
		if got := node.read("key-format")["prefixes"].([]string); !slices.Equal(got, want) {
			t.Errorf("prefixes %v, want %v", got, want)
		}
	}
}

// TestPrefixesOfAnotherNode: what another node wrote is seen once this one is
// told.
func TestPrefixesOfAnotherNode(t *testing.T) {
	m := newMount(t)
	other := m.restart()
	m.write("roles/a", map[string]any{"prefix": "first"})
	other.read("key-format")
	m.write("roles/b", map[string]any{"prefix": "second"})
	other.invalidate(context.Background(), prefixesPath)
	want := []string{"first", "second"}
	if got := other.read("key-format")["prefixes"].([]string); !slices.Equal(got, want) {
		t.Errorf("prefixes %v, want %v", got, want)
	}
	// A stale copy is no base to write on.
	m.write("roles/c", map[string]any{"prefix": "third"})
	other.write("roles/d", map[string]any{"prefix": "fourth"})
	want = []string{"first", "fourth", "second", "third"}
	if got := other.read("key-format")["prefixes"].([]string); !slices.Equal(got, want) {
		t.Errorf("prefixes %v, want %v", got, want)
	}
}

// prefixStorage counts the calls for the record of prefixes, and can refuse to
// write it.
type prefixStorage struct {
	logical.Storage
	calls int
	fail  bool
	order []string
}

func (s *prefixStorage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if path == prefixesPath {
		s.calls++
	}
	return s.Storage.Get(ctx, path)
}

func (s *prefixStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if e.Key == prefixesPath {
		s.calls++
		if s.fail {
			return errors.New("disk full")
		}
	}
	s.order = append(s.order, e.Key)
	return s.Storage.Put(ctx, e)
}

func TestPrefixIsWrittenBeforeItsFirstKey(t *testing.T) {
	s := &prefixStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", nil)
	at := slices.Index(s.order, prefixesPath)
	key := slices.IndexFunc(s.order, func(p string) bool { return strings.HasPrefix(p, keyPrefix) })
	if at < 0 || at > key {
		t.Errorf("written in the order %v", s.order)
	}
	s.calls = 0
	m.write("roles/b", nil)
	m.write("rotate/a", nil)
	m.write("roles/a", map[string]any{"owner": "team-a"})
	if s.calls > 0 {
		t.Errorf("%d calls for a prefix that is known", s.calls)
	}
}

// TestPrefixThatCanNotBeWritten stops what makes keys with it, and no kill.
func TestPrefixThatCanNotBeWritten(t *testing.T) {
	s := &prefixStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", nil)
	if err := s.Delete(context.Background(), prefixesPath); err != nil {
		t.Fatal(err)
	}
	s.fail = true
	m = m.restart()
	if _, err := m.do(logical.UpdateOperation, "roles/b", nil); err == nil {
		t.Error("a role was made whose keys no scanner is told of")
	}
	if _, err := m.do(logical.UpdateOperation, "rotate/a", nil); err == nil {
		t.Error("a key was made that no scanner is told of")
	}
	key := m.read("creds/a")["api_key"]
	m.write("revoke/a", map[string]any{"all": true})
	if code := m.write("verify", map[string]any{"key": key})["code"]; code != "REVOKED" {
		t.Errorf("after revoke the key is %v", code)
	}
	s.fail = false
	m.write("rotate/a", nil)
	if got := m.read("key-format")["prefixes"].([]string); !slices.Equal(got, []string{"ak"}) {
		t.Errorf("prefixes %v", got)
	}
}

func TestPrefixesAreBounded(t *testing.T) {
	s := &prefixStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	for i := range maxPrefixes {
		if err := m.notePrefix(context.Background(), s, fmt.Sprint("p", i), false); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.read("key-format"); got["complete"] != true || len(got["prefixes"].([]string)) != maxPrefixes {
		t.Fatalf("complete is %v with %d prefixes", got["complete"], len(got["prefixes"].([]string)))
	}
	m.write("roles/a", map[string]any{"prefix": "onemore"})
	s.calls = 0
	m.write("roles/b", map[string]any{"prefix": "another"})
	if s.calls > 0 {
		t.Errorf("%d calls although the record is full", s.calls)
	}
	m = m.restart()
	if got := m.read("key-format"); got["complete"] != false || len(got["prefixes"].([]string)) != maxPrefixes {
		t.Errorf("complete is %v with %d prefixes", got["complete"], len(got["prefixes"].([]string)))
	}
}
