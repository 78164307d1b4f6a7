// SPDX-License-Identifier: MPL-2.0

package locksutil

import (
	"slices"
	"strconv"
	"testing"
)

func TestLocks(t *testing.T) {
	locks := CreateLocks()
	if len(locks) != 256 || LockCount != 256 {
		t.Fatalf("%d locks", len(locks))
	}
	// First bytes of BLAKE2b-256.
	for key, want := range map[string]uint8{"": 0x0e, "a": 0x89} {
		if got := LockIndexForKey(key); got != want {
			t.Errorf("%q has index %#x, want %#x", key, got, want)
		}
		if LockForKey(locks, key) != locks[want] {
			t.Errorf("%q has another lock", key)
		}
	}
}

func TestLocksForKeys(t *testing.T) {
	locks := CreateLocks()
	var keys []string
	wanted := map[*LockEntry]bool{}
	for i := range 100 {
		key := strconv.Itoa(i)
		keys = append(keys, key, key)
		wanted[LockForKey(locks, key)] = true
	}
	picked := LocksForKeys(locks, keys)
	if len(picked) != len(wanted) {
		t.Errorf("%d locks, want %d", len(picked), len(wanted))
	}
	last := -1
	for _, lock := range picked {
		i := slices.Index(locks, lock)
		if i <= last || !wanted[lock] {
			t.Errorf("lock %d comes after %d", i, last)
		}
		last = i
	}
	if got := LocksForKeys(locks, nil); len(got) != 0 {
		t.Errorf("%d locks for nothing", len(got))
	}
}
