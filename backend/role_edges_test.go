// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// TestKilledKeysLeaveTheIndex of the live keys of their role, however they end.
func TestKilledKeysLeaveTheIndex(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
	role := m.read("roles/d")["role_id"].(string)
	revoked, expired, lives := m.lease("d", nil), m.lease("d", map[string]any{"ttl": "10m"}), m.lease("d", nil)
	m.write("revoke/d", map[string]any{"key_id": revoked.Data["key_id"]})
	m.clock.advance(20 * time.Minute)
	if _, err := m.onLease(logical.RevokeOperation, expired, 0); err != nil {
		t.Fatal(err)
	}
	left := m.under(issuedPrefix)
	if want := issuedPath(role, lives.Data["key_id"].(string)); len(left) != 1 || left[0] != want {
		t.Errorf("the index has %v, want %s", left, want)
	}
}

// TestRevealOnceOfWhatIsGone hands out nothing and commits nothing.
func TestRevealOnceOfWhatIsGone(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": 0})
	m.write("rotate/a", map[string]any{"grace_period": 0})
	req := m.request
	req.Storage = m.storage
	r, err := m.look(t.Context(), m.storage, "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 7} { // ended, and never made
		m.unchanged(func() {
			plain, _, err := m.revealOnce(t.Context(), &req, r, n)
			if plain != "" || err != nil {
				t.Errorf("version %d: %v, and a value of %d bytes", n, err, len(plain))
			}
		})
	}
}

// TestStubOfARestoredRole holds nothing to restore, and what the purge needs to find.
func TestStubOfARestoredRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	id, _ := m.remove("d")
	copied, err := getRecord[roleRecord](t.Context(), m.storage, deletedPath(id))
	if err != nil || copied == nil {
		t.Fatal(copied, err)
	}
	m.write("restore/"+id, nil)
	stub, err := getRecord[roleRecord](t.Context(), m.storage, deletedPath(id))
	if err != nil || stub == nil || !stub.stub() {
		t.Fatal(stub, err)
	}
	if stub.Schema != recordSchema || stub.Name != "d" || stub.ID != id || stub.Type != policy.Dynamic || !stub.Created.Equal(copied.Created) ||
		!stub.Committed.Equal(copied.Committed) || !stub.Deleted.Equal(copied.Deleted) || !stub.PurgeAt.Equal(copied.PurgeAt) || !stub.Due.Equal(copied.Due) {
		t.Errorf("the stub is %+v, of %+v", stub, copied)
	}
}

// TestKilledWithItsGeneration: how a key ended is written into its record once, and
// only for what the revocation of the generation ended.
func TestKilledWithItsGeneration(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
	id := m.lease("d", nil).Data["key_id"].(string)
	key, err := getRecord[keyRecord](t.Context(), m.storage, keyPath(id))
	if err != nil || key == nil {
		t.Fatal(key, err)
	}
	if killedWith(key, m.record("d"), m.clock.Now()) != nil {
		t.Error("a key of a live generation is marked")
	}
	m.write("revoke/d", map[string]any{"version": 1})
	role, now := m.record("d"), m.clock.Now()
	if got := killedWith(key, role, now); got == nil || got.RevokedAt.IsZero() {
		t.Errorf("a killed key is marked so: %+v", got)
	}
	for what, change := range map[string]func(*keyRecord){
		"has its end":         func(k *keyRecord) { k.End = &keyEnd{State: keyring.Revoked, At: now} },
		"was revoked alone":   func(k *keyRecord) { k.RevokedAt = now },
		"is of a static role": func(k *keyRecord) { k.Dynamic = false },
		"had expired":         func(k *keyRecord) { k.Expires = now.Add(-time.Hour); k.ExpiredSeen = true },
	} {
		k := *key
		change(&k)
		if got := killedWith(&k, role, now); (got == nil) != (what != "had expired" || keyStatus(&k, role, now).State != keyring.Revoked) {
			t.Errorf("a key that %s is marked: %+v", what, got)
		}
	}
}

// TestEntombSparesTheKeysOfOthers: an entry of the index may lead to another role's
// key, which stays as it is.
func TestEntombSparesTheKeysOfOthers(t *testing.T) {
	m := newMount(t)
	other := m.issueTo("e", "x", 1)[0]
	m.issueTo("d", "x", 1)
	m.write("revoke/d", map[string]any{"version": 1})
	m.mutate(t.Context(), m.storage, "d", actor{cause: causePeriodic}, func(tx *roleTx) (bool, error) { //nolint:errcheck // nothing is changed
		return false, tx.entombKey(m.idOf(other))
	})
	m.expectVerdict(other, "VALID")
}

// TestUnknownLeases: the role's record is told of a lease that is longer than it
// knows, or longer than the role's ttl and beyond what it knows.
func TestUnknownLeases(t *testing.T) {
	now := newFakeClock().Now()
	for _, c := range []struct {
		known, terms, ttl, until time.Duration
		want                     bool
	}{
		{known: 2, terms: 2, ttl: 2},
		{known: 2, terms: 2, ttl: 3, want: true},
		{known: 2, terms: 2, ttl: 3, until: 9, want: true},
		{known: 5, terms: 2, ttl: 3, want: true},
		{known: 5, terms: 2, ttl: 3, until: 3},
		{known: 5, terms: 2, ttl: 3, until: 2, want: true},
		{known: 5, terms: 3, ttl: 3},
	} {
		r := &roleNow{rec: &roleRecord{LeaseTTL: policy.Seconds(c.known * 3600)}, now: now}
		r.terms.TTL = c.terms * time.Hour
		if c.until > 0 {
			r.rec.LeaseUntil = now.Add(c.until * time.Hour)
		}
		if got := unknownLease(r, c.ttl*time.Hour); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestLeaseUntilIsOfAFallenTTL alone.
func TestLeaseUntilIsOfAFallenTTL(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "2h", "max_ttl": "40h"})
	for _, ttl := range []string{"2h", "3h"} {
		if m.write("roles/d", map[string]any{"ttl": ttl, "owner": "of " + ttl}); !m.record("d").LeaseUntil.IsZero() {
			t.Errorf("with a ttl of %s leases last until %v", ttl, m.record("d").LeaseUntil)
		}
	}
	m.write("roles/d", map[string]any{"ttl": "1h"})
	if want := m.clock.Now().Add(3 * time.Hour); !m.record("d").LeaseUntil.Equal(want) {
		t.Errorf("leases last until %v, want %v", m.record("d").LeaseUntil, want)
	}
}

// TestDeferredReports say in the role's history which key was found, and the first
// of them is the one that waits.
func TestDeferredReports(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"max_leak_actions": 0})
	m.write("roles/a", nil)
	got := m.read("creds/a")
	id := got["key_id"].(string)
	m.write("report", map[string]any{"key": got["api_key"], "source": "first"})
	entries, _ := m.entriesOf("history/a", nil)
	if last := entries[0]; last["kind"] != string(eventReported) || last["version"] != 1 || last["key_id"] != id {
		t.Errorf("the history says %v", last)
	}
	waiting := dump(t, m.storage)[deferredPath(id)]
	m.clock.advance(time.Minute)
	m.write("report", map[string]any{"key": got["api_key"], "source": "second"})
	if now := dump(t, m.storage)[deferredPath(id)]; now != waiting || !strings.Contains(now, `"key_id"`) {
		t.Errorf("what waits is %s, and was %s", now, waiting)
	}
}

// TestImportsAreInTheHistory, each with its version and key.
func TestImportsAreInTheHistory(t *testing.T) {
	m := newMount(t)
	value := strings.Repeat("x7", 16)
	m.write("roles/a", nil)
	m.write("import", map[string]any{"batch": `{"role":"a","key":"` + value + `"}`})
	cur := m.read("creds/a")
	entries, _ := m.entriesOf("history/a", nil)
	for _, e := range entries {
		if e["kind"] == string(eventImported) {
			if e["version"] != cur["version"] || e["key_id"] != cur["key_id"] {
				t.Errorf("the history says %v, the current version is %v, %v", e, cur["version"], cur["key_id"])
			}
			return
		}
	}
	t.Errorf("no import in %v", entries)
}

// TestMissedUsesAreTold, a single one too.
func TestMissedUsesAreTold(t *testing.T) {
	m, log := logged(t, &logical.InmemStorage{}, newFakeClock())
	m.write("roles/a", nil)
	for n := range usage.MaxEntries {
		m.usage.counter.Told(usage.ID{RoleID: "full", Version: n}, "full", &usage.Report{Accepted: 1}, m.clock.Now())
	}
	key := m.read("creds/a")["api_key"] // a read is not missed
	m.expectVerdict(key, "VALID")
	m.clock.advance(time.Minute)
	m.tick()
	if said := log.String(); !strings.Contains(said, "uses were not counted") || !strings.Contains(said, "uses=1\n") {
		t.Errorf("the log says %q", said)
	}
}
