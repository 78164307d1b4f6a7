// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// Usage as answers show it.

// countsOf is what is counted of a version. That one was handed out whose role
// reveals once the record is sure of, while counts may be lost.
func countsOf(use *usage.Record, v *keyring.Version) usage.Use {
	counts := use.Of(usage.ID{Version: v.N})
	if at := v.Revealed; !at.IsZero() && counts.Reads.Count == 0 {
		counts.Reads = usage.Reads{Count: 1, First: at.Unix(), Last: at.Unix()}
	}
	return counts
}

func usageView(u *usage.Use) map[string]any {
	data := tallyView(&u.Seen)
	data["reads"], data["first_read"], data["last_read"] = u.Reads.Count, stamp(u.Reads.FirstRead()), stamp(u.Reads.LastRead())
	data["reported"] = tallyView(&u.Reported)
	return data
}

// tallyView shows counts, in all and by label.
func tallyView(t *usage.Tally) map[string]any {
	clients := make([]any, 0, len(t.Clients))
	for _, label := range sortedKeys(t.Clients) {
		c := countsView(t.Clients[label])
		c["client"] = label
		clients = append(clients, c)
	}
	data := countsView(t)
	data["clients"] = clients
	return data
}

func countsView(t *usage.Tally) map[string]any {
	refused := map[string]any{}
	for _, r := range t.Refused {
		refused[r.Code] = r.Count
	}
	return map[string]any{
		"accepted": t.Accepted, "refused": refused,
		"first_use": stamp(t.FirstUse()), "last_use": stamp(t.LastUse()), "last_accepted": stamp(t.LastAccepted()),
	}
}

// usedLine is usage in one line, for people.
func usedLine(u *usage.Use) string {
	parts := []string{"no use is known"}
	if text := tallyLine(&u.Seen); text != "" {
		parts[0] = text
	}
	if text := tallyLine(&u.Reported); text != "" {
		parts = append(parts, "reported: "+text)
	}
	return strings.Join(parts, "; ")
}

// tallyLine is counts in one line; empty where nothing was counted.
func tallyLine(t *usage.Tally) string {
	var refused int64
	for _, r := range t.Refused {
		refused += r.Count
	}
	text := ""
	if t.Accepted > 0 {
		text = fmt.Sprintf("%d accepted, last %s", t.Accepted, stamp(t.LastAccepted()))
		if by := lastClient(t); by != "" {
			text += " by " + by
		}
	}
	switch {
	case refused == 0:
	case text == "":
		text = fmt.Sprintf("%d refused, last %s", refused, stamp(t.LastUse()))
	default:
		text += fmt.Sprintf("; %d refused", refused)
	}
	return text
}

// lastClient is the label of the last use that was accepted, empty where that had
// none.
func lastClient(t *usage.Tally) string {
	for _, label := range sortedKeys(t.Clients) {
		if last := t.Clients[label].LastAccepted(); !last.IsZero() && last.Equal(t.LastAccepted()) {
			return label
		}
	}
	return ""
}

// stillUsedView says who still uses an old version of the role.
func stillUsedView(use *usage.Record, rec *roleRecord, now time.Time) []any {
	out := []any{}
	for _, v := range use.StillUsed(&rec.Ring, now) {
		out = append(out, map[string]any{
			"version": v.Number, "state": string(v.State), "valid_until": stamp(v.Until),
			"last_accepted": stamp(v.LastAccepted), "clients": orEmpty(v.Clients),
		})
	}
	return out
}

// endedUseView lists the hours in which ended keys were used, newest first.
func endedUseView(use *usage.Record) []any {
	hours := use.EndedHours()
	out := make([]any, 0, len(hours))
	for _, h := range slices.Backward(hours) {
		out = append(out, map[string]any{"hour": stamp(h.Start), "count": h.Count})
	}
	return out
}

// noiseEndedUse is the kind under which uses of ended keys are counted.
const noiseEndedUse = "ended_key_used"

// noiseWith is the role's noise with the uses of its ended keys, which are
// counted apart from the role's record.
func noiseWith(use *usage.Record, rec *roleRecord) map[string]noise {
	all := maps.Clone(rec.Noise)
	hours := use.EndedHours()
	if len(hours) == 0 {
		return all
	}
	if all == nil {
		all = map[string]noise{}
	}
	n := noise{First: hours[0].Start, Last: hours[len(hours)-1].Start}
	for _, h := range hours {
		n.Count += h.Count
	}
	all[noiseEndedUse] = n
	return all
}
