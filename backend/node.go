// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
)

// writeSafe: by the server's word this node may write to the mount's storage.
func (b *backend) writeSafe() bool {
	state := b.System().ReplicationState()
	if state.HasState(consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary) {
		return false
	}
	return b.System().LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary)
}

// quietly drops the refusal of storage to be written: what the server calls on
// every node has nobody to forward it to, and the node that writes does the work.
func quietly(err error) error {
	if err != nil && mustForward(err) {
		return nil
	}
	return err
}

// mayWrite is writeSafe, a second old at most.
func (b *backend) mayWrite(now time.Time) bool {
	if last := b.node.Load(); last != nil {
		if age := now.Sub(last.at); age >= 0 && age < nodeChecked {
			return last.safe
		}
	}
	safe := b.writeSafe()
	b.node.Store(&nodeState{at: now, safe: safe})
	return safe
}

type nodeState struct {
	at   time.Time
	safe bool
}

// nodeChecked is how long this node's word about whether it may write is taken
// for answers that do not depend on it: asking is a call to the server.
const nodeChecked = time.Second
