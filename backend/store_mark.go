// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) highWater() time.Time {
	if rec := b.mark.last(); rec != nil {
		return rec.High
	}
	return time.Time{}
}

// cursor is the last minute of the calendar that is done with.
func (b *backend) cursor() time.Time {
	rec := b.mark.last()
	// A cursor far ahead of the clock was set by a wrong clock: what is filed
	// before it would wait for that time to come.
	if rec == nil || rec.Cursor.Sub(b.clock.Now()) > maxClockLead {
		return time.Time{}
	}
	return rec.Cursor
}

// loadMark reads the mark unless this node has it.
func (b *backend) loadMark(ctx context.Context, s logical.Storage) error {
	_, err := b.mark.get(ctx, s)
	return err
}

// firstMark starts the calendar of a new mount: what is filed before the first
// tick must be found, however late that comes.
func (b *backend) firstMark(ctx context.Context, s logical.Storage) error {
	if rec := b.mark.last(); rec != nil && !rec.Cursor.IsZero() {
		return nil
	}
	now := b.now()
	return b.advance(ctx, s, now, now.Truncate(time.Minute).Add(-time.Minute))
}

// advance persists that everything up to cursor is done with and that now has
// been seen. What is filed concurrently sees the new cursor only after it is
// stored; the overlap of the ticks covers the time between.
func (b *backend) advance(ctx context.Context, s logical.Storage, now, cursor time.Time) error {
	return b.mark.write(ctx, s, &markRecord{Schema: recordSchema, High: now, Cursor: cursor})
}

// now is the instant of an operation: the latest of the node's clock, the
// mount's high-water mark and what else is given (a record's last commit), as
// far as these are plausible.
func (b *backend) now(seen ...time.Time) time.Time {
	clock := b.clock.Now()
	now := b.nowAt(clock, time.Time{})
	for _, t := range seen {
		now = plausible(now, clock, t)
	}
	return now.UTC().Round(0)
}

// nowAt is now, for whoever has looked at the clock.
func (b *backend) nowAt(clock, seen time.Time) time.Time {
	return plausible(plausible(clock, clock, b.highWater()), clock, seen).UTC().Round(0)
}
