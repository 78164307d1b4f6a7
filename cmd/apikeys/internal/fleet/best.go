// SPDX-License-Identifier: MPL-2.0

package fleet

import "slices"

// best keeps the first n of what it is given, in an order: of a fleet of any size a page
// shows, and this command holds, so much.
type best[T any] struct {
	n     int
	order func(a, b T) int
	all   []T
	seen  int
}

func newBest[T any](n int, order func(a, b T) int) *best[T] { return &best[T]{n: n, order: order} }

func (b *best[T]) add(v T) {
	b.seen++
	b.all = append(b.all, v)
	if len(b.all) >= 2*b.n+64 {
		b.cut()
	}
}

func (b *best[T]) cut() {
	slices.SortStableFunc(b.all, b.order)
	clear(b.all[min(b.n, len(b.all)):])
	b.all = b.all[:min(b.n, len(b.all))]
}

// list is what was kept, in order.
func (b *best[T]) list() []T {
	b.cut()
	return b.all
}

// left is how many were given and not kept.
func (b *best[T]) left() int { return b.seen - min(b.n, b.seen) }
