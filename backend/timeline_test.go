// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"testing"
	"time"
)

// The worked timeline of docs/rotation.md, row by row.
func TestTimelineOfTheDocumentation(t *testing.T) {
	m := newMount(t)
	declared := time.Date(2027, 1, 1, 6, 0, 0, 0, time.UTC)
	m.clock.set(declared)
	m.write("roles/orders", map[string]any{"rotation_period": "30d", "grace_period": "24h"})
	keys := []any{m.read("creds/orders")["api_key"]}
	activation := declared.Add(30 * 24 * time.Hour)
	m.clock.set(activation.Add(-12 * time.Minute))

	const grace = 24 * time.Hour
	for _, row := range []struct {
		at           time.Duration // from the activation
		version, ttl int
		first        string // what verify says of version 1: code, state, reason, expires_at
		second       string
		plain        bool // of version 1
	}{
		{-11 * time.Minute, 1, 300, "VALID current", "", true},
		{-10 * time.Minute, 1, 300, "VALID current until 2027-02-01T06:00:00Z planned", "VALID pending", true},
		{-150 * time.Second, 1, 150, "VALID current until 2027-02-01T06:00:00Z planned", "VALID pending", true},
		{-10 * time.Second, 1, 10, "VALID current until 2027-02-01T06:00:00Z planned", "VALID pending", true},
		{0, 2, 300, "VALID previous until 2027-02-01T06:00:00Z planned", "VALID current", true},
		{12 * time.Hour, 2, 300, "VALID previous until 2027-02-01T06:00:00Z planned", "VALID current", true},
		{grace - time.Second, 2, 300, "VALID previous until 2027-02-01T06:00:00Z planned", "VALID current", true},
		{grace, 2, 300, "RETIRED retired grace_ended until 2027-02-01T06:00:00Z planned", "VALID current", true},
		{grace + time.Hour, 2, 300, "RETIRED retired grace_ended until 2027-02-01T06:00:00Z planned", "VALID current", false},
	} {
		// The periodic call comes on the minute, as late as that may be.
		when := activation.Add(row.at)
		m.run(when.Truncate(time.Minute).Sub(m.clock.Now()))
		m.clock.set(when)

		creds := m.read("creds/orders")
		if v, ttl := number(t, creds["version"]), number(t, creds["ttl"]); v != int64(row.version) || ttl != int64(row.ttl) {
			t.Errorf("%s: creds hands out version %d with ttl %d", when, v, ttl)
		}
		if row.second != "" && len(keys) == 1 {
			keys = append(keys, m.read("creds/orders/pending")["api_key"])
		}
		for i, want := range []string{row.first, row.second}[:len(keys)] {
			v := m.write("verify", map[string]any{"key": keys[i]})
			got := fmt.Sprintf("%s %s", v["code"], v["state"])
			if v["reason"] != "" {
				got += fmt.Sprintf(" %s", v["reason"])
			}
			if v["expires_at"] != "" {
				got += fmt.Sprintf(" until %s %s", v["expires_at"], v["end"])
			}
			if got != want {
				t.Errorf("%s: version %d is %s, want %s", when, i+1, got, want)
			}
		}
		role := m.record("orders")
		if role.Ring.Get(1).Plain != row.plain {
			t.Errorf("%s: the plaintext of version 1 is kept: %v", when, !row.plain)
		}
	}
	if next := m.read("status/orders")["next_rotation"]; next != "2027-03-02T06:00:00Z" {
		t.Errorf("the next activation is at %s", next)
	}
}
