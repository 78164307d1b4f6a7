// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// reportEvery is how often uses are reported, and reportSoon where a previous
	// version was used: whether its grace is prolonged depends on it.
	reportEvery, reportSoon = 5 * time.Minute, 30 * time.Second
	// betweenReports leaves the server and this machine alone for a while where there is
	// more to tell than one report holds.
	betweenReports = 100 * time.Millisecond
	// lastReport is what the report at the end may take.
	lastReport = time.Second
	// maxCounted is how many counts are kept apart from those in held keys.
	maxCounted = 50_000
	maxItems   = 1000
	// maxLabel is how long a label may be, in bytes: the engine keeps no more of it, and
	// it may be what a client says.
	maxLabel = 64
)

// reporter counts uses, and reports them in batches with a sequence. A report is
// repeated as it was until it is answered.
type reporter struct {
	instance string

	mu     sync.Mutex
	counts map[usedBy]*count // refusals, and uses under labels of their own
	soon   chan struct{}

	// Of the one that reports: the number of the report, and what is not answered yet.
	// The report is the first maxItems of it.
	sequence uint64
	unsent   []usageItem

	// For those who ask how it goes: how much is not answered yet, and when all was
	// (elapsed).
	backlog, reported atomic.Int64
}

type usedBy struct{ keyID, client string }

type count struct {
	previous    bool
	accepted    int64
	refused     map[string]int64
	first, last int64
}

// usageItem is one item of a report, as the engine takes it.
type usageItem struct {
	KeyID    string           `json:"key_id"`
	Accepted int64            `json:"accepted,omitempty"`
	Refused  map[string]int64 `json:"refused,omitempty"`
	First    string           `json:"first"`
	Last     string           `json:"last"`
	Client   string           `json:"client,omitempty"`

	previous    bool
	first, last int64
}

func (r *reporter) init(instance string) {
	r.instance = instance
	r.counts = map[usedBy]*count{}
	r.soon = make(chan struct{}, 1)
}

// count counts a use. Accepted ones under the edge's own label are counted in the held
// key: that is the common case, and costs no lock.
func (v *Verifier) count(h *held, client, code string, previous bool, server, now int64) {
	if used := int32(seconds(now)); used != h.used.Load() { //nolint:gosec // not that many
		h.used.Store(used)
	}
	if code == codeValid && (client == "" || client == v.opt.Label) {
		at := uint32(seconds(server)) //nolint:gosec // until 2106
		if h.accepted.Add(1) == 1 {
			h.first.Store(at)
		}
		if at != h.last.Load() {
			h.last.Store(at)
		}
		if previous {
			v.usage.hurry()
		}
		return
	}
	if client == "" {
		client = v.opt.Label
	}
	if len(client) > maxLabel {
		client = strings.ToValidUTF8(client[:maxLabel], "")
	}
	r := &v.usage
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts[usedBy{h.keyID(), client}]
	if c == nil {
		if len(r.counts) >= maxCounted {
			return
		}
		c = &count{first: server}
		r.counts[usedBy{h.keyID(), client}] = c
	}
	c.last = max(c.last, server)
	c.previous = previous
	if code == codeValid {
		c.accepted++
		return
	}
	if c.refused == nil {
		c.refused = map[string]int64{}
	}
	c.refused[code]++
}

// waiting is how much is to be reported, but for what held keys count.
func (r *reporter) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.counts) + int(r.backlog.Load())
}

// hurry brings the next report forward.
func (r *reporter) hurry() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// reportUsage reports what was counted until ctx ends, and once more then.
func (v *Verifier) reportUsage(ctx context.Context) {
	jitter := v.jitter("usage")
	last := time.Now()
	for ctx.Err() == nil {
		pause := reportEvery + jitter.below(reportEvery/10)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-v.usage.soon:
			wait := time.NewTimer(reportSoon - min(reportSoon, time.Since(last)))
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
			wait.Stop()
		}
		timer.Stop()
		if ctx.Err() == nil {
			last = time.Now()
			v.sendUsage(ctx, betweenReports)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastReport)
	defer cancel()
	v.sendUsage(ctx, 0)
}

// sendUsage reports what was counted, last uses of previous versions first. What was
// collected before and not answered yet goes first of all, in the same reports.
func (v *Verifier) sendUsage(ctx context.Context, pause time.Duration) {
	r := &v.usage
	for collected := false; ; {
		if len(r.unsent) == 0 {
			now, _ := v.clock.elapsed()
			if !collected {
				collected = true
				r.unsent = v.collect()
				r.backlog.Store(int64(len(r.unsent)))
			}
			if len(r.unsent) == 0 {
				r.reported.Store(now)
				return
			}
			r.sequence++
		}
		items := slices.Clone(r.unsent[:min(maxItems, len(r.unsent))])
		for i := range items {
			items[i].First, items[i].Last = instant(items[i].first), instant(items[i].last)
		}
		batch, err := json.Marshal(items)
		if err == nil {
			err = v.remote.report(ctx, r.instance, r.sequence, string(batch))
		}
		switch {
		case final(err):
			v.log.Error("the engine takes this report of uses at no time: it is given up", "error", err)
		case err != nil:
			v.log.Warn("uses cannot be reported yet", "error", err)
			return
		}
		r.unsent = r.unsent[len(items):]
		r.backlog.Store(int64(len(r.unsent)))
		if len(r.unsent) == 0 {
			continue
		}
		r.sequence++
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// final reports whether the engine will answer the same report with the same refusal.
func final(err error) bool {
	var re *api.ResponseError
	return errors.As(err, &re) && (re.StatusCode == http.StatusBadRequest || re.StatusCode == http.StatusRequestEntityTooLarge)
}

// collect takes all that was counted.
func (v *Verifier) collect() []usageItem {
	r := &v.usage
	r.mu.Lock()
	counts := r.counts
	r.counts = map[usedBy]*count{}
	r.mu.Unlock()
	now, _ := v.clock.elapsed()
	server := v.clock.server(now)
	var items []usageItem
	v.keys.all(func(_ digest, h *held) {
		n := h.accepted.Swap(0)
		if n == 0 {
			return
		}
		item := usageItem{
			KeyID: h.keyID(), Client: v.opt.Label, Accepted: int64(n),
			previous: h.line.State(h.line.At(server)) == "previous", first: int64(h.first.Load()) * int64(time.Second), last: int64(h.last.Load()) * int64(time.Second),
		}
		id := usedBy{h.keyID(), v.opt.Label}
		if c := counts[id]; c != nil { // refused, too
			item.Accepted, item.Refused = item.Accepted+c.accepted, c.refused
			item.first, item.last = min(item.first, c.first), max(item.last, c.last)
			delete(counts, id)
		}
		items = append(items, item)
	})
	for id, c := range counts {
		items = append(items, usageItem{
			KeyID: id.keyID, Client: id.client, Accepted: c.accepted, Refused: c.refused, previous: c.previous, first: c.first, last: c.last,
		})
	}
	slices.SortFunc(items, func(a, b usageItem) int {
		if a.previous != b.previous {
			if a.previous {
				return -1
			}
			return 1
		}
		return 0
	})
	return items
}

func instant(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano) }
