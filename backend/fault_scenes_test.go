// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// workScenes is more of what the periodic function and tidy come across.
func workScenes() []scene {
	passes := func(d time.Duration) func(*testMount, *world) {
		return func(m *testMount, _ *world) { m.clock.advance(d) }
	}
	removed := func(m *testMount, w *world) { w.roleID, _ = m.remove("a") }
	ring := func(m *testMount, w *world) {
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "40h", "max_ttl": "40h"})
		m.request.EntityID = "leaver"
		for _, name := range []string{"d1", "d2", "d3"} {
			w.issue(m, "d", name)
		}
		m.request.EntityID = ""
	}
	job := func(fields map[string]any) func(*testMount, *world) {
		fields["dry_run"] = false
		return does("bulk", fields)
	}
	counts := func(m *testMount, w *world) error {
		if _, err := m.send(logical.UpdateOperation, "verify", map[string]any{"key": w.keys["a2"]}); err != nil {
			return err
		}
		m.clock.advance(2 * usageInterval)
		return ticking(m, w)
	}
	all := []scene{
		{name: "counts of use", prepare: then(pair(nil), keeps("a2")), op: counts},
		{name: "purge of what lives", prepare: then(pair(nil), removed, func(m *testMount, w *world) {
			copied := dump(m.t, m.storage)[deletedPath(w.roleID)]
			m.write("restore/"+w.roleID, nil)
			entry := &logical.StorageEntry{Key: deletedPath(w.roleID), Value: []byte(copied)}
			if err := m.storage.Put(context.Background(), entry); err != nil {
				m.t.Fatal(err)
			}
		}, passes(25*time.Hour))},
		{name: "the move of a role that was deleted in place", prepare: then(pair(nil), inPlace("a"), passes(time.Minute))},
		{name: "the move of a renamed role that was deleted in place", prepare: then(pair(nil), func(m *testMount, _ *world) { m.rename("a", "n") }, inPlace("n"), passes(time.Minute))},
		{name: "purge of what is gone", prepare: then(pair(nil), removed, func(m *testMount, w *world) {
			if err := m.storage.Delete(context.Background(), deletedPath(w.roleID)); err != nil {
				m.t.Fatal(err)
			}
		}, passes(25*time.Hour))},
		{name: "purge of a role with a successor of its name", prepare: then(pair(nil), removed, does("roles/a", nil), passes(25*time.Hour))},
		{name: "offboarding", again: true, prepare: then(pair(nil), ring, job(map[string]any{"action": "revoke", "issued_to": "leaver"}))},
		{name: "disabling", again: true, prepare: then(pair(nil), job(map[string]any{"action": "disable", "name_prefix": "a"}))},
		{name: "a job of long ago", again: true, prepare: then(pair(nil), job(map[string]any{"action": "disable", "roles": "a"}), waits(time.Minute),
			passes(jobKept+time.Minute)), op: func(m *testMount, w *world) error {
			return errors.Join(ticking(m, w), ticking(m, w)) // the first finds out that it has ended
		}},
		{name: "a tick after a wrong clock", prepare: then(pair(nil), func(m *testMount, _ *world) {
			m.tickFailing("b")
			mark, err := getRecord[markRecord](context.Background(), m.storage, markPath)
			if err != nil || mark == nil {
				m.t.Fatal(mark, err)
			}
			mark.Cursor = m.clock.Now().Add(2 * maxClockLead)
			plant(m.t, m.storage, markPath, mark)
		})},
		{name: "a problem that is over", prepare: then(pair(map[string]any{"rotation_period": "24h"}), func(m *testMount, _ *world) {
			m.tickFailing("a")
		}, passes(25*time.Hour))},
	}
	for i := range all {
		if all[i].op == nil {
			all[i].op = ticking
		}
		all[i].tick = true
	}
	// A pass over all that tidy knows, some time after it became useless.
	for _, later := range []time.Duration{3 * time.Hour, 26 * time.Hour, 500 * 24 * time.Hour} {
		all = append(all, scene{name: "tidy after " + later.String(), prepare: then(littered, passes(later)), op: writing("tidy", nil)})
		all = append(all, scene{name: "tidy of what was renamed, after " + later.String(), prepare: then(littered, strandedLitter, renamedLitter, passes(later)), op: writing("tidy", nil)})
	}
	for _, stage := range []string{"deleted", "roles", "keys", "archive", "reports", "of a later build"} {
		all = append(all, scene{name: "a slice of tidy, " + stage, tick: true, prepare: func(m *testMount, w *world) {
			littered(m, w)
			m.clock.advance(26 * time.Hour)
			rec := &tidyRecord{Schema: 1, Started: m.clock.Now(), Stage: stage}
			if stage == "of a later build" {
				rec.After = shardDone
			}
			plant(m.t, m.storage, tidyPath, rec)
		}, op: func(m *testMount, w *world) error {
			if err := ticking(m, w); err != nil {
				return err
			}
			m.clock.advance(tidyEvery)
			return ticking(m, w)
		}})
	}
	return all
}

// littered leaves something for each stage of tidy behind.
func littered(m *testMount, w *world) {
	ctx := context.Background()
	pair(map[string]any{"rotation_period": "24h", "grace_period": "3h"})(m, w)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
	w.issue(m, "d", "d1")
	w.issue(m, "d", "d2")
	m.write("revoke/d", map[string]any{"key_id": m.idOf(w.keys["d2"])})
	m.write("config", map[string]any{"max_leak_actions": 0})
	m.write("report", map[string]any{"key": w.keys["d1"]})
	m.write("rotate/a", map[string]any{"grace_period": 0})
	role, err := getRecord[roleRecord](ctx, m.storage, rolePath("a"))
	if err != nil || role == nil {
		m.t.Fatal(role, err)
	}
	plant(m.t, m.storage, archivePath(role.ID, 0), &archivePage{Schema: 1, Role: "a", Written: m.clock.Now()})
	m.write("verify", map[string]any{"key": w.keys["b1"]})
	m.write("roles/gone", nil)
	w.hold(m, "gone", "gone")
	m.write("verify", map[string]any{"key": w.keys["gone"]})
	m.importForeign("i")
	m.write("config/rotate-digest", nil)
	m.flushRest(ctx)
	w.roleID, _ = m.remove("gone")
	m.remove("i")
	m.storeProblem(ctx, m.storage, "gone", m.problems.failed("gone", errStorage, m.clock.Now()))
	m.storeProblem(ctx, m.storage, "b", m.problems.failed("b", errStorage, m.clock.Now()))
	for _, path := range []string{attentionPath("gone"), attentionPath("b"), duePath(m.clock.Now().Add(-49*time.Hour), "b")} {
		if err := putBytes(ctx, m.storage, path, dueValue); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, path := range m.under(duePrefix) {
		if path[len(path)-2:] == "/a" {
			if err := deleteRecord(ctx, m.storage, path); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	plant(m.t, m.storage, reportersPath, &reportersRecord{Schema: 1})
	// A key of a commit that never happened, with its plaintext.
	role, err = getRecord[roleRecord](ctx, m.storage, rolePath("b"))
	if err != nil || role == nil {
		m.t.Fatal(role, err)
	}
	d, err := m.digests(ctx, m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	key, rec, err := m.mintKey(d, "apikey")
	if err != nil {
		m.t.Fatal(err)
	}
	rec.Role, rec.RoleID, rec.Version, rec.Created = "b", role.ID, 9, m.clock.Now()
	plant(m.t, m.storage, keyPath(rec.ID), rec)
	plant(m.t, m.storage, secretPath(role.ID, 9), &secretRecord{Schema: 1, Key: key.Reveal()})
}

// inPlace deletes a role while its copy cannot be written.
func inPlace(role string) func(*testMount, *world) {
	return func(m *testMount, _ *world) {
		s := m.storage
		m.storage = &failingAt{Storage: s, at: []string{deletedPrefix}}
		m.remove(role)
		m.storage = s
	}
}

// renamedLitter adds what renames leave behind: roles of another name than their keys
// say, a record that landed late, and what is known of a role that is gone.
func renamedLitter(m *testMount, w *world) {
	plant(m.t, m.storage, archivePath(m.record("a").ID, 0), &archivePage{Schema: 1, Role: "a", RoleID: m.record("a").ID, Written: m.clock.Now()})
	old := *m.record("a")
	m.rename("a", "a2")
	m.rename("d", "d2")
	plant(m.t, m.storage, rolePath("a"), &old)
	const gone = "00000000-0000-4000-8000-000000000000"
	plant(m.t, m.storage, movedPath(gone), &movedRecord{Schema: 1, RoleID: gone, Name: "x", Mark: "m", At: m.clock.Now()})
	m.write("roles/late", map[string]any{"rotation_period": 0})
	inPlace("late")(m, w)
	m.write("roles/left", map[string]any{"rotation_period": 0})
	m.rename("left", "left2")
	m.remove("left2")
}

// strandedLitter adds what kills could not write, and entries of the calendar that its
// records rely on and no tick comes by for.
func strandedLitter(m *testMount, w *world) {
	ctx := context.Background()
	m.write("roles/g", map[string]any{"type": "dynamic", "ttl": "40h"})
	w.issue(m, "g", "g1")
	w.issue(m, "g", "g2")
	s := m.storage
	m.storage = &failingAt{Storage: s, at: []string{keyPrefix}}
	m.write("revoke/g", map[string]any{"version": 1})
	m.storage = s
	minute := m.clock.Now().Add(-49 * time.Hour).Truncate(time.Minute)
	for path, name := range map[string]string{rolePath("b"): "b", deletedPath(w.roleID): deletedMark + w.roleID} {
		rec, err := getRecord[roleRecord](ctx, s, path)
		if err != nil || rec == nil {
			m.t.Fatal(path, rec, err)
		}
		rec.Due = minute
		plant(m.t, s, path, rec)
		if err := putBytes(ctx, s, duePath(minute, name), dueValue); err != nil {
			m.t.Fatal(err)
		}
	}
	m.roles.drop(rolePath("b"))
}
