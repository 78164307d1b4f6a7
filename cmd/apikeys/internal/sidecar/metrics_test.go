// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric/metrictest"
)

func TestWhatIsToldIsDeclaredAndDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry, func() client.Stats {
		return client.Stats{Version: 2, Ends: time.Unix(2e9, 0), ReadAt: time.Unix(1e9, 0)}
	})
	m.requests.WithLabelValues("2xx").Inc()
	if bad := metrictest.Undeclared(t, m.rows, registry, "apikeys_proxy_"); len(bad) > 0 {
		t.Error(bad)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(m.rows) {
		t.Errorf("%d of %d are told", len(families), len(m.rows))
	}
	metrictest.Documented(t, "../../../../docs/metrics.md", "apikeys_proxy_", m.rows)
}
