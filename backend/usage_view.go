// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

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

// usageOf is what is known of the use of the role's keys, by version.
func (b *backend) usageOf(ctx context.Context, s logical.Storage, rec *roleRecord) (*roleUsage, error) {
	stored, err := b.usageAt(ctx, s, usagePath(rec.ID, usageID{}))
	if err != nil {
		return nil, err
	}
	u := &roleUsage{Versions: make(map[int]versionUsage, len(stored.Versions)), Ended: stored.Ended}
	for n, v := range stored.Versions {
		u.Versions[n] = v.usage()
	}
	return u, nil
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

// keyUsage is what is known of the use of one key: of a version, for a static
// role.
func (b *backend) keyUsage(ctx context.Context, s logical.Storage, key *keyRecord) (versionUsage, error) {
	id := usageID{version: key.Version}
	if key.Dynamic {
		id.keyID = key.ID
	}
	stored, err := b.usageAt(ctx, s, usagePath(key.RoleID, id))
	if err != nil {
		return versionUsage{}, err
	}
	v := stored.Versions[id.version]
	if key.Dynamic {
		v = stored.Keys[id.keyID]
	}
	if v == nil {
		return versionUsage{}, nil
	}
	return v.usage(), nil
}

// lastUse is when a key of that version of the role was last accepted, as far
// as this server saw it, or was told where the mount trusts that; zero if never.
func (b *backend) lastUse(ctx context.Context, s logical.Storage, rec *roleRecord, n int) (time.Time, error) {
	u, err := b.usageOf(ctx, s, rec)
	if err != nil {
		return time.Time{}, err
	}
	cfg, err := b.config(ctx, s)
	if err != nil {
		return time.Time{}, err
	}
	last := u.Versions[n].Seen.Used
	if cfg.TrustReportedUsage {
		last = max(last, u.Versions[n].Reported.Used)
	}
	return unixTime(last), nil
}

func unixTime(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
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
