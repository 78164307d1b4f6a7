// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestRecordsStayBelowTheirGoal: history goes to the archive where it would make the
// record larger, not before, and nothing of it is lost.
func TestRecordsStayBelowTheirGoal(t *testing.T) {
	const goal = 160 << 10
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	largest := 0
	for n := range 120 {
		_, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
			tx.note(historyEntry{Kind: eventReported, Version: n, Reason: strings.Repeat("x", 5<<10)})
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		size := len(dump(t, m.storage)[rolePath("a")])
		if largest = max(largest, size); size > goal {
			t.Fatalf("the record has %d bytes", size)
		}
	}
	if largest < goal-8<<10 {
		t.Errorf("history was archived although the record had %d bytes at most", largest)
	}
	seen := map[int]int{}
	entries := m.record("a").History
	for _, path := range m.under(archivePrefix) {
		page, err := getRecord[archivePage](t.Context(), m.storage, path)
		if err != nil || page == nil {
			t.Fatal(page, err)
		}
		entries = append(entries, page.Entries...)
	}
	for _, e := range entries {
		if e.Kind == eventReported {
			seen[e.Version]++
		}
	}
	for n := range 120 {
		if seen[n] != 1 {
			t.Errorf("entry %d is kept %d times", n, seen[n])
		}
	}
}

// TestHistoryGoesBeyondTheGoalAlone: to some bytes.
func TestHistoryGoesBeyondTheGoalAlone(t *testing.T) {
	const goal, step = 160 << 10, 100
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	start, largest := dump(t, m.storage), 0
	for pad := goal - 3000; pad < goal; pad += step {
		m := mountOn(t, copyStorage(t, start), m.clock)
		_, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
			tx.rec.Policy.Owner = strings.Repeat("x", pad)
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(m.under(archivePrefix)) == 0 {
			largest = max(largest, len(dump(t, m.storage)[rolePath("a")]))
		}
	}
	if largest > goal || largest <= goal-step {
		t.Errorf("a record of %d bytes keeps its history", largest)
	}
}

// TestRecordsBeyondTheirGoal are written without history and answers to request ids,
// up to a size that storages take.
func TestRecordsBeyondTheirGoal(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.write("rotate/a", map[string]any{"request_id": "a-request-1"})
	grow := func(size int) error {
		_, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
			tx.rec.Policy.Owner = strings.Repeat("x", size)
			return true, nil
		})
		return err
	}
	if err := grow(250 << 10); err != nil {
		t.Fatal(err)
	}
	if rec := m.record("a"); len(rec.History) > 0 || len(rec.Requests) > 0 || len(m.under(archivePrefix)) == 0 {
		t.Errorf("%d entries of history and %d answers are kept", len(rec.History), len(rec.Requests))
	}
	m.unchanged(func() {
		if err := grow(256 << 10); err == nil || !strings.Contains(err.Error(), "bytes, more than 262144") {
			t.Errorf("a record that is too large is written: %v", err)
		}
	})
}

// TestCutDropsTheOldest: half of the history, until there is none, then of the answers to
// request ids, then of the ended versions.
func TestCutDropsTheOldest(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	for range 4 {
		m.write("rotate/a", map[string]any{"grace_period": 0})
	}
	var got []string
	_, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
		tx.rec.History, tx.rec.Requests = nil, nil
		for n := 1; n <= 3; n++ {
			tx.rec.History = append(tx.rec.History, historyEntry{Version: n})
			tx.rec.Requests = append(tx.rec.Requests, replay{ID: fmt.Sprint(n)})
		}
		for more := true; more; more = tx.cut() {
			var left strings.Builder
			for _, e := range tx.rec.History {
				fmt.Fprintf(&left, "h%d ", e.Version)
			}
			for _, r := range tx.rec.Requests {
				fmt.Fprintf(&left, "r%s ", r.ID)
			}
			for _, v := range tx.rec.Ring.Versions {
				fmt.Fprintf(&left, "v%d ", v.N)
			}
			got = append(got, left.String())
		}
		return false, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"h1 h2 h3 r1 r2 r3 v1 v2 v3 v4 v5 ", "h3 r1 r2 r3 v1 v2 v3 v4 v5 ", "r1 r2 r3 v1 v2 v3 v4 v5 ",
		"r3 v1 v2 v3 v4 v5 ", "v1 v2 v3 v4 v5 ", "v3 v4 v5 ", "v4 v5 ", "v5 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}

// TestPagesOfTheArchiveAreBounded: long entries take more pages, and none is lost or kept
// twice.
func TestPagesOfTheArchiveAreBounded(t *testing.T) {
	const entries, bound = 12, 256 << 10
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	id := m.record("a").ID
	_, err := m.mutate(t.Context(), m.storage, "a", actor{cause: causeRequest}, func(tx *roleTx) (bool, error) {
		tx.rec.History = nil
		for n := range entries {
			tx.rec.History = append(tx.rec.History, historyEntry{Version: n, Reason: strings.Repeat("x", 40<<10)})
		}
		return true, tx.archive(0)
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, next := dump(t, m.storage), 0
	pages := len(m.under(archivePrefix))
	for n := range pages {
		page, err := getRecord[archivePage](t.Context(), m.storage, archivePath(id, n))
		if err != nil || page == nil || page.Page != n || len(stored[archivePath(id, n)]) > bound {
			t.Fatalf("page %d: %v, %d bytes", n, err, len(stored[archivePath(id, n)]))
		}
		for _, e := range page.Entries {
			if e.Version != next {
				t.Errorf("page %d has entry %d, want %d", n, e.Version, next)
			}
			next++
		}
	}
	if rec := m.record("a"); next != entries || pages < 2 || rec.Archived != pages {
		t.Errorf("%d of %d entries on %d pages, the record knows of %d", next, entries, pages, rec.Archived)
	}
}
