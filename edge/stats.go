// SPDX-License-Identifier: MPL-2.0

package edge

import "time"

// Stats are for metrics: how far a verdict may be behind the server now, and the
// bounds that hold.
type Stats struct {
	// Held is how many keys are held.
	Held int
	// Live: decisions arrive. A decision counts a second after its answer, and
	// FeedWindow after it where a connection died without a trace.
	Live       bool
	FeedWindow time.Duration
	// Unconfirmed is how long ago the server was last known to have told everything;
	// negative before it has told anything. Held keys are accepted without it for
	// MaxStaleness.
	Unconfirmed, MaxStaleness time.Duration
}

// Stats tells how the edge is.
func (v *Verifier) Stats() Stats {
	now, _ := v.clock.elapsed()
	s := Stats{
		Held: int(v.keys.size.Load()), FeedWindow: time.Duration(v.window.Load()), Unconfirmed: -1, MaxStaleness: time.Duration(v.stale.Load()),
	}
	if confirmed := v.confirmed.Load(); confirmed != notConfirmed {
		s.Unconfirmed = time.Duration(now - confirmed)
		s.Live = s.Unconfirmed <= s.FeedWindow
	}
	return s
}
