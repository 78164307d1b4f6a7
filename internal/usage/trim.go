// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// What a record keeps at most.
const (
	MaxVersions = 40
	MaxKeys     = 5000
	// MaxBytes bounds the record as JSON. Servers refuse values above 1 MiB, and
	// then no count of the role would be stored any more.
	MaxBytes  = 512 << 10
	endedKept = 14 * 24 * time.Hour
	// endedAhead is how far ahead a use may be: nodes' clocks differ, and an
	// hour that a wrong clock wrote must not stay for good.
	endedAhead = time.Hour
	// labelled is how many of the newest versions keep their labels longest: as
	// many as may be live. Nobody gets in with others, whoever they are.
	labelled = keyring.MaxLive
)

// Trim makes the record small enough to be stored, whatever is in it: it keeps
// the newest versions, the keys used last, and the uses of ended keys of the last
// days. What is still too long as JSON loses detail step by step: labels of all
// but the newest versions, the oldest first; then each version's labels are
// counted as one; at last old versions go, and the keys used longest ago.
func (r *Record) Trim(now time.Time) { r.trim(now, MaxBytes) }

func (r *Record) trim(now time.Time, limit int) {
	maps.DeleteFunc(r.Ended, func(at, _ int64) bool {
		return at < now.Add(-endedKept).Unix() || at > now.Add(endedAhead).Unix()
	})
	versions := slices.Sorted(maps.Keys(r.Versions))
	for len(versions) > MaxVersions {
		delete(r.Versions, versions[0])
		versions = versions[1:]
	}
	if n := len(r.Keys) - MaxKeys; n > 0 {
		for _, id := range r.keysByUse()[:n] {
			delete(r.Keys, id)
		}
	}

	excess := jsonSize(r) - limit
	if excess <= 0 {
		return
	}
	shrink := func(u *Use, change func(*Tally)) {
		before := jsonSize(u)
		change(&u.Seen)
		change(&u.Reported)
		excess -= before - jsonSize(u)
	}
	for _, n := range versions[:max(0, len(versions)-labelled)] {
		if excess > 0 {
			shrink(r.Versions[n], (*Tally).forgetClients)
		}
	}
	for _, n := range versions {
		if excess > 0 {
			shrink(r.Versions[n], (*Tally).foldClients)
		}
	}
	for _, n := range versions {
		if excess > 0 {
			excess -= jsonSize(map[int]*Use{n: r.Versions[n]}) - 1 // the braces go, a comma comes
			delete(r.Versions, n)
		}
	}
	for _, id := range r.keysByUse() {
		if excess > 0 {
			excess -= jsonSize(map[string]*Use{id: r.Keys[id]}) - 1
			delete(r.Keys, id)
		}
	}
}

// keysByUse lists the keys, those used last at the end.
func (r *Record) keysByUse() []string {
	last := func(id string) int64 { return max(r.Keys[id].Seen.Last, r.Keys[id].Reported.Last) }
	return slices.SortedFunc(maps.Keys(r.Keys), func(a, b string) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), strings.Compare(a, b))
	})
}

// jsonSize is how long v is as JSON.
func jsonSize(v any) int {
	data, _ := json.Marshal(v) // records hold nothing that cannot be encoded
	return len(data)
}
