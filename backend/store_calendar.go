// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The calendar says which role to look at when: due/<day>/<minute>/<shard>/<role>.
// An entry decides nothing; the role record does. So entries may be too many,
// never too few: one is written before the commit that needs it and deleted
// after, and both happen under the role's lock.

// dueShards spreads the roles of one minute over so many lists.
const dueShards = 16

// deletedMark begins the calendar's name of a deleted role, which is its id: no
// role name begins like that.
const deletedMark = "~"

const dayFormat = "20060102"

func dayPrefix(day time.Time) string { return duePrefix + day.UTC().Format(dayFormat) + "/" }

func minutePrefix(minute time.Time) string {
	return dayPrefix(minute) + minute.UTC().Format("1504") + "/"
}

func duePath(minute time.Time, name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash.Hash never fails
	return minutePrefix(minute) + fmt.Sprintf("%02x/", h.Sum32()%dueShards) + name
}

var dueValue = []byte(`{"schema":1}`)

// tickOverlap is how many minutes before the cursor each tick looks at again, for
// entries that a slow or failed-over writer filed late.
const tickOverlap = 15

// fileAt is the minute under which a look wanted at at is filed: never one that
// the periodic function may be done with, and never one that is over, since a walk
// that is under way may have passed it.
func (b *backend) fileAt(at time.Time) time.Time {
	minute := later(at.UTC(), b.now()).Truncate(time.Minute)
	return later(minute, b.cursor().Add(time.Minute))
}

// walked is the first minute that ticks still look at; zero if that is not known.
func (b *backend) walked() time.Time {
	c := b.cursor()
	if c.IsZero() {
		return c
	}
	return c.Add(-(tickOverlap - 1) * time.Minute)
}

// unfile deletes an entry that is not needed any more. Where that fails the
// entry causes one look too many.
func (b *backend) unfile(ctx context.Context, s logical.Storage, minute time.Time, name string) {
	if err := deleteRecord(ctx, s, duePath(minute, name)); err != nil {
		b.Logger().Debug("a calendar entry is left behind", "role", name, "error", err)
	}
}

// dueEntry is one entry of the calendar.
type dueEntry struct {
	minute time.Time
	name   string // of a role, or deletedMark and the id of a deleted one
	missed bool   // the calendar lacks it
}

// walkByDay is from how far before the end of a walk on the calendar is read day by
// day.
const walkByDay = time.Hour

// dueEntries goes over the entries of the calendar of those minutes, in the order
// of the minutes. It goes by name, and never lists the calendar as a whole: minute
// by minute near the end, one List per day before. An error comes with the minute
// that could not be read, and is the last.
func dueEntries(ctx context.Context, s logical.Storage, from, until time.Time) iter.Seq2[dueEntry, error] {
	return func(yield func(dueEntry, error) bool) {
		for m := from.UTC().Truncate(time.Minute); !m.After(until); {
			minutes, next, err := filedMinutes(ctx, s, m, until)
			if err != nil {
				yield(dueEntry{minute: m}, err)
				return
			}
			for _, minute := range minutes {
				if !entriesOf(ctx, s, minute, yield) {
					return
				}
			}
			m = next
		}
	}
}

// filedMinutes are the next minutes to look at, from m on, and where that goes on.
func filedMinutes(ctx context.Context, s logical.Storage, m, until time.Time) (minutes []time.Time, next time.Time, err error) {
	if until.Sub(m) < walkByDay {
		return []time.Time{m}, m.Add(time.Minute), nil
	}
	day := m.Truncate(24 * time.Hour)
	names, err := list(ctx, s, dayPrefix(day))
	if err != nil {
		return nil, m, err
	}
	for _, name := range names {
		minute, err := time.Parse(dayFormat+"1504", day.Format(dayFormat)+strings.TrimSuffix(name, "/"))
		if err == nil && !minute.Before(m) && !minute.After(until) {
			minutes = append(minutes, minute)
		}
	}
	slices.SortFunc(minutes, time.Time.Compare)
	return minutes, day.Add(24 * time.Hour), nil
}

// entriesOf yields the entries of one minute; false ends the walk.
func entriesOf(ctx context.Context, s logical.Storage, minute time.Time, yield func(dueEntry, error) bool) bool {
	err := ctx.Err()
	var shards []string
	if err == nil {
		shards, err = list(ctx, s, minutePrefix(minute))
	}
	for i := 0; err == nil && i < len(shards); i++ {
		var names []string
		names, err = list(ctx, s, minutePrefix(minute)+shards[i])
		for _, name := range names {
			if !yield(dueEntry{minute: minute, name: name}, nil) {
				return false
			}
		}
	}
	if err != nil {
		yield(dueEntry{minute: minute}, err)
	}
	return err == nil
}
