// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// storm rotates role r a thousand times within an hour, with a grace that ends before
// the next rotation.
func storm(m *testMount) (first string) {
	m.t.Helper()
	first = current(m, "r")
	for i := range 1000 {
		m.clock.advance(3 * time.Second)
		m.write("rotate/r", map[string]any{"grace_period": "1s"})
		if i%100 == 0 {
			m.recordFits("r")
		}
	}
	m.recordFits("r")
	return first
}

// recordFits: the record of the role, and every page of its archive, is no larger than
// a record may be.
func (m *testMount) recordFits(role string) {
	m.t.Helper()
	for path, value := range dump(m.t, m.storage) {
		if len(value) > maxRecordSize && (path == rolePath(role) || strings.HasPrefix(path, archivePrefix) || strings.HasPrefix(path, deletedPrefix)) {
			m.t.Fatalf("%s has %d bytes", path, len(value))
		}
	}
}

// closingsAfterStorm are the ways to end the current key of role r.
var closingsAfterStorm = []struct {
	name string
	do   func(m *testMount, key string)
	want string
}{
	{"revoke all", func(m *testMount, _ string) { m.write("revoke/r", map[string]any{"all": true}) }, "REVOKED"},
	{"revoke all without replacement", func(m *testMount, _ string) { m.write("revoke/r", map[string]any{"all": true, "rotate": false}) }, "REVOKED"},
	{"revoke version", func(m *testMount, _ string) {
		m.write("revoke/r", map[string]any{"version": m.read("status/r")["current_version"]})
	}, "REVOKED"},
	{"revoke key id", func(m *testMount, key string) { m.write("revoke/r", map[string]any{"key_id": m.idOf(key)}) }, "REVOKED"},
	{"report", func(m *testMount, key string) { m.write("report", map[string]any{"key": key}) }, "REVOKED"},
	{"report, rotate", func(m *testMount, key string) {
		m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "1m"})
		m.write("report", map[string]any{"key": key})
		m.clock.advance(time.Minute)
	}, "RETIRED"},
	{"disable", func(m *testMount, _ string) { m.write("roles/r", map[string]any{"disabled": true}) }, "DISABLED"},
	{"rotate without grace", func(m *testMount, _ string) { m.write("rotate/r", map[string]any{"grace_period": 0}) }, "RETIRED"},
	{"bulk revoke", func(m *testMount, _ string) {
		m.write("bulk", map[string]any{"action": "revoke", "roles": "r", "dry_run": false})
		m.tick()
	}, "REVOKED"},
	{"delete", func(m *testMount, _ string) { m.remove("r") }, "NOT_FOUND"},
	{"delete for good", func(m *testMount, _ string) {
		m.write("config", map[string]any{"delete_recovery": 0})
		m.remove("r")
	}, "NOT_FOUND"},
}

// TestKillsAfterAStorm: no transition fails on size, however much happened.
func TestKillsAfterAStorm(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	first := storm(m)
	stored, now := dump(t, m.storage), m.clock.Now()
	for _, c := range closingsAfterStorm {
		t.Run(c.name, func(t *testing.T) {
			clock := newFakeClock()
			clock.set(now)
			m := mountOn(t, copyStorage(t, stored), clock)
			key := current(m, "r")
			m.expectVerdict(first, "RETIRED")
			c.do(m, key)
			m.expectVerdict(key, c.want)
			m.recordFits("r")
			for range 200 { // and again, while the plaintexts of all of them linger
				if c.want != "REVOKED" || strings.Contains(c.name, "without") {
					break
				}
				m.clock.advance(time.Second)
				m.write("revoke/r", map[string]any{"all": true, "reason": m.clock.Now().String()})
			}
			m.recordFits("r")
			m.run(2 * time.Hour)
			m.recordFits("r")
			most := 1
			if c.name == "delete" {
				most = keepLingering + 5 // it can be restored
			}
			if left := m.under(secretPrefix); len(left) > most {
				t.Errorf("%d plaintexts are left", len(left))
			}
		})
	}
}

// TestLingeringPlaintextsAreBounded: in a storm the oldest go early, without one they
// stay for an hour.
func TestLingeringPlaintextsAreBounded(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	for n := range 2 * keepLingering {
		m.clock.advance(10 * time.Second)
		m.write("rotate/r", map[string]any{"grace_period": "1s"})
		want := min(n+2, keepLingering+4)
		if got := len(m.under(secretPrefix)); got > want || got < min(n+2, keepLingering) {
			t.Fatalf("after %d rotations: %d plaintexts, want about %d", n+1, got, want)
		}
	}
	if ended := len(m.record("r").Ring.Versions); ended > keepLingering+keepEnded+4 {
		t.Errorf("%d versions are remembered", ended)
	}
}

// TestKillFitsWhateverFails: with nothing but the role's record in order a kill drops
// what it cannot put elsewhere.
func TestKillFitsWhateverFails(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := current(m, "r")
	rec := m.record("r").clone()
	v := rec.Ring.Versions[0]
	rec.Ring.Versions = nil
	for n := range 600 { // by a build that knew no bound
		ended := v
		ended.N, ended.KeyID, ended.RetiredAt, ended.RetiredBy = n+1, fmt.Sprintf("abcdefghi%03d", n), m.clock.Now(), "grace_ended"
		rec.Ring.Versions = append(rec.Ring.Versions, ended)
	}
	v.N = 601
	rec.Ring.Versions, rec.Ring.Last = append(rec.Ring.Versions, v), 601
	for n := range 60 {
		rec.History = append(rec.History, historyEntry{Time: m.clock.Now(), Kind: eventRoleUpdated, Reason: strings.Repeat("x", 500)})
		rec.Requests = append(rec.Requests, replay{ID: fmt.Sprint("request-", n), Op: "rotate", Result: []byte(`{"data":{}}`)})
	}
	plant(t, m.storage, rolePath("r"), rec)
	keyRec, err := getRecord[keyRecord](t.Context(), m.storage, keyPath(v.KeyID))
	if err != nil {
		t.Fatal(err)
	}
	keyRec.Version = 601
	plant(t, m.storage, keyPath(v.KeyID), keyRec)
	for _, only := range []bool{true, false} {
		m := mountOn(t, copyStorage(t, dump(t, m.storage)), m.clock)
		m.expectVerdict(key, "VALID")
		if only {
			m.storage = onlyRoles{Storage: m.storage}
		}
		if _, err := m.do(logical.UpdateOperation, "revoke/r", map[string]any{"version": 601}); err != nil {
			t.Fatal(err)
		}
		m.expectVerdict(key, "REVOKED")
		m.recordFits("r")
	}
}

// onlyRoles is a storage that writes the records of roles only, and where keys is set of
// keys, and deletes nothing. Where reads is set it reads nothing else.
type onlyRoles struct {
	logical.Storage

	reads, keys bool
}

func (s onlyRoles) works(path string) bool {
	return strings.HasPrefix(path, rolePrefix) || s.keys && strings.HasPrefix(path, keyPrefix)
}

func (s onlyRoles) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if s.reads && !s.works(path) && !strings.HasPrefix(path, keyPrefix) {
		return nil, errStorage
	}
	return s.Storage.Get(ctx, path)
}

func (s onlyRoles) List(ctx context.Context, prefix string) ([]string, error) {
	if s.reads {
		return nil, errStorage
	}
	return s.Storage.List(ctx, prefix)
}

func (s onlyRoles) Put(ctx context.Context, e *logical.StorageEntry) error {
	if !s.works(e.Key) {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

func (s onlyRoles) Delete(context.Context, string) error { return errStorage }

// TestLargestRoleFits: what an operator may write fits into a record, with all that is
// remembered beside it.
func TestLargestRoleFits(t *testing.T) {
	for char, entries := range map[string]int{"x": 64, "<": 30, "é": 64, "😀": 46} {
		m := newMount(t)
		meta, scopes := map[string]any{}, []string{}
		for i := range entries {
			meta[fmt.Sprintf("k%062d", i)] = strings.Repeat(char, 512)
		}
		for i := range 128 {
			scopes = append(scopes, fmt.Sprintf("s%0126d", i))
		}
		data := map[string]any{"metadata": meta, "scopes": scopes, "description": strings.Repeat(char, 512), "owner": strings.Repeat(char, 512), "rotation_period": 0}
		m.write("roles/r", data)
		key := current(m, "r")
		for range 70 {
			m.clock.advance(time.Second)
			m.write("rotate/r", map[string]any{"grace_period": "1s", "reason": strings.Repeat(char, 512), "request_id": "request-" + m.clock.Now().Format("150405")})
		}
		m.recordFits("r")
		m.expectVerdict(key, "RETIRED")
		key = current(m, "r")
		m.write("revoke/r", map[string]any{"all": true})
		m.expectVerdict(key, "REVOKED")
		m.recordFits("r")
	}
}

// kills are the ways to end the current key of role r, which needs its record for it
// alone; the second value is what verify says of the key then.
var kills = map[string]struct {
	do   func(m *testMount, key string) error
	want string
}{
	"revoke all":                     {asking(logical.UpdateOperation, "revoke/r", map[string]any{"all": true}), "REVOKED"},
	"revoke all without replacement": {asking(logical.UpdateOperation, "revoke/r", map[string]any{"all": true, "rotate": false}), "REVOKED"},
	"revoke version":                 {asking(logical.UpdateOperation, "revoke/r", map[string]any{"version": 1}), "REVOKED"},
	"revoke key id": {func(m *testMount, key string) error {
		return asking(logical.UpdateOperation, "revoke/r", map[string]any{"key_id": m.idOf(key)})(m, key)
	}, "REVOKED"},
	"report": {func(m *testMount, key string) error {
		return asking(logical.UpdateOperation, "report", map[string]any{"key": key})(m, key)
	}, "REVOKED"},
	"disable": {asking(logical.UpdateOperation, "roles/r", map[string]any{"disabled": true}), "DISABLED"},
	"delete":  {asking(logical.DeleteOperation, "roles/r", nil), "NOT_FOUND"},
}

// TestKillsByTheirRecordAlone: whatever else of storage is out of order, what ends keys
// ends them.
func TestKillsByTheirRecordAlone(t *testing.T) {
	for name, end := range kills {
		for _, fields := range []map[string]any{{"rotation_period": "24h"}, {"type": "dynamic", "ttl": "20h"}} {
			for _, recovery := range []string{"24h", "0"} {
				t.Run(fmt.Sprintf("%s, %v, %s", name, fields, recovery), func(t *testing.T) {
					m := newMount(t)
					m.write("config", map[string]any{"delete_recovery": recovery})
					m.write("roles/r", fields)
					var key string
					if fields["type"] == nil {
						key = current(m, "r")
					} else {
						key = m.lease("r", nil).Data["api_key"].(string)
					}
					m.expectVerdict(key, "VALID")
					rest := m.storage
					m.storage = onlyRoles{Storage: rest, reads: true, keys: fields["type"] != nil}
					if err := end.do(m, key); err != nil {
						t.Fatal(err)
					}
					m.expectVerdict(key, end.want)
					m.storage = rest
					m.restart().expectVerdict(key, end.want)
					m.run(3 * time.Hour)
					m.expectVerdict(key, end.want)
					if strings.HasPrefix(name, "revoke") && !strings.Contains(name, "without") && fields["type"] == nil {
						m.expectVerdict(current(m, "r"), "VALID")
					}
				})
			}
		}
	}
}

// asking sends a request.
func asking(op logical.Operation, path string, data map[string]any) func(*testMount, string) error {
	return func(m *testMount, _ string) error {
		_, err := m.send(op, path, data)
		return err
	}
}

// TestKillsAfterAStartInTrouble: the mount's config need never have been read.
func TestKillsAfterAStartInTrouble(t *testing.T) {
	for name, end := range kills {
		m := newMount(t)
		m.write("roles/r", nil)
		key := current(m, "r")
		id := m.idOf(key)
		rest := m.storage
		trouble := onlyRoles{Storage: rest, reads: true}
		m = &testMount{backend: newBackend(m.clock, rand.Reader), t: t, clock: m.clock, storage: trouble, request: m.request}
		conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: trouble, BackendUUID: "test"}
		if err := m.Setup(t.Context(), conf); err != nil {
			t.Fatal(err)
		}
		if name == "report" { // which has to know the key, by the mount's secret
			m.storage = rest
			m.expectVerdict(key, "VALID")
			m.storage = trouble
		}
		if name == "revoke key id" {
			if _, err := m.send(logical.UpdateOperation, "revoke/r", map[string]any{"key_id": id}); err != nil {
				t.Error(err)
			}
		} else if err := end.do(m, key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		m.storage = rest
		m.expectVerdict(key, end.want)
	}
}
