// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is the instant d after the epoch that every test starts from.
func at(d time.Duration) time.Time { return epoch.Add(d) }

func version(n int) ID { return ID{RoleID: "role", Version: n} }

// line is a tally in one line: accepted, refused by code, and labels.
func line(t *Tally) string {
	out := fmt.Sprint(t.Accepted)
	for _, r := range slices.SortedFunc(slices.Values(t.Refused), func(a, b Refusal) int { return strings.Compare(a.Code, b.Code) }) {
		out += fmt.Sprintf(" %s=%d", r.Code, r.Count)
	}
	for _, label := range slices.Sorted(maps.Keys(t.Clients)) {
		out += fmt.Sprintf(" [%s %s]", label, line(t.Clients[label]))
	}
	return out
}

// stores is a storage of records.
type stores map[string]*Record

// flush brings what is counted for the record to storage; not, if it fails.
func (s stores) flush(c *Counter, name string, fail bool) {
	batch := c.Take(name)
	if batch == nil {
		return
	}
	if fail {
		batch.Failed()
		return
	}
	if s[name] == nil {
		s[name] = &Record{}
	}
	batch.AddTo(s[name])
	batch.Stored()
}

// read is what is stored and counted.
func (s stores) read(c *Counter, name string) *Record {
	rec := &Record{}
	if s[name] != nil {
		rec.Add(s[name])
	}
	c.AddTo(rec, name)
	return rec
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
