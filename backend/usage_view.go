// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// roleUsage is what is known of the use of a role's keys.
type roleUsage struct {
	Versions map[int]versionUsage
	// Ended is the uses of ended keys by hour (Unix seconds).
	Ended map[int64]int64
}

// versionUsage is what this server saw, and apart from it what was reported.
type versionUsage struct {
	Seen, Reported usageTally
}

func (s *usageStored) usage() versionUsage {
	var u versionUsage
	if s.Seen != nil {
		u.Seen = *s.Seen
	}
	if s.Reported != nil {
		u.Reported = *s.Reported
	}
	return u
}

// lastUse is the last use of any kind, seen or reported.
func (u *versionUsage) lastUse() time.Time { return unixTime(max(u.Seen.Last, u.Reported.Last)) }

// data is the usage as answers show it.
func (u *versionUsage) data() map[string]any {
	data := u.Seen.data()
	data["reported"] = u.Reported.data()
	return data
}

func (t *usageTally) data() map[string]any {
	clients := make([]any, 0, len(t.Clients))
	for _, label := range sortedKeys(t.Clients) {
		c := t.Clients[label].plain()
		c["client"] = label
		clients = append(clients, c)
	}
	data := t.plain()
	data["clients"] = clients
	return data
}

func (t *usageTally) plain() map[string]any {
	refused := map[string]any{}
	for code, n := range t.Refused {
		refused[code] = n
	}
	return map[string]any{
		"accepted": t.Accepted, "refused": refused, "first_use": stamp(unixTime(t.First)), "last_use": stamp(unixTime(t.Last)),
		"last_accepted": stamp(unixTime(t.Used)),
	}
}

// stillUsed answers who still uses an old version: those that are superseded or
// withdrawn, live, and were accepted since they were.
func (u *roleUsage) stillUsed(rec *roleRecord, now time.Time) []any {
	out := []any{}
	for i := len(rec.Ring.Versions) - 1; i >= 0; i-- {
		v := &rec.Ring.Versions[i]
		st, _ := rec.Ring.Status(v.N, now)
		since := v.Withdrawn
		switch st.State {
		case keyring.Previous:
			since = rec.Ring.Successor(v.N, now).Activate
		case keyring.Withdrawn:
		default:
			continue
		}
		use := u.Versions[v.N]
		last := max(use.Seen.Used, use.Reported.Used)
		if last < since.Unix() {
			continue
		}
		clients := map[string]bool{}
		for _, t := range []*usageTally{&use.Seen, &use.Reported} {
			for label, c := range t.Clients {
				if c.Used >= since.Unix() {
					clients[label] = true
				}
			}
		}
		out = append(out, map[string]any{
			"version": v.N, "state": string(st.State), "valid_until": stamp(st.Until),
			"last_accepted": stamp(unixTime(last)), "clients": orEmpty(sortedKeys(clients)),
		})
	}
	return out
}

// noiseEndedUse is the kind under which uses of ended keys are counted.
const noiseEndedUse = "ended_key_used"

// noiseWith is the role's noise with the uses of its ended keys, which are
// counted apart from the role's record.
func (u *roleUsage) noiseWith(rec *roleRecord) map[string]noise {
	all := maps.Clone(rec.Noise)
	if len(u.Ended) == 0 {
		return all
	}
	if all == nil {
		all = map[string]noise{}
	}
	var n noise
	for _, hour := range slices.Sorted(maps.Keys(u.Ended)) {
		if n.Count == 0 {
			n.First = unixTime(hour)
		}
		n.Count += u.Ended[hour]
		n.Last = unixTime(hour)
	}
	all[noiseEndedUse] = n
	return all
}

// endedHours lists the hours in which ended keys were used, newest first.
func (u *roleUsage) endedHours() []any {
	hours := slices.Sorted(maps.Keys(u.Ended))
	slices.Reverse(hours)
	out := make([]any, 0, len(hours))
	for _, hour := range hours {
		out = append(out, map[string]any{"hour": stamp(unixTime(hour)), "count": u.Ended[hour]})
	}
	return out
}
