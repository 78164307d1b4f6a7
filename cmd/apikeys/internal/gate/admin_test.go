// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric/metrictest"
)

// Ready is who hears of decisions, and who holds what still counts without.
func TestReady(t *testing.T) {
	for name, test := range map[string]struct {
		stats edge.Stats
		want  int
		body  string
	}{
		"nothing heard": {edge.Stats{Unconfirmed: -1, MaxStaleness: time.Hour}, 503, `{"dirty":0,"held":0,"live":false,"ready":false}`},
		"live":          {edge.Stats{Live: true, Unconfirmed: time.Second}, 200, `{"dirty":0,"held":0,"live":true,"ready":true,"unconfirmed_seconds":1}`},
		"cut off":       {edge.Stats{Held: 2, Dirty: 1, Unconfirmed: time.Minute, MaxStaleness: time.Minute}, 200, `{"dirty":1,"held":2,"live":false,"ready":true,"unconfirmed_seconds":60}`},
		"for too long":  {edge.Stats{Held: 2, Unconfirmed: time.Minute + 1, MaxStaleness: time.Minute}, 503, `{"dirty":0,"held":2,"live":false,"ready":false,"unconfirmed_seconds":60}`},
		"with no key":   {edge.Stats{Unconfirmed: time.Second, MaxStaleness: time.Minute}, 503, `{"dirty":0,"held":0,"live":false,"ready":false,"unconfirmed_seconds":1}`},
	} {
		h := Admin(func() edge.Stats { return test.stats }, prometheus.NewRegistry())
		for path, want := range map[string]int{"/readyz": test.want, "/healthz": 200} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
			if w.Code != want || path == "/readyz" && strings.TrimSpace(w.Body.String()) != test.body || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: %s: %d %s", name, path, w.Code, w.Body)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	stats := edge.Stats{
		Held: 9, Dirty: 2, Live: true, FeedWindow: 7 * time.Second, Unconfirmed: 500 * time.Millisecond, MaxStaleness: time.Hour,
		Delays: edge.Delays{Count: 3, Sum: 1500 * time.Millisecond}, FirstSights: 12.5, Busy: 4, Uses: 6, Unreported: time.Minute,
	}
	stats.Delays.Within = [...]uint64{0, 1, 2, 2, 3, 3, 3, 3}
	m := NewMetrics(registry, func() edge.Stats { return stats })
	m.decided("VALID", time.Millisecond)
	m.decided("VALID", time.Millisecond)
	m.decided("NO_KEY", time.Millisecond)
	m.decided("TOO_NEW", time.Millisecond)
	scrape := func() string {
		w := httptest.NewRecorder()
		Admin(func() edge.Stats { return stats }, registry).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		return w.Body.String()
	}
	text := scrape()
	for _, want := range []string{
		`requests_total{code="NO_KEY"} 1`, `requests_total{code="VALID"} 2`, `requests_total{code="OTHER"} 1`, `requests_total{code="RETIRED"} 0`, `request_seconds_count 4`,
		`held_keys 9`, `dirty_keys 2`, `feed_live 1`, `feed_window_seconds 7`, `unconfirmed_seconds 0.5`, `max_staleness_seconds 3600`,
		`decision_delay_seconds_bucket{le="0.25"} 1`, `decision_delay_seconds_bucket{le="1"} 3`, `decision_delay_seconds_sum 1.5`, `decision_delay_seconds_count 3`,
		`first_sight_budget 12.5`, `first_sight_refused_total 4`, `usage_backlog 6`, `usage_unreported_seconds 60`,
	} {
		if !strings.Contains(text, "\napikeys_edge_"+want+"\n") {
			t.Errorf("%s is missing:\n%s", want, text)
		}
	}
	if bad := metrictest.Undeclared(t, m.rows, registry, "apikeys_edge_"); len(bad) > 0 {
		t.Error(bad)
	}
	metrictest.Documented(t, "../../../../docs/metrics.md", "apikeys_edge_", m.rows)
	stats.Live, stats.Unconfirmed = false, -1
	if text := scrape(); strings.Contains(text, "\napikeys_edge_unconfirmed_seconds") || !strings.Contains(text, "\napikeys_edge_feed_live 0\n") {
		t.Errorf("before anything was heard:\n%s", text)
	}
}
