// SPDX-License-Identifier: MPL-2.0

//go:build !race

package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The race detector has goroutines run in an order of its own, each time another.

// A seed repeats its world, so that what it finds can be looked at. What happens at the
// same instant may happen in another order.
func TestWorldsRepeat(t *testing.T) {
	for _, seed := range []uint64{3, 25} {
		one, two := runWorld(t, fmt.Sprint("world ", seed), seed), runWorld(t, fmt.Sprint("world ", seed, " again"), seed)
		slices.Sort(one.log)
		slices.Sort(two.log)
		for i := range one.log {
			if i >= len(two.log) || one.log[i] != two.log[i] {
				t.Errorf("world %d is another the second time, from here:\n%s\nwas\n%s", seed,
					strings.Join(two.log[max(0, min(i, len(two.log))-3):min(len(two.log), i+5)], "\n"), strings.Join(one.log[max(0, i-3):min(len(one.log), i+5)], "\n"))
				break
			}
		}
	}
}
