// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// Admin answers who looks after the edge: /healthz, /readyz and /metrics.
func Admin(stats func() edge.Stats, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"ok": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := stats()
		status, body := http.StatusOK, map[string]any{"ready": true, "live": s.Live, "held": s.Held, "dirty": s.Dirty}
		if s.Unconfirmed >= 0 {
			body["unconfirmed_seconds"] = int64(s.Unconfirmed / time.Second)
		}
		if !ready(&s) {
			status, body["ready"] = http.StatusServiceUnavailable, false
		}
		writeJSON(w, status, body)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

// ready: decisions arrive, or what is held still counts without them.
func ready(s *edge.Stats) bool {
	return s.Live || s.Held > 0 && s.Unconfirmed >= 0 && s.Unconfirmed <= s.MaxStaleness
}
