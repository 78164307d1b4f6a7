// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// cadence says when a role rotates by itself.
type cadence interface {
	// first is the first activation after from, jitter included.
	first(from time.Time, jitter time.Duration) time.Time
	// after is the one that follows the activation planned at planned, which
	// happens then or, if that is over, at at.
	after(planned, at time.Time, jitter time.Duration) time.Time
	// distance is the time between the neighbouring activations around at.
	distance(at time.Time, jitter time.Duration) time.Duration
}

type periodCadence time.Duration

func (p periodCadence) first(from time.Time, jitter time.Duration) time.Time {
	return from.Add(time.Duration(p) + jitter)
}

func (p periodCadence) after(planned, at time.Time, _ time.Duration) time.Time {
	return keyring.NextPeriod(planned, at, time.Duration(p))
}

func (p periodCadence) distance(time.Time, time.Duration) time.Duration { return time.Duration(p) }

// scheduleCadence is a cron expression of five fields.
type scheduleCadence struct {
	spec              cron.Schedule
	longest, shortest time.Duration
}

func (s *scheduleCadence) first(from time.Time, jitter time.Duration) time.Time {
	return s.next(from.Add(-jitter)).Add(jitter)
}

func (s *scheduleCadence) after(planned, at time.Time, jitter time.Duration) time.Time {
	if at.Before(planned) {
		at = planned
	}
	return s.first(at, jitter)
}

func (s *scheduleCadence) distance(at time.Time, jitter time.Duration) time.Duration {
	next := s.first(at, jitter)
	return s.first(next, jitter).Sub(next)
}

func (s *scheduleCadence) next(from time.Time) time.Time {
	// The library looks in the zone of what it is given unless the expression
	// names one; ours are UTC unless they do.
	return s.spec.Next(from.UTC()).UTC()
}

var (
	cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

	errScheduleFields = errors.New("a schedule has five fields (minute hour day-of-month month day-of-week), UTC unless CRON_TZ=<zone> stands before them")
	errScheduleNever  = errors.New("the schedule never comes up")

	schedulesMu sync.Mutex
	schedules   = map[string]*scheduleCadence{}
)

const (
	maxSchedules = 4096
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
	fields := strings.Fields(expr)
	if len(fields) > 0 && strings.HasPrefix(fields[0], "TZ=") {
		return nil, errScheduleFields
	}
	if len(fields) > 0 && strings.HasPrefix(fields[0], "CRON_TZ=") {
		fields = fields[1:]
	}
	if len(fields) != 5 {
		return nil, errScheduleFields
	}
	spec, err := cronParser.Parse(expr)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errScheduleFields, err) //nolint:errorlint // the cause is a text for the reader
	}
	c := &scheduleCadence{spec: spec}
	prev := c.next(scheduleEpoch)
	if prev.IsZero() {
		return nil, errScheduleNever
	}
	for range scheduleSamples {
		next := c.next(prev)
		if next.IsZero() || next.Sub(scheduleEpoch) > scheduleHorizon {
			break
		}
		d := next.Sub(prev)
		c.longest = max(c.longest, d)
		if c.shortest == 0 || d < c.shortest {
			c.shortest = d
		}
		prev = next
	}
	c.longest = max(c.longest, c.longestGap(prev))
	if c.shortest == 0 {
		return nil, errScheduleNever
	}
	if len(schedules) >= maxSchedules {
		clear(schedules)
	}
	schedules[expr] = c
	return c, nil
}

// longestGap looks from day to day, up to the horizon, for pauses longer than a
// day that the samples before from did not reach. The answer errs upwards, by
// a day at most.
func (s *scheduleCadence) longestGap(from time.Time) time.Duration {
	const day = 24 * time.Hour
	var longest time.Duration
	end := scheduleEpoch.Add(scheduleHorizon)
	for d := from.Truncate(day); d.Before(end); {
		n := s.next(d)
		if n.IsZero() {
			break
		}
		if gap := n.Sub(d); gap > day {
			longest = max(longest, gap+day)
			d = n.Truncate(day)
		}
		d = d.Add(day)
	}
	return longest
}
