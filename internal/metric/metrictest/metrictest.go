// SPDX-License-Identifier: MPL-2.0

// Package metrictest holds what is scraped, and the documentation, to what was declared.
package metrictest

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
)

var update = flag.Bool("update-metrics", false, "write the tables of docs/metrics.md anew")

// Undeclared are the metrics of a scrape whose names begin with prefix and that no row
// declares, or declares otherwise: another kind, other labels, or a value that a closed
// label may not have.
func Undeclared(t *testing.T, rows []metric.Row, from prometheus.Gatherer, prefix string) []string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		i := slices.IndexFunc(rows, func(r metric.Row) bool { return r.Name == family.GetName() })
		if i < 0 {
			bad = append(bad, family.GetName()+": not declared")
			continue
		}
		row := &rows[i]
		if kind := metric.Kind(strings.ToLower(family.GetType().String())); kind != row.Kind {
			bad = append(bad, fmt.Sprintf("%s: a %s, declared as %s", row.Name, kind, row.Kind))
		}
		for _, m := range family.GetMetric() {
			if why := differs(row, m.GetLabel()); why != "" {
				bad = append(bad, row.Name+": "+why)
			}
		}
	}
	return bad
}

func differs(r *metric.Row, pairs []*dto.LabelPair) string {
	if len(pairs) != len(r.Labels) {
		return fmt.Sprintf("%d labels, declared with %d", len(pairs), len(r.Labels))
	}
	for _, pair := range pairs {
		i := slices.IndexFunc(r.Labels, func(l metric.Label) bool { return l.Name == pair.GetName() })
		switch {
		case i < 0:
			return "label " + pair.GetName() + " is not declared"
		case len(r.Labels[i].Values) > 0 && !slices.Contains(r.Labels[i].Values, pair.GetValue()):
			return fmt.Sprintf("label %s is %q", pair.GetName(), pair.GetValue())
		}
	}
	return ""
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
