// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"maps"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Of is the use of a version or a key; zero if nothing is known of it.
func (r *Record) Of(id ID) Use {
	if u := r.find(id); u != nil {
		return *u
	}
	return Use{}
}

// LastUse is the last use of any kind, seen or reported.
func (u *Use) LastUse() time.Time { return unixTime(max(u.Seen.Last, u.Reported.Last)) }

// LastAccepted is the last accepted use, seen or reported.
func (u *Use) LastAccepted() time.Time { return unixTime(max(u.Seen.Used, u.Reported.Used)) }

// LastTrusted is the last accepted use, seen or told by a trusted reporter.
func (u *Use) LastTrusted() time.Time { return unixTime(max(u.Seen.Used, u.Trusted)) }

// acceptedSince lists the labels under which it was accepted since then.
func (u *Use) acceptedSince(since time.Time) []string {
	labels := map[string]bool{}
	for _, t := range []*Tally{&u.Seen, &u.Reported} {
		for label, c := range t.Clients {
			if c.Used >= since.Unix() {
				labels[label] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(labels))
}

// OldVersion is a version on its way out that is still in use.
type OldVersion struct {
	Number       int
	State        keyring.State
	Until        time.Time // its end
	LastAccepted time.Time
	Clients      []string // who has used it since it was superseded, by label
}

// StillUsed answers who still uses an old version: those that are superseded or
// withdrawn, live, and were accepted since they were. The newest comes first.
func (r *Record) StillUsed(ring *keyring.Ring, now time.Time) []OldVersion {
	var out []OldVersion
	for _, v := range slices.Backward(ring.Versions) {
		st, _ := ring.Status(v.N, now)
		since := v.Withdrawn
		switch st.State {
		case keyring.Previous:
			since = ring.Successor(v.N, now).Activate
		case keyring.Withdrawn:
		default:
			continue
		}
		use := r.Of(ID{Version: v.N})
		last := use.LastAccepted()
		if last.Unix() < since.Unix() {
			continue
		}
		out = append(out, OldVersion{Number: v.N, State: st.State, Until: st.Until, LastAccepted: last, Clients: use.acceptedSince(since)})
	}
	return out
}

// Hour is how often ended keys were used in an hour.
type Hour struct {
	Start time.Time
	Count int64
}

// EndedHours lists the hours in which ended keys were used, the oldest first.
func (r *Record) EndedHours() []Hour {
	out := make([]Hour, 0, len(r.Ended))
	for _, at := range slices.Sorted(maps.Keys(r.Ended)) {
		out = append(out, Hour{unixTime(at), r.Ended[at]})
	}
	return out
}
