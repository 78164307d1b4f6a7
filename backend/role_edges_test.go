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
		known, seen, terms, ttl, until time.Duration
		want                           bool
	}{
		{known: 2, terms: 2, ttl: 2},
		{known: 2, terms: 2, ttl: 3, want: true},
		{known: 2, terms: 2, ttl: 3, until: 9, want: true},
		{known: 5, terms: 2, ttl: 3, want: true},
		{known: 5, terms: 2, ttl: 3, until: 3},
		{known: 5, terms: 2, ttl: 3, until: 2, want: true},
		{known: 5, terms: 3, ttl: 3},
		{known: 5, seen: 3, terms: 3, ttl: 3},
		{known: 5, seen: 2, terms: 3, ttl: 3, want: true}, // the mount raised it since
		{known: 5, seen: 2, terms: 3, ttl: 2},
	} {
		r := &roleNow{rec: &roleRecord{LeaseTTL: policy.Seconds(c.known * 3600), TTLSeen: policy.Seconds(c.seen * 3600)}, now: now}
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

// TestAutomaticVersionsMakeRoom where as many live as may: nobody is there to be
// refused.
func TestAutomaticVersionsMakeRoom(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for name, due := range map[string]func(*testMount, *roleTx) error{
		"planned": func(m *testMount, _ *roleTx) error { m.clock.advance(5 * month); return nil },
		"owed": func(m *testMount, tx *roleTx) error {
			tx.rec.Ring.Current(tx.now).Cap, tx.rec.Owed = tx.now.Add(time.Hour), true
			m.clock.advance(time.Minute)
			return nil
		},
		"before an end": func(_ *testMount, tx *roleTx) error {
			tx.rec.Ring.Current(tx.now).Expires = tx.now.Add(time.Minute)
			return tx.bridge()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/a", map[string]any{"rotation_period": "240d", "grace_period": "200d"})
			for range keyring.MaxLive - 1 {
				m.write("rotate/a", nil)
			}
			m.write("roles/a", map[string]any{"rotation_period": "60d", "grace_period": "50d"})
			rec, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
				return true, due(m, tx)
			})
			if err != nil {
				t.Fatal(err)
			}
			if live := rec.Ring.Live(m.clock.Now()); live != keyring.MaxLive {
				t.Fatalf("%d versions live", live)
			}
			if name == "before an end" && rec.Ring.Last != keyring.MaxLive+1 {
				t.Errorf("version %d is the last before the tick", rec.Ring.Last)
			}
			m.tick()
			if rec := m.record("a"); rec.Ring.Last != keyring.MaxLive+1 || rec.Owed {
				t.Errorf("version %d is the last, owed: %v", rec.Ring.Last, rec.Owed)
			}
		})
	}
}

// TestPlanOfAnOlderBuild: a pending version that the automatic rotation made is in the
// plan's slot, any other one is in none.
func TestPlanOfAnOlderBuild(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "240h"})
	m.clock.advance(time.Hour)
	m.write("rotate/a", map[string]any{"activate_at": "300h"})
	r, err := m.look(t.Context(), m.storage, "a")
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	r.rec = r.rec.clone()
	top, pending := r.rec.Ring.Top(r.now), r.dated()
	for _, c := range []struct {
		auto bool
		top  *keyring.Version
		want time.Time
	}{
		{auto: true, top: top, want: pending.Activate},
		{auto: false, top: top, want: r.terms.Cadence.First(top.CurrentSince(), r.terms.Jitter)},
		{auto: false, want: pending.Activate},
	} {
		pending.Auto = c.auto
		if got := r.olderPlan(c.top).Slot; !got.Equal(c.want) {
			t.Errorf("made by the rotation: %v, a version on top: %v: slot %v, want %v", c.auto, c.top != nil, got, c.want)
		}
	}
}

// TestImportOfAKeyThatGoesMeanwhile finds nothing that stands in its way.
func TestImportOfAKeyThatGoesMeanwhile(t *testing.T) {
	reads := map[string]int{}
	s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(string) error { return nil }}
	m := mountOn(t, s, newFakeClock())
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"].(string)
	path := keyPath(m.idOf(key))
	s.hook = func(call string) error {
		if reads[call]++; call == "get "+path && reads[call] == 2 {
			return s.Storage.Delete(t.Context(), path)
		}
		return nil
	}
	answer, err := m.known(t.Context(), s, m.idOf(key), &adopted{record: &keyRecord{ID: m.idOf(key)}}, nil)
	if answer != nil || err != nil || reads["get "+path] != 2 {
		t.Errorf("after %d reads: %v, %v", reads["get "+path], answer, err)
	}
}

// TestReportedKeysAreInTheHistory although what is old in it cannot go to the archive.
func TestReportedKeysAreInTheHistory(t *testing.T) {
	s := &failingAt{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	key := m.issueTo("d", "x", 1)[0]
	for len(m.record("d").History) < maxHistory {
		_, err := m.mutate(t.Context(), s, "d", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
			tx.note(historyEntry{Kind: eventRoleUpdated})
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.at = []string{archivePrefix}
	m.write("report", map[string]any{"key": key})
	for _, e := range m.record("d").History[maxHistory:] {
		if e.Kind == eventReported && e.KeyID == m.idOf(key) {
			return
		}
	}
	t.Error("the report is not in the history")
}

// TestNoKeyIsIssuedInTheLastSecond of what it would be issued under.
func TestNoKeyIsIssuedInTheLastSecond(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "valid_until": m.untilIn(time.Hour)})
	m.clock.advance(time.Hour - 500*time.Millisecond)
	m.unchanged(func() { m.refused(logical.ReadOperation, "creds/d", nil, "keys of this generation end at") })
}

// TestProblemsAreTheWholeIndex or none: neither half of it is left out where it cannot be
// read.
func TestProblemsAreTheWholeIndex(t *testing.T) {
	for _, prefix := range []string{problemPrefix, attentionPrefix} {
		m := newMount(t)
		m.write("roles/r", nil)
		m.storage = &broken{Storage: m.storage, call: "list " + prefix}
		for path, data := range map[string]map[string]any{"problems/": nil, "inventory/": {"problems": true}} {
			if status := m.status(logical.ListOperation, path, data); status != 500 {
				t.Errorf("%s without %s: %d", path, prefix, status)
			}
		}
	}
}

// A lease of a role that is gone is none of the role that has its name now.
func TestLeaseIsNotedOfItsOwnRoleAlone(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	declare := func() { m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h", "max_ttl": "10h"}) }
	declare()
	before, err := m.look(t.Context(), m.storage, "d")
	if err != nil {
		t.Fatal(err)
	}
	note := func() {
		t.Helper()
		if err := m.noteLease(t.Context(), m.storage, before, 5*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	note()
	if ttl := m.record("d").LeaseTTL; ttl != 5*3600 {
		t.Fatal("of its own role it is not noted:", ttl)
	}
	m.remove("d")
	declare()
	m.unchanged(note)
}
