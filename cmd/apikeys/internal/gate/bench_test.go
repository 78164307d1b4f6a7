// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// BenchmarkAuth is forward-auth over HTTP with keepalive beside an empty handler, in
// turns, with the headers that nginx sends. share is its throughput, of the handler's.
func BenchmarkAuth(b *testing.B) {
	metrics, err := NewMetrics(prometheus.NewRegistry(), func() edge.Stats { return edge.Stats{} })
	if err != nil {
		b.Fatal(err)
	}
	g := New(&one{newKnower().keys["good"]}, testRules(b), Keys{Headers: DefaultHeaders}, metrics, slog.New(slog.NewJSONHandler(io.Discard, nil)))
	auth, err := g.Auth("nginx", nil)
	if err != nil {
		b.Fatal(err)
	}
	asked := func(h http.Handler) func() time.Duration {
		s := httptest.NewServer(h)
		b.Cleanup(s.Close)
		req := httptest.NewRequest(http.MethodGet, s.URL+"/auth", http.NoBody)
		req.RequestURI = ""
		for name, value := range map[string]string{
			"X-Api-Key": "good", "X-Original-Method": "GET", "X-Original-Uri": "/orders/7", "X-Real-Ip": "192.0.2.7", "User-Agent": "client", "Accept": "*/*",
		} {
			req.Header.Set(name, value)
		}
		return func() time.Duration {
			began := time.Now()
			resp, err := s.Client().Do(req)
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatal(resp, err)
			}
			_ = resp.Body.Close()
			return time.Since(began)
		}
	}
	ours, empty := asked(auth), asked(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var a, e time.Duration
	for b.Loop() {
		a += ours()
		e += empty()
	}
	b.ReportMetric(float64(a.Nanoseconds())/float64(b.N), "ns/auth")
	b.ReportMetric(float64(e.Nanoseconds())/float64(b.N), "ns/empty")
	b.ReportMetric(float64(e)/float64(a), "share")
}

// one verifies every key alike, at once.
type one struct{ verdict edge.Verdict }

func (o *one) Verify(context.Context, edge.Request) (edge.Verdict, error) { return o.verdict, nil }
