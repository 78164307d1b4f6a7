// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
)

// cell is this node's copy of one record. What it holds is shared and never
// modified.
//
// A read that began before a commit or an invalidation must not put the old value
// back after it: it counts only if the generation that it saw before is still there.
type cell[T any] struct {
	path string
	// none is what holds while there is no record. Where it is nil, absence is not
	// kept: whoever asks looks again.
	none *T
	// read gets the value where that is not the record at the path.
	read func(context.Context, logical.Storage) (*T, error)
	// learn is told of every value that is taken over.
	learn func(*T)

	// begin is where the context of a write comes from that does not end with the
	// caller; nil: it does.
	begin func(context.Context) (context.Context, func())

	// clock tells when a write that returned an error cannot land any more.
	clock clock

	state atomic.Pointer[cellState[T]]
	mu    sync.Mutex // orders what changes state
	gen   uint64
	edits sync.Mutex // held by change from its read to its write
	// unsure says that a write had an unknown outcome: then each who asks reads the
	// record.
	unsure unsureSet
}

type cellState[T any] struct {
	value *T
	stale bool // to be looked at, until the record was read again and is sure
}

// last is the value that was known last, without a look at storage; nil where none
// ever was.
func (c *cell[T]) last() *T {
	if st := c.state.Load(); st != nil {
		return st.value
	}
	return nil
}

// known is last unless the value may have changed since; else nil.
func (c *cell[T]) known() *T {
	if st := c.state.Load(); st != nil && !st.stale {
		return st.value
	}
	return nil
}

// get returns the value, from storage where it is not known; nil only where there
// is none.
func (c *cell[T]) get(ctx context.Context, s logical.Storage) (*T, error) {
	if v := c.known(); v != nil {
		return v, nil
	}
	return c.fill(ctx, s)
}

// fill reads the record and keeps it, unless that was overtaken or a write may still
// land.
func (c *cell[T]) fill(ctx context.Context, s logical.Storage) (*T, error) {
	c.mu.Lock()
	seen := c.gen
	c.mu.Unlock()
	v, err := c.stored(ctx, s)
	if err != nil || v == nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen == seen {
		if c.unsure.has(c.path) {
			c.unsure.settle(c.path, v, c.clock.Now())
		}
		c.set(v)
	}
	return v, nil
}

func (c *cell[T]) stored(ctx context.Context, s logical.Storage) (*T, error) {
	if c.read != nil {
		return c.read(ctx, s)
	}
	v, err := getRecord[T](ctx, s, c.path)
	if err == nil && v == nil {
		v = c.none
	}
	return v, err
}

// set takes a value over. The caller holds mu.
func (c *cell[T]) set(v *T) {
	c.state.Store(&cellState[T]{value: v, stale: c.unsure.has(c.path)})
	if c.learn != nil {
		c.learn(v)
	}
}

// change writes what fn makes of the record, which is read anew: one change at a
// time. fn makes a copy, or returns nil to leave the record as it is.
func (c *cell[T]) change(ctx context.Context, s logical.Storage, fn func(stored *T) (*T, error)) (*T, error) {
	c.edits.Lock()
	defer c.edits.Unlock()
	v, err := c.fill(ctx, s)
	if err != nil {
		return nil, err
	}
	next, err := fn(v)
	if err != nil || next == nil {
		return v, err
	}
	return next, c.write(ctx, s, next)
}

// write replaces the record. Where that has an unknown outcome it is read again.
func (c *cell[T]) write(ctx context.Context, s logical.Storage, v *T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(c.path), err)
	}
	if c.begin != nil {
		var done func()
		ctx, done = c.begin(ctx)
		defer done()
	}
	if err := putBytes(ctx, s, c.path, data); err != nil {
		if outcomeUnknown(err) {
			c.unsure.add(c.path, "", data, c.clock.Now())
		}
		c.forget()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	c.unsure.overwritten(c.path)
	c.set(v)
	return nil
}

// forget makes the next one to ask read the record again.
func (c *cell[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if v := c.last(); v != nil {
		c.state.Store(&cellState[T]{value: v, stale: true})
	}
}
