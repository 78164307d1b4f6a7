// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// unknownKey is a well-formed key that nobody issued.
func unknownKey(t testing.TB) string {
	t.Helper()
	key, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Reveal()
}

// withID is a well-formed key with the id of another and a secret of its own.
func withID(t testing.TB, id string) string {
	t.Helper()
	key := unknownKey(t)
	body := key[:len("ak_")] + id + key[len("ak_")+keyformat.IDLen:len(key)-keyformat.ChecksumLen]
	return body + keyformat.Checksum(body)
}

// cost is what one verification takes: storage calls and HMAC computations.
type cost struct{ calls, writes, hmacs int }

func (m *testMount) costOf(path, key string) (cost, string) {
	m.t.Helper()
	p := m.storage.(*probe)
	p.reset()
	before := m.hmacs.Load()
	data := map[string]any{"key": key}
	if m.asksFresh {
		data["fresh"] = true
	}
	code := m.write(path, data)["code"].(string)
	calls, writes := p.count()
	return cost{calls: calls, writes: writes, hmacs: int(m.hmacs.Load() - before)}, code
}

// fresh makes costOf ask for fresh answers from now on, or no more.
func (m *testMount) fresh(on bool) { m.asksFresh = on }

func TestVerifyCost(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	m.write("roles/other", nil)
	good := m.read("creds/r")["api_key"].(string)
	id := m.read("creds/r")["key_id"].(string)
	wrong, unknown := withID(t, id), unknownKey(t)

	for name, c := range map[string]struct {
		path, key, code string
		cold, hot       cost
	}{
		"good":                                 {"verify", good, "VALID", cost{calls: 2, hmacs: 1}, cost{hmacs: 1}},
		"good, bound":                          {"verify/r", good, "VALID", cost{calls: 2, hmacs: 1}, cost{hmacs: 1}},
		"unknown id":                           {"verify", unknown, "NOT_FOUND", cost{calls: 1, hmacs: 1}, cost{hmacs: 1}},
		"wrong secret":                         {"verify", wrong, "NOT_FOUND", cost{calls: 1, hmacs: 1}, cost{hmacs: 1}},
		"wrong role":                           {"verify/other", good, "NOT_FOUND", cost{calls: 1, hmacs: 1}, cost{hmacs: 1}},
		"no role":                              {"verify/none", good, "NOT_FOUND", cost{calls: 1, hmacs: 1}, cost{hmacs: 1}},
		"unknown id where a role is asked for": {"verify/other", unknown, "NOT_FOUND", cost{calls: 1, hmacs: 1}, cost{hmacs: 1}},
		"malformed":                            {"verify", good[:len(good)-1], "MALFORMED", cost{}, cost{}},
		"unprintable":                          {"verify", good + "\x00", "MALFORMED", cost{}, cost{}},
		"empty":                                {"verify", "", "MALFORMED", cost{}, cost{}},
	} {
		fresh := m.restart()
		// The mount's secrets and whether it holds imported keys are read once.
		fresh.write("verify", map[string]any{"key": unknownKey(t)})
		fresh.write("verify", map[string]any{"key": "imported-from-elsewhere"})
		cold, code := fresh.costOf(c.path, c.key)
		if code != c.code || cold != c.cold {
			t.Errorf("%s, cold: %s at %+v, want %s at %+v", name, code, cold, c.code, c.cold)
		}
		hot, code := fresh.costOf(c.path, c.key)
		if code != c.code || hot != c.hot {
			t.Errorf("%s, hot: %s at %+v, want %s at %+v", name, code, hot, c.code, c.hot)
		}
	}
}

// Keys of a role that is gone are refused without looking for it each time.
func TestVerifyCostOfDeletedRoles(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	id := m.must(logical.DeleteOperation, "roles/r", nil)["role_id"].(string)
	m.costOf("verify", key)
	if hot, code := m.costOf("verify", key); code != "NOT_FOUND" || hot.calls != 0 {
		t.Errorf("%s at %+v", code, hot)
	}
	m.write("restore/"+id, nil)
	m.expectVerdict(key, "VALID")
}

func TestImportedKeysCost(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	foreign := "sk-0123456789-from-elsewhere"
	m.write("roles/r", nil)
	m.ask(foreign)
	if c, code := m.costOf("verify", foreign); code != "MALFORMED" || c != (cost{}) {
		t.Errorf("without imported keys: %s at %+v", code, c)
	}
	results := m.write("import", map[string]any{"batch": `{"role":"legacy","key":"` + foreign + `"}`})["results"].([]any)
	if results[0].(map[string]any)["result"] != importDone {
		t.Fatal(results)
	}
	m.expectVerdict(foreign, "VALID")
	fresh := m.restart()
	fresh.ask(unknownKey(t))
	fresh.ask("another-string-that-nobody-imported")
	if c, code := fresh.costOf("verify", foreign); code != "VALID" || c.calls != 2 || c.writes != 0 {
		t.Errorf("cold: %s at %+v", code, c)
	}
	if c, code := fresh.costOf("verify", foreign); code != "VALID" || c.calls != 0 {
		t.Errorf("hot: %s at %+v", code, c)
	}
	fresh = m.restart()
	fresh.ask("another-string-that-nobody-imported")
	unknown, _ := fresh.costOf("verify/r", "a-third-string-that-nobody-imported")
	wrongRole, code := fresh.costOf("verify/r", foreign)
	if code != "NOT_FOUND" || unknown != wrongRole {
		t.Errorf("unknown %+v, wrong role %+v (%s)", unknown, wrongRole, code)
	}
}

// A flood of unknown keys leaves the known ones where they are, and is bounded.
func TestUnknownKeysEvictNothing(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	m.write("config", map[string]any{"cache_size": 100})
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	m.expectVerdict(key, "VALID")
	for range maxAbsent + 500 {
		m.expectVerdict(unknownKey(t), "NOT_FOUND")
	}
	if n := m.keys.inVain.Len(); n != maxAbsent {
		t.Errorf("%d unknown ids are remembered, want %d", n, maxAbsent)
	}
	if c, code := m.costOf("verify", key); code != "VALID" || c.calls != 0 {
		t.Errorf("after the flood: %s at %+v", code, c)
	}
}

func TestUnknownIsForgottenSoon(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	m.write("roles/r", nil)
	key := unknownKey(t)
	m.expectVerdict(key, "NOT_FOUND")
	for _, step := range []struct {
		after time.Duration
		calls int
	}{{absentFor - time.Nanosecond, 0}, {time.Nanosecond, 1}, {0, 0}, {-time.Hour, 1}} {
		m.clock.advance(step.after)
		if c, _ := m.costOf("verify", key); c.calls != step.calls {
			t.Errorf("after %s: %d calls, want %d", step.after, c.calls, step.calls)
		}
	}
}

// A key that was asked for before it existed is known from its commit on.
func TestUnknownUntilCommitted(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"type": "dynamic"})
	key, rec, err := m.mintKey(mustDigests(t, m), "ak")
	if err != nil {
		t.Fatal(err)
	}
	m.expectVerdict(key.Reveal(), "NOT_FOUND")
	role, err := m.roles.get(t.Context(), m.storage, rolePath("r"))
	if err != nil {
		t.Fatal(err)
	}
	rec.Dynamic, rec.Role, rec.RoleID, rec.Version = true, "r", role.ID, 1
	rec.Issued, rec.Expires = m.clock.Now(), m.clock.Now().Add(time.Hour)
	plant(t, m.storage, keyPath(rec.ID), rec)
	m.keys.committed(keyPath(rec.ID), rec)
	m.expectVerdict(key.Reveal(), "VALID")
}

// Another node's commits count from their invalidation on.
func TestVerifyAfterInvalidation(t *testing.T) {
	store, clock := &logical.InmemStorage{}, newFakeClock()
	active := mountOn(t, store, clock)
	active.write("roles/r", nil)
	other := mountOn(t, store, clock)
	key := active.read("creds/r")["api_key"]
	other.expectVerdict(key, "VALID")
	active.write("revoke/r", map[string]any{"version": 1})
	other.InvalidateKey(t.Context(), rolePath("r"))
	other.expectVerdict(key, "REVOKED")

	active.write("roles/d", map[string]any{"type": "dynamic"})
	lease := active.lease("d", nil)
	other.expectVerdict(lease.Data["api_key"], "VALID")
	if resp, err := active.onLease(logical.RevokeOperation, lease, 0); err != nil || resp.IsError() {
		t.Fatal(resp, err)
	}
	other.InvalidateKey(t.Context(), keyPath(lease.Data["key_id"].(string)))
	other.expectVerdict(lease.Data["api_key"], "REVOKED")

	// What did not exist may exist now.
	fresh := unknownKey(t)
	other.expectVerdict(fresh, "NOT_FOUND")
	sum := keyformat.Sum(fresh)
	d := mustDigests(t, active)
	role, err := getRecord[roleRecord](t.Context(), store, rolePath("d"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keyformat.Parse(fresh)
	if err != nil {
		t.Fatal(err)
	}
	rec := &keyRecord{
		Schema: recordSchema, ID: parsed.ID(), Dynamic: true, Role: "d", RoleID: role.ID, Version: 1,
		Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, sum), Issued: clock.Now(), Expires: clock.Now().Add(time.Hour),
	}
	plant(t, store, keyPath(rec.ID), rec)
	other.expectVerdict(fresh, "NOT_FOUND")
	other.InvalidateKey(t.Context(), keyPath(rec.ID))
	other.expectVerdict(fresh, "VALID")

	// So may keys of other forms.
	other.expectVerdict("sk-0123456789-from-elsewhere", "MALFORMED")
	active.write("import", map[string]any{"batch": `{"role":"legacy","key":"sk-0123456789-from-elsewhere"}`})
	other.InvalidateKey(t.Context(), importedPath)
	other.expectVerdict("sk-0123456789-from-elsewhere", "VALID")
}

// slowGet lets a commit happen between a read of storage and its use.
type slowGet struct {
	logical.Storage
	mu     sync.Mutex
	path   string
	during func()
}

func (s *slowGet) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, path)
	s.mu.Lock()
	during := s.during
	if path != s.path {
		during = nil
	} else {
		s.during = nil
	}
	s.mu.Unlock()
	if during != nil {
		during()
	}
	return entry, err
}

// A verification that read storage before a commit must not put what it saw
// into the cache after it: neither a live record, nor that there is none.
func TestVerifyOvertakenByACommit(t *testing.T) {
	store := &slowGet{Storage: &logical.InmemStorage{}}
	m := mountOn(t, store, newFakeClock())
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	m.roles.purge()
	store.path = rolePath("r")
	store.during = func() { m.write("revoke/r", map[string]any{"version": 1}) }
	m.ask(key)
	m.expectVerdict(key, "REVOKED")

	m.write("roles/d", map[string]any{"type": "dynamic"})
	minted, rec, err := m.mintKey(mustDigests(t, m), "ak")
	if err != nil {
		t.Fatal(err)
	}
	role, err := m.roles.get(t.Context(), store, rolePath("d"))
	if err != nil {
		t.Fatal(err)
	}
	rec.Dynamic, rec.Role, rec.RoleID, rec.Version = true, "d", role.ID, 1
	rec.Issued, rec.Expires = m.clock.Now(), m.clock.Now().Add(time.Hour)
	store.path = keyPath(rec.ID)
	store.during = func() {
		if err := m.commitKey(t.Context(), store, nil, rec, nil); err != nil {
			t.Error(err)
		}
	}
	m.expectVerdict(minted.Reveal(), "NOT_FOUND") // it looked before
	m.expectVerdict(minted.Reveal(), "VALID")
}

func TestVerifyNeverWrites(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", map[string]any{"rate_limit": 2, "ttl": "1h", "rotation_period": 0})
	key := m.read("creds/r")["api_key"].(string)
	for _, d := range []time.Duration{0, time.Minute, time.Hour, 400 * 24 * time.Hour} {
		m.clock.advance(d)
		for range 5 {
			for _, k := range []string{key, withID(t, m.idOf(key)), unknownKey(t), "x"} {
				if c, _ := m.costOf("verify", k); c.writes != 0 {
					t.Fatalf("verify wrote %v", p.log)
				}
			}
		}
	}
}

func (m *testMount) idOf(key string) string {
	m.t.Helper()
	parsed, err := keyformat.Parse(key)
	if err != nil {
		m.t.Fatal(err)
	}
	return parsed.ID()
}

func TestVerifyStorageFailure(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	for call := 1; call <= 2; call++ {
		m.keys.purge()
		m.roles.purge()
		p.arm(call, faultFail)
		if resp, err := m.do(logical.UpdateOperation, "verify", map[string]any{"key": key}); err == nil {
			t.Errorf("storage failed at call %d, and the answer was %v", call, resp.Data)
		}
		p.reset()
		m.expectVerdict(key, "VALID")
	}
}
