// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
)

// usageBudget is how many records of usage one tick writes.
const usageBudget = 2000

// flushUsage is the periodic part: within the tick's time and the budget.
func (b *backend) flushUsage(ctx context.Context, t *tick) error {
	names := b.usage.counter.Due(t.now, usageInterval)
	names = names[:min(len(names), usageBudget)]
	if len(names) > 0 {
		if err := t.fence(ctx); err != nil {
			return err
		}
	}
	begin, cancel := t.begin(ctx, t.restTime())
	defer cancel()
	var mu sync.Mutex
	var failed error
	t.pool(len(names), func(i int) {
		if begin.Err() != nil || !t.may() {
			return
		}
		if err := b.guarded("storing counts", func() error { return b.storeUsage(ctx, t.s, names[i]) }); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = err
		}
	})
	if n := b.usage.counter.Missed(); n > 0 {
		b.Logger().Warn("uses were not counted: too many keys were used since the last flush", "uses", n)
	}
	return failed
}
