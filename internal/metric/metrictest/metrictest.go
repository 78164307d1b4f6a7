// SPDX-License-Identifier: MPL-2.0

// Package metrictest holds what is scraped, and the documentation, to what was declared.
package metrictest

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
)

var update = flag.Bool("update-metrics", false, "write the tables of docs/metrics.md anew")

// Undeclared is metric.Undeclared of what a scrape returns and begins with prefix.
func Undeclared(t *testing.T, rows []metric.Row, from prometheus.Gatherer, prefix string) []string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), prefix) })
	return metric.Undeclared(rows, families)
}

// Documented fails unless the page has the table of the rows between two comments that
// name prefix. With -update-metrics it is written.
func Documented(t *testing.T, page, prefix string, rows []metric.Row) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+prefix+" -->\n", "<!-- end of "+prefix+" -->\n"
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place between %q and %q", page, begin, end)
	}
	want := metric.Table(prefix, rows)
	if table == want {
		return
	}
	if !*update {
		t.Errorf("%s is not what is declared: run this test with -update-metrics, and look at the difference. It has\n%swant\n%s", page, table, want)
		return
	}
	if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil { //nolint:gosec // documentation
		t.Fatal(err)
	}
}
