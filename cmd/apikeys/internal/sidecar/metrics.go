// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// failureReasons are why a request got no answer of the upstream.
var failureReasons = []string{"no_key", "upstream", "canceled", "body", "ending"}

// metrics are the numbers of a proxy. No label names a key, a path or a client.
type metrics struct {
	requests, failures, refused *prometheus.CounterVec
	retries                     prometheus.Counter
	inFlight, upgraded          prometheus.Gauge
	seconds                     prometheus.Histogram
}

// newMetrics registers the numbers. stats is asked at each scrape.
func newMetrics(reg prometheus.Registerer, stats func() client.Stats) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikeys_proxy_requests_total", Help: "Requests that the upstream has answered, by the class of the status.",
		}, []string{"code"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikeys_proxy_failures_total", Help: "Requests without an answer of the upstream, by reason.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apikeys_proxy_refused_total", Help: "Requests that were not passed on, by what was wrong with them.",
		}, []string{"reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apikeys_proxy_retries_total", Help: "Requests that were sent once more, with another key, because the first was refused.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "apikeys_proxy_in_flight_requests", Help: "Requests under way.",
		}),
		upgraded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "apikeys_proxy_upgraded_connections", Help: "Connections that have switched protocols, as WebSocket does.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "apikeys_proxy_answer_seconds", Help: "How long it took until the upstream's answer began, with a retry.",
			Buckets: []float64{1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 1, 2.5, 10, 30},
		}),
	}
	for _, reason := range failureReasons {
		m.failures.WithLabelValues(reason)
	}
	for _, reason := range reasons {
		m.refused.WithLabelValues(reason)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "apikeys_proxy_build_info", Help: "1, with the program's version.", ConstLabels: prometheus.Labels{"version": version.Version},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{m.requests, m.failures, m.refused, m.retries, m.inFlight, m.upgraded, m.seconds, build, &keyCollector{stats}} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// keyCollector tells how the source of the key is.
type keyCollector struct{ stats func() client.Stats }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("apikeys_proxy_"+name, help, nil, nil)
}

var (
	descHeld     = desc("key_held", "1 while there is a key to call with.")
	descVersion  = desc("key_version", "The version of the key at hand, of a static role.")
	descExpires  = desc("key_expires_timestamp_seconds", "When a leased key ends unless it is replaced before; absent of a static role's.")
	descReadAt   = desc("key_read_timestamp_seconds", "When the key was last read; absent before the first time.")
	descFailing  = desc("key_reads_failing", "1 if the last attempt to read the key has failed.")
	descReads    = desc("key_reads_total", "Attempts to read the key.")
	descFailures = desc("key_read_failures_total", "Attempts to read the key that have failed.")
	descRenewals = desc("lease_renewals_total", "Renewals of leases.")
	descChanges  = desc("key_changes_total", "How often the key was replaced by another one.")
	descRefused  = desc("key_refused_total", "Answers of the upstream that the key is not accepted.")
)

func (c *keyCollector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

func (c *keyCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	gauge := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	gauge(descHeld, number(holds(&s)))
	gauge(descVersion, float64(s.Version))
	gauge(descFailing, number(s.Err != nil))
	if !s.Ends.IsZero() {
		gauge(descExpires, float64(s.Ends.UnixMilli())/1e3)
	}
	if !s.ReadAt.IsZero() {
		gauge(descReadAt, float64(s.ReadAt.UnixMilli())/1e3)
	}
	for d, value := range map[*prometheus.Desc]int64{descReads: s.Reads, descFailures: s.Failures, descRenewals: s.Renewals, descChanges: s.Changes, descRefused: s.Refused} {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value))
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
