// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

var timelineCodes = map[code]timeline.Code{
	codeValid: timeline.Valid, codeNotFound: timeline.NotFound, codeExpired: timeline.Expired, codeRetired: timeline.Retired,
	codeRevoked: timeline.Revoked, codeDisabled: timeline.Disabled,
}

// timelineOf is what verification will say of the key from now on: its own decision,
// made at every date in role, key and lease.
func timelineOf(key *keyRecord, role *roleRecord, now time.Time) []timeline.Entry {
	dates := role.Ring.Dates()
	for _, t := range []time.Time{key.Expires, key.Cap} {
		if !t.IsZero() {
			dates = append(dates, t)
		}
	}
	return timeline.Build(now, dates, func(at time.Time) timeline.Moment {
		c, st := codeAt(key, role, at)
		m := timeline.Moment{Code: timelineCodes[c], State: string(st.State), Reason: reasonOf(st), Until: st.Until}
		if !st.Until.IsZero() {
			if m.End = endHard; st.Planned {
				m.End = endPlanned
			}
		}
		if st.State.Ended() && at.After(now) {
			m.Renewable = c == codeExpired && key.Dynamic && st.Until.Equal(key.Expires)
			m.HoldUntil = heldUntil(key, role, st, now)
		}
		return m
	})
}

// futureVerdict is the answer to who asks for a timeline: it follows from time alone,
// and nothing is counted or spent for it.
func futureVerdict(v verdict, view *keyView, q *question) verdict {
	v.code, v.status = codeAt(view.key, view.role.rec, v.now)
	if v.code == codeNotFound && v.status.State != keyring.Pending {
		return v
	}
	v.known = view
	v.future = timelineOf(view.key, view.role.rec, v.now)
	if q.byID {
		v.code = codeState
	}
	return v
}

// heldUntil is until when an edge that cannot ask may hold back an end that is coming.
func heldUntil(key *keyRecord, role *roleRecord, end keyring.Status, now time.Time) time.Time {
	if !end.Planned {
		return time.Time{}
	}
	hold := role.Ring.Hold(key.Version, now)
	for _, limit := range []time.Time{key.Expires, key.Cap} {
		if !limit.IsZero() && limit.Before(hold) {
			hold = limit
		}
	}
	if !hold.After(end.Until) {
		return time.Time{}
	}
	return hold
}

// renderedFuture is the answer with a timeline. What all keys of a role share goes into
// roles, where that is given.
func (b *backend) renderedFuture(v *verdict, roles map[string]any) map[string]any {
	data := render(v, b.stamps.of(v.now))
	view := v.known
	entries := make([]any, len(v.future))
	for i := range v.future {
		entries[i] = v.future[i].Data()
	}
	data["timeline"] = entries
	data["role_id"], data["key_id"], data["version"] = view.role.id, view.id, view.version
	data["lease"] = view.key.Dynamic
	shared := data
	if roles != nil {
		for _, name := range []string{"role", "metadata", "rate_limit", "scopes"} {
			delete(data, name)
		}
		if view.key.Narrowed {
			data["scopes"] = view.answer
		}
		if _, known := roles[view.key.RoleID]; known {
			return data
		}
		shared = map[string]any{}
		roles[view.key.RoleID] = shared
	}
	rec := view.role.rec
	shared["role"], shared["metadata"], shared["rate_limit"] = view.role.name, view.role.metadata, view.role.rateLimit
	shared["allowed_cidrs"], shared["disabled"] = orEmpty(rec.Policy.AllowedCIDRs), rec.Policy.Disabled
	if roles != nil {
		shared["scopes"] = view.role.scopes
	} else {
		shared["scopes"] = view.answer
	}
	return data
}
