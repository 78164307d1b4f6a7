// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// Metrics are the numbers of a gate and of its edge.
type Metrics struct {
	requests *prometheus.CounterVec
	latency  prometheus.Histogram
}

// NewMetrics registers the numbers. stats is asked at each scrape.
func NewMetrics(reg prometheus.Registerer, stats func() edge.Stats) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikeys_edge_requests_total", Help: "Requests that were judged, by code: a verdict's, or why there is none.",
		}, []string{"code"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "apikeys_edge_request_seconds", Help: "How long it took to judge a request.",
			Buckets: []float64{5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 1},
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.latency, &statsCollector{stats: stats}} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) decided(code string, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(code).Inc()
	m.latency.Observe(took.Seconds())
}

// statsCollector tells how the edge is.
type statsCollector struct{ stats func() edge.Stats }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("apikeys_edge_"+name, help, nil, nil)
}

var (
	descHeld        = desc("held_keys", "Keys that are held.")
	descDirty       = desc("dirty_keys", "Held keys about which something was decided, or may have been: each is verified anew at its next use.")
	descLive        = desc("feed_live", "1 while decisions arrive, 0 while the edge is cut off.")
	descWindow      = desc("feed_window_seconds", "After that long without an answer of the feed the edge is cut off.")
	descUnconfirmed = desc("unconfirmed_seconds", "How long ago the server was last known to have told everything; absent before it has told anything.")
	descStaleness   = desc("max_staleness_seconds", "For how long held keys are accepted without the server.")
	descDelay       = desc("decision_delay_seconds", "How long decisions took from the engine to this edge: of each answer of the feed that of the oldest.")
	descFirst       = desc("first_sight_budget", "How many keys that are not held could be asked about at once now.")
	descBusy        = desc("first_sight_refused_total", "Requests with a key that is not held that were answered 503 because the budget was spent.")
	descUses        = desc("usage_backlog", "Counts of uses that the engine has not taken yet.")
	descUnreported  = desc("usage_unreported_seconds", "How long ago the engine had taken all uses.")
)

func (c *statsCollector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

func (c *statsCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	live := 0.0
	if s.Live {
		live = 1
	}
	for d, value := range map[*prometheus.Desc]float64{
		descHeld: float64(s.Held), descDirty: float64(s.Dirty), descLive: live, descWindow: s.FeedWindow.Seconds(), descStaleness: s.MaxStaleness.Seconds(),
		descFirst: s.FirstSights, descUses: float64(s.Uses), descUnreported: s.Unreported.Seconds(),
	} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	if s.Unconfirmed >= 0 {
		out <- prometheus.MustNewConstMetric(descUnconfirmed, prometheus.GaugeValue, s.Unconfirmed.Seconds())
	}
	out <- prometheus.MustNewConstMetric(descBusy, prometheus.CounterValue, float64(s.Busy))
	within := map[float64]uint64{}
	for i, bound := range edge.DelayBounds {
		within[bound.Seconds()] = s.Delays.Within[i]
	}
	out <- prometheus.MustNewConstHistogram(descDelay, s.Delays.Count, s.Delays.Sum.Seconds(), within)
}
