// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"slices"
	"strconv"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
)

// feedSize is how many decisions the feed remembers. Whoever was away for more begins
// anew.
const feedSize = 100_000

// publish tells a decision to those who wait for such.
func (b *backend) publish(d decision) {
	n := feed.Notice{RoleID: d.roleID, Closing: d.closing, At: b.now()}
	if d.keyID != "" {
		n.RoleID, n.KeyID = "", d.keyID
	}
	b.feed.Publish(n)
	b.numbers.decisions.WithLabelValues(strconv.FormatBool(d.closing)).Inc()
}

// changesRole reports whether answers about keys of the role are others for the change,
// now or later. History alone makes none.
func (c *change) changesRole() bool {
	old, rec := c.old, c.rec
	if rec == nil || old == nil || !old.Deleted.IsZero() { // gone, made, or restored
		return true
	}
	p, q := &old.Policy, &rec.Policy
	if q.Disabled != p.Disabled || p.RateLimit != q.RateLimit || !slices.Equal(p.Scopes, q.Scopes) || !slices.Equal(p.AllowedCIDRs, q.AllowedCIDRs) ||
		!maps.Equal(p.Metadata, q.Metadata) || old.Name != rec.Name || !rec.Deleted.IsZero() {
		return true
	}
	now := rec.Committed
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		before := old.Ring.Get(v.N)
		if before == nil {
			return true
		}
		was, _ := old.Ring.Status(v.N, now)
		is, _ := rec.Ring.Status(v.N, now)
		if was != is || !before.Activate.Equal(v.Activate) || !old.Ring.Hold(v.N, now).Equal(rec.Ring.Hold(v.N, now)) {
			return true
		}
	}
	return false // a version that was forgotten had ended
}
