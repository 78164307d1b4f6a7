// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// furnished is a mount that holds a record of every kind, and what operations on
// it need.
func furnished(t testing.TB) (*testMount, *world) {
	m := mountOn(withoutSchemas{t}, &logical.InmemStorage{}, newFakeClock())
	w := newWorld()
	pair(map[string]any{"rotation_period": "24h", "grace_period": "3h"})(m, w)
	for range 70 {
		m.write("rotate/a", map[string]any{"grace_period": 0})
	}
	m.write("rotate/a", map[string]any{"grace_period": "3h"})
	w.hold(m, "a", "a2")
	m.write("rotate/a", map[string]any{"stage": true})
	m.write("roles/d", map[string]any{"type": "dynamic"})
	w.lease = w.issue(m, "d", "d1")
	w.note["id"] = w.issue(m, "d", "d2").Data["key_id"].(string)
	m.write("config", map[string]any{"max_leak_actions": 0})
	w.issue(m, "d", "leaked")
	m.write("report", map[string]any{"key": w.keys["leaked"]})
	m.write("import", map[string]any{"batch": `{"role":"i","key":"` + strings.Repeat("w4", 12) + `"}`})
	m.write("roles/gone", nil)
	w.roleID, _ = m.remove("gone")
	id, _ := m.remove("i")
	m.write("restore/"+id, nil) // whose stub stays until the day it would have been purged
	m.write("usage", map[string]any{"instance": "edge-1", "sequence": 1, "batch": `{"key_id":"` + w.note["id"] + `","role_id":"` +
		m.read("roles/d")["role_id"].(string) + `","accepted":3,"first":"2026-03-02T09:00:00Z","last":"2026-03-02T09:00:10Z"}`})
	m.expectVerdict(w.keys["a2"], "VALID")
	m.write("bulk", map[string]any{"action": "disable", "name_prefix": "none", "dry_run": false})
	m.run(20 * time.Minute)
	m.storeProblem(context.Background(), m.storage, "a", m.problems.failed("a", errStorage, m.clock.Now()))
	m.write("tidy", nil)
	return m, w
}

// everyOperation does everything to the mount, whatever comes of it, and returns
// the texts of the errors and warnings.
func everyOperation(m *testMount, w *world) []string {
	var texts []string
	do := func(op logical.Operation, path string, data map[string]any) {
		resp, err := m.send(op, path, data)
		if err != nil {
			text := err.Error()
			if resp != nil && resp.IsError() {
				text = resp.Error().Error()
			}
			texts = append(texts, text)
		} else if resp != nil {
			texts = append(texts, resp.Warnings...)
		}
	}
	tick := func() {
		if err := ticking(m, w); err != nil {
			texts = append(texts, err.Error())
		}
	}
	update, read := logical.Operation(logical.UpdateOperation), logical.Operation(logical.ReadOperation)
	do(read, "status/a", nil)
	tick()
	m.tickFailing("a")
	for page := range 3 {
		do(read, "history/a", map[string]any{"page": page})
	}
	for _, role := range []string{"b", "a", "d", "i"} {
		for _, path := range []string{"creds/", "status/", "roles/", "history/"} {
			do(read, path+role, nil)
		}
		do(read, "creds/"+role+"/pending", nil)
		do(logical.ListOperation, "keys/"+role, nil)
		do(update, "roles/"+role, map[string]any{"owner": "somebody"})
		do(logical.PatchOperation, "roles/"+role, map[string]any{"owner": nil})
		do(update, "rotate/"+role, nil)
		do(update, "rotate/"+role, map[string]any{"stage": true})
		do(update, "promote/"+role, nil)
		do(update, "rollback/"+role, nil)
		do(update, "revoke/"+role, map[string]any{"version": 1})
	}
	for _, key := range w.keys {
		do(update, "verify", map[string]any{"key": key})
		do(update, "lookup", map[string]any{"key": key})
		do(update, "report", map[string]any{"key": key})
	}
	do(update, "verify", map[string]any{"key": strings.Repeat("w4", 12)})
	do(update, "import", map[string]any{"batch": `{"role":"i","key":"` + strings.Repeat("w4", 12) + `"}`})
	do(update, "import", map[string]any{"batch": `{"role":"j","key":"` + strings.Repeat("w5", 12) + `"}`})
	do(update, "revoke/d", map[string]any{"key_id": w.note["id"]})
	do(logical.ListOperation, "report/deferred", nil)
	do(logical.ListOperation, "inventory", nil)
	do(read, "key-format", nil)
	for id := range w.listed(m, deferredPrefix) {
		do(update, "report/release", map[string]any{"key_ids": id})
	}
	for id := range w.listed(m, jobPrefix) {
		do(read, "bulk/"+id, nil)
		do(logical.DeleteOperation, "bulk/"+id, nil)
	}
	do(update, "bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false, "request_id": requestID})
	do(read, "config", nil)
	do(update, "config", map[string]any{"max_leak_actions": 5})
	do(update, "config/rotate-digest", nil)
	do(update, "usage", map[string]any{"instance": "edge-1", "sequence": 2, "batch": `{"key_id":"` + w.note["id"] + `","role_id":"` +
		m.dynamicID(w) + `","accepted":3,"first":"2026-03-02T09:00:00Z","last":"2026-03-02T09:00:10Z"}`})
	do(update, "roles/new", map[string]any{"prefix": "other"})
	do(update, "restore/"+w.roleID, nil)
	for _, op := range []logical.Operation{logical.RenewOperation, logical.RevokeOperation} {
		if resp, err := m.onLease(op, w.lease, 0); err != nil {
			texts = append(texts, err.Error())
		} else if resp != nil && resp.IsError() {
			texts = append(texts, resp.Error().Error())
		}
	}
	do(logical.DeleteOperation, "roles/gone", nil)
	do(update, "tidy", nil)
	for range 4 {
		m.clock.advance(16 * time.Minute)
		tick()
	}
	m.flushRest(context.Background())
	for _, role := range []string{"a", "d", "i"} {
		do(logical.DeleteOperation, "roles/"+role, nil)
	}
	return texts
}

// tickFailing is a look at the role that fails.
func (m *testMount) tickFailing(role string) {
	m.storeProblem(context.Background(), m.storage, role, m.problems.failed(role, errStorage, m.clock.Now()))
	m.clock.advance(time.Minute)
}

// held: the record is of a key that the test has.
func (w *world) held(path string, stored map[string]string) bool {
	for _, key := range w.keys {
		parsed, err := keyformat.Parse(key)
		if err != nil {
			continue
		}
		if path == keyPath(parsed.ID()) || strings.HasPrefix(path, secretPrefix) && strings.Contains(stored[path], key) {
			return true
		}
	}
	return false
}

// dynamicID is the id of role d, as far as it can be read.
func (m *testMount) dynamicID(w *world) string {
	id, _ := w.lease.Secret.InternalData["role_id"].(string)
	return id
}

func (w *world) listed(m *testMount, prefix string) map[string]bool {
	ids := map[string]bool{}
	for _, path := range m.under(prefix) {
		ids[strings.TrimPrefix(path, prefix)] = true
	}
	return ids
}

// A record of a newer build is refused in words by whatever needs it, and is
// neither overwritten nor deleted.
func TestRecordsOfANewerBuildAreLeftAlone(t *testing.T) {
	t.Parallel()
	first, w := furnished(t)
	stored := dump(t, first.storage)
	done := map[string]int{}
	for _, path := range sortedKeys(stored) {
		kind, _, _ := strings.Cut(path, "/")
		switch kind + "/" {
		case duePrefix, attentionPrefix, issuedPrefix:
			continue // entries of an index: names without content
		case keyPrefix, secretPrefix:
			if !w.held(path, stored) {
				continue // nothing asks for it
			}
		}
		if done[kind]++; done[kind] > 3 {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			content := map[string]any{}
			if err := json.Unmarshal([]byte(stored[path]), &content); err != nil {
				t.Fatal(err)
			}
			newest := recordSchema
			switch {
			case kind+"/" == jobPrefix:
				newest = jobInsideSchema
			case path == tidyPath:
				newest = renameSchema
			case kind+"/" == rolePrefix, kind+"/" == deletedPrefix:
				newest = markedSchema
			}
			content["schema"], content["of_the_future"] = newest+1, map[string]any{"x": 1}
			changed, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			s := copyStorage(t, stored)
			if err := s.Put(context.Background(), &logical.StorageEntry{Key: path, Value: changed}); err != nil {
				t.Fatal(err)
			}
			clock := newFakeClock()
			clock.set(first.clock.Now())
			m := &testMount{backend: newBackend(clock, rand.Reader), t: withoutSchemas{t}, clock: clock, storage: s, request: first.request}
			conf := &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: writingSystem(), StorageView: s}
			if err := m.Setup(context.Background(), conf); err != nil {
				t.Fatal(err)
			}
			var texts []string
			if err := m.Initialize(context.Background(), &logical.InitializationRequest{Storage: s}); err != nil {
				texts = append(texts, err.Error())
			}
			texts = append(texts, everyOperation(m, w)...)
			e, err := s.Get(context.Background(), path)
			// A plaintext goes when its version has ended, and a problem when it is
			// solved, whoever wrote them.
			erased := (kind+"/" == secretPrefix || kind+"/" == problemPrefix) && e == nil
			if err != nil || !erased && value(e) != string(changed) {
				t.Errorf("%s was changed: %v %.300s", path, err, value(e))
			}
			if said := strings.Join(texts, "\n"); !strings.Contains(said, newerRecord) {
				t.Errorf("%s: nobody was told; %.2000s", path, said)
			}
		})
	}
	for _, kind := range []string{"role", "key", "secret", "deleted", "archive", "usage", "problem", "job", "deferred", "config", "digest", "mark", "imported", "tidy", "prefixes"} {
		if done[kind] == 0 {
			t.Errorf("no %s record", kind)
		}
	}
}

func value(e *logical.StorageEntry) string {
	if e == nil {
		return "(gone)"
	}
	return string(e.Value)
}
