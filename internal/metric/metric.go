// SPDX-License-Identifier: MPL-2.0

// Package metric declares the numbers of a program, each once: the name, what it means
// and which labels it has. Prometheus' registry counts them, and the documentation is
// made of the same declarations.
//
// Labels are closed: the values that a label may have are declared, and all of them are
// there from the start, so that a first event is an increase. An open label says what
// bounds it.
package metric

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Kind is what kind of metric one is.
type Kind string

// Kinds of metrics.
const (
	CounterKind   Kind = "counter"
	GaugeKind     Kind = "gauge"
	HistogramKind Kind = "histogram"
)

// Label is a label of a metric.
type Label struct {
	Name string
	// Values are all that it may have. Empty: Bound says what bounds them.
	Values []string
	Bound  string
}

// Row is the declaration of a metric.
type Row struct {
	Name   string
	Kind   Kind
	Help   string
	Labels []Label
}

// Set is the metrics of a program, or of a part of it.
type Set struct {
	prefix  string
	reg     prometheus.Registerer
	rows    []Row
	scraped scraped
}

// NewSet is a set whose names begin with prefix, which ends with an underscore.
func NewSet(prefix string, reg prometheus.Registerer) *Set {
	s := &Set{prefix: prefix, reg: reg}
	reg.MustRegister(&s.scraped)
	return s
}

// Rows are the metrics of the set, in the order of their declaration.
func (s *Set) Rows() []Row { return slices.Clone(s.rows) }

func (s *Set) declare(name string, kind Kind, help string, labels []Label) (full string, names []string) {
	full = s.prefix + name
	s.rows = append(s.rows, Row{Name: full, Kind: kind, Help: help, Labels: labels})
	for _, l := range labels {
		names = append(names, l.Name)
	}
	return full, names
}

// Counter declares a counter. It is an error of the program to declare a name twice.
func (s *Set) Counter(name, help string, labels ...Label) *prometheus.CounterVec {
	full, names := s.declare(name, CounterKind, help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: full, Help: help}, names)
	s.reg.MustRegister(v)
	each(labels, func(values ...string) { v.WithLabelValues(values...) })
	return v
}

// Gauge declares a gauge that the program sets.
func (s *Set) Gauge(name, help string, labels ...Label) *prometheus.GaugeVec {
	full, names := s.declare(name, GaugeKind, help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: full, Help: help}, names)
	s.reg.MustRegister(v)
	each(labels, func(values ...string) { v.WithLabelValues(values...) })
	return v
}

// Histogram declares a histogram with these upper bounds.
func (s *Set) Histogram(name, help string, bounds []float64, labels ...Label) *prometheus.HistogramVec {
	full, names := s.declare(name, HistogramKind, help, labels)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: full, Help: help, Buckets: bounds}, names)
	s.reg.MustRegister(v)
	each(labels, func(values ...string) { v.WithLabelValues(values...) })
	return v
}

// each calls fn for all combinations of the labels' values, unless one of them is open.
func each(labels []Label, fn func(values ...string)) {
	combinations := [][]string{nil}
	for _, l := range labels {
		var longer [][]string
		for _, c := range combinations {
			for _, v := range l.Values {
				longer = append(longer, append(slices.Clone(c), v))
			}
		}
		combinations = longer
	}
	for _, c := range combinations {
		fn(c...)
	}
}

// Read is a metric whose value is looked up at each scrape.
type Read struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// ReadGauge declares a gauge whose value is looked up at each scrape, see OnScrape.
func (s *Set) ReadGauge(name, help string, labels ...Label) *Read {
	return s.read(name, GaugeKind, prometheus.GaugeValue, help, labels)
}

// ReadCounter is ReadGauge for what is counted elsewhere.
func (s *Set) ReadCounter(name, help string, labels ...Label) *Read {
	return s.read(name, CounterKind, prometheus.CounterValue, help, labels)
}

// ReadHistogram is ReadGauge for what is measured elsewhere.
func (s *Set) ReadHistogram(name, help string, labels ...Label) *Read {
	return s.read(name, HistogramKind, prometheus.UntypedValue, help, labels)
}

func (s *Set) read(name string, kind Kind, value prometheus.ValueType, help string, labels []Label) *Read {
	full, names := s.declare(name, kind, help, labels)
	return &Read{desc: prometheus.NewDesc(full, help, names, nil), kind: value}
}

// Scrape takes what is looked up at a scrape.
type Scrape struct{ out chan<- prometheus.Metric }

// Is sets the value of a metric, with the values of its labels.
func (s *Scrape) Is(m *Read, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// Holds is Is for yes and no: 1 and 0.
func (s *Scrape) Holds(m *Read, yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	s.Is(m, value, labels...)
}

// When sets a timestamp in seconds; where t is zero there is none.
func (s *Scrape) When(m *Read, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.Is(m, float64(t.UnixMilli())/1e3, labels...)
	}
}

// Measured sets a histogram: within is how many values were no larger than each bound.
func (s *Scrape) Measured(m *Read, count uint64, sum float64, within map[float64]uint64, labels ...string) {
	s.out <- prometheus.MustNewConstHistogram(m.desc, count, sum, within, labels...)
}

// OnScrape has fn called at each scrape.
func (s *Set) OnScrape(fn func(*Scrape)) { s.scraped.fns = append(s.scraped.fns, fn) }

// scraped is the collector of what is looked up. It describes nothing, since what there
// is may differ from scrape to scrape.
type scraped struct{ fns []func(*Scrape) }

func (c *scraped) Describe(chan<- *prometheus.Desc) {}

func (c *scraped) Collect(out chan<- prometheus.Metric) {
	for _, fn := range c.fns {
		fn(&Scrape{out})
	}
}

// Format is the content type of what Write writes: OpenMetrics.
var Format = expfmt.NewFormat(expfmt.TypeOpenMetrics)

// Write writes all metrics of the registry in the form of OpenMetrics.
func Write(w io.Writer, from prometheus.Gatherer) error {
	families, err := from.Gather()
	if err != nil {
		return fmt.Errorf("gathering metrics: %w", err)
	}
	enc := expfmt.NewEncoder(w, Format)
	for _, family := range families {
		if err := enc.Encode(family); err != nil {
			return fmt.Errorf("writing metrics: %w", err)
		}
	}
	if closer, ok := enc.(expfmt.Closer); ok {
		return closer.Close()
	}
	return nil
}

// Table is the documentation of the rows: a table in Markdown, without the prefix, which
// all of them have.
func Table(prefix string, rows []Row) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "| `%s…` | | labels | |\n|---|---|---|---|\n", prefix)
	for i := range rows {
		r := &rows[i]
		labels := make([]string, len(r.Labels))
		for j, l := range r.Labels {
			values := l.Bound
			if len(l.Values) > 0 {
				values = "`" + strings.Join(l.Values, "` `") + "`"
			}
			labels[j] = "`" + l.Name + "`: " + values
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", strings.TrimPrefix(r.Name, prefix), r.Kind, strings.Join(labels, "; "), r.Help)
	}
	return out.String()
}
