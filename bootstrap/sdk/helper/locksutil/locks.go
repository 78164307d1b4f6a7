// SPDX-License-Identifier: MPL-2.0

// Package locksutil shards locking by key.
package locksutil

import (
	"slices"
	"sync"

	"golang.org/x/crypto/blake2b"
)

// LockCount is the number of shards.
const LockCount = 256

// LockEntry is one shard.
type LockEntry struct {
	sync.RWMutex
}

// CreateLocks returns LockCount shards. Whoever holds several at once must take
// them in slice order, or two holders may wait for each other.
func CreateLocks() []*LockEntry {
	locks := make([]*LockEntry, LockCount)
	for i := range locks {
		locks[i] = &LockEntry{}
	}
	return locks
}

// LockIndexForKey returns the shard number of a key.
func LockIndexForKey(key string) uint8 {
	sum := blake2b.Sum256([]byte(key))
	return sum[0]
}

// LockForKey returns the shard of a key.
func LockForKey(locks []*LockEntry, key string) *LockEntry {
	return locks[LockIndexForKey(key)]
}

// LocksForKeys returns the shards of the keys, each once, in the order in which to lock them.
func LocksForKeys(locks []*LockEntry, keys []string) []*LockEntry {
	indexes := make([]uint8, 0, len(keys))
	for _, key := range keys {
		indexes = append(indexes, LockIndexForKey(key))
	}
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)

	picked := make([]*LockEntry, 0, len(indexes))
	for _, i := range indexes {
		if int(i) < len(locks) {
			picked = append(picked, locks[i])
		}
	}
	return picked
}
