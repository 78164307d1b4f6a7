// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	rand2 "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// importedRec is what the mount says about where imported keys are found.
func (m *testMount) importedRec() *importedRecord {
	m.t.Helper()
	all := &importedRecord{}
	for _, path := range []string{importedPath, asidePath} {
		rec, err := getRecord[importedRecord](context.Background(), m.storage, path)
		if err != nil {
			m.t.Fatal(err)
		}
		if rec != nil {
			all = all.with(rec)
		}
	}
	return all
}

// importForeign imports a key of another form for a new role.
func (m *testMount) importForeign(role string) string {
	m.t.Helper()
	key := foreignKey(m.t, 40)
	if got := m.importItems(map[string]any{"role": role, "key": key})[0]; got["result"] != "imported" {
		m.t.Fatal(got)
	}
	return key
}

// TestForeignStringsGetCheapAgain once the keys that they might be are gone.
func TestForeignStringsGetCheapAgain(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("config", map[string]any{"delete_recovery": 0})
	keys := map[string]string{}
	for _, role := range []string{"one", "two", "three"} {
		keys[role] = m.importForeign(role)
		m.write("config/rotate-digest", nil)
	}
	costs := func(want cost, code string) {
		t.Helper()
		m.expectVerdict(foreignKey(t, 20), code) // what is known of the mount is read
		if got, c := m.costOf("verify", foreignKey(t, 40)); got != want || c != code {
			t.Errorf("an unknown string costs %+v and is %s, want %+v and %s", got, c, want, code)
		}
	}
	pass := func() {
		t.Helper()
		m.clock.advance(2 * time.Hour)
		m.tidyAll()
		for role, key := range keys {
			m.expectVerdict(key, "VALID")
			if current(m, role) != key {
				t.Errorf("creds/%s hands out another key", role)
			}
		}
	}
	pass()
	costs(cost{calls: 3, hmacs: 4}, "NOT_FOUND")

	// A role that can be restored comes back with its key.
	m.write("config", map[string]any{"delete_recovery": "72h"})
	id, _ := m.remove("two")
	two := keys["two"]
	delete(keys, "two")
	pass()
	pass()
	costs(cost{calls: 3, hmacs: 4}, "NOT_FOUND")
	m.write("restore/"+id, nil)
	keys["two"] = two
	pass()

	// A key that ended says so as long as its role knows it.
	m.write("revoke/one", map[string]any{"all": true})
	one := keys["one"]
	delete(keys, "one")
	pass()
	pass()
	m.expectVerdict(one, "REVOKED")

	m.write("config", map[string]any{"delete_recovery": 0})
	m.remove("one")
	pass()
	costs(cost{calls: 2, hmacs: 3}, "NOT_FOUND")
	m.expectVerdict(one, "NOT_FOUND")
	m.remove("three")
	delete(keys, "three")
	pass()
	costs(cost{calls: 1, hmacs: 2}, "NOT_FOUND")
	m.remove("two")
	delete(keys, "two")
	pass()
	costs(cost{}, "MALFORMED")
	if m = m.restart(); m.importedRec().mayBe(foreignKey(t, 40)) {
		t.Errorf("%+v", m.importedRec())
	}
	// The key that was revoked is remembered under its secret all the same.
	if got := m.importItems(map[string]any{"role": "one", "key": one})[0]; got["result"] != "refused" {
		t.Error(got)
	}

	// The secret in use stays: an import may have used it at any time. Once another
	// is in use it goes like the others.
	keys["four"] = m.importForeign("four")
	pass()
	costs(cost{calls: 1, hmacs: 2}, "NOT_FOUND")
	m.remove("four")
	delete(keys, "four")
	pass()
	costs(cost{calls: 1, hmacs: 2}, "NOT_FOUND")
	pass()
	costs(cost{calls: 1, hmacs: 2}, "NOT_FOUND")
	m.write("config/rotate-digest", nil)
	pass()
	pass()
	costs(cost{}, "MALFORMED")
}

// TestShortStringsGetCheapAgain, unless a key that is known by its digest only may
// be short.
func TestShortStringsGetCheapAgain(t *testing.T) {
	for _, digest := range []bool{false, true} {
		m := newMount(t)
		m.write("config", map[string]any{"allow_weak_imports": true, "delete_recovery": 0})
		weak := foreignKey(t, 8)
		m.importItems(map[string]any{"role": "weak", "key": weak})
		m.importForeign("strong")
		byDigest := foreignKey(t, 9)
		if digest {
			m.importItems(map[string]any{"role": "digest", "sha256": sha(byDigest)})
			m.expectVerdict(byDigest, "VALID")
		}
		pass := func() {
			m.clock.advance(2 * time.Hour)
			m.tidyAll()
		}
		pass()
		pass()
		m.expectVerdict(weak, "VALID")
		// The role forgets the version, but its key's record tells how it ended.
		m.write("revoke/weak", map[string]any{"all": true})
		for range 25 {
			m.write("rotate/weak", map[string]any{"grace_period": 0})
			m.clock.advance(2 * time.Hour)
			m.tick()
		}
		pass()
		pass()
		m.expectVerdict(weak, "REVOKED")
		m.remove("weak")
		pass()
		m.expectVerdict(foreignKey(t, 7), "NOT_FOUND")
		pass()
		want := "MALFORMED"
		if digest {
			want = "NOT_FOUND"
			m.expectVerdict(byDigest, "VALID")
		}
		m.expectVerdict(foreignKey(t, 7), want)
		// And again, while a pass is under way.
		again := foreignKey(t, 8)
		m.importItems(map[string]any{"role": "again", "key": again})
		m.expectVerdict(again, "VALID")
	}
}

// slice does so many storage calls of a pass.
func (m *testMount) slice(rec *tidyRecord, calls int) {
	m.t.Helper()
	ctx := context.Background()
	cfg, err := m.config(ctx, m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	lim, err := m.limits(ctx, m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	t := &tick{b: m.backend, s: m.storage, now: m.clock.Now(), config: cfg, lim: lim}
	if err := m.tidySlice(ctx, t, rec, calls, time.Minute); err != nil && !errors.Is(err, errStorage) {
		m.t.Fatal(err)
	}
}

// asOlderBuild drops from a record what an older build does not know.
func (m *testMount) asOlderBuild(path string, names ...string) {
	m.t.Helper()
	rec, err := getRecord[map[string]any](context.Background(), m.storage, path)
	if err != nil || rec == nil {
		m.t.Fatal(rec, err)
	}
	for _, name := range names {
		delete(*rec, name)
	}
	data, err := json.Marshal(*rec)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: path, Value: data}); err != nil {
		m.t.Fatal(err)
	}
	m.invalidate(context.Background(), path)
}

// What had been put aside and was used again since stays, wherever the end of the
// stage is cut off and repeated.
func TestEndOfKeysIsRepeatable(t *testing.T) {
	used := &importedRecord{Schema: 1, Numbers: []int{1}, Weak: true}
	for _, f := range []fault{faultFail, faultApplied, faultCrash, faultApplyCrash} {
		for call := 1; call <= 5; call++ {
			p := newProbe(&logical.InmemStorage{})
			m := mountOn(t, p, newFakeClock())
			rec := &tidyRecord{
				Schema: 1, Started: m.clock.Now(), Stage: "keys",
				Foreign: &foreignSeen{From: 1, Aside: []int{1}, WeakAside: true},
			}
			plant(t, p, importedPath, used)
			plant(t, p, asidePath, used)
			plant(t, p, tidyPath, rec)
			m = m.restart()
			end := func() error {
				return (&tidyRun{b: m.backend, s: &countedStorage{Storage: p}, rec: rec, now: m.clock.Now()}).endForeign(t.Context())
			}
			p.onlyWrites = true
			p.arm(call, f)
			err := end()
			p.reset()
			for range 3 {
				if err == nil {
					break
				}
				if rec, err = getRecord[tidyRecord](t.Context(), p, tidyPath); err != nil {
					t.Fatal(err)
				}
				m = m.restart()
				err = end()
			}
			if got := m.importedRec(); err != nil || !got.same(used) {
				t.Errorf("fault %d at write %d: %+v is left of %+v, %v", f, call, got, used, err)
			}
		}
	}
}

// TestImportsDuringAPassAreFound: whatever is imported, ended and forgotten between
// the slices of passes, with restarts, failovers and an older build in between, the
// keys that are good verify.
func TestImportsDuringAPassAreFound(t *testing.T) {
	for seed := range uint64(60) {
		r := rand2.New(rand2.NewPCG(seed, 3)) //nolint:gosec // a test's choice
		p := newProbe(&logical.InmemStorage{})
		p.onlyWrites = true
		m := mountOn(t, p, newFakeClock())
		m.write("config", map[string]any{"delete_recovery": 0, "allow_weak_imports": true})
		live := map[string]string{}
		rec := &tidyRecord{}
		drops, shrunk := 0, false
		for n := range 80 {
			switch r.IntN(7) {
			case 0, 1:
				length := 40
				if r.IntN(4) == 0 {
					length = 8
				}
				role, key := fmt.Sprint("r", n), foreignKey(t, length)
				if got := m.importItems(map[string]any{"role": role, "key": key})[0]; got["result"] != "imported" {
					if strings.Contains(fmt.Sprint(got["error"]), "16 digest secrets") {
						break
					}
					t.Fatal(got)
				}
				live[role] = key
				if r.IntN(2) == 0 { // by an older build, as far as that tells
					m.asOlderBuild(importedPath, "more")
				}
			case 2:
				for role := range live {
					m.remove(role)
					delete(live, role)
					break
				}
			case 3:
				if drops < 12 {
					m.write("config/rotate-digest", nil)
					drops++
				}
			case 4:
				m = m.restart()
			case 5:
				m.clock.advance(90 * time.Minute)
			case 6:
				// An older build does a part of the pass.
				if rec.running() && r.IntN(3) == 0 {
					m.asOlderBuild(tidyPath, "foreign", "prefixes")
				}
			}
			if stored, err := getRecord[tidyRecord](context.Background(), m.storage, tidyPath); err != nil {
				t.Fatal(err)
			} else if stored != nil {
				rec = stored
			}
			if !rec.running() {
				m.beginTidy(rec, m.clock.Now(), true)
			}
			before := len(m.importedRec().Numbers)
			if r.IntN(3) == 0 {
				p.arm(1+r.IntN(4), []fault{faultFail, faultApplied, faultCrash, faultApplyCrash}[r.IntN(4)])
			}
			m.slice(rec, 1+r.IntN(6000))
			if p.hit(); p.crashed {
				p.reset()
				m = m.restart()
			}
			p.reset()
			shrunk = shrunk || len(m.importedRec().Numbers) < before
			for role, key := range live {
				if code := m.verdict(key); code != "VALID" {
					t.Fatalf("seed %d, step %d: the key of %s is %s: %+v", seed, n, role, code, m.importedRec())
				}
			}
		}
		for role := range live {
			m.remove(role)
		}
		m.write("config/rotate-digest", nil)
		for range 3 {
			m.clock.advance(2 * time.Hour)
			m.tidyAll()
		}
		if got := m.importedRec(); len(got.Numbers) > 0 || got.Weak {
			t.Errorf("seed %d: %+v", seed, got)
		}
		if !shrunk {
			t.Logf("seed %d: nothing shrank on the way", seed)
		}
	}
}

// TestPassThatCannotReadAKeyShrinksNothing.
func TestPassThatCannotReadAKeyShrinksNothing(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	key := m.importForeign("r")
	m.write("config/rotate-digest", nil)
	s := m.storage
	m.storage = &unreadable{Storage: s, prefix: keyPrefix}
	m.clock.advance(2 * time.Hour)
	for range 2 {
		if got := m.write("tidy", nil); got["done"] != true || got["failed"] == int64(0) {
			t.Fatal(got)
		}
	}
	m.storage = s
	m = m.restart()
	m.expectVerdict(key, "VALID")
}

// unreadable is a storage that does not give what is under a prefix.
type unreadable struct {
	logical.Storage
	prefix string
}

func (s *unreadable) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if strings.HasPrefix(path, s.prefix) {
		return nil, errors.New("the storage failed")
	}
	return s.Storage.Get(ctx, path)
}

// TestForeignSecretsAreBounded: an import that would need one more is refused, and
// those that are there go on.
func TestForeignSecretsAreBounded(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	var keys []string
	for i := range maxForeignSecrets {
		keys = append(keys, m.importForeign(fmt.Sprint("r", i)))
		m.write("config/rotate-digest", nil)
	}
	item := map[string]any{"role": "more", "key": foreignKey(t, 40)}
	m.unchanged(func() {
		got := m.importItems(item)[0]
		if text, _ := got["error"].(string); got["result"] != "refused" || !strings.Contains(text, "under 16 digest secrets already") || !strings.Contains(text, "run tidy") {
			t.Error(got)
		}
	})
	own, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.importItems(map[string]any{"role": "own", "key": own.Reveal()})[0]; got["result"] != "imported" {
		t.Error(got)
	}
	for _, key := range keys {
		m.expectVerdict(key, "VALID")
	}
	m.remove("r3")
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	if got := m.importItems(item)[0]; got["result"] != "imported" {
		t.Error(got)
	}
	m.expectVerdict(item["key"], "VALID")
	m.expectVerdict(keys[0], "VALID")
}

// TestMoreForeignSecretsOfAnOlderBuildAreSearched: no bound makes a key unknown.
func TestMoreForeignSecretsOfAnOlderBuildAreSearched(t *testing.T) {
	m := newMount(t)
	keys := []string{m.importForeign("first")}
	for range maxForeignSecrets + 4 {
		m.write("config/rotate-digest", nil)
	}
	keys = append(keys, m.importForeign("last"))
	rec := m.importedRec()
	for n := 2; n < maxForeignSecrets+4; n++ {
		rec.Numbers = append(rec.Numbers, n)
	}
	newestFirst(rec.Numbers)
	if err := putRecord(context.Background(), m.storage, importedPath, rec); err != nil {
		t.Fatal(err)
	}
	m = m.restart()
	for _, key := range append(keys, m.importForeign("again")) {
		m.expectVerdict(key, "VALID")
	}
}

// importPrefix imports a key of this engine's form with that prefix.
func (m *testMount) importPrefix(role, prefix string) {
	m.t.Helper()
	key, err := keyformat.Mint(prefix, rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	if got := m.importItems(map[string]any{"role": role, "key": key.Reveal()})[0]; got["result"] != "imported" {
		m.t.Fatal(got)
	}
}

func (m *testMount) expectPrefixes(complete bool, n int, some ...string) {
	m.t.Helper()
	got := m.read("key-format")
	list := got["prefixes"].([]string)
	if got["complete"] != complete || len(list) != n || !slices.IsSorted(list) {
		m.t.Errorf("complete is %v with %d prefixes, want %v with %d", got["complete"], len(list), complete, n)
	}
	for _, prefix := range some {
		if !slices.Contains(list, prefix) {
			m.t.Errorf("%s is not listed", prefix)
		}
	}
}

// TestImportedPrefixesTakeNoRoomFromRoles, and the list is complete again when they
// are gone.
func TestImportedPrefixesTakeNoRoomFromRoles(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	var roles []string
	for i := range maxPrefixes + 5 {
		roles = append(roles, fmt.Sprint("r", i))
		m.importPrefix(roles[i], fmt.Sprintf("imp%d", i))
	}
	m.write("roles/own", map[string]any{"prefix": "mine"})
	m.expectPrefixes(false, maxPrefixes+2, "ak", "mine")
	m.write("roles/taken", map[string]any{"prefix": "imp7"})
	m.expectPrefixes(false, maxPrefixes+2, "imp7")
	if rec, err := m.knownPrefixes(context.Background(), m.storage); err != nil || slices.Contains(rec.Imported, "imp7") {
		t.Errorf("a role's prefix takes room from the imported ones: %v", err)
	}
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	m.expectPrefixes(false, maxPrefixes+7, "ak", "mine", "imp7") // what made room is listed once more
	m.tidyAll()
	m.expectPrefixes(false, maxPrefixes+3, "ak", "mine", "imp7")
	for _, role := range roles[10:] {
		m.remove(role)
	}
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	m = m.restart()
	// What made room is listed once more.
	if got := m.read("key-format"); got["complete"] != true {
		t.Errorf("complete is %v", got["complete"])
	}
	m.tidyAll()
	m.expectPrefixes(true, 12, "ak", "mine", "imp0", "imp7", "imp9")
	// As long as there is room nothing is forgotten.
	for _, role := range roles[:10] {
		m.remove(role)
	}
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	m.tidyAll()
	m.expectPrefixes(true, 12, "imp0")
}

// TestOwnPrefixesBecomeCompleteAgain, with those in use, in a copy and in history.
func TestOwnPrefixesBecomeCompleteAgain(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	m.write("roles/a", map[string]any{"prefix": "before"})
	m.write("roles/a", map[string]any{"prefix": "between"}) // no key has it
	m.write("roles/a", map[string]any{"prefix": "after"})
	m.write("roles/d", map[string]any{"type": "dynamic", "prefix": "job"})
	m.write("roles/gone", map[string]any{"prefix": "copy"})
	m.remove("gone")
	for i := range maxPrefixes {
		if err := m.notePrefix(ctx, m.storage, fmt.Sprint("p", i), false); err != nil {
			t.Fatal(err)
		}
	}
	m.expectPrefixes(false, maxPrefixes, "after", "job")
	m.write("roles/late", map[string]any{"prefix": "zlate"})
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	m.expectPrefixes(true, maxPrefixes+1, "before", "between", "after", "job", "copy", "zlate", "p0")
	// One that was put aside is taken up again.
	m.write("roles/again", map[string]any{"prefix": "p5"})
	m.tidyAll()
	m.expectPrefixes(true, 7, "before", "between", "after", "job", "copy", "zlate", "p5")
}

// TestPrefixOfARoleBehindThePassStays: a role that is made after the pass has come
// by, with a prefix that nobody else has any more.
func TestPrefixOfARoleBehindThePassStays(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	for i := range maxPrefixes + 1 {
		if err := m.notePrefix(ctx, m.storage, fmt.Sprint("p", i), false); err != nil {
			t.Fatal(err)
		}
	}
	m.write("roles/m", map[string]any{"prefix": "p1"})
	m.clock.advance(2 * time.Hour)
	made := false
	m.storage = &hooked{Storage: m.storage, get: func(path string) {
		if path == rolePath("m") && !made {
			made = true
			m.write("roles/b", map[string]any{"prefix": "p2"})
		}
	}}
	for range 4 {
		made = false
		m.tidyAll()
		m.expectPrefixes(true, len(m.read("key-format")["prefixes"].([]string)), "p1", "p2")
	}
	m.expectPrefixes(true, 2, "p1", "p2")
}

// hooked calls get before each Get.
type hooked struct {
	logical.Storage
	get func(path string)
}

func (s *hooked) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	s.get(path)
	return s.Storage.Get(ctx, path)
}

// TestPrefixesOfOlderImportsStay: their versions do not tell the prefix, and an
// older build listed them among the roles'.
func TestPrefixesOfOlderImportsStay(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	m.importPrefix("r", "elsewhere")
	rec := m.record("r")
	if v := rec.Ring.Get(1); v.Prefix != "elsewhere" {
		t.Errorf("the version says %q", v.Prefix)
	}
	rec.Ring.Get(1).Prefix = ""
	data, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.storage.Put(ctx, &logical.StorageEntry{Key: rolePath("r"), Value: data}); err != nil {
		t.Fatal(err)
	}
	all := []string{"elsewhere"}
	for i := range maxPrefixes - 1 {
		all = append(all, fmt.Sprint("p", i))
	}
	slices.Sort(all)
	if err := putRecord(ctx, m.storage, prefixesPath, map[string]any{"schema": 1, "prefixes": all, "truncated": true}); err != nil {
		t.Fatal(err)
	}
	m = m.restart()
	m.write("roles/new", map[string]any{"prefix": "mine"})
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	m.expectPrefixes(true, maxPrefixes+2, "mine", "ak", "elsewhere", "p5")
	m.tidyAll()
	m.expectPrefixes(true, maxPrefixes+2, "mine", "ak", "elsewhere", "p5")
}
