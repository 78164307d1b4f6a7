// SPDX-License-Identifier: MPL-2.0

package logical

import "time"

// LeaseOptions say how long a secret or token lives.
type LeaseOptions struct {
	TTL       time.Duration `json:"lease"`
	MaxTTL    time.Duration `json:"max_ttl"`
	Renewable bool          `json:"renewable"`

	// Increment is what the client asked for, on renewal only.
	Increment time.Duration `json:"-"`

	// IssueTime is set on renewal and revocation only.
	IssueTime time.Time `json:"-"`
}

// LeaseEnabled reports whether there is a lease at all.
func (l *LeaseOptions) LeaseEnabled() bool { return l.TTL > 0 }

// LeaseTotal is the TTL, never negative.
func (l *LeaseOptions) LeaseTotal() time.Duration { return max(l.TTL, 0) }

// ExpirationTime is the TTL from now, or the zero time without a lease.
func (l *LeaseOptions) ExpirationTime() time.Time {
	if !l.LeaseEnabled() {
		return time.Time{}
	}
	return time.Now().Add(l.LeaseTotal())
}
