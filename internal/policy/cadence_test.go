// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when.UTC()
}

func schedule(t testing.TB, expr string) *scheduleCadence {
	t.Helper()
	c, err := parseSchedule(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return c
}

func TestScheduleActivations(t *testing.T) {
	for _, c := range []struct {
		expr, from string
		want       []string
	}{
		{"0 3 * * *", "2026-03-02T09:00:00Z", []string{"2026-03-03T03:00:00Z", "2026-03-04T03:00:00Z"}},
		// After, never at: an activation does not plan itself again.
		{"0 3 * * *", "2026-03-03T03:00:00Z", []string{"2026-03-04T03:00:00Z"}},
		{"0 3 * * *", "2026-03-03T02:59:59Z", []string{"2026-03-03T03:00:00Z"}},
		{"30 6 * * 1-5", "2026-03-06T12:00:00Z", []string{"2026-03-09T06:30:00Z", "2026-03-10T06:30:00Z"}},
		{"0 0 31 * *", "2026-03-31T00:00:00Z", []string{"2026-05-31T00:00:00Z", "2026-07-31T00:00:00Z"}},
		{"0 0 29 2 *", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},

		// Berlin skips 02:00 to 03:00 on 2026-03-29 and repeats it on 2026-10-25.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-27T12:00:00Z", []string{
			"2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z",
		}},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", []string{
			"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z",
		}},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"CRON_TZ=Europe/Berlin 0 3 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"}},
		{"CRON_TZ=Europe/Berlin 0 2,3 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"CRON_TZ=Europe/Berlin */15 2 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"CRON_TZ=Europe/Berlin */30 1-3 * * *", "2026-10-24T23:15:00Z", []string{
			"2026-10-24T23:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z",
		}},
		{"CRON_TZ=Europe/Berlin 0 * * * *", "2026-03-29T00:30:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
		{"CRON_TZ=Europe/Berlin 0 * * * *", "2026-10-24T23:30:00Z", []string{
			"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z",
		}},
		{"CRON_TZ=Europe/Berlin 30 2 29 3 *", "2026-01-01T00:00:00Z", []string{"2026-03-29T01:00:00Z", "2027-03-29T00:30:00Z"}},
		{"CRON_TZ=America/New_York 30 2 * * *", "2026-03-07T12:00:00Z", []string{"2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"}},
		{"CRON_TZ=America/New_York 30 1 * * *", "2026-10-31T12:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		// Cairo skips midnight, on a Friday.
		{"CRON_TZ=Africa/Cairo 0 0 * * *", "2026-04-23T12:00:00Z", []string{"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		{"CRON_TZ=Africa/Cairo 0 0 * * 5", "2026-04-20T12:00:00Z", []string{"2026-04-23T22:00:00Z", "2026-04-30T21:00:00Z"}},
		// Lord Howe moves by half an hour.
		{"CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-02T18:00:00Z", []string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"CRON_TZ=Australia/Lord_Howe 45 1 * * *", "2026-04-03T18:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"CRON_TZ=Australia/Lord_Howe 15 * * * *", "2026-10-03T14:50:00Z", []string{"2026-10-03T16:15:00Z"}},
		{"CRON_TZ=Australia/Lord_Howe 45 * * * *", "2026-04-04T14:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-04T16:15:00Z"}},
		// Beirut skips midnight, on a Sunday.
		{"CRON_TZ=Asia/Beirut 0 3 * * 0", "2026-03-22T12:00:00Z", []string{"2026-03-29T00:00:00Z", "2026-04-05T00:00:00Z"}},
		{"CRON_TZ=Asia/Beirut 30 0 * * 0", "2026-03-22T12:00:00Z", []string{"2026-03-28T22:00:00Z", "2026-04-04T21:30:00Z"}},
		{"CRON_TZ=Asia/Beirut */15 0,1 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-28T22:00:00Z", "2026-03-28T22:15:00Z"}},
		// Troll skips two hours.
		{"CRON_TZ=Antarctica/Troll 0 1,2 * * *", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-29T23:00:00Z"}},
		// Apia left a Friday out.
		{"CRON_TZ=Pacific/Apia 0 3 * * 5", "2011-12-25T00:00:00Z", []string{"2011-12-30T10:00:00Z", "2012-01-05T13:00:00Z"}},
		{"CRON_TZ=Pacific/Apia 30 * * * *", "2011-12-30T09:00:00Z", []string{"2011-12-30T09:30:00Z", "2011-12-30T10:30:00Z"}},
		// Offsets of three quarters of an hour, and with seconds.
		{"CRON_TZ=Asia/Kathmandu 0 0 * * *", "2026-03-02T09:00:00Z", []string{"2026-03-02T18:15:00Z", "2026-03-03T18:15:00Z"}},
		{"CRON_TZ=Africa/Monrovia 0 12 * * *", "1972-01-06T09:00:00Z", []string{"1972-01-06T12:44:30Z", "1972-01-07T12:00:00Z"}},
		// By a rule, on and after the last day of a leap year.
		{"CRON_TZ=America/New_York 0 12 * * *", "2096-12-31T12:00:00Z", []string{"2096-12-31T17:00:00Z", "2097-01-01T17:00:00Z"}},
		{"0 0 29 2 *", "2096-02-29T00:00:00Z", []string{"2104-02-29T00:00:00Z"}},
		// Either day is enough, unless one is left open. */2 is not.
		{"0 0 13 * 5", "2026-03-01T00:00:00Z", []string{"2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z"}},
		{"0 0 12 * 5", "2026-03-07T00:00:00Z", []string{"2026-03-12T00:00:00Z", "2026-03-13T00:00:00Z"}},
		{"0 0 12 * *", "2026-03-07T00:00:00Z", []string{"2026-03-12T00:00:00Z", "2026-04-12T00:00:00Z"}},
		{"0 0 */10 * 5", "2026-03-07T00:00:00Z", []string{"2026-03-11T00:00:00Z", "2026-03-13T00:00:00Z"}},
		{"0 0 ? 3 6", "2026-03-28T00:00:00Z", []string{"2027-03-06T00:00:00Z"}},
		{"0 0 1 1 *", "1901-06-01T00:00:00Z", []string{"1902-01-01T00:00:00Z"}},
		{"CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-03-02T09:00:00Z", []string{"2026-03-03T00:00:00Z"}},
	} {
		s, now := schedule(t, c.expr), at(t, c.from)
		for _, want := range c.want {
			next := s.First(now, 0)
			if !next.Equal(at(t, want)) {
				t.Errorf("%s after %s: %s, want %s", c.expr, now, next, want)
			}
			if again := s.First(next.Add(-time.Second), 0); !again.Equal(next) {
				t.Errorf("%s: %s from afar, %s from near", c.expr, next, again)
			}
			now = next
		}
	}
}

func TestScheduleDistances(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		expr              string
		shortest, longest time.Duration
	}{
		{"* * * * *", time.Minute, time.Minute},
		{"0 * * * *", time.Hour, time.Hour},
		{"0 3 * * *", day, day},
		{"0 9 * * 1-5", day, 3 * day},
		{"0 0 1 * *", 28 * day, 31 * day},
		{"0 0 1,15 * *", 14 * day, 17 * day},
		{"0 0 1 1 *", 365 * day, 366 * day},
		{"0 1,2 * * *", time.Hour, 23 * time.Hour},
		{"CRON_TZ=Europe/Berlin 0 12 * * *", 23 * time.Hour, 25 * time.Hour},
		// The skipped hour is made up for and the repeated one not doubled.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", 23*time.Hour + 30*time.Minute, 25 * time.Hour},
		{"CRON_TZ=Europe/Berlin 0 * * * *", time.Hour, time.Hour},
		{"CRON_TZ=Europe/Berlin 0 */2 * * *", time.Hour, 3 * time.Hour},
		{"CRON_TZ=Australia/Sydney 0 */2 * * *", time.Hour, 3 * time.Hour},
		{"CRON_TZ=Africa/Cairo */5 0-22 * * *", 5 * time.Minute, 2*time.Hour + 5*time.Minute},
		{"CRON_TZ=Europe/Berlin 0,1 */12 * * *", time.Minute, 13*time.Hour - time.Minute},
		{"0 */2 * * *", 2 * time.Hour, 2 * time.Hour},
		{"* 0 1 * *", time.Minute, 30*day + 23*time.Hour + time.Minute},
		{"* * 1-28 * *", time.Minute, 3*day + time.Minute},
		{"* * * * 1-5", time.Minute, 2*day + time.Minute},
		{"* * * 1,2,3 *", time.Minute, 275*day + time.Minute},
		{"0 0 29 2 *", 4*365*day + day, 4*365*day + day},
		{"0 0 13 * 5", day, 7 * day},
		// Every hour, but half an hour is skipped and repeated.
		{"CRON_TZ=Australia/Lord_Howe 15 * * * *", time.Hour, 90 * time.Minute},
		{"CRON_TZ=Australia/Lord_Howe 45 * * * *", 30 * time.Minute, time.Hour},
		// What is skipped comes up at 01:00, where 01:05 is due soon.
		{"CRON_TZ=Asia/Beirut 30 0,1 * * *", 30 * time.Minute, 24 * time.Hour},
		{"CRON_TZ=Asia/Beirut 5 0,1 * * 0", 5 * time.Minute, 7 * day},
		{"CRON_TZ=Asia/Beirut 0 3 * * 0", 7*day - time.Hour, 7*day + time.Hour},
		// All of the distances lie across a change of the clocks.
		{"CRON_TZ=Europe/Berlin 0 12 1 1,8 *", 153*day + time.Hour, 213*day - time.Hour},
	} {
		s := schedule(t, c.expr)
		if s.shortest != c.shortest || s.longest != c.longest {
			t.Errorf("%s: %s to %s, want %s to %s", c.expr, s.shortest, s.longest, c.shortest, c.longest)
		}
	}
}

func TestScheduleRefusals(t *testing.T) {
	for _, expr := range []string{
		"", " ", "* * * *", "* * * * * *", "@daily", "@every 1h", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "a b c d e",
		"TZ=UTC 0 0 * * *", "CRON_TZ=Nowhere/Atall 0 0 * * *", "CRON_TZ= 0 0 * * *x", "CRON_TZ=UTC", "CRON_TZ=UTC 0 0 * *",
		"CRON_TZ=Local 0 0 * * *", "0 0 30 2 *", "*/0 * * * *", "5-1 * * * *", ", * * * *", "* , * * *", "* * , * *", "CRON_TZ=../../etc/passwd 0 0 * * *",
	} {
		if c, err := parseSchedule(expr); err == nil {
			t.Errorf("%q is accepted: %+v", expr, c)
		}
	}
	for _, expr := range []string{"0 0 * * *", "  0  0 * * *  ", "\t0 0 * * MON-FRI", "CRON_TZ=Europe/Berlin\t0 0 1 JAN ?", "*/5 1-3,7 * * *"} {
		if _, err := parseSchedule(expr); err != nil {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

func TestJitterShiftsThePhaseOnly(t *testing.T) {
	s := schedule(t, "0 3 * * *")
	const jitter = 2 * time.Hour
	first := s.First(at(t, "2026-03-02T04:00:00Z"), jitter)
	if want := at(t, "2026-03-02T05:00:00Z"); !first.Equal(want) {
		t.Errorf("first: %s, want %s", first, want)
	}
	if next, want := s.After(first, first, jitter), at(t, "2026-03-03T05:00:00Z"); !next.Equal(want) {
		t.Errorf("next: %s, want %s", next, want)
	}
	if d := s.Distance(first, jitter); d != 24*time.Hour {
		t.Errorf("distance: %s", d)
	}
	if next, want := s.After(first, first.Add(-time.Hour), jitter), at(t, "2026-03-03T05:00:00Z"); !next.Equal(want) {
		t.Errorf("next of one that came early: %s, want %s", next, want)
	}
	if next, want := s.After(first, first.Add(50*time.Hour), jitter), at(t, "2026-03-05T05:00:00Z"); !next.Equal(want) {
		t.Errorf("next of one that came late: %s, want %s", next, want)
	}
	p := periodCadence(time.Hour)
	first = p.First(at(t, "2026-03-02T04:00:00Z"), 5*time.Minute)
	if want := at(t, "2026-03-02T05:05:00Z"); !first.Equal(want) {
		t.Errorf("first: %s, want %s", first, want)
	}
	if next, want := p.After(first, first, 5*time.Minute), at(t, "2026-03-02T06:05:00Z"); !next.Equal(want) {
		t.Errorf("next: %s, want %s", next, want)
	}
	if d := p.Distance(first, 5*time.Minute); d != time.Hour {
		t.Errorf("distance: %s", d)
	}
}

func TestParsedSchedulesAreKept(t *testing.T) {
	if first, again := schedule(t, "1 3 * * *"), schedule(t, "1 3 * * *"); first != again {
		t.Error("parsed twice")
	}
	a, b := schedule(t, "CRON_TZ=Europe/Berlin 1 3 * * *"), schedule(t, "CRON_TZ=Europe/Berlin 2 3 * * *")
	if a.zone != b.zone {
		t.Error("a zone is loaded twice")
	}
}

// Whatever the zone, activations only move forwards, and never further or
// nearer than was measured.
func TestScheduleProperties(t *testing.T) {
	exprs := []string{
		"*/7 * * * *", "0 */2 * * *", "*/20 1-22 * * *", "0 1,2,3,12 * * *", "30 2 * * *", "0 0 * * *", "15 1,2,3 * * 0", "0 4 1 * *", "45 23 * * 1-5", "30 * * * *",
	}
	zones := []string{"", "CRON_TZ=Europe/Berlin ", "CRON_TZ=America/New_York ", "CRON_TZ=Africa/Cairo ", "CRON_TZ=Australia/Lord_Howe ", "CRON_TZ=Asia/Kathmandu ", "CRON_TZ=America/Santiago "}
	rapid.Check(t, func(rt *rapid.T) {
		expr := rapid.SampledFrom(zones).Draw(rt, "zone") + rapid.SampledFrom(exprs).Draw(rt, "expr")
		s := schedule(t, expr)
		from := distanceEpoch.Add(time.Duration(rapid.Int64Range(0, 4*366*86400).Draw(rt, "from")) * time.Second)
		a := s.First(from, 0)
		b := s.First(a, 0)
		if !a.After(from) || !b.After(a) {
			rt.Fatalf("%s from %s: %s, then %s", expr, from, a, b)
		}
		if mid := from.Add(a.Sub(from) / 2); !s.First(mid, 0).Equal(a) {
			rt.Fatalf("%s: %s from %s, %s from %s", expr, a, from, s.First(mid, 0), mid)
		}
		if d := b.Sub(a); d > s.longest || d < s.shortest {
			rt.Fatalf("%s: %s to %s is %s, measured %s to %s", expr, a, b, d, s.shortest, s.longest)
		}
	})
}
