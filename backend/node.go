// SPDX-License-Identifier: MPL-2.0

package backend

import "github.com/hashicorp/vault/sdk/helper/consts"

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
