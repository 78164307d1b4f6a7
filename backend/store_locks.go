// SPDX-License-Identifier: MPL-2.0

package backend

import "github.com/hashicorp/vault/sdk/helper/locksutil"

func (b *backend) lockRole(name string) (unlock func()) {
	l := locksutil.LockForKey(b.roleLocks, name)
	l.Lock()
	return l.Unlock
}

func (b *backend) lockKey(id string) (unlock func()) {
	l := locksutil.LockForKey(b.keyLocks, id)
	l.Lock()
	return l.Unlock
}
