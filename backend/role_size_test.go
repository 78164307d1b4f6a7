// SPDX-License-Identifier: MPL-2.0

package backend

import (
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
