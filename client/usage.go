// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reportEvery is how often uses are reported. The first use of a key is reported at
	// once: it says that this consumer has moved.
	reportEvery = 5 * time.Minute
	// reportAgain is how soon a report that was not answered is repeated.
	reportAgain = 15 * time.Second
	// maxUsed is how many keys' uses are kept for a report.
	maxUsed = 100
)

// reporter counts uses of keys, and reports them with a sequence. A report is repeated
// as it was until it is answered.
type reporter struct {
	instance string
	ahead    atomic.Int64 // of the server's clock before this machine's

	mu     sync.Mutex
	counts map[string]*uses
	soon   chan struct{}

	// Of the one that reports.
	sequence uint64
	unsent   string
}

// uses of a key: times are this machine's.
type uses struct {
	n           int64
	first, last int64
}

func (r *reporter) init(instance string) {
	r.instance = instance
	r.counts = map[string]*uses{}
	r.soon = make(chan struct{}, 1)
}

// used counts a use.
func (r *reporter) used(keyID string, wall int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.counts[keyID]
	if u == nil {
		if len(r.counts) >= maxUsed {
			return // nothing was reported for long; the latest keys matter least then
		}
		u = &uses{first: wall}
		r.counts[keyID] = u
		select {
		case r.soon <- struct{}{}:
		default:
		}
	}
	u.n++
	u.last = max(u.last, wall)
}

// usageItem is one item of a report, as the engine takes it.
type usageItem struct {
	KeyID    string `json:"key_id"`
	Accepted int64  `json:"accepted"`
	First    string `json:"first"`
	Last     string `json:"last"`
	Client   string `json:"client,omitempty"`
}

// collect takes what was counted. Keys but those of current go from memory: a use of one
// of them is its first again.
func (r *reporter) collect(label, current string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ahead := r.ahead.Load()
	instant := func(wall int64) string { return time.Unix(0, wall+ahead).UTC().Format(time.RFC3339Nano) }
	var items []usageItem
	for id, u := range r.counts {
		if u.n > 0 {
			items = append(items, usageItem{KeyID: id, Accepted: u.n, First: instant(u.first), Last: instant(u.last), Client: label})
		}
		if id != current {
			delete(r.counts, id)
			continue
		}
		*u = uses{}
	}
	if len(items) == 0 {
		return ""
	}
	slices.SortFunc(items, func(a, b usageItem) int { return strings.Compare(a.KeyID, b.KeyID) })
	batch, err := json.Marshal(items)
	if err != nil {
		return "" // of texts and numbers
	}
	return string(batch)
}

// reportUses reports what was counted until ctx ends, and once more then.
func (s *Source) reportUses(ctx context.Context) {
	r := &s.usage
	pause := reportEvery
	for ctx.Err() == nil {
		timer := time.NewTimer(pause + s.jitter.below(pause/10))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.soon:
		}
		timer.Stop()
		if ctx.Err() != nil {
			break
		}
		pause = reportEvery
		if !s.report(ctx) {
			pause = reportAgain
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCalls)
	defer cancel()
	s.report(ctx)
}

// report reports what was counted, after what was not answered yet.
func (s *Source) report(ctx context.Context) bool {
	r := &s.usage
	for {
		if r.unsent == "" {
			s.mu.Lock()
			current := ""
			if s.cur != nil {
				current = s.cur.ID
			}
			s.mu.Unlock()
			if r.unsent = r.collect(s.opt.Label, current); r.unsent == "" {
				return true
			}
			r.sequence++
		}
		ctx, cancel := context.WithTimeout(ctx, callTime)
		err := s.remote.report(ctx, r.instance, r.sequence, r.unsent)
		cancel()
		switch {
		case final(err):
			s.log.Warn("the server takes no reports of uses from this consumer: its policy may lack usage/<role>", "role", s.opt.Role, "error", err)
		case err != nil:
			s.log.Debug("uses cannot be reported yet", "error", err)
			return false
		}
		r.unsent = ""
	}
}
