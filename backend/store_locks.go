// SPDX-License-Identifier: MPL-2.0

package backend

import "github.com/hashicorp/vault/sdk/helper/locksutil"

func (b *backend) lockRole(name string) (unlock func()) {
	l := locksutil.LockForKey(b.roleLocks, name)
	l.Lock()
	return l.Unlock
}

// lockRoles locks several roles. Names share locks, so the locks, not the names, are
// what is put in order and cleared of duplicates.
func (b *backend) lockRoles(names ...string) (unlock func()) {
	locks := locksutil.LocksForKeys(b.roleLocks, names)
	for _, l := range locks {
		l.Lock()
	}
	return func() {
		for _, l := range locks {
			l.Unlock()
		}
	}
}

func (b *backend) lockKey(id string) (unlock func()) {
	l := locksutil.LockForKey(b.keyLocks, id)
	l.Lock()
	return l.Unlock
}
