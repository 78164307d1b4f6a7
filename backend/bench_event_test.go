// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// BenchmarkDeliveries measures how many events reach a receiver on this machine in a
// second, from the outbox, through the real way out.
func BenchmarkDeliveries(b *testing.B) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	m := newEventMount(b)
	m.courier = func(req *http.Request, ca string) (*egress.Answer, error) { return m.egress.Do(req, ca, maxAnswer) }
	m.write("config", map[string]any{"egress_allow": "127.0.0.0/8:" + u.Port(), "outbound_paused": true})
	m.write("events/e", map[string]any{"url": server.URL, "pace": 10000, "types": "role.created"})
	n := max(b.N, 2000)
	for i := range n {
		m.write(fmt.Sprintf("roles/r%06d", i), map[string]any{"type": "dynamic"})
	}
	m.write("config", map[string]any{"outbound_paused": false})
	b.ResetTimer()
	began := time.Now() //nolint:forbidigo // it is what is measured
	for got.Load() < int64(n) {
		m.clock.advance(time.Second) // the pace is that of the mount's clock
		m.deliver()
	}
	took := time.Since(began) //nolint:forbidigo // the same
	b.ReportMetric(float64(n)/took.Seconds(), "events/s")
}
