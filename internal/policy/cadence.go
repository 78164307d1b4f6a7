// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
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

var (
	cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

	errScheduleFields = errors.New("a schedule has five fields (minute hour day-of-month month day-of-week), UTC unless CRON_TZ=<zone> stands before them")
	errScheduleNever  = errors.New("the schedule never comes up")

	schedules = recent[*scheduleCadence]{most: maxSchedules}
	zones     = recent[*time.Location]{most: maxZones}
)

const (
	maxScheduleText = 256 // characters
	maxSchedules    = 4096
	maxZones        = 1024 // more than there are
)

// parseSchedule reads a cron expression and measures its distances. Results are
// shared: they never change.
func parseSchedule(expr string) (*scheduleCadence, error) {
	return schedules.get(expr, newParsedSchedule)
}

func newParsedSchedule(expr string) (*scheduleCadence, error) {
	fields, zone := strings.Fields(expr), time.UTC
	if len(fields) > 0 {
		if name, named := strings.CutPrefix(fields[0], "CRON_TZ="); named {
			if name == "Local" { // the machine's own
				return nil, errScheduleFields
			}
			var err error
			if zone, err = zones.get(name, time.LoadLocation); err != nil {
				return nil, fmt.Errorf("%w (%s)", errScheduleFields, refusal.Shown(err.Error()))
			}
			fields = fields[1:]
		}
	}
	if len(fields) != 5 {
		return nil, errScheduleFields
	}
	parsed, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", errScheduleFields, refusal.Shown(err.Error())) // it repeats the expression
	}
	wall := newCalendar(parsed.(*cron.SpecSchedule)) // five fields are nothing else
	if wall.empty() {
		return nil, errScheduleNever
	}
	return newSchedule(wall, zone), nil
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
