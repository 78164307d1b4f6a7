// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// mark is this node's copy of how far the periodic function has come.
type mark struct {
	mu     sync.RWMutex
	rec    markRecord
	loaded bool
}

func (b *backend) highWater() time.Time {
	b.mark.mu.RLock()
	defer b.mark.mu.RUnlock()
	return b.mark.rec.High
}

// cursor is the last minute of the calendar that is done with.
func (b *backend) cursor() time.Time {
	b.mark.mu.RLock()
	defer b.mark.mu.RUnlock()
	// A cursor far ahead of the clock was set by a wrong clock: what is filed
	// behind it would wait for that time to come.
	if c := b.mark.rec.Cursor; c.Sub(b.clock.Now()) <= maxClockLead {
		return c
	}
	return time.Time{}
}

// loadMark reads the mark unless this node has it.
func (b *backend) loadMark(ctx context.Context, s logical.Storage) error {
	b.mark.mu.RLock()
	loaded := b.mark.loaded
	b.mark.mu.RUnlock()
	if loaded {
		return nil
	}
	rec, err := getRecord[markRecord](ctx, s, markPath)
	if err != nil {
		return err
	}
	b.mark.mu.Lock()
	defer b.mark.mu.Unlock()
	if rec != nil {
		b.mark.rec = *rec
	}
	b.mark.loaded = true
	return nil
}

// firstMark starts the calendar of a new mount: what is filed before the first
// tick must be found, however late that comes.
func (b *backend) firstMark(ctx context.Context, s logical.Storage) error {
	b.mark.mu.RLock()
	fresh := b.mark.rec.Cursor.IsZero()
	b.mark.mu.RUnlock()
	if !fresh {
		return nil
	}
	now := b.now()
	return b.advance(ctx, s, now, now.Truncate(time.Minute).Add(-time.Minute))
}

// forgetMark makes the next tick read the mark again.
func (b *backend) forgetMark() {
	b.mark.mu.Lock()
	defer b.mark.mu.Unlock()
	b.mark.loaded = false
}

// advance persists that everything up to cursor is done with and that now has
// been seen. What is filed concurrently sees the new cursor only after it is
// stored; the overlap of the ticks covers the time between.
func (b *backend) advance(ctx context.Context, s logical.Storage, now, cursor time.Time) error {
	b.mark.mu.RLock()
	rec := b.mark.rec
	b.mark.mu.RUnlock()
	rec.Schema, rec.High, rec.Cursor = recordSchema, now, cursor
	if err := putRecord(ctx, s, markPath, &rec); err != nil {
		return err
	}
	b.mark.mu.Lock()
	defer b.mark.mu.Unlock()
	b.mark.rec.Schema, b.mark.rec.High, b.mark.rec.Cursor = rec.Schema, rec.High, rec.Cursor
	return nil
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
