// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// What is told of decisions is told by the node that makes them: another one may be
// behind, and would not know. Whether this is that node only storage can say.

// asserted is how long a node that could write the mark is taken for the one that
// writes.
const asserted = 150 * time.Second

// writer is when this node last wrote the mark, by both of its clocks.
type writer struct {
	mu    sync.Mutex
	last  reading
	known bool

	asserting sync.Mutex
}

// wrote is told that the mark was written.
func (w *writer) wrote(now reading) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.known = now, true
}

// lately reports whether that is a short while ago: by the clock that nobody sets, and
// by the one on the wall, which goes on while a machine sleeps.
func (w *writer) lately(now reading) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	wall, steady := w.last.upTo(now)
	return w.known && steady < asserted && wall.Abs() < asserted
}

// assertWriter fails, with the error that makes the server forward the request, unless
// this node is the one that writes.
func (b *backend) assertWriter(ctx context.Context, s logical.Storage) error {
	if b.writer.lately(b.reading()) {
		return nil
	}
	if !b.writeSafe() {
		return logical.ErrReadOnly
	}
	b.writer.asserting.Lock() // of many who wait one writes
	defer b.writer.asserting.Unlock()
	if b.writer.lately(b.reading()) {
		return nil
	}
	_, err := b.mark.change(ctx, s, func(stored *markRecord) (*markRecord, error) {
		if stored.By != b.instance {
			b.feed.Renew() // another instance may have decided what this one was not told of
			b.outboxForeign.Store(true)
		}
		next := *stored
		next.Schema, next.High, next.By = recordSchema, later(stored.High, b.now()), b.instance
		return &next, nil
	})
	if err == nil {
		b.writer.wrote(b.reading())
	}
	return err
}
