// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"strings"
	"time"
)

// walk does what is due, minute by minute, oldest first, and moves the cursor
// over the minutes that are done with.
func (t *tick) walk(ctx context.Context) error {
	end := t.now.Truncate(time.Minute) // the minute that is not over yet
	cursor := t.b.cursor()
	if cursor.IsZero() || cursor.Sub(t.now) > maxClockLead {
		cursor = end.Add(-time.Minute)
	}
	from := cursor.Add(-(tickOverlap - 1) * time.Minute)
	if from.After(end) {
		from = end
	}
	begin, cancel := context.WithTimeout(ctx, tickWork)
	defer cancel()
	var batch []dueEntry
	flush := func() error {
		err := t.work(ctx, begin, batch)
		batch = batch[:0]
		return err
	}
	walkErr := t.entries(begin, from, end, func(e dueEntry) error {
		if batch = append(batch, e); len(batch) < tickBatch {
			return nil
		}
		return flush()
	})
	workErr := flush()
	if begin.Err() != nil && ctx.Err() == nil {
		walkErr, workErr = unlessLate(walkErr), unlessLate(workErr)
	}
	done := end.Add(-time.Minute)
	if u := t.unfinished; !u.IsZero() && !u.After(done) {
		done = u.Add(-time.Minute)
	}
	return errors.Join(walkErr, workErr, t.b.advance(ctx, t.s, t.now, done))
}

// unlessLate is err but for the end of a tick's time: the next one goes on.
func unlessLate(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// entries calls fn for every entry of the minutes from to end, in order.
func (t *tick) entries(ctx context.Context, from, end time.Time, fn func(dueEntry) error) error {
	minute := func(m time.Time) error {
		shards, err := list(ctx, t.s, minutePrefix(m))
		if err != nil {
			return err
		}
		for _, shard := range shards {
			names, err := list(ctx, t.s, minutePrefix(m)+shard)
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := fn(dueEntry{minute: m, name: name}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for m := from; !m.After(end); {
		if err := ctx.Err(); err != nil {
			t.leave(m)
			return err
		}
		if end.Sub(m) < walkByDay {
			if err := minute(m); err != nil {
				t.leave(m)
				return err
			}
			m = m.Add(time.Minute)
			continue
		}
		day := m.Truncate(24 * time.Hour)
		names, err := list(ctx, t.s, dayPrefix(day))
		if err != nil {
			t.leave(m)
			return err
		}
		for _, name := range names {
			at, err := time.Parse(dayFormat+"1504", day.Format(dayFormat)+strings.TrimSuffix(name, "/"))
			if err != nil || at.Before(m) || at.After(end) {
				continue
			}
			if err := minute(at); err != nil {
				t.leave(at)
				return err
			}
		}
		m = day.Add(24 * time.Hour)
	}
	return nil
}

// leave notes that the minute is not done with.
func (t *tick) leave(minute time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unfinished.IsZero() || minute.Before(t.unfinished) {
		t.unfinished = minute
	}
}
