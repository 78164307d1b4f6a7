// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"iter"
	"math"
	"time"
)

// scheduleCadence is a calendar in a time zone.
//
// A calendar that names hours means times of the day, and each of these comes up
// once: when the clocks first reach it, or pass it. So those that the clocks
// skip come up together at the end of the gap, with one that is due then, and
// those that they repeat come up in the first pass. A calendar of every hour
// follows the time that elapses: it comes up whenever the clocks show one of its
// minutes.
type scheduleCadence struct {
	wall calendar
	zone *time.Location
	// Between two activations. Measured over distanceYears.
	longest, shortest time.Duration
}

func newSchedule(wall calendar, zone *time.Location) *scheduleCadence {
	s := &scheduleCadence{wall: wall, zone: zone}
	s.measure()
	return s
}

func (s *scheduleCadence) First(from time.Time, jitter time.Duration) time.Time {
	return s.next(from.Add(-jitter)).Add(jitter)
}

func (s *scheduleCadence) After(planned, at time.Time, jitter time.Duration) time.Time {
	if at.Before(planned) {
		at = planned
	}
	return s.First(at, jitter)
}

func (s *scheduleCadence) Distance(at time.Time, jitter time.Duration) time.Duration {
	next := s.First(at, jitter)
	return s.First(next, jitter).Sub(next)
}

// next is the first activation after from.
func (s *scheduleCadence) next(from time.Time) time.Time {
	for st := range s.stretches(from.Unix() + 1) {
		switch local := s.wall.next(st.past); {
		case local == never:
			return time.Time{}
		case local <= st.last():
			return time.Unix(max(local-st.offset, st.begin), 0).UTC()
		}
	}
	return time.Time{} // not reached: stretches do not end
}

func (s *scheduleCadence) everyHour() bool { return s.wall.hours == allHours }

// stretch is a time without a change of the clocks, in seconds since 1970: from
// begin up to end, that not included. Not every stretch ends in a change.
type stretch struct {
	begin, end int64
	offset     int64 // of the clocks from UTC
	// past is the local time up to which nothing is left to come up. It is before
	// that of begin after a gap, and later when the clocks repeat themselves.
	past int64
}

// last is the local time of the last second.
func (st stretch) last() int64 { return st.end - 1 + st.offset }

// turn is how far back the clocks may have shown a later time than now: as much
// as two offsets differ, each at most 26 hours.
const turn = 52 * 60 * 60

// stretches are those from an instant on, without end.
func (s *scheduleCadence) stretches(from int64) iter.Seq[stretch] {
	return func(yield func(stretch) bool) {
		reached := int64(math.MinInt64) // by the clocks so far
		for at := from - turn; ; {
			st := stretch{begin: at}
			st.offset, st.end = s.unchanged(at)
			if at < from {
				st.end = min(st.end, from)
			}
			st.past = reached
			if s.everyHour() {
				st.past = at - 1 + st.offset
			}
			if at >= from && !yield(st) {
				return
			}
			reached = max(reached, st.last())
			at = st.end
		}
	}
}

// unchanged is the offset of the clocks at an instant, and an end up to which it
// is the same. A change need not follow.
func (s *scheduleCadence) unchanged(at int64) (offset, end int64) {
	t := time.Unix(at, 0).In(s.zone)
	_, seconds := t.Zone()
	_, change := t.ZoneBounds()
	switch end = change.Unix(); {
	case change.IsZero():
		end = at + distanceYears*366*daySeconds
	case end <= at:
		// Where a zone goes on by a rule, the library takes each year for one of
		// 365 days: on the last day of a leap year its end is past.
		end = (floor(at, daySeconds) + 1) * daySeconds
	}
	return int64(seconds), end
}

// distanceYears is how far the distances of a schedule are measured. After 28
// years weekdays and leap days come round again, and with them the rules by
// which clocks change.
const distanceYears = 28

// distanceEpoch is where they are measured from: a fixed instant keeps the
// distances of an expression the same whenever they are asked for.
var distanceEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// measure finds the distances of the schedule. Within a day they are those of
// the calendar, which errs on the safe side where the clocks change on each day
// on which it comes up; all others are exact.
func (s *scheduleCadence) measure() {
	s.measureDay()
	end := distanceEpoch.AddDate(distanceYears, 0, 0).Unix()
	last := int64(math.MinInt64) // activation seen so far
	for st := range s.stretches(distanceEpoch.Unix()) {
		if st.begin >= end {
			return
		}
		st.end = min(st.end, end)
		local := s.wall.next(st.past)
		if local > st.last() {
			continue
		}
		at := max(local-st.offset, st.begin)
		if last != math.MinInt64 {
			s.distance(at - last)
		}
		last = at
		if skipped := local < st.begin+st.offset; skipped {
			if local = s.wall.next(st.begin + st.offset); local > st.last() {
				continue
			}
			s.distance(local - st.offset - last)
		}
		last = s.measureDays(local, st.last()) - st.offset
	}
}

// measureDay measures the distances between the activations of a day without
// changes.
func (s *scheduleCadence) measureDay() {
	for m := s.wall.minuteFrom(0); ; {
		next := s.wall.minuteFrom(m + 1)
		if next < 0 {
			return
		}
		s.distance(int64(next-m) * 60)
		m = next
	}
}

// measureDays measures the distances from day to day while the clocks do not
// change, from one activation up to an end, in local time. It returns the last
// activation.
func (s *scheduleCadence) measureDays(from, end int64) int64 {
	first, last := s.wall.minuteFrom(0), s.wall.minuteTo(dayMinutes-1)
	day := floor(from, daySeconds)
	for next := range s.wall.days(day + 1) {
		if localTime(next, first) > end {
			break
		}
		s.distance(localTime(next, first) - localTime(day, last))
		day = next
	}
	if localTime(day, last) > end {
		last = s.wall.minuteTo(int(floor(end-day*daySeconds, 60)))
	}
	return localTime(day, last)
}

func (s *scheduleCadence) distance(seconds int64) {
	d := time.Duration(seconds) * time.Second
	s.longest = max(s.longest, d)
	if s.shortest == 0 || d < s.shortest {
		s.shortest = d
	}
}
