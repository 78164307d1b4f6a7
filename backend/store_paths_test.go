// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestNothingIsWrittenWhereNoPlaceIs(t *testing.T) {
	m := newMount(t)
	before := len(dump(t, m.storage))
	for _, path := range []string{"p", "rolex/a", "role", "roles/a", "config/x", "digest2", "due", ""} {
		if putRecord(t.Context(), m.storage, path, &indexEntry{}) == nil || deleteRecord(t.Context(), m.storage, path) == nil {
			t.Errorf("%q was written", path)
		}
	}
	if after := dump(t, m.storage); len(after) != before {
		t.Error(after)
	}
}

// Whatever is stored has a place, and is what the place says: seen in a store with
// every kind of record, which the previous build wrote and this one goes on with.
func TestEveryRecordIsWhatItsPlaceSays(t *testing.T) {
	raw, err := os.ReadFile("testdata/store-schema-1.json")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(raw, &stored); err != nil || len(stored) == 0 {
		t.Fatal(len(stored), err)
	}
	seen := map[string]bool{}
	for path := range stored {
		p := placeOf(path)
		if p == nil {
			t.Errorf("%s has no place", path)
			continue
		}
		seen[p.path] = true
		parts, want := strings.Count(path, "/"), strings.Count(p.path+p.rest, "/")
		if parts != want {
			t.Errorf("%s is not of the form %s%s", path, p.path, p.rest)
		}
	}
	newer := map[string]bool{asidePath: true, movedPrefix: true, outboxPrefix: true, endpointsPath: true, endpointsPrefix: true} // unknown to that build
	for i := range places {
		if !seen[places[i].path] && !newer[places[i].path] {
			t.Errorf("nothing is stored at %s", places[i].path)
		}
	}
}

func TestPlacesNameTheirTypes(t *testing.T) {
	pkgs, err := parser.ParseDir(token.NewFileSet(), ".", func(f os.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // build tags do not matter
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]bool{}
	ast.Inspect(pkgs["backend"], func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			types[spec.Name.Name] = true
		}
		return true
	})
	for i := range places {
		if !types[places[i].record] {
			t.Errorf("%s holds a %s, which is no type", places[i].path, places[i].record)
		}
	}
}

// sealing notes which paths are written with the seal.
type sealing struct {
	logical.Storage
	sealed map[string]bool
}

func (s *sealing) Put(ctx context.Context, e *logical.StorageEntry) error {
	s.sealed[e.Key] = e.SealWrap
	return s.Storage.Put(ctx, e)
}

func TestPlaintextsAndDigestSecretsAreSealed(t *testing.T) {
	s := &sealing{&logical.InmemStorage{}, map[string]bool{}}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", nil)
	m.write("events/e", map[string]any{"url": "https://hooks.example.com"})
	m.run(0)
	n := 0
	for path, sealed := range s.sealed {
		want := path == digestPath || path == endpointsPath || strings.HasPrefix(path, secretPrefix)
		if sealed != want {
			t.Errorf("%s: sealed is %v", path, sealed)
		}
		if sealed {
			n++
		}
	}
	if n < 2 || !slices.Equal(slices.Sorted(slices.Values(m.SpecialPaths().SealWrapStorage)), []string{digestPath, endpointsPath, secretPrefix}) {
		t.Errorf("%d sealed, the server is told %v", n, m.SpecialPaths().SealWrapStorage)
	}
}

// docs/storage.md has the list of places as it is here.
func TestStoragePageListsThePlaces(t *testing.T) {
	const path = "../docs/storage.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| path | what it holds | when it is written | sealed | kept in memory |\n|---|---|---|---|---|\n")
	mark := map[bool]string{true: "yes", false: ""}
	for i := range places {
		p := &places[i]
		fmt.Fprintf(&want, "| `%s%s` | %s | %s | %s | %s |\n", p.path, p.rest, p.holds, p.written, mark[p.sealed], mark[p.forget != nil])
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("%s lacks the list as it is in store_paths.go:\n%s", path, want.String())
	}
}
