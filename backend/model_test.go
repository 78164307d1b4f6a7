// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"slices"
	"time"
)

// modelRole is a static role without automatic rotation as the design's first
// section tells it, without any of the engine's code: a list of versions with
// dates, from which the states follow.
type modelRole struct {
	id       string
	versions []*modelVersion
	ttl      time.Duration
	grace    time.Duration // default
	disabled bool
	deleted  time.Time // zero: it is there
}

type modelVersion struct {
	n          int
	key        string // as far as it was read
	created    time.Time
	activation time.Time // zero: held, or never to come
	grace      time.Duration
	ttl        time.Duration
	expiry     time.Time
	revoked    bool
	withdrawn  time.Time // until; zero: it is not
	back       bool      // current again after a rollback
	set        time.Time // the end that somebody gave it in place of its grace's
	past       int       // versions up to this one end it no more, withdrawn as it is
	retired    bool      // seen past its deadline by a commit
}

func (v *modelVersion) isWithdrawn() bool { return !v.withdrawn.IsZero() }

func (v *modelVersion) activated(now time.Time) bool {
	return !v.activation.IsZero() && !now.Before(v.activation) && (v.expiry.IsZero() || v.expiry.After(v.activation))
}

// successor is the next higher version that is activated and not withdrawn. With
// tocome, one whose activation is still to come counts too.
func (r *modelRole) successor(v *modelVersion, now time.Time, tocome bool) *modelVersion {
	for _, s := range r.versions {
		if s.n > max(v.n, v.past) && !s.isWithdrawn() && (s.activated(now) || tocome && s.activated(s.activation)) {
			return s
		}
	}
	return nil
}

// deadline is what ends the version but for its own expiry; zero: nothing known.
func (r *modelRole) deadline(v *modelVersion, now time.Time) time.Time {
	var end time.Time
	if s := r.successor(v, now, true); s != nil {
		end = s.activation.Add(s.grace)
	}
	if !v.set.IsZero() {
		end = v.set
	}
	if v.activation.IsZero() {
		end = v.created.Add(7 * 24 * time.Hour)
	}
	if v.isWithdrawn() && (end.IsZero() || v.withdrawn.Before(end)) {
		end = v.withdrawn
	}
	return end
}

func (r *modelRole) state(v *modelVersion, now time.Time) string {
	end := r.deadline(v, now)
	switch {
	case v.revoked:
		return "revoked"
	case !v.expiry.IsZero() && !now.Before(v.expiry):
		return "expired"
	case v.retired, !end.IsZero() && !now.Before(end):
		return "retired"
	case v.isWithdrawn():
		return "withdrawn"
	case !v.activated(now):
		return "pending"
	case v == r.top(now):
		return "current"
	default:
		return "previous"
	}
}

// top is the highest activated version that is not withdrawn.
func (r *modelRole) top(now time.Time) *modelVersion {
	for _, v := range slices.Backward(r.versions) {
		if v.activated(now) && !v.isWithdrawn() {
			return v
		}
	}
	return nil
}

func (r *modelRole) in(state string, now time.Time) *modelVersion {
	for _, v := range slices.Backward(r.versions) {
		if r.state(v, now) == state {
			return v
		}
	}
	return nil
}

func (r *modelRole) live(now time.Time) (n int) {
	for _, v := range r.versions {
		switch r.state(v, now) {
		case "pending", "current", "previous", "withdrawn":
			n++
		}
	}
	return n
}

// commit is what every operation begins with: what is past its deadline stays
// retired, whatever happens to its successor.
func (r *modelRole) commit(now time.Time) {
	ended := []*modelVersion{}
	for _, v := range r.versions {
		if r.state(v, now) == "retired" {
			ended = append(ended, v)
		}
	}
	for _, v := range ended {
		v.retired = true
		if !v.activated(now) {
			v.activation = time.Time{}
		}
	}
	for _, v := range r.versions {
		if r.state(v, now) == "expired" && !v.activated(now) {
			v.activation = time.Time{}
		}
	}
}

func (r *modelRole) kill(v *modelVersion, now time.Time) {
	v.revoked = true
	if !v.activated(now) {
		v.activation = time.Time{}
	}
}

// rotate makes a version. at: its activation, zero for held ones. It returns what
// refuses it.
func (r *modelRole) rotate(now, at time.Time, held bool, grace time.Duration) (refused string) {
	r.commit(now)
	from := at
	if held {
		from = now
	}
	first := now // from when on it verifies
	if !held && at.Add(-7*24*time.Hour).After(now) {
		first = at.Add(-7 * 24 * time.Hour)
	}
	if r.ttl > 0 && !held && at.After(now) && !at.Before(first.Add(r.ttl)) {
		return "would expire"
	}
	pending := r.in("pending", now)
	if pending != nil && !pending.activation.IsZero() {
		// Whoever was to end with the pending version ends no later without it.
		grace = max(0, min(grace, pending.activation.Add(pending.grace).Sub(from)))
	}
	if pending != nil {
		r.kill(pending, now)
	}
	v := &modelVersion{n: len(r.versions) + 1, created: now, activation: at, grace: grace, ttl: r.ttl}
	if held {
		v.activation = time.Time{}
	}
	if r.ttl > 0 {
		v.expiry = first.Add(r.ttl)
	}
	r.versions = append(r.versions, v)
	r.commit(now)
	return ""
}

func (r *modelRole) promote(now time.Time, grace time.Duration) (refused string) {
	r.commit(now)
	v := r.in("pending", now)
	if v == nil {
		return "no version is pending"
	}
	if v.ttl > 0 {
		// It counts from where it verifies by the new date, and is never longer for that.
		first := v.created
		if from := now.Add(-7 * 24 * time.Hour); from.After(first) {
			first = from
		}
		if end := first.Add(v.ttl); end.Before(v.expiry) {
			if !end.After(now) {
				return "would never be handed out"
			}
			v.expiry = end
		}
	}
	v.activation, v.grace = now, grace
	r.commit(now)
	return ""
}

func (r *modelRole) rollback(now time.Time, grace time.Duration) (refused string) {
	r.commit(now)
	top := r.top(now)
	if top == nil {
		return "nothing"
	}
	if top.back {
		return "second rollback"
	}
	var target *modelVersion
	for _, v := range r.versions {
		if v.n < top.n && v.activated(now) && !v.isWithdrawn() {
			target = v
		}
	}
	if target == nil || r.state(target, now) != "previous" {
		return "nothing to roll back to"
	}
	for _, end := range []time.Time{target.expiry, r.deadline(target, now)} {
		if !end.IsZero() && end.Sub(now) <= 10*time.Second {
			return "too soon"
		}
	}
	if p := r.in("pending", now); p != nil {
		r.kill(p, now)
	}
	for _, v := range r.versions {
		// A grace that runs already is not prolonged by taking back what began it.
		if (v.n > target.n || v.past >= target.n) && v.isWithdrawn() && r.successor(v, now, false) != nil {
			v.withdrawn = r.deadline(v, now)
		}
	}
	top.withdrawn, target.back, target.set = now.Add(grace), true, time.Time{}
	r.commit(now)
	return ""
}

// setEnd gives a version that is on its way out another end.
func (r *modelRole) setEnd(v *modelVersion, now, until time.Time) (refused string) {
	r.commit(now)
	switch st := r.state(v, now); {
	case st != "previous" && st != "withdrawn":
		return st
	case !v.expiry.IsZero() && until.After(v.expiry):
		return "beyond its expiry"
	case st == "previous":
		v.set = until
	default:
		if s := r.successor(v, now, true); s != nil && until.After(s.activation.Add(s.grace)) {
			v.past = len(r.versions)
		}
		v.withdrawn = until
	}
	r.commit(now)
	return ""
}

// revoke kills version n and, where it is the current one and replace is set,
// replaces it.
func (r *modelRole) revoke(now time.Time, replace bool, numbers ...int) {
	r.commit(now)
	hit := false
	for _, n := range numbers {
		v := r.versions[n-1]
		hit = hit || r.state(v, now) == "current"
	}
	for _, n := range numbers {
		if v := r.versions[n-1]; !v.revoked {
			r.kill(v, now)
		}
	}
	if hit && replace {
		r.rotate(now, now, false, r.grace)
	}
}

// code is what verify says of the key of a version.
func (r *modelRole) code(v *modelVersion, now time.Time) string {
	if !r.deleted.IsZero() {
		return "NOT_FOUND"
	}
	switch st := r.state(v, now); {
	case st == "revoked":
		return "REVOKED"
	case st == "expired":
		return "EXPIRED"
	case st == "retired":
		return "RETIRED"
	case st == "pending" && v.activation.Sub(now) > 7*24*time.Hour:
		return "NOT_FOUND"
	case r.disabled:
		return "DISABLED"
	}
	return "VALID"
}

func (r *modelRole) String() string {
	text := ""
	for _, v := range r.versions {
		shown := *v
		shown.key = ""
		text += fmt.Sprintf("%+v\n", shown)
	}
	return text
}
