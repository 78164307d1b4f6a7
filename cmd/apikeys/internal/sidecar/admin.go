// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

// holds reports whether there is a key to call with.
func holds(s *client.Stats) bool {
	return s.KeyID != "" && (s.Ends.IsZero() || time.Now().Before(s.Ends))
}

// admin answers who looks after the proxy: /healthz, /readyz and /metrics. It tells no
// error's text: anybody may ask, and the log has it.
func admin(stats func() client.Stats, ending *atomic.Bool, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"ok": true})
	})
	began := time.Now()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := stats()
		ready := holds(&s) && !ending.Load()
		status, answer := http.StatusOK, map[string]any{"ready": ready, "key_held": holds(&s), "version": s.Version, "reads_failing": s.Err != nil, "ending": ending.Load()}
		last := began
		if !s.ReadAt.IsZero() {
			last = s.ReadAt
			answer["read_seconds_ago"] = int64(time.Since(s.ReadAt) / time.Second)
		}
		if s.Err != nil {
			answer["failing_seconds"] = int64(time.Since(last) / time.Second)
		}
		if !ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, answer)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n'))
}
