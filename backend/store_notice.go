// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// feedSize is how many decisions the feed remembers. Whoever was away for more begins
// anew.
const feedSize = 100_000

// publish tells a decision to those who wait for such.
func (b *backend) publish(d decision) {
	if d.keyID != "" {
		b.feed.Publish(feed.Notice{KeyID: d.keyID, Closing: d.closing})
	} else {
		b.feed.Publish(feed.Notice{RoleID: d.roleID, Closing: d.closing})
	}
}

// changesRole reports whether the change of a role makes answers about its keys others,
// and whether it takes something away from them. History alone does neither.
func (c *change) changesRole() (changed, closing bool) {
	switch {
	case c.rec == nil:
		return true, true
	case c.old == nil || !c.old.Deleted.IsZero(): // made, or restored
		return true, false
	}
	return compareRoles(c.old, c.rec)
}

// compareRoles reports whether answers about keys of the role differ, now or later, and
// whether any became worse.
func compareRoles(old, rec *roleRecord) (changed, closing bool) {
	p, q := &old.Policy, &rec.Policy
	narrowed := q.Disabled && !p.Disabled || !slices.Equal(p.Scopes, q.Scopes) || !slices.Equal(p.AllowedCIDRs, q.AllowedCIDRs) ||
		q.RateLimit > 0 && (p.RateLimit == 0 || q.RateLimit < p.RateLimit)
	changed = narrowed || q.Disabled != p.Disabled || p.RateLimit != q.RateLimit || !mapsEqual(p.Metadata, q.Metadata) || old.Name != rec.Name
	closing = narrowed || !rec.Deleted.IsZero()

	now := rec.Committed
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		is, _ := rec.Ring.Status(v.N, now)
		before := old.Ring.Get(v.N)
		if before == nil {
			changed = true
			continue
		}
		was, _ := old.Ring.Status(v.N, now)
		if was == is && before.Activate.Equal(v.Activate) && old.Ring.Hold(v.N, now).Equal(rec.Ring.Hold(v.N, now)) {
			continue
		}
		changed = true
		closing = closing || worse(was, is)
	}
	// A version that was forgotten had ended.
	return changed || closing, closing
}

// worse reports whether a version ended, or got an end that is nobody's grace.
func worse(was, is keyring.Status) bool {
	switch {
	case was.State.Ended():
		return false
	case is.State.Ended():
		return true
	}
	return !is.Until.IsZero() && !is.Planned && (was.Until.IsZero() || is.Until.Before(was.Until))
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// asserted is how long a node that could write the mark is taken for the one that
// writes.
const asserted = 150 * time.Second
