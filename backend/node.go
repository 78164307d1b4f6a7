// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
)

// writeSafe reports whether, by the server's word, this node may write to the mount's
// storage of its own accord. What the server does not tell, because the call failed,
// is a no, and so is a mount that is being taken away.
func (b *backend) writeSafe() bool {
	state := b.System().ReplicationState()
	return state != consts.ReplicationUnknown && !b.System().Tainted() && !b.follows(state)
}

// follows reports whether a node in that state hands writes on to another.
func (b *backend) follows(state consts.ReplicationState) bool {
	if state.HasState(consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary) {
		return true
	}
	return state.HasState(consts.ReplicationPerformanceSecondary) && !b.System().LocalMount()
}

// answersAlone reports whether what this node answers is final: nobody else's word
// counts more.
func (b *backend) answersAlone() bool { return !b.follows(b.System().ReplicationState()) }

// quietly drops the refusal of storage to be written: what the server calls on
// every node has nobody to forward it to, and the node that writes does the work.
func quietly(err error) error {
	if err != nil && mustForward(err) {
		return nil
	}
	return err
}

// mayWrite is answersAlone, a second old at most.
func (b *backend) mayWrite(now time.Time) bool {
	if last := b.node.Load(); last != nil {
		if age := now.Sub(last.at); age >= 0 && age < nodeChecked {
			return last.safe
		}
	}
	safe := b.answersAlone()
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
