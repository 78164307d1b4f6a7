// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
)

// refusalHolds is how long after storage refused a write this node is taken for
// one that may not write: each tick tries again.
const refusalHolds = 2 * time.Minute

// writeSafe: this node may write to the mount's storage, as far as is known.
func (b *backend) writeSafe() bool { return b.writer() && !b.refusedLately() }

// writer: by the server's word this node may write to the mount's storage.
func (b *backend) writer() bool {
	state := b.System().ReplicationState()
	if state.HasState(consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary) {
		return false
	}
	return b.System().LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary)
}

// refusedLately: whatever the server says, its storage refused to be written.
func (b *backend) refusedLately() bool {
	at := b.refused.Load()
	if at == 0 {
		return false
	}
	age := b.clock.Now().Sub(time.Unix(0, at))
	return age >= 0 && age < refusalHolds
}

// noteRefusal remembers that storage refused to be written.
func (b *backend) noteRefusal() {
	b.refused.Store(b.clock.Now().UnixNano())
	b.forgetMark() // somebody else writes it
	b.node.Store(nil)
}

// quietly notes a refusal to be written, which is no error of what the server
// calls on every node; other errors are returned.
func (b *backend) quietly(err error) error {
	if err != nil && mustForward(err) {
		b.noteRefusal()
		return nil
	}
	return err
}
