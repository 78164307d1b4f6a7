// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"testing"
	"time"
)

// What spreads load differs between edges and starts, and is the same for the same.
func TestJitter(t *testing.T) {
	draw := func(name string, at int64) (all [20]time.Duration) {
		j := newJitter(name, time.Unix(0, at))
		for i := range all {
			if all[i] = j.below(time.Second); all[i] < 0 || all[i] >= time.Second {
				t.Fatalf("%v", all[i])
			}
		}
		return all
	}
	first := draw("a", 1)
	if again := draw("a", 1); again != first {
		t.Error("a simulation cannot be repeated")
	}
	if first == draw("b", 1) || first == draw("a", 2) {
		t.Error("edges do the same at the same time")
	}
}
