// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What bootstrap/dashboards and docs/monitoring.md say of each other and of the metrics. Whether Prometheus takes the
// files is asked of its own tools, by make monitoring.

var dashboards = filepath.Join("..", "bootstrap", "dashboards")

// rule is one alert rule.
type rule struct {
	name, expr, wait, severity    string
	summary, description, runbook string
}

// alertRules reads alerts.yml, which is written in one form throughout: a line for each member, texts in double quotes,
// long queries as blocks. That it is YAML, promtool says.
func alertRules(t *testing.T) []rule {
	t.Helper()
	var rules []rule
	var block *string
	for n, line := range strings.Split(readFile(t, filepath.Join(dashboards, "alerts.yml")), "\n") {
		text, inBlock := strings.CutPrefix(line, "          ")
		member, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case block != nil && inBlock:
			*block += text + "\n"
			continue
		case member == "- alert":
			rules = append(rules, rule{name: value})
		case len(rules) == 0 || strings.HasPrefix(member, "#"):
		default:
			r := &rules[len(rules)-1]
			to := map[string]*string{
				"expr": &r.expr, "for": &r.wait, "severity": &r.severity, "summary": &r.summary, "description": &r.description, "runbook_url": &r.runbook,
			}[member]
			if block = nil; to == nil {
				break
			}
			if *to != "" {
				t.Fatalf("alerts.yml:%d: %s of %s is there twice", n+1, member, r.name)
			}
			if value == "|" {
				block = to
				break
			}
			if strings.HasPrefix(value, `"`) {
				plain, err := strconv.Unquote(value)
				if err != nil {
					t.Fatalf("alerts.yml:%d: %v", n+1, err)
				}
				value = plain
			}
			*to = value
		}
	}
	if len(rules) < 20 {
		t.Fatalf("alerts.yml has %d rules", len(rules))
	}
	return rules
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// target is a query of a panel.
type target struct {
	RefID, Expr, LegendFormat, Format string
	Instant                           bool
	Datasource                        struct{ Type, UID string }
}

// panel is a part of the dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []target
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Max        float64
			Decimals   *int
			Custom     struct{ Stacking struct{ Mode string } }
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Mappings []struct {
				Options map[string]struct{ Text string }
			}
		}
		Overrides []struct {
			Matcher    struct{ Options string }
			Properties []struct {
				ID    string
				Value any
			}
		}
	}
	Transformations []struct {
		ID      string
		Options struct {
			ExcludeByName map[string]bool
			RenameByName  map[string]string
		}
	}
}

// dashboard is what Grafana imports.
type dashboard struct {
	UID, Title string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func grafana(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(dashboards, "grafana.json"))), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// anchors are the headings of a page, as they are linked to, with how often each is there.
func anchors(page string) map[string]int {
	found := map[string]int{}
	for line := range strings.Lines(page) {
		if m := heading.FindStringSubmatch(line); m != nil {
			found[strings.ReplaceAll(notOfAnchors.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), ""), " ", "-")]++
		}
	}
	return found
}

var (
	heading      = regexp.MustCompile(`^#+ (.*)`)
	notOfAnchors = regexp.MustCompile(`[^a-z0-9 _-]`)
	metricName   = regexp.MustCompile(`\bapikeys_[a-z_]+`)
	metricRow    = regexp.MustCompile("^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\|")
	metricPrefix = regexp.MustCompile(`^<!-- (apikeys_[a-z_]*) -->$`)
)

// TestAlertsLead: each alert says what it is, and leads to a heading that says what to do; each has a unit test of
// when it fires and one of when it does not.
func TestAlertsLead(t *testing.T) {
	const page = "https://github.com/vault-apikeys/vault-plugin-secrets-apikeys/blob/main/docs/monitoring.md#"
	headings := anchors(readFile(t, filepath.Join("..", "docs", "monitoring.md")))
	tests := strings.Split(readFile(t, filepath.Join(dashboards, "alerts_test.yml")), "\n      - eval_time: ")
	seen := map[string]bool{}
	for _, r := range alertRules(t) {
		if seen[r.name] {
			t.Errorf("%s is there twice", r.name)
		}
		seen[r.name] = true
		if !slices.Contains([]string{"critical", "warning", "info"}, r.severity) || r.expr == "" || r.summary == "" || !strings.HasSuffix(r.description, ".") || strings.HasSuffix(r.summary, ".") {
			t.Errorf("%+v", r)
		}
		anchor := strings.TrimPrefix(r.runbook, page)
		if anchor != strings.ToLower(r.name) || headings[anchor] != 1 {
			t.Errorf("%s leads to %s, which docs/monitoring.md has %d times", r.name, r.runbook, headings[anchor])
		}
		fires, not := 0, 0
		for _, c := range tests {
			if !strings.Contains(c, "\n        alertname: "+r.name+"\n") {
				continue
			}
			if strings.Contains(c, "exp_alerts: []") {
				not++
			} else {
				fires++
			}
		}
		if fires == 0 || not == 0 {
			t.Errorf("%s: %d cases in which it fires, %d in which it does not", r.name, fires, not)
		}
	}
	for anchor := range headings {
		if strings.HasPrefix(anchor, "apikeys") && !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(name string) bool { return strings.ToLower(name) == anchor }) {
			t.Errorf("docs/monitoring.md tells of an alert that there is not: %s", anchor)
		}
	}
	for _, name := range regexp.MustCompile(`Apikeys\w+`).FindAllString(readFile(t, filepath.Join(dashboards, "alertmanager.yml")), -1) {
		if !seen[name] {
			t.Errorf("alertmanager.yml names an alert that there is not: %s", name)
		}
	}
}

// documentedMetrics are the metrics of docs/metrics.md, with their kinds.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	prefix := ""
	for line := range strings.Lines(readFile(t, filepath.Join("..", "docs", "metrics.md"))) {
		if m := metricPrefix.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			prefix = m[1]
		}
		if m := metricRow.FindStringSubmatch(line); m != nil {
			all[prefix+m[1]] = m[2]
		}
	}
	if len(all) < 40 {
		t.Fatalf("docs/metrics.md has %d metrics", len(all))
	}
	return all
}

// TestQueriesNameMetrics: rules, their tests, dashboard and guide name metrics that there are, and the dashboard shows
// all that there are.
func TestQueriesNameMetrics(t *testing.T) {
	known := documentedMetrics(t)
	base := func(name string) string {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if of, ok := strings.CutSuffix(name, part); ok && known[of] == "histogram" {
				return of
			}
		}
		return name
	}
	for _, file := range []string{"alerts.yml", "alerts_test.yml", "grafana.json", "prometheus.yml", "../../docs/monitoring.md"} {
		for _, name := range metricName.FindAllString(readFile(t, filepath.Join(dashboards, file)), -1) {
			if known[base(name)] == "" {
				t.Errorf("%s names a metric that docs/metrics.md has not: %s", file, name)
			}
			if base(name) == name && known[name] == "histogram" && file != "../../docs/monitoring.md" {
				t.Errorf("%s asks for a histogram as a whole: %s", file, name)
			}
		}
	}
	shown := map[string]bool{}
	for _, p := range grafana(t).Panels {
		for _, q := range p.Targets {
			for _, name := range metricName.FindAllString(q.Expr, -1) {
				shown[base(name)] = true
			}
		}
	}
	// What is for comparing targets, and what a threshold needs.
	elsewhere := []string{"apikeys_edge_feed_window_seconds", "apikeys_problems_listed", "apikeys_proxy_build_info"}
	for name := range known {
		if shown[name] == slices.Contains(elsewhere, name) {
			t.Errorf("%s is shown: %v", name, shown[name])
		}
	}
}

// TestDashboard: each panel can be read by itself, and none is there twice.
func TestDashboard(t *testing.T) {
	d := grafana(t)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if d.UID == "" || d.Title == "" || !slices.Equal(variables, []string{"datasource", "engine"}) {
		t.Errorf("%s, %s, variables %q", d.UID, d.Title, variables)
	}
	ids, titles, queries, taken := map[int]bool{}, map[string]bool{}, map[string]string{}, map[[2]int]string{}
	rows := 0
	for _, p := range d.Panels {
		if ids[p.ID] || titles[p.Title] {
			t.Errorf("%s (%d) is there twice", p.Title, p.ID)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" || at[0] > 23 {
					t.Fatalf("%s lies upon %s, or beyond the right side", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			rows++
			continue
		}
		if rows == 0 || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s stands in no part, or lacks a description, a unit or queries", p.Title)
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" || !strings.Contains(q.Expr, `engine=~"$engine"`) {
				t.Errorf("%s: %s ignores a variable", p.Title, q.Expr)
			}
			if p.Type == "table" != (q.Format == "table") || p.Type != "table" && q.LegendFormat == "" || p.Type == "timeseries" == q.Instant {
				t.Errorf("%s: %s is not in the form of a %s", p.Title, q.Expr, p.Type)
			}
			if of := queries[q.Expr]; of != "" {
				t.Errorf("%s and %s ask the same: %s", of, p.Title, q.Expr)
			}
			queries[q.Expr] = p.Title
		}
	}
	if rows != 7 {
		t.Errorf("%d parts", rows)
	}
	// The guide has a row for each part.
	guide := readFile(t, filepath.Join("..", "docs", "monitoring.md"))
	for _, p := range d.Panels {
		if name, _, _ := strings.Cut(p.Title, " ("); p.Type == "row" && !strings.Contains(guide, "\n| "+name+" | ") {
			t.Errorf("docs/monitoring.md does not tell of %s", name)
		}
	}
}
