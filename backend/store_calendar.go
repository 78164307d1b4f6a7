// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"hash/fnv"
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

// fileAt is the minute under which a look wanted at at is filed: never one that
// the periodic function may be done with.
func (b *backend) fileAt(at time.Time) time.Time {
	minute := at.UTC().Truncate(time.Minute)
	if next := b.cursor().Add(time.Minute); minute.Before(next) {
		minute = next
	}
	return minute
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
}

// dueBetween calls fn for the entries of the calendar of those minutes, in
// order, reading it day by day.
func dueBetween(ctx context.Context, s logical.Storage, from, until time.Time, fn func(dueEntry) error) error {
	from, until = from.UTC().Truncate(time.Minute), until.UTC()
	for day := from.Truncate(24 * time.Hour); !day.After(until); day = day.Add(24 * time.Hour) {
		minutes, err := list(ctx, s, dayPrefix(day))
		if err != nil {
			return err
		}
		slices.Sort(minutes)
		for _, name := range minutes {
			minute, err := time.Parse(dayFormat+"1504", day.Format(dayFormat)+strings.TrimSuffix(name, "/"))
			if err != nil || minute.Before(from) || minute.After(until) {
				continue
			}
			shards, err := list(ctx, s, minutePrefix(minute))
			if err != nil {
				return err
			}
			for _, shard := range shards {
				names, err := list(ctx, s, minutePrefix(minute)+shard)
				if err != nil {
					return err
				}
				for _, name := range names {
					if err := fn(dueEntry{minute: minute, name: name}); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
