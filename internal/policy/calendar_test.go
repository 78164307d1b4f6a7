// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A calendar against all minutes of a day and all days of its years.
func TestCalendarProperties(t *testing.T) {
	bits := func(t *rapid.T, name string, from, to int) uint64 {
		var set uint64
		for _, n := range rapid.SliceOfN(rapid.IntRange(from, to), 1, 5).Draw(t, name) {
			set |= 1 << n
		}
		return set
	}
	rapid.Check(t, func(t *rapid.T) {
		c := calendar{
			minutes: bits(t, "minutes", 0, 59), hours: bits(t, "hours", 0, 23), dom: bits(t, "days", 1, 31), months: bits(t, "months", 1, 12), dow: bits(t, "weekdays", 0, 6),
			eitherDay: rapid.Bool().Draw(t, "either"),
		}
		if !c.eitherDay {
			c.dow = allDow | starBit
		}
		var minutes []int
		for m := range dayMinutes {
			if c.hours>>(m/60)&1 != 0 && c.minutes>>(m%60)&1 != 0 {
				minutes = append(minutes, m)
			}
		}
		m := rapid.IntRange(0, dayMinutes-1).Draw(t, "minute")
		from, to := -1, -1
		for _, n := range minutes {
			if n >= m && from < 0 {
				from = n
			}
			if n <= m {
				to = n
			}
		}
		if c.minuteFrom(m) != from || c.minuteTo(m) != to {
			t.Fatalf("%+v: from %d and to %d, want %d and %d", c, c.minuteFrom(m), c.minuteTo(m), from, to)
		}

		first := time.Date(rapid.IntRange(1890, 2090).Draw(t, "year"), 1, rapid.IntRange(1, 366).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
		const years = 20
		var days []int64
		for d := first; d.Before(first.AddDate(years, 0, 0)); d = d.AddDate(0, 0, 1) {
			byDay, byWeek := c.dom>>d.Day()&1 != 0, c.dow>>d.Weekday()&1 != 0
			if c.months>>d.Month()&1 != 0 && (byDay && byWeek || c.eitherDay && (byDay || byWeek)) {
				days = append(days, floor(d.Unix(), daySeconds))
			}
		}
		if c.empty() != (len(days) == 0) {
			t.Fatalf("%+v: empty is %t, with %d days", c, c.empty(), len(days))
		}
		if c.empty() {
			if next := c.next(first.Unix()); next != never {
				t.Fatalf("%+v: %d", c, next)
			}
			return
		}
		got := slices.Collect(func(yield func(int64) bool) {
			for d := range c.days(floor(first.Unix(), daySeconds)) {
				if d >= floor(first.AddDate(years, 0, 0).Unix(), daySeconds) || !yield(d) {
					return
				}
			}
		})
		if !slices.Equal(got, days) {
			t.Fatalf("%+v from %s: %d days, want %d", c, first, len(got), len(days))
		}

		after := first.Unix() + int64(rapid.IntRange(-1, 2*daySeconds).Draw(t, "second"))
		var want int64
		for i := 0; i < len(days)*len(minutes) && want == 0; i++ {
			if at := localTime(days[i/len(minutes)], minutes[i%len(minutes)]); at > after {
				want = at
			}
		}
		if next := c.next(after); next != want {
			t.Fatalf("%+v after %d: %d, want %d", c, after, next, want)
		}
	})
}
