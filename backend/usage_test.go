// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
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
	if _, found := stored(t, m, m.usageName("r")); found {
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

// usageName is the name of the record of the role's versions.
func (m *testMount) usageName(role string) string {
	m.t.Helper()
	return usage.ID{RoleID: m.roleID(role)}.RecordName()
}

// unflushed is how many records have counts that are not in storage.
func (m *testMount) unflushed() int { return len(m.usage.counter.Due(m.clock.Now(), 0)) }

func stored(t *testing.T, m *testMount, name string) (*usageRecord, bool) {
	t.Helper()
	rec, err := getRecord[usageRecord](t.Context(), m.storage, usagePath(name))
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
	creds := m.read("creds/r")
	old := creds["api_key"]
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	for i := range 3 {
		m.clock.advance(time.Minute)
		m.ask(old)
		m.tick()
		rec, found := stored(t, m, m.usageName("r"))
		if !found || rec.Schema != recordSchema || rec.Versions[1].Seen.Used != m.clock.Now().Unix() {
			t.Fatalf("stored: %v", rec)
		}
		m.clock.advance(time.Minute)
		m.reportUse(i+1, creds["key_id"], 5)
		m.tick()
		if rec, _ := stored(t, m, m.usageName("r")); rec.Versions[1].Reported.Used != m.clock.Now().Unix() {
			t.Fatalf("stored of what was reported: %v", rec)
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

// A grace is prolonged while the previous version is used: as this server saw it,
// also if another process of it did, and not because somebody says so.
func TestUsePromotesAGrace(t *testing.T) {
	role := map[string]any{"rotation_period": "2h", "grace_period": "20m", "max_grace_period": "1h"}
	for name, c := range map[string]struct {
		use    func(m *testMount, key, id any)
		config map[string]any
		longer bool
	}{
		"unused":                {use: func(*testMount, any, any) {}},
		"used":                  {use: func(m *testMount, key, _ any) { m.ask(key) }, longer: true},
		"refused":               {use: func(m *testMount, key, _ any) { m.write("verify", map[string]any{"key": key, "scopes": "x"}) }},
		"used by another":       {use: func(m *testMount, key, _ any) { other := m.restart(); other.ask(key); other.Cleanup(m.t.Context()) }, longer: true},
		"reported":              {use: func(m *testMount, _, id any) { m.reportUse(1, id, 5) }},
		"reported, trusted":     {use: func(m *testMount, _, id any) { m.reportUse(1, id, 5) }, config: map[string]any{"trust_reported_usage": true}, longer: true},
		"reported, all trusted": {use: func(m *testMount, _, id any) { m.reportUse(1, id, 5) }, config: map[string]any{"trusted_reporters": "*"}, longer: true},
		"reported by one who is trusted": {use: func(m *testMount, _, id any) {
			m.request.EntityID = "entity-9"
			m.reportUse(1, id, 5)
		}, config: map[string]any{"trusted_reporters": "entity-8,entity-9"}, longer: true},
		"reported by another": {use: func(m *testMount, _, id any) {
			m.request.EntityID = "entity-9"
			m.reportUse(1, id, 5)
		}, config: map[string]any{"trusted_reporters": "entity-8"}},
		"reported by nobody": {use: func(m *testMount, _, id any) {
			m.request.EntityID = ""
			m.reportUse(1, id, 5)
		}, config: map[string]any{"trusted_reporters": "entity-8"}},
		"reported by one who is trusted, before a restart": {use: func(m *testMount, _, id any) {
			other := m.restart()
			other.request.EntityID = "entity-8"
			other.reportUse(1, id, 5)
			other.Cleanup(m.t.Context())
		}, config: map[string]any{"trusted_reporters": "entity-8"}, longer: true},
		"a refusal reported by one who is trusted": {use: func(m *testMount, _, id any) {
			m.request.EntityID = "entity-8"
			m.reportUse(1, id, 0)
		}, config: map[string]any{"trusted_reporters": "entity-8"}},
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
	m.reportUse(1, a.Data["key_id"], 7)
	check := func(m *testMount) {
		t.Helper()
		if got := usageLine(usageIn(t, m, "d", 1)); got != "3" {
			t.Errorf("generation: %s", got)
		}
		if got := reportedIn(t, m, "d"); got != "7 RATE_LIMITED=2 [pod-1 7 RATE_LIMITED=2]" {
			t.Errorf("reported of the generation: %s", got)
		}
		use := m.write("lookup", map[string]any{"key_id": a.Data["key_id"]})["usage"].(map[string]any)["reported"].(map[string]any)
		if got := usageLine(use); got != "7 RATE_LIMITED=2" {
			t.Errorf("reported of the key, which is told apart by no labels: %s", got)
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
		for i := range usage.MaxLabels + 20 {
			m.write("verify", map[string]any{"key": key, "client": fmt.Sprintf("client-%d-%03d", round, i)})
		}
		m.write("verify", map[string]any{"key": key, "client": "leak " + strings.ToUpper(key[:20])})
		clients := usageIn(t, m, "r", 1)["clients"].([]any)
		if len(clients) > usage.MaxLabels+1 {
			t.Fatalf("%d labels", len(clients))
		}
		total := int64(0)
		for _, c := range clients {
			total += c.(map[string]any)["accepted"].(int64)
		}
		if want := int64((round + 1) * (usage.MaxLabels + 21)); total != want {
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

// What a flush could not write stays in memory, and the next one writes it. If
// the write happened after all, it counts twice, and stays so.
func TestFlushThatFailed(t *testing.T) {
	for _, c := range []struct {
		fault fault
		total int
	}{{faultFail, 2}, {faultApplied, 3}} {
		p := newProbe(&logical.InmemStorage{})
		m := mountOn(t, p, newFakeClock())
		m.write("roles/r", nil)
		key := m.read("creds/r")["api_key"]
		name := m.usageName("r")
		m.ask(key)
		p.onlyWrites = true
		p.arm(1, c.fault)
		if err := m.storeUsage(t.Context(), p, name); err == nil {
			t.Fatal("the fault did not show")
		}
		p.reset()
		if got, want := usageLine(usageIn(t, m, "r", 1)), fmt.Sprint(c.total-1); got != want {
			t.Errorf("fault %d: %s after the flush, want %s", c.fault, got, want)
		}
		m.ask(key)
		m.clock.advance(usageInterval)
		m.tick()
		for _, m := range []*testMount{m, m.restart()} {
			if got, want := usageLine(usageIn(t, m, "r", 1)), fmt.Sprint(c.total); got != want {
				t.Errorf("fault %d: %s in the end, want %s", c.fault, got, want)
			}
		}
		if n := m.unflushed(); n != 0 {
			t.Errorf("fault %d: %d records wait", c.fault, n)
		}
	}
}

// While nothing can be read, nothing that was counted is touched.
func TestFlushThatCannotRead(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	m.ask(m.read("creds/r")["api_key"])
	name := m.usageName("r")
	p.arm(1, faultFail)
	if err := m.storeUsage(t.Context(), p, name); err == nil {
		t.Fatal("the fault did not show")
	}
	p.reset()
	if got := usageLine(usageIn(t, m, "r", 1)); got != "1" {
		t.Errorf("after the flush: %s", got)
	}
}

// A crowded memory is flushed by the next tick, and each record stays small.
func TestUsageIsBounded(t *testing.T) {
	m := newMount(t)
	for i := range usage.MaxEntries + 100 {
		id := usage.ID{RoleID: "role", Version: 1, KeyID: fmt.Sprintf("%012d", i)}
		m.usage.counter.Saw(&usage.Slot{}, id, "r", &usage.Hit{At: m.clock.Now()})
	}
	m.tick()
	if n := m.unflushed(); n != 0 {
		t.Errorf("a crowded memory holds %d records after a tick", n)
	}
	rec, _ := stored(t, m, usage.ID{RoleID: "role", KeyID: "0"}.RecordName())
	if len(rec.Keys) != usage.MaxKeys {
		t.Errorf("%d keys in one record, want %d", len(rec.Keys), usage.MaxKeys)
	}
	data, err := json.Marshal(rec)
	if err != nil || len(data) > 1<<20 {
		t.Errorf("the record has %d bytes, %v", len(data), err)
	}
}

// Labels are measured in characters, whatever they need in storage, and the
// record stays far below what servers accept.
func TestLabelsThatNeedEscaping(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	for range 45 {
		key := m.read("creds/r")["api_key"].(string)
		id := m.read("creds/r")["key_id"]
		lines := make([]string, usage.MaxLabels)
		for i := range lines {
			label := strings.Repeat("\u003c", 63) + string(rune('\u4e00'+i))
			lines[i] = fmt.Sprintf(`{"key_id":%q,"accepted":1,"last":%d,"client":"%s"}`, id, m.clock.Now().Unix(), label)
			if v := m.write("verify", map[string]any{"key": key, "client": strings.Repeat("<", 63) + string(rune('\u4e00'+i))}); v["code"] != "VALID" {
				t.Fatal(v)
			}
		}
		report := m.write("usage", map[string]any{"instance": "edge-" + fmt.Sprint(id), "sequence": 1, "batch": strings.Join(lines, "\n")})
		for _, res := range report["results"].([]any) {
			if res.(map[string]any)["ok"] != true {
				t.Fatal(res)
			}
		}
		m.write("rotate/r", map[string]any{"grace_period": 0})
		m.clock.advance(usageInterval)
		m.tick()
	}
	e, err := m.storage.Get(t.Context(), usagePath(m.usageName("r")))
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	if len(e.Value) > usage.MaxBytes+100 {
		t.Errorf("the record has %d bytes", len(e.Value))
	}
	m = m.restart()
	if use := usageIn(t, m, "r", 45); len(use["clients"].([]any)) != usage.MaxLabels || use["accepted"] != int64(usage.MaxLabels) {
		t.Errorf("the newest version: %d labels", len(use["clients"].([]any)))
	}
}

func TestConcurrentUseAndFlush(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	name := m.usageName("r")
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
			if err := m.storeUsage(t.Context(), m.storage, name); err != nil {
				t.Error(err)
			}
			if _, err := m.usageNamed(t.Context(), m.storage, name); err != nil {
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
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.write("roles/other", nil)
	key := m.lease("d", nil).Data["api_key"]
	m.ask(key)
	m.ask(m.read("creds/other")["api_key"])
	id := m.roleID("d")
	m.flushRest(t.Context())
	m.ask(key)
	m.ask(m.lease("d", nil).Data["api_key"]) // counted in memory only
	m.ask(m.read("creds/other")["api_key"])
	if err := m.dropUsage(t.Context(), m.storage, id); err != nil {
		t.Fatal(err)
	}
	if left := m.under(usagePath(id + "/")); len(left) != 0 || len(m.usage.counter.Names(id)) != 0 {
		t.Errorf("left: %v, and %v in memory", left, m.usage.counter.Names(id))
	}
	if got := usageLine(usageIn(t, m, "d", 1)); got != "0" {
		t.Errorf("left: %s", got)
	}
	m.Cleanup(t.Context())
	if left := m.under(usagePath(id + "/")); len(left) != 0 {
		t.Errorf("came back: %v", left)
	}
	if got := usageLine(usageIn(t, m, "other", 1)); got != "2" {
		t.Errorf("the other role: %s", got)
	}
	m.ask(key)
	if got := usageLine(usageIn(t, m, "d", 1)); got != "1" {
		t.Errorf("what comes later: %s", got)
	}
}

// The unloading of the engine waits for storage no longer than it may.
func TestLastFlushIsBounded(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.ask(m.read("creds/r")["api_key"])
	s := &deadlineStorage{Storage: m.storage}
	var kept logical.Storage = s
	m.usage.storage.Store(&kept)
	began := time.Now()
	m.Cleanup(t.Context())
	if end, ok := s.deadline(); !ok || end.After(began.Add(lastFlush+time.Second)) {
		t.Errorf("the last flush may take until %s, %v", end, ok)
	}
}

// deadlineStorage notes the deadline of what is written.
type deadlineStorage struct {
	logical.Storage

	ctx context.Context
}

func (s *deadlineStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	s.ctx = ctx
	return s.Storage.Put(ctx, e)
}

func (s *deadlineStorage) deadline() (time.Time, bool) {
	if s.ctx == nil {
		return time.Time{}, false
	}
	return s.ctx.Deadline()
}

// A record that the previous build wrote is read, and what is written has its
// names: that build may come back.
func TestUsageOfThePreviousBuild(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	path := usagePath(m.usageName("r"))
	old := `{"schema":1,"role":"r","flush":"00112233445566778899aabb","versions":{"1":{` +
		`"s":{"a":2,"r":{"FORBIDDEN_IP":1},"f":1772442000,"l":1772442060,"u":1772442060,"c":{"shop":{"a":2,"f":1772442000,"l":1772442060,"u":1772442060}}},` +
		`"p":{"a":5,"f":1772442000,"l":1772442000,"u":1772442000}}},"ended":{"1772442000":3}}`
	if err := putBytes(t.Context(), m.storage, path, []byte(old)); err != nil {
		t.Fatal(err)
	}
	if got := usageLine(usageIn(t, m, "r", 1)) + ", " + reportedIn(t, m, "r"); got != "2 FORBIDDEN_IP=1 [shop 2], 5" {
		t.Errorf("read as %s", got)
	}
	m.clock.advance(2 * time.Minute)
	read := m.clock.Now()
	key := m.read("creds/r")["api_key"]
	m.clock.advance(time.Second)
	m.write("verify", map[string]any{"key": key, "client": "shop"})
	m.Cleanup(t.Context())
	e, err := m.storage.Get(t.Context(), path)
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	at := fmt.Sprint(m.clock.Now().Unix())
	want := strings.NewReplacer(`"flush":"00112233445566778899aabb",`, "", `"a":2`, `"a":3`, `"l":1772442060`, `"l":`+at, `"u":1772442060`, `"u":`+at).Replace(old)
	// What that build does not know it drops: it counts no reads.
	want = strings.Replace(want, `}},"ended"`, fmt.Sprintf(`,"d":{"n":1,"f":%d,"l":%d}}},"ended"`, read.Unix(), read.Unix()), 1)
	if string(e.Value) != want {
		t.Errorf("written as\n%s, want\n%s", e.Value, want)
	}
}
