// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"
)

// flushUsage is the periodic part: within the tick's time and the budget.
func (b *backend) flushUsage(ctx context.Context, t *tick) error {
	paths := b.usage.dueGroups(t.now, false)
	paths = paths[:min(len(paths), usageBudget)]
	var mu sync.Mutex
	var failed error
	t.pool(len(paths), func(i int) {
		if ctx.Err() != nil {
			return
		}
		if err := b.flushGroup(ctx, t.s, paths[i]); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = err
		}
	})
	if n := b.usage.dropped.Swap(0); n > 0 {
		b.Logger().Warn("uses were not counted: too many keys were used since the last flush", "uses", n)
	}
	return failed
}
