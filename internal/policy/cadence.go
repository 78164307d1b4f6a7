// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // schedules name time zones; the machine may know none

	"github.com/robfig/cron/v3"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Cadence says when a role rotates by itself. Its jitter is what Terms.Jitter
// says. An activation that never comes is the zero time.
type Cadence interface {
	// First is the first activation after from, jitter included.
	First(from time.Time, jitter time.Duration) time.Time
	// After is the activation that follows the one planned at planned, which
	// happens then or, if that is over, at at.
	After(planned, at time.Time, jitter time.Duration) time.Time
	// Distance is the time between the first two activations after at.
	Distance(at time.Time, jitter time.Duration) time.Duration
}

type periodCadence time.Duration

func (p periodCadence) First(from time.Time, jitter time.Duration) time.Time {
	return from.Add(time.Duration(p) + jitter)
}

func (p periodCadence) After(planned, at time.Time, _ time.Duration) time.Time {
	return keyring.NextPeriod(planned, at, time.Duration(p))
}

func (p periodCadence) Distance(time.Time, time.Duration) time.Duration { return time.Duration(p) }

// scheduleCadence is a cron expression of five fields.
type scheduleCadence struct {
	spec              *cron.SpecSchedule
	longest, shortest time.Duration
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

// next is the first activation after from; zero if none comes in five years.
//
// A schedule that names hours means times of the day. One that falls into the
// hour that clocks skip in spring comes up at the end of that hour rather than
// not at all, and one in the hour that they repeat in autumn comes up in the
// first pass only. A schedule of every hour just goes on.
func (s *scheduleCadence) next(from time.Time) time.Time {
	// The library looks in the zone of what it is given unless the expression
	// names one; ours are UTC unless they do.
	from = from.UTC()
	for {
		n := s.spec.Next(from).UTC()
		if n.IsZero() || s.everyHour() {
			return n
		}
		if at := s.skipped(from, n); !at.IsZero() {
			return at
		}
		end := s.repeatedUntil(n)
		if end.IsZero() {
			return n
		}
		from = end.Add(-time.Nanosecond)
	}
}

const allHours = 1<<24 - 1

func (s *scheduleCadence) everyHour() bool { return s.spec.Hour&allHours == allHours }

func (s *scheduleCadence) zone() *time.Location {
	if s.spec.Location == time.Local { // how the library says that none was named
		return time.UTC
	}
	return s.spec.Location
}

// skipped is the first end of an hour that the clocks skip, after from and
// before n, in which the schedule would have come up; zero if there is none.
func (s *scheduleCadence) skipped(from, n time.Time) time.Time {
	for at := from.In(s.zone()); ; {
		_, change := at.ZoneBounds()
		if change.IsZero() || !change.Before(n) {
			return time.Time{}
		}
		_, before := at.Zone()
		_, after := change.Zone()
		if gap := time.Duration(after-before) * time.Second; gap > 0 {
			as := *s.spec
			as.Location = time.FixedZone("", before)
			if as.Next(change.Add(-time.Second)).Before(change.Add(gap)) {
				return change.UTC()
			}
		}
		at = change
	}
}

// repeatedUntil is the end of the hour that the clocks repeat, if at is in its
// second pass; else zero.
func (s *scheduleCadence) repeatedUntil(at time.Time) time.Time {
	at = at.In(s.zone())
	change, _ := at.ZoneBounds()
	if change.IsZero() {
		return time.Time{}
	}
	_, before := change.Add(-time.Second).Zone()
	_, after := at.Zone()
	if end := change.Add(time.Duration(before-after) * time.Second); at.Before(end) {
		return end.UTC()
	}
	return time.Time{}
}

var (
	cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

	errScheduleFields = errors.New("a schedule has five fields (minute hour day-of-month month day-of-week), UTC unless CRON_TZ=<zone> stands before them")
	errScheduleNever  = errors.New("the schedule never comes up")

	schedulesMu sync.Mutex
	schedules   = map[string]*scheduleCadence{}
)

const (
	maxScheduleText = 256 // characters
	maxSchedules    = 4096
	// scheduleHorizon and scheduleSamples bound the look ahead that finds the
	// distances of a schedule. The horizon holds a leap year.
	scheduleHorizon = 5 * 366 * 24 * time.Hour
	scheduleSamples = 2000
)

// scheduleEpoch is where the look ahead starts. A fixed instant keeps the
// distances of an expression the same whenever they are asked for.
var scheduleEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// parseSchedule reads a cron expression and measures its distances. Results are
// shared: they never change.
func parseSchedule(expr string) (*scheduleCadence, error) {
	schedulesMu.Lock()
	defer schedulesMu.Unlock()
	if c, ok := schedules[expr]; ok {
		return c, nil
	}
	words := strings.Fields(expr)
	fields := words
	if len(fields) > 0 && strings.HasPrefix(fields[0], "CRON_TZ=") {
		fields = fields[1:]
	}
	if len(fields) != 5 || words[0] == "CRON_TZ=Local" {
		return nil, errScheduleFields
	}
	parsed, err := cronParser.Parse(strings.Join(words, " "))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", errScheduleFields, refusal.Shown(err.Error())) // it repeats the expression
	}
	c := &scheduleCadence{spec: parsed.(*cron.SpecSchedule)} // five fields are nothing else
	if !c.measure() {
		return nil, errScheduleNever
	}
	if len(schedules) >= maxSchedules {
		clear(schedules)
	}
	schedules[expr] = c
	return c, nil
}

// measure finds the distances of the schedule, up to the horizon, and reports
// whether there are any. Of a schedule that comes up too often to look at each
// activation it takes a sample; besides, it looks for long pauses and at what
// happens when the clocks change.
func (s *scheduleCadence) measure() bool {
	end := scheduleEpoch.Add(scheduleHorizon)
	last, all := s.sample(scheduleEpoch, end, scheduleSamples)
	if !all {
		s.longest = max(s.longest, s.longestGap(last, end))
		s.sampleChanges(last, end)
	}
	return s.shortest > 0
}

// sample measures the distances between the activations after from, up to end,
// or the first of them, most in number. It returns the last one that it saw and
// reports whether these were all.
func (s *scheduleCadence) sample(from, end time.Time, most int) (last time.Time, all bool) {
	last = s.next(from)
	for range most {
		n := s.next(last)
		if n.IsZero() || n.After(end) {
			return last, true
		}
		d := n.Sub(last)
		s.longest = max(s.longest, d)
		if s.shortest == 0 || d < s.shortest {
			s.shortest = d
		}
		last = n
	}
	return last, false
}

// sampleChanges measures the distances around each change of the clocks between
// from and end.
func (s *scheduleCadence) sampleChanges(from, end time.Time) {
	if s.everyHour() {
		return
	}
	// As long as the pause across a change can be: what was measured so far, and
	// the hours that the clocks skip or repeat. More than a day is for longestGap.
	around := min(s.longest, 24*time.Hour) + 3*time.Hour
	for at := from.In(s.zone()); ; {
		_, change := at.ZoneBounds()
		if change.IsZero() || change.After(end) {
			return
		}
		s.sample(change.Add(-around), change.Add(around), int(2*around/time.Minute))
		at = change
	}
}

// longestGap looks from day to day, up to end, for pauses longer than a day that
// the samples before from did not reach. The answer errs upwards, by a day at
// most.
func (s *scheduleCadence) longestGap(from, end time.Time) time.Duration {
	const day = 24 * time.Hour
	var longest time.Duration
	for d := from.Truncate(day); d.Before(end); {
		n := s.next(d) // there is one: it came up before
		if gap := n.Sub(d); gap > day {
			longest = max(longest, gap+day)
			d = n.Truncate(day)
		}
		d = d.Add(day)
	}
	return longest
}

func setSchedule(p *Policy, v any) error {
	const field = "rotation_schedule"
	expr := v.(string)
	if expr != "" && expr != p.RotationSchedule {
		if err := CheckText(field, expr, maxScheduleText, true); err != nil {
			return err
		}
		if _, err := parseSchedule(expr); err != nil {
			return refusal.New(field, expr, err.Error(), `write something like "0 3 * * 1" or "CRON_TZ=Europe/Berlin 30 2 * * *"`)
		}
	}
	p.RotationSchedule = expr
	return nil
}
