// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func TestLead(t *testing.T) {
	for _, c := range []struct{ ahead, distance, want time.Duration }{
		{10 * time.Minute, 90 * day, 10 * time.Minute},
		{10 * time.Minute, 20 * time.Minute, 10 * time.Minute},
		{10 * time.Minute, 20*time.Minute - 2, 10*time.Minute - 1},
		{10 * time.Minute, 10 * time.Minute, 5 * time.Minute},
		{time.Minute, day, 3 * time.Minute},
		{3*time.Minute + 1, day, 3*time.Minute + 1},
		{0, day, 3 * time.Minute},
		{time.Minute, 6 * time.Minute, 3 * time.Minute},
		{time.Minute, 5 * time.Minute, 150 * time.Second},
		{10 * time.Minute, time.Minute, 30 * time.Second},
	} {
		if got := keyring.Lead(c.ahead, c.distance); got != c.want {
			t.Errorf("Lead(%s, %s) = %s, want %s", c.ahead, c.distance, got, c.want)
		}
	}
}

func TestJitter(t *testing.T) {
	for _, spread := range []time.Duration{-time.Hour, 0, 1, time.Second} {
		if got := keyring.Jitter("3f0c", spread); got != 0 {
			t.Errorf("spread %s: got %s", spread, got)
		}
	}
	// Fixed forever: a new release must not move the plans of roles.
	for id, want := range map[string]time.Duration{
		"":                                     7781 * time.Second,
		"a":                                    79012 * time.Second,
		"4a6f5c1e-0000-4000-8000-000000000001": 56372 * time.Second,
		"4a6f5c1e-0000-4000-8000-000000000002": 37186 * time.Second,
	} {
		if got := keyring.Jitter(id, 24*time.Hour); got != want {
			t.Errorf("%q: got %d * time.Second, want %s", id, got/time.Second, want)
		}
	}

	// Ids that differ little are spread evenly: every tenth of the spread gets
	// its part, within a margin that chance does not leave.
	const ids, spread = 10000, time.Hour
	var tenths [10]int
	for i := range ids {
		j := keyring.Jitter(fmt.Sprintf("4a6f5c1e-0000-4000-8000-%012d", i), spread)
		if j < 0 || j >= spread || j%time.Second != 0 {
			t.Fatalf("got %s of %s", j, spread)
		}
		tenths[j*10/spread]++
	}
	for _, n := range tenths {
		if n < ids/10*8/10 || n > ids/10*12/10 {
			t.Errorf("not spread: %v", tenths)
			break
		}
	}
}

func TestJitterBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.String().Draw(t, "id")
		spread := time.Duration(rapid.Int64().Draw(t, "spread"))
		j := keyring.Jitter(id, spread)
		if j < 0 || j%time.Second != 0 || (j != 0 && j >= spread) {
			t.Fatalf("got %s", j)
		}
		if again := keyring.Jitter(id, spread); again != j {
			t.Fatalf("got %s, then %s", j, again)
		}
	})
}

func TestNextPeriod(t *testing.T) {
	const h = time.Hour
	for _, c := range []struct {
		name                      string
		planned, at, period, want time.Duration
	}{
		{"in time", 10 * h, 10 * h, 4 * h, 14 * h},
		{"early", 10 * h, 3 * h, 4 * h, 14 * h},
		{"just late", 10 * h, 10*h + ns, 4 * h, 14 * h},
		{"late by half", 10 * h, 12 * h, 4 * h, 14 * h},
		{"late by more than half: that slot is left out", 10 * h, 12*h + ns, 4 * h, 18 * h},
		{"late by nearly one", 10 * h, 14*h - ns, 4 * h, 18 * h},
		{"late by one", 10 * h, 14 * h, 4 * h, 18 * h},
		{"late by one and a half", 10 * h, 16 * h, 4 * h, 18 * h},
		{"late by more", 10 * h, 16*h + ns, 4 * h, 22 * h},
		{"late by many: once, in phase", 10 * h, 1001 * h, 4 * h, 1006 * h},
	} {
		if got := keyring.NextPeriod(at(c.planned), at(c.at), c.period); !got.Equal(at(c.want)) {
			t.Errorf("%s: got %s, want %s", c.name, offset(got), offset(at(c.want)))
		}
	}
}

func TestNextPeriodProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := time.Duration(rapid.Int64Range(int64(time.Minute), int64(400*day)).Draw(t, "period"))
		late := time.Duration(rapid.Int64Range(0, int64(2000*day)).Draw(t, "late"))
		next := keyring.NextPeriod(epoch, epoch.Add(late), period)
		if d := next.Sub(epoch); d%period != 0 {
			t.Fatalf("out of phase by %s", d%period)
		}
		if d := next.Sub(epoch.Add(late)); d < period/2 || d >= period+period/2 && late > 0 {
			t.Fatalf("%s after the activation", d)
		}
	})
}

func TestHandoutTTL(t *testing.T) {
	const m, s = time.Minute, time.Second
	for _, c := range []struct {
		name string
		h    keyring.Handout
		want time.Duration
	}{
		{"refresh", keyring.Handout{Refresh: 5 * m, Grace: 24 * time.Hour, NextActivation: at(day), Ends: at(day)}, 5 * m},
		{"half the grace", keyring.Handout{Refresh: 5 * m, Grace: 4 * m}, 2 * m},
		{"grace not shorter", keyring.Handout{Refresh: 5 * m, Grace: 10 * m}, 5 * m},
		{"no grace", keyring.Handout{Refresh: 5 * m}, 5 * m},
		{"shortest grace", keyring.Handout{Refresh: 5 * m, Grace: 1}, s},
		{"activation", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(4 * m)}, 4 * m},
		{"activation in parts of a second", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(2*s - 1)}, s},
		{"activation in less than a second", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(1)}, s},
		{"activation now", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(0)}, 60 * s},
		{"activation overdue", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(-day)}, 60 * s},
		{"activation overdue, shorter refresh", keyring.Handout{Refresh: 50 * s, Grace: day, NextActivation: at(-day)}, 50 * s},
		{"activation overdue, shorter grace", keyring.Handout{Refresh: 5 * m, Grace: 30 * s, NextActivation: at(-day)}, 15 * s},
		{"end", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(4 * m), Ends: at(3 * m)}, 3 * m},
		{"end after the activation", keyring.Handout{Refresh: 5 * m, Grace: day, NextActivation: at(3 * m), Ends: at(4 * m)}, 3 * m},
		{"end past", keyring.Handout{Refresh: 5 * m, Grace: day, Ends: at(-day)}, s},
		{"whole seconds", keyring.Handout{Refresh: 5*m - 1}, 299 * s},
		{"all zero", keyring.Handout{}, s},
	} {
		if got := c.h.TTL(epoch); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
