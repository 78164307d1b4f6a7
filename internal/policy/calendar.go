// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"iter"
	"math/bits"
	"time"

	"github.com/robfig/cron/v3"
)

const (
	daySeconds = 24 * 60 * 60
	dayMinutes = 24 * 60
)

// calendar is what a schedule says about the clock on the wall, whatever its
// time zone: the minutes at which it comes up. A local time is in seconds since
// 1970 on that clock, as if it showed UTC.
type calendar struct {
	minutes, hours, dom, months, dow uint64 // the bit of each number that is named
	eitherDay                        bool   // the day of the month or the day of the week is enough
}

// never is a local time that does not come.
const never = 1<<63 - 1

const (
	allMinutes = 1<<60 - 1
	allHours   = 1<<24 - 1
	allDow     = 1<<7 - 1
	// starBit is how the parser marks a field that was left open.
	starBit = 1 << 63
)

func newCalendar(spec *cron.SpecSchedule) calendar {
	return calendar{
		minutes: spec.Minute & allMinutes, hours: spec.Hour & allHours,
		dom: spec.Dom, months: spec.Month, dow: spec.Dow & allDow,
		eitherDay: spec.Dom&starBit == 0 && spec.Dow&starBit == 0,
	}
}

// empty reports whether the calendar names no minute at all. The others must not
// be asked then.
func (c calendar) empty() bool {
	if c.minutes == 0 || c.hours == 0 {
		return true
	}
	for range c.days(0) {
		return false
	}
	return true
}

// next is the first local time after one that the calendar names.
func (c calendar) next(after int64) int64 {
	minute := floor(after, 60) + 1
	day := floor(minute, dayMinutes)
	for d := range c.days(day) {
		from := 0
		if d == day {
			from = int(minute - day*dayMinutes)
		}
		if m := c.minuteFrom(from); m >= 0 {
			return localTime(d, m)
		}
	}
	return never
}

// minuteFrom is the first minute of a day that the calendar names, from m on; -1
// if there is none.
func (c calendar) minuteFrom(m int) int {
	hour, minute := m/60, m%60
	if rest := c.minutes >> minute << minute; c.hours>>hour&1 != 0 && rest != 0 {
		return hour*60 + bits.TrailingZeros64(rest)
	}
	if rest := c.hours >> (hour + 1) << (hour + 1); rest != 0 {
		return bits.TrailingZeros64(rest)*60 + bits.TrailingZeros64(c.minutes)
	}
	return -1
}

// minuteTo is the last minute of a day that the calendar names, up to m; -1 if
// there is none.
func (c calendar) minuteTo(m int) int {
	hour, minute := m/60, m%60
	if rest := c.minutes & (2<<minute - 1); c.hours>>hour&1 != 0 && rest != 0 {
		return hour*60 + bits.Len64(rest) - 1
	}
	if rest := c.hours & (1<<hour - 1); rest != 0 {
		return (bits.Len64(rest)-1)*60 + bits.Len64(c.minutes) - 1
	}
	return -1
}

// emptyMonths is how many months in a row may have no day of a calendar that
// has any: a 29 February is eight years from the next around 2100.
const emptyMonths = 8*12 + 1

// days are the days that the calendar names, in days since 1970, from one on.
func (c calendar) days(from int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		year, month, day := time.Unix(from*daySeconds, 0).UTC().Date()
		mask := ^uint64(0) << day
		for empty := 0; empty <= emptyMonths; empty++ {
			first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
			for days := c.daysOf(first) & mask; days != 0; days &= days - 1 {
				if !yield(first.Unix()/daySeconds + int64(bits.TrailingZeros64(days)) - 1) {
					return
				}
				empty = 0
			}
			mask = ^uint64(0)
			month++
		}
	}
}

// daysOf are the days of a month that the calendar names, a bit each.
func (c calendar) daysOf(first time.Time) uint64 {
	if c.months>>first.Month()&1 == 0 {
		return 0
	}
	// The week as it lies in this month: bit 0 is its first day's.
	start := first.Weekday()
	week := (c.dow>>start | c.dow<<(7-start)) & allDow
	byWeek := week * (1<<1 | 1<<8 | 1<<15 | 1<<22 | 1<<29)
	days := c.dom & byWeek
	if c.eitherDay {
		days = c.dom | byWeek
	}
	length := first.AddDate(0, 1, -1).Day()
	return days & (2<<length - 2)
}

// localTime is that of a minute of a day.
func localTime(day int64, minute int) int64 {
	return day*daySeconds + int64(minute)*60
}

// floor divides and rounds down, before 1970 too.
func floor(n, by int64) int64 {
	if n < 0 {
		n -= by - 1
	}
	return n / by
}
