// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
)

// Metrics are the numbers of a gate and of its edge.
type Metrics struct {
	requests *prometheus.CounterVec
	latency  prometheus.Observer
	rows     []metric.Row
}

// NewMetrics declares the numbers in a registry that has none of the kind. stats is asked
// at each scrape.
func NewMetrics(reg prometheus.Registerer, stats func() edge.Stats) *Metrics {
	set := metric.NewSet("apikeys_edge_", reg)
	m := &Metrics{
		requests: set.Counter("requests_total", "Requests that were judged.",
			metric.Label{Name: "code", Values: toldCodes}),
		latency: set.Histogram("request_seconds", "How long it took to judge a request.",
			[]float64{5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 1}).WithLabelValues(),
	}
	live := set.ReadGauge("feed_live", "1 while decisions arrive, 0 while the edge is cut off.")
	unconfirmed := set.ReadGauge("unconfirmed_seconds", "How long ago the server was last known to have told everything; absent before it has told anything.")
	window := set.ReadGauge("feed_window_seconds", "After that long without an answer of the feed the edge is cut off.")
	staleness := set.ReadGauge("max_staleness_seconds", "For how long held keys are accepted without the server.")
	delay := set.ReadHistogram("decision_delay_seconds", "How long decisions took from the commit in the engine to this edge: of each answer of the feed that of the oldest.")
	held := set.ReadGauge("held_keys", "Keys that are held.")
	dirty := set.ReadGauge("dirty_keys", "Held keys about which something was decided, or may have been: each is verified anew at its next use.")
	budget := set.ReadGauge("first_sight_budget", "How many keys that are not held could be asked about at once now.")
	busy := set.ReadCounter("first_sight_refused_total", "Requests with a key that is not held that were answered 503 because the budget was spent.")
	uses := set.ReadGauge("usage_backlog", "Counts of uses that the engine has not taken yet.")
	unreported := set.ReadGauge("usage_unreported_seconds", "How long ago the engine had taken all uses; 330 are usual.")
	m.rows = set.Rows()
	set.OnScrape(func(out *metric.Scrape) {
		s := stats()
		out.Holds(live, s.Live)
		if s.Unconfirmed >= 0 {
			out.Is(unconfirmed, s.Unconfirmed.Seconds())
		}
		out.Is(window, s.FeedWindow.Seconds())
		out.Is(staleness, s.MaxStaleness.Seconds())
		within := map[float64]uint64{}
		for i, bound := range edge.DelayBounds {
			within[bound.Seconds()] = s.Delays.Within[i]
		}
		out.Measured(delay, s.Delays.Count, s.Delays.Sum.Seconds(), within)
		out.Is(held, float64(s.Held))
		out.Is(dirty, float64(s.Dirty))
		out.Is(budget, s.FirstSights)
		out.Is(busy, float64(s.Busy))
		out.Is(uses, float64(s.Uses))
		out.Is(unreported, s.Unreported.Seconds())
	})
	return m
}

// codeOther stands for the codes of an engine that is newer than the edge.
const codeOther = "OTHER"

// toldCodes are those of verdicts, and of refusals without one.
var toldCodes = []string{
	"VALID", "NOT_FOUND", "MALFORMED", "EXPIRED", "RETIRED", "REVOKED", "DISABLED", "INSUFFICIENT_SCOPE", "FORBIDDEN_IP", "RATE_LIMITED",
	codeNoKey, codeTwoKeys, codeNoRule, codeRequest, codeUntrusted, codeUnavailable, codeOther,
}

func (m *Metrics) decided(code string, took time.Duration) {
	if m == nil {
		return
	}
	if !slices.Contains(toldCodes, code) {
		code = codeOther
	}
	m.requests.WithLabelValues(code).Inc()
	m.latency.Observe(took.Seconds())
}
