// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// tally counts a verdict, and whom rotations have cost one.
func (b *backend) tally(q *question, v *verdict, took time.Duration) {
	n := b.numbers
	if q.timeline > 0 {
		n.timelines.Inc() // a question of an edge, which counts its verdicts itself
		return
	}
	n.verified(v.code, took)
	if v.code == codeRetired && v.known != nil {
		ring := &v.known.role.rec.Ring
		if was := ring.Get(v.known.key.Version); was != nil && !was.Reported.IsZero() {
			return // its leak has ended it, and whoever uses it may be the finder
		}
		grace := "over"
		if ring.PreviousOf(v.now) != nil {
			grace = "running"
		}
		n.refusals.WithLabelValues(string(v.status.Reason), grace).Inc()
	}
}

// countUse counts a use that this server judged. A use of the previous version
// is urgent: the grace depends on it, after a failover too.
func (b *backend) countUse(v *verdict, client string) {
	view, key, role := v.known, v.known.key, v.known.role.rec.Name
	hit := &usage.Hit{At: v.now}
	if v.code != codeValid {
		hit.Refused = v.code.String()
	}
	if key.Dynamic {
		b.usage.counter.Saw(&view.keyUse, usage.ID{RoleID: key.RoleID, Version: key.Version, KeyID: key.ID}, role, hit)
	}
	hit.Client = client
	hit.Ended = v.status.State.Ended()
	if hit.Ended && b.heard(tellsEndedUsed, role) && b.mayWrite(v.now) {
		b.noteEndedUse(v.known.role.rec, key, v.status, v.now)
	}
	hit.Urgent = v.code == codeValid && v.status.State == keyring.Previous
	b.usage.counter.Saw(&view.use, usage.ID{RoleID: key.RoleID, Version: key.Version}, role, hit)
}
