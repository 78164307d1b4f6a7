// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// entriesOf reads the entries of a history.
func (m *testMount) entriesOf(path string, data map[string]any) (entries []map[string]any, older int) {
	m.t.Helper()
	got := m.must(logical.ReadOperation, path, data)
	for _, e := range got["entries"].([]any) {
		entries = append(entries, e.(map[string]any))
	}
	return entries, got["older_page"].(int)
}

func kindsOf(entries []map[string]any) []string {
	var kinds []string
	for _, e := range entries {
		kinds = append(kinds, e["kind"].(string))
	}
	return kinds
}

func TestHistoryTellsWhoAndWhy(t *testing.T) {
	m := newMount(t)
	m.write("roles/pay", map[string]any{"owner": "team-a"})
	m.clock.advance(time.Minute)
	m.request.EntityID = "entity-7"
	m.write("rotate/pay", map[string]any{"reason": "asked for", "request_id": "pipeline-1", "grace_period": "1h"})
	m.clock.advance(time.Minute)
	m.write("roles/pay", map[string]any{"owner": "team-b"})

	entries, older := m.entriesOf("history/pay", nil)
	if older != -1 {
		t.Errorf("older_page = %d, want -1", older)
	}
	var rotated, updated map[string]any
	for _, e := range entries {
		switch {
		case e["kind"] == "created" && e["version"] == 2:
			rotated = e
		case e["kind"] == eventRoleUpdated:
			updated = e
		}
	}
	if rotated == nil || updated == nil {
		t.Fatalf("entries are %v", kindsOf(entries))
	}
	for field, want := range map[string]any{
		"cause": causeRequest, "entity_id": "entity-7", "display_name": "token-operator", "reason": "asked for",
		"request_id": "pipeline-1", "time": "2026-03-02T09:01:00Z",
	} {
		if rotated[field] != want {
			t.Errorf("the rotation's %s is %v, want %v", field, rotated[field], want)
		}
	}
	owner, _ := updated["fields"].(map[string]any)["owner"].(map[string]any)
	if owner["old"] != "team-a" || owner["new"] != "team-b" {
		t.Errorf("the update's fields are %v", updated["fields"])
	}
	if entries[0]["kind"] != eventRoleUpdated {
		t.Errorf("the first entry is %v, want the newest", entries[0])
	}
}

func TestHistoryShowsWhatNoCommitHasRecorded(t *testing.T) {
	m := newMount(t)
	m.write("roles/pay", map[string]any{"rotation_period": 0})
	m.write("rotate/pay", map[string]any{"grace_period": "1h"})
	m.clock.advance(2 * time.Hour) // no tick

	p := newProbe(m.storage)
	m.storage = p
	entries, _ := m.entriesOf("history/pay", nil)
	if _, writes := p.count(); writes != 0 {
		t.Errorf("reading the history wrote %d times", writes)
	}
	first := entries[0]
	if first["kind"] != "retired" || first["version"] != 1 || first["cause"] != causePeriodic || first["time"] != "2026-03-02T10:00:00Z" {
		t.Errorf("the newest entry is %v, want the retirement of version 1", first)
	}
	m.tick()
	again, _ := m.entriesOf("history/pay", nil)
	if got, want := fmt.Sprint(again[0]), fmt.Sprint(first); got != want {
		t.Errorf("after the commit the entry is %s, before it was %s", got, want)
	}
}

func TestHistoryArchive(t *testing.T) {
	m := newMount(t)
	id := m.write("roles/pay", map[string]any{"rotation_period": 0})["role_id"]
	if id == nil {
		id = m.read("status/pay")["role_id"]
	}
	for range 60 {
		m.clock.advance(time.Minute)
		m.write("rotate/pay", map[string]any{"grace_period": 0})
	}
	walk := func(data map[string]any) (all []map[string]any) {
		pages := 0
		for page := -1; ; pages++ {
			query := map[string]any{}
			for k, v := range data {
				query[k] = v
			}
			if page >= 0 {
				query["page"] = page
			}
			entries, older := m.entriesOf("history/pay", query)
			all = append(all, entries...)
			if older < 0 {
				break
			}
			page = older
		}
		if pages == 0 {
			t.Error("nothing is in the archive")
		}
		return all
	}
	check := func(all []map[string]any) {
		t.Helper()
		created := map[any]int{}
		last := "~"
		for _, e := range all {
			if e["kind"] == "created" {
				created[e["version"]]++
			}
			if at := e["time"].(string); at > last {
				t.Errorf("entry of %s behind one of %s", at, last)
			} else {
				last = at
			}
		}
		for n := 1; n <= 61; n++ {
			if created[n] != 1 {
				t.Errorf("version %d was created %d times", n, created[n])
			}
		}
	}
	check(walk(nil))
	if entries, _ := m.entriesOf("history/pay", map[string]any{"limit": 3}); len(entries) != 3 {
		t.Errorf("limit 3 answers %d entries", len(entries))
	}
	m.refused(logical.ReadOperation, "history/pay", map[string]any{"page": 99}, "page: 99")
	m.refused(logical.ReadOperation, "history/pay", map[string]any{"limit": 0}, "limit: 0")

	m.must(logical.DeleteOperation, "roles/pay", nil)
	if resp, err := m.do(logical.ReadOperation, "history/pay", nil); resp != nil || err != nil {
		t.Errorf("a deleted role's name answers %v, %v", resp, err)
	}
	check(walk(map[string]any{"role_id": id}))
	m.run(25 * time.Hour)
	if names, err := m.storage.List(context.Background(), deletedPrefix); err != nil || len(names) > 0 {
		t.Fatalf("the role is not purged: %v %v", names, err)
	}
	all := walk(map[string]any{"role_id": id})
	check(all)
	if !slices.Contains(kindsOf(all), eventRoleDeleted) {
		t.Error("the deletion is not in the history")
	}

	// The id does not lead past a policy for another name.
	m.write("roles/other", nil)
	for _, name := range []string{"other", "nobody"} {
		if resp, err := m.do(logical.ReadOperation, "history/"+name, map[string]any{"role_id": id}); resp != nil || err != nil {
			t.Errorf("history/%s with another role's id answers %v, %v", name, resp, err)
		}
	}
	m.refused(logical.ReadOperation, "history/pay", map[string]any{"role_id": "../config"}, "role_id")
}

func TestHistoryCountsNoise(t *testing.T) {
	m := newMount(t)
	m.write("roles/pay", nil)
	at := m.clock.Now()
	_, err := m.mutate(context.Background(), m.storage, "pay", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
		tx.rec.hear("forbidden_ip", 3, at.Add(-time.Hour), at)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(m.read("history/pay")["noise"])
	for _, part := range []string{"count:3", "first:2026-03-02T08:00:00Z", "last:2026-03-02T09:00:00Z"} {
		if !strings.Contains(got, part) {
			t.Errorf("noise is %s, want %s in it", got, part)
		}
	}
}

// A caller's name is kept without what a terminal or a log would act on.
func TestNamesOfCallersAreCleaned(t *testing.T) {
	m := newMount(t)
	m.request.DisplayName = "ops\r\nroot\x00\u202e" + strings.Repeat("n", 400)
	m.write("roles/r", nil)
	entries := m.read("history/r")["entries"].([]any)
	for _, e := range entries {
		name := e.(map[string]any)["display_name"].(string)
		if strings.ContainsAny(name, "\r\n\x00\u202e") || !strings.HasPrefix(name, "ops") || len(name) > maxName {
			t.Errorf("kept as %q", name)
		}
	}
}
