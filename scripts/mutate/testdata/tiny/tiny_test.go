// SPDX-License-Identifier: MPL-2.0

package tiny

import (
	"slices"
	"testing"
)

func TestPut(t *testing.T) {
	s := &shelf{}
	for _, item := range []string{"a", "b", "c"} {
		if err := s.put(item, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.put("d", true); err == nil {
		t.Fatal("a full shelf took one more")
	}
	want := []string{"before a", "kept a", "before b", "kept b", "before c", "kept c"}
	if len(s.items) != 3 || !slices.Equal(s.log, want) {
		t.Fatal(s.items, s.log)
	}
}

func TestOldest(t *testing.T) {
	if got := oldest(1, 5, 3); got != 5 {
		t.Fatal(got)
	}
}

func TestSorted(t *testing.T) {
	if got := sorted(1, []int{2, 3, 1}); !slices.Equal(got, []int{1, 2, 3}) {
		t.Fatal(got)
	}
}

func TestBox(t *testing.T) {
	b := &box[string]{}
	if b.fill("x"); !b.full {
		t.Fatal("empty")
	}
}

func TestSafely(t *testing.T) {
	if !safely() {
		t.Fatal("no panic was seen")
	}
}
