// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// failureReasons are why a request got no answer of the upstream.
var failureReasons = []string{"no_key", "upstream", "canceled", "body", "ending"}

// metrics are the numbers of a proxy. No label names a key, a path or a client.
type metrics struct {
	requests, failures, refused *prometheus.CounterVec
	retries                     prometheus.Counter
	inFlight, upgraded          prometheus.Gauge
	seconds                     prometheus.Observer
	rows                        []metric.Row
}

// newMetrics declares the numbers in a registry that has none of the kind. stats is asked
// at each scrape.
func newMetrics(reg prometheus.Registerer, stats func() client.Stats) *metrics {
	set := metric.NewSet("apikeys_proxy_", reg)
	m := &metrics{
		requests: set.Counter("requests_total", "Requests that the upstream has answered.", metric.Label{Name: "code", Bound: "the class of the status: `2xx` and so on"}),
		failures: set.Counter("failures_total", "Requests without an answer of the upstream. canceled: the program went away.", metric.Label{Name: "reason", Values: failureReasons}),
		refused:  set.Counter("refused_total", "Requests that were not passed on, by what was wrong with them.", metric.Label{Name: "reason", Values: reasons}),
		retries:  set.Counter("retries_total", "Requests that were sent once more, with another key, because the first was refused.").WithLabelValues(),
		seconds: set.Histogram("answer_seconds", "How long it took until the upstream's answer began, with a retry.",
			[]float64{1e-3, 5e-3, 2.5e-2, 0.1, 0.25, 1, 2.5, 10, 30}).WithLabelValues(),
		inFlight: set.Gauge("in_flight_requests", "Requests under way.").WithLabelValues(),
		upgraded: set.Gauge("upgraded_connections", "Connections that have switched protocols, as WebSocket does.").WithLabelValues(),
	}
	held := set.ReadGauge("key_held", "1 while there is a key to call with.")
	keyVersion := set.ReadGauge("key_version", "The version of the key at hand, of a static role.")
	readAt := set.ReadGauge("key_read_timestamp_seconds", "When the key was last read; absent before the first time.")
	failing := set.ReadGauge("key_reads_failing", "1 if the last attempt to read the key has failed.")
	expires := set.ReadGauge("key_expires_timestamp_seconds", "When a leased key ends unless it is replaced before; absent of a static role's.")
	reads := set.ReadCounter("key_reads_total", "Attempts to read the key.")
	readFailures := set.ReadCounter("key_read_failures_total", "Attempts to read the key that have failed.")
	renewals := set.ReadCounter("lease_renewals_total", "Renewals of leases.")
	changes := set.ReadCounter("key_changes_total", "How often the key was replaced by another one.")
	refused := set.ReadCounter("key_refused_total", "Answers of the upstream that the key is not accepted.")
	set.Gauge("build_info", "1, with the program's version.", metric.Label{Name: "version", Bound: "of the program"}).WithLabelValues(version.Version).Set(1)
	m.rows = set.Rows()
	set.OnScrape(func(out *metric.Scrape) {
		s := stats()
		out.Holds(held, holds(&s))
		out.Is(keyVersion, float64(s.Version))
		out.Holds(failing, s.Err != nil)
		out.When(expires, s.Ends)
		out.When(readAt, s.ReadAt)
		for m, n := range map[*metric.Read]int64{reads: s.Reads, readFailures: s.Failures, renewals: s.Renewals, changes: s.Changes, refused: s.Refused} {
			out.Is(m, float64(n))
		}
	})
	return m
}
