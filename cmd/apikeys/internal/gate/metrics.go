// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// Metrics are the numbers of a gate and of its edge.
type Metrics struct {
	decisions *prometheus.CounterVec
	latency   prometheus.Histogram
}

// NewMetrics registers the numbers. stats is asked at each scrape.
func NewMetrics(reg prometheus.Registerer, stats func() edge.Stats) (*Metrics, error) {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikeys_edge_decisions_total", Help: "Requests that were judged, by code: a verdict's, or why there is none.",
		}, []string{"code"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "apikeys_edge_decision_seconds", Help: "How long a decision took.",
			Buckets: []float64{5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 1},
		}),
	}
	for _, c := range []prometheus.Collector{m.decisions, m.latency, &statsCollector{stats: stats}} {
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
	m.decisions.WithLabelValues(code).Inc()
	m.latency.Observe(took.Seconds())
}

// statsCollector tells how the edge is.
type statsCollector struct{ stats func() edge.Stats }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("apikeys_edge_"+name, help, nil, nil)
}

var (
	descHeld        = desc("held_keys", "Keys that are held.")
	descLive        = desc("feed_live", "1 while decisions arrive, 0 while the edge is cut off.")
	descWindow      = desc("feed_window_seconds", "After that long without an answer of the feed the edge is cut off.")
	descUnconfirmed = desc("unconfirmed_seconds", "How long ago the server was last known to have told everything; absent before it has told anything.")
	descStaleness   = desc("max_staleness_seconds", "For how long held keys are accepted without the server.")
)

func (c *statsCollector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

func (c *statsCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	gauge := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	live := 0.0
	if s.Live {
		live = 1
	}
	gauge(descHeld, float64(s.Held))
	gauge(descLive, live)
	gauge(descWindow, s.FeedWindow.Seconds())
	gauge(descStaleness, s.MaxStaleness.Seconds())
	if s.Unconfirmed >= 0 {
		gauge(descUnconfirmed, s.Unconfirmed.Seconds())
	}
}
