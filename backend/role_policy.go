// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"reflect"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// setPolicy replaces the policy and what follows from it.
func (tx *roleTx) setPolicy(p policy.Policy) error {
	t, err := tx.rec.under(&p, tx.lim)
	if err != nil && (tx.unread == nil || p.RotationSchedule != tx.rec.Policy.RotationSchedule) {
		return err
	}
	if err == nil {
		tx.unread = nil // it says something else now
	}
	if err := tx.bound(&p, t.Until); err != nil {
		return err
	}
	if tx.old != nil {
		// Readers may still hold the longer ttl of the old policy.
		if old := tx.terms.Bound(); old > t.Bound() {
			until := later(tx.rec.Promise.Until, tx.now.Add(old+max(old, tx.terms.Grace/2)))
			tx.rec.Promise = promise{TTL: policy.Seconds(max(old, tx.promised()) / time.Second), Until: until}
		}
	}
	if tx.rec.Type == policy.Dynamic {
		tx.rec.LeaseTTL = max(tx.rec.LeaseTTL, policy.Seconds(t.TTL/time.Second))
		if tx.old != nil && t.TTL < tx.terms.TTL {
			tx.rec.LeaseUntil = later(tx.rec.LeaseUntil, tx.now.Add(tx.terms.TTL))
		}
	}
	// Nothing that is not part of ending what verifies may stop it.
	tx.kill = tx.kill || p.Disabled && !tx.rec.Policy.Disabled
	same := sameCadence(&tx.rec.Policy, &p, tx.terms, t)
	tx.rec.Policy, tx.terms = p, t
	if !same {
		tx.anew()
	}
	return nil
}

// bound gives the role the end that the policy names. One that is over ends nothing
// that it did not end before.
func (tx *roleTx) bound(p *policy.Policy, until time.Time) error {
	ring := &tx.rec.Ring
	if until.Equal(ring.Until) {
		return nil
	}
	if !until.IsZero() && !until.After(tx.now) {
		return refusal.New("valid_until", p.ValidUntil, "is over: it is "+stamp(tx.now)+" now", "give a later time; disabled=true stops the role's keys, DELETE and revoke/<role> end them")
	}
	if ring.Over(tx.now) {
		tx.warn("valid_until: the role ended at %s, and its keys stay expired: rotate/%s makes a new one", stamp(ring.Until), tx.rec.Name)
	}
	tx.record(ring.Bound(tx.now, until), tx.by)
	return nil
}

// sameCadence reports whether the plan goes on: both policies come to the same period,
// written or by default, or to the same schedule.
func sameCadence(a, b *policy.Policy, before, after policy.Terms) bool {
	return before.Longest == after.Longest && a.RotationSchedule == b.RotationSchedule && a.RotationJitter == b.RotationJitter
}

// changesOf is what differs between two views of a role, as history keeps it.
func changesOf(before, after map[string]any) map[string]fieldChange {
	changes := map[string]fieldChange{}
	for name, v := range after {
		if !reflect.DeepEqual(before[name], v) {
			changes[name] = fieldChange{Old: brief(before[name]), New: brief(v)}
		}
	}
	return changes
}

// brief shortens what would fill the history.
func brief(v any) any {
	text, isText := v.(string)
	if !isText {
		if text = fmt.Sprint(v); len(text) <= maxChangeText {
			return v
		}
	}
	return shorten(text, maxChangeText)
}

const maxChangeText = 256

func policyWarnings(p *policy.Policy, typ string, t policy.Terms) []string {
	var warnings []string
	if typ == policy.Static && t.TTL > 0 && (t.Cadence == nil || t.AutoPaused) {
		warnings = append(warnings, "ttl: each key ends "+refusal.Duration(t.TTL)+" after it was made, and nothing replaces it by itself: rotate/<role> does")
	}
	if p.RotationJitter > 0 && t.Cadence == nil {
		warnings = append(warnings, "rotation_jitter: has no effect without rotation_period or rotation_schedule")
	}
	return warnings
}

// view is the role as its readers see it.
func (r *roleNow) view() map[string]any {
	rec := r.rec
	view := rec.Policy.Show(r.terms)
	view["name"], view["type"], view["role_id"], view["created"] = rec.Name, rec.Type, rec.ID, stamp(rec.Created)
	return view
}
