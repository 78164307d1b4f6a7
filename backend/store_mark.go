// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
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
	err := b.mark.write(ctx, s, &markRecord{Schema: recordSchema, High: now, Cursor: cursor, By: b.instance})
	if err == nil {
		b.writer.wrote(b.reading())
	}
	return err
}

// remark is the write that a step of the worker begins to act with. It leaves the
// cursor where it is.
func (b *backend) remark(ctx context.Context, s logical.Storage, now time.Time) error {
	var cursor time.Time
	if rec := b.mark.last(); rec != nil {
		cursor = rec.Cursor
	}
	return b.advance(ctx, s, now, cursor)
}

// rival is what this instance knows of another that works on its storage.
type rival struct {
	mu   sync.Mutex
	seen time.Time // when another's mark was found where its own should be
}

const (
	// rivalWindow is how long after its own mark another's is a surprise, and
	// rivalTold how long that is told.
	rivalWindow = asserted
	rivalTold   = 10 * time.Minute
)

// compareMark looks whether the mark that this instance wrote is still there. Another's
// is told and is no fence: the server's cache may show a node that lost its place its
// own.
func (b *backend) compareMark(ctx context.Context, s logical.Storage, now time.Time) error {
	stored, err := getRecord[markRecord](ctx, s, markPath)
	if err != nil {
		return err
	}
	own := b.mark.last()
	b.rival.mu.Lock()
	defer b.rival.mu.Unlock()
	if stored == nil || own == nil || stored.By == b.instance || own.By != b.instance {
		return nil
	}
	b.feed.Renew() // it may have decided what this instance was not told of
	b.outboxForeign.Store(true)
	if now.Sub(own.High) > rivalWindow {
		return nil
	}
	if b.rival.seen.IsZero() || now.Sub(b.rival.seen) > rivalTold {
		b.Logger().Warn("another instance of the engine works on this mount's storage", "wrote", stored.High)
	}
	b.rival.seen = now
	return nil
}

// rivalProblem says, for operators, that another instance works on this storage;
// empty if none was seen lately.
func (b *backend) rivalProblem() string {
	b.rival.mu.Lock()
	defer b.rival.mu.Unlock()
	if age := b.clock.Now().Sub(b.rival.seen); b.rival.seen.IsZero() || age > rivalTold {
		return ""
	}
	return "at " + stamp(b.rival.seen) + " another instance of the engine was at work on this mount's storage: " +
		"a node that lost its place, or a copy of the server on the same storage"
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
