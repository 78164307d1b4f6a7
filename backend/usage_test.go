// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// usageIn is the usage of a version as the role's status shows it.
func usageIn(t *testing.T, m *testMount, role string, version int) map[string]any {
	t.Helper()
	for _, v := range m.read("status/" + role)["versions"].([]any) {
		if v := v.(map[string]any); v["version"] == version {
			return v["usage"].(map[string]any)
		}
	}
	t.Fatalf("role %s has no version %d", role, version)
	return nil
}

// usageLine is a usage in one line: accepted, refused by code, and clients.
func usageLine(use map[string]any) string {
	out := fmt.Sprint(use["accepted"])
	refused := use["refused"].(map[string]any)
	for _, code := range sortedKeys(refused) {
		out += fmt.Sprintf(" %s=%v", code, refused[code])
	}
	if clients, ok := use["clients"].([]any); ok {
		for _, c := range clients {
			c := c.(map[string]any)
			out += fmt.Sprintf(" [%v %s]", c["client"], usageLine(c))
		}
	}
	return out
}

func TestUsageByVersionCodeAndClient(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"scopes": "a"})
	old := m.read("creds/r")["api_key"]
	first := m.clock.Now()
	m.write("verify", map[string]any{"key": old, "client": "edge-1"})
	m.clock.advance(time.Minute)
	m.write("verify", map[string]any{"key": old, "client": "edge-2"})
	m.write("verify", map[string]any{"key": old, "client": "edge-2", "scopes": "b"})
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	rotated := m.clock.Now()
	m.clock.advance(time.Minute)
	m.ask(m.read("creds/r")["api_key"])
	m.ask(unknownKey(t))

	check := func(m *testMount, when string) {
		t.Helper()
		use := usageIn(t, m, "r", 1)
		if got, want := usageLine(use), "2 INSUFFICIENT_SCOPE=1 [edge-1 1] [edge-2 1 INSUFFICIENT_SCOPE=1]"; got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
		expectAnswer(t, use, map[string]any{"first_use": stamp(first), "last_use": stamp(rotated), "last_accepted": stamp(rotated)})
		if got := usageLine(usageIn(t, m, "r", 2)); got != "1" {
			t.Errorf("%s: version 2: %s", when, got)
		}
	}
	check(m, "before a flush")
	p := newProbe(m.storage)
	m.storage = p
	m.tick()
	if _, found := stored(t, m, usagePath(m.roleID("r"), usageID{})); found {
		t.Error("flushed although nothing waits for it")
	}
	m.clock.advance(usageInterval)
	m.tick()
	check(m, "after a flush")
	check(m.restart(), "after a restart")
	m.write("verify", map[string]any{"key": old, "client": "edge-1"})
	if got := usageLine(usageIn(t, m, "r", 1)); got != "3 INSUFFICIENT_SCOPE=1 [edge-1 2] [edge-2 1 INSUFFICIENT_SCOPE=1]" {
		t.Errorf("merged: %s", got)
	}
	m.clock.advance(usageInterval)
	m.tick()
	if got := usageLine(usageIn(t, m.restart(), "r", 1)); got != "3 INSUFFICIENT_SCOPE=1 [edge-1 2] [edge-2 1 INSUFFICIENT_SCOPE=1]" {
		t.Errorf("merged in storage: %s", got)
	}
}

func (m *testMount) roleID(name string) string {
	m.t.Helper()
	rec, err := getRecord[roleRecord](m.t.Context(), m.storage, rolePath(name))
	if err != nil || rec == nil {
		m.t.Fatal(rec, err)
	}
	return rec.ID
}

func stored(t *testing.T, m *testMount, path string) (*usageRecord, bool) {
	t.Helper()
	rec, err := getRecord[usageRecord](t.Context(), m.storage, path)
	if err != nil {
		t.Fatal(err)
	}
	return rec, rec != nil
}

// Where a previous version is in use, its last use goes to storage with the
// next tick: the grace depends on it, after a failover too.
func TestUseOfAPreviousVersionIsFlushedAtOnce(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	old := m.read("creds/r")["api_key"]
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	for range 3 {
		m.clock.advance(time.Minute)
		m.ask(old)
		m.tick()
		rec, found := stored(t, m, usagePath(m.roleID("r"), usageID{}))
		if !found || rec.Versions[1].Seen.Used != m.clock.Now().Unix() {
			t.Fatalf("stored: %v", rec)
		}
	}
}

func TestUsageIsFlushedAtCleanup(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.ask(m.read("creds/r")["api_key"])
	m.Cleanup(t.Context())
	if got := usageLine(usageIn(t, m.restart(), "r", 1)); got != "1" {
		t.Errorf("after the restart: %s", got)
	}
}

// A grace is prolonged while the version before is used: as this server saw it,
// also if another process of it did, and not because somebody says so.
func TestUsePromotesAGrace(t *testing.T) {
	role := map[string]any{"rotation_period": "2h", "grace_period": "20m", "max_grace_period": "1h"}
	for name, c := range map[string]struct {
		use    func(m *testMount, key, id any)
		config map[string]any
		longer bool
	}{
		"unused":            {use: func(*testMount, any, any) {}},
		"used":              {use: func(m *testMount, key, _ any) { m.ask(key) }, longer: true},
		"refused":           {use: func(m *testMount, key, _ any) { m.write("verify", map[string]any{"key": key, "scopes": "x"}) }},
		"used by another":   {use: func(m *testMount, key, _ any) { other := m.restart(); other.ask(key); other.Cleanup(m.t.Context()) }, longer: true},
		"reported":          {use: func(m *testMount, _, id any) { m.reportUse(1, id, 5) }},
		"reported, trusted": {use: func(m *testMount, _, id any) { m.reportUse(1, id, 5) }, config: map[string]any{"trust_reported_usage": true}, longer: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			if c.config != nil {
				m.write("config", c.config)
			}
			m.write("roles/r", role)
			creds := m.read("creds/r")
			m.run(2*time.Hour + 10*time.Minute)
			m.expectStates("r", "previous current")
			c.use(m, creds["api_key"], creds["key_id"])
			m.run(12 * time.Minute)
			want := "retired current"
			if c.longer {
				want = "previous current"
			}
			m.expectStates("r", want)
		})
	}
}

func TestStillUsed(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	old := m.read("creds/r")["api_key"]
	m.write("verify", map[string]any{"key": old, "client": "early"})
	m.clock.advance(time.Hour)
	m.write("rotate/r", map[string]any{"grace_period": "24h"})
	if got := m.read("status/r")["still_used"].([]any); len(got) != 0 {
		t.Errorf("nobody has used it since, and the answer is %v", got)
	}
	m.clock.advance(time.Hour)
	m.write("verify", map[string]any{"key": old, "client": "late"})
	got := m.read("status/r")["still_used"].([]any)
	if len(got) != 1 {
		t.Fatalf("still used: %v", got)
	}
	entry := got[0].(map[string]any)
	expectAnswer(t, entry, map[string]any{
		"version": 1, "state": "previous", "last_accepted": stamp(m.clock.Now()), "valid_until": stamp(m.clock.Now().Add(23 * time.Hour)),
	})
	if !sameValue(entry["clients"], []string{"late"}) {
		t.Errorf("clients %v", entry["clients"])
	}
}

// The use of an ended key is counted by hour, and does nothing else.
func TestUseOfEndedKeys(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	old := m.read("creds/r")["api_key"]
	m.write("rotate/r", map[string]any{"grace_period": 0})
	before := m.states("r")
	for range 3 {
		m.expectVerdict(old, "RETIRED")
	}
	first := m.clock.Now()
	m.clock.advance(time.Hour)
	m.expectVerdict(old, "RETIRED")
	m.clock.advance(usageInterval)
	m.tick()
	for _, m := range []*testMount{m, m.restart()} {
		status := m.read("status/r")
		hours := status["ended_use"].([]any)
		if len(hours) != 2 {
			t.Fatalf("hours %v", hours)
		}
		expectAnswer(t, hours[0].(map[string]any), map[string]any{"hour": stamp(first.Add(time.Hour)), "count": 1})
		expectAnswer(t, hours[1].(map[string]any), map[string]any{"hour": stamp(first), "count": 3})
		for path, data := range map[string]map[string]any{"status": status, "history": m.read("history/r")} {
			noise, ok := data["noise"].(map[string]any)[noiseEndedUse].(map[string]any)
			if !ok || number(t, noise["count"]) != 4 {
				t.Errorf("noise in %s: %v", path, data["noise"])
			}
		}
	}
	if after := m.states("r"); after != before {
		t.Errorf("versions were %s and are %s", before, after)
	}
}

func TestUsageOfDynamicKeys(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	a, b := m.lease("d", nil), m.lease("d", nil)
	m.ask(a.Data["api_key"])
	m.ask(a.Data["api_key"])
	m.ask(b.Data["api_key"])
	check := func(m *testMount) {
		t.Helper()
		if got := usageLine(usageIn(t, m, "d", 1)); got != "3" {
			t.Errorf("generation: %s", got)
		}
		for lease, want := range map[*logical.Response]string{a: "2", b: "1"} {
			use := m.write("lookup", map[string]any{"key_id": lease.Data["key_id"]})["usage"].(map[string]any)
			if got := usageLine(use); got != want {
				t.Errorf("key: %s, want %s", got, want)
			}
		}
	}
	check(m)
	m.Cleanup(t.Context())
	check(m.restart())
}

func TestClientsAreBounded(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	for round := range 2 {
		for i := range maxClients + 20 {
			m.write("verify", map[string]any{"key": key, "client": fmt.Sprintf("client-%d-%03d", round, i)})
		}
		m.write("verify", map[string]any{"key": key, "client": "leak " + strings.ToUpper(key[:20])})
		clients := usageIn(t, m, "r", 1)["clients"].([]any)
		if len(clients) > maxClients+1 {
			t.Fatalf("%d labels", len(clients))
		}
		total := int64(0)
		for _, c := range clients {
			total += c.(map[string]any)["accepted"].(int64)
		}
		if want := int64((round + 1) * (maxClients + 21)); total != want {
			t.Errorf("round %d: the labels add up to %d, want %d", round, total, want)
		}
		m.clock.advance(usageInterval)
		m.tick()
	}
}

func TestLabelsHoldNoKeys(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"prefix": "k1"}) // the longest key that is no longer than a label
	creds := m.read("creds/r")
	m.write("verify", map[string]any{"key": creds["api_key"], "client": creds["api_key"]})
	want := fmt.Sprintf("1 [[key %s] 1]", creds["key_id"])
	if got := usageLine(usageIn(t, m, "r", 1)); got != want {
		t.Errorf("the label is not cleared of the key: want %s", want)
	}
}

// A flush whose outcome is unknown is neither lost nor counted twice.
func TestFlushWithUnknownOutcome(t *testing.T) {
	for _, f := range []fault{faultFail, faultApplied} {
		p := newProbe(&logical.InmemStorage{})
		m := mountOn(t, p, newFakeClock())
		m.write("roles/r", nil)
		key := m.read("creds/r")["api_key"]
		path := usagePath(m.roleID("r"), usageID{})
		m.ask(key)
		p.onlyWrites = true
		p.arm(1, f)
		if err := m.flushGroup(t.Context(), p, path); err == nil {
			t.Fatal("the fault did not show")
		}
		p.reset()
		if got := usageLine(usageIn(t, m, "r", 1)); got != "1" {
			t.Errorf("fault %d: %s while it is unknown", f, got)
		}
		m.ask(key)
		if got := usageLine(usageIn(t, m, "r", 1)); got != "2" {
			t.Errorf("fault %d: %s after another use", f, got)
		}
		if err := m.flushGroup(t.Context(), p, path); err != nil {
			t.Fatal(err)
		}
		if got := usageLine(usageIn(t, m, "r", 1)); got != "2" {
			t.Errorf("fault %d: %s in the end", f, got)
		}
		if n := m.usage.entries.Load(); n != 0 {
			t.Errorf("fault %d: %d entries are held", f, n)
		}
	}
}

func TestUsageIsBounded(t *testing.T) {
	m := newMount(t)
	u := m.usage
	for i := range maxUsageEntries + 100 {
		id := usageID{version: 1, keyID: fmt.Sprintf("%012d", i)}
		u.count(nil, &keyRecord{Role: "r", RoleID: "role"}, id, m.clock.Now(), func(_ *usageGroup, e *usageEntry) { e.seen.hit(codeValid, 1) })
	}
	if u.entries.Load() != maxUsageEntries || u.dropped.Load() != 100 {
		t.Errorf("%d entries, %d dropped", u.entries.Load(), u.dropped.Load())
	}
	m.tick()
	if n := u.entries.Load(); n != 0 {
		t.Errorf("a crowded memory holds %d entries after a tick", n)
	}
	rec, _ := stored(t, m, usagePath("role", usageID{keyID: "0"}))
	if len(rec.Keys) != maxUsageKeys {
		t.Errorf("%d keys in one record, want %d", len(rec.Keys), maxUsageKeys)
	}
	data, err := json.Marshal(rec)
	if err != nil || len(data) > 1<<20 {
		t.Errorf("the record has %d bytes, %v", len(data), err)
	}
}

func TestConcurrentUseAndFlush(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	path := usagePath(m.roleID("r"), usageID{})
	const workers, each = 4, 200
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				q := question{key: key, client: fmt.Sprint(w)}
				if v, err := m.verifyOne(t.Context(), m.storage, &q); err != nil || v.code != codeValid {
					t.Error(v.code, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if err := m.flushGroup(t.Context(), m.storage, path); err != nil {
				t.Error(err)
			}
			if _, err := m.usageAt(t.Context(), m.storage, path); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	use := usageIn(t, m, "r", 1)
	if use["accepted"] != int64(workers*each) {
		t.Errorf("counted %v, want %d", use["accepted"], workers*each)
	}
	for _, c := range use["clients"].([]any) {
		if c.(map[string]any)["accepted"] != int64(each) {
			t.Errorf("client %v", c)
		}
	}
}

func TestDropUsage(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.ask(m.read("creds/r")["api_key"])
	id := m.roleID("r")
	m.Cleanup(t.Context())
	m.ask(m.read("creds/r")["api_key"])
	if err := m.dropUsage(t.Context(), m.storage, id); err != nil {
		t.Fatal(err)
	}
	if got := usageLine(usageIn(t, m, "r", 1)); got != "0" || m.usage.entries.Load() != 0 {
		t.Errorf("left: %s, %d entries", got, m.usage.entries.Load())
	}
}
