// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"fmt"
	"html"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// picturesVariable names a directory in which the picture of the dashboard is kept.
const picturesVariable = "SHOTS"

// Sizes of the picture, in pixels: Grafana's grid has 24 columns.
const (
	cellWidth, cellHeight = 60, 30
	gap                   = 8
	pictureInterval       = "30s"
)

// Colours that can be told apart, also by those who see fewer of them.
var colours = []string{"#0072b2", "#d98200", "#009e73", "#cc5a94", "#3f9fd6", "#c8501e", "#7a63b8", "#70757a", "#9a8200", "#1b4f72"}

// picture draws the answers to the queries of the dashboard, panel by panel, where they are to be kept. It is no
// Grafana: it shows what the queries come to.
func (p *prometheus) picture(t *testing.T, d dashboard, began time.Time) {
	t.Helper()
	dir := os.Getenv(picturesVariable)
	if dir == "" {
		return
	}
	s := &svg{}
	height, now := 0, time.Now()
	for _, panel := range d.Panels {
		x, y := panel.GridPos.X*cellWidth, panel.GridPos.Y*cellHeight
		s.begin(x, y)
		if panel.Type == "row" {
			s.text(gap, 20, 15, "#1f2328", "start", "bold", panel.Title)
		} else {
			b := box{w: panel.GridPos.W*cellWidth - gap, h: panel.GridPos.H*cellHeight - gap}
			fmt.Fprintf(&s.out, `<rect width="%d" height="%d" rx="4" fill="#fff" stroke="#d4d9de"/>`, b.w, b.h)
			s.text(10, 18, 12, "#1f2328", "start", "bold", panel.Title)
			switch panel.Type {
			case "timeseries":
				s.lines(b, panel, p.over(t, panel, began, now), float64(began.Unix()), float64(now.Unix()))
			case "table":
				s.table(b, panel, p.now(t, panel))
			case "bargauge":
				s.bars(b, panel, p.now(t, panel))
			default:
				s.numbers(b, panel, p.now(t, panel))
			}
		}
		s.end()
		height = max(height, y+panel.GridPos.H*cellHeight)
	}
	width := 24*cellWidth + gap
	text := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, 'DejaVu Sans', sans-serif"><rect width="%[1]d" height="%[2]d" fill="#f3f5f7"/><g transform="translate(%d,%[3]d)">%s</g></svg>`,
		width, height+2*gap, gap, s.out.String())
	if err := os.WriteFile(filepath.Join(dir, "dashboard.svg"), []byte(text+"\n"), 0o600); err != nil {
		t.Error(err)
	}
}

// named is a series with the name that its legend gives it, and the query that it is of.
type named struct {
	series
	name  string
	query int
}

// now are the answers to a panel's queries at this time.
func (p *prometheus) now(t *testing.T, of panel) []named {
	t.Helper()
	var all []named
	for i, q := range of.Targets {
		found, err := p.shown(asked(q.Expr, pictureInterval))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found {
			all = append(all, named{s, legend(q.LegendFormat, s.Metric), i})
		}
	}
	return all
}

// over are the answers since a time.
func (p *prometheus) over(t *testing.T, of panel, began, now time.Time) []named {
	t.Helper()
	var all []named
	for i, q := range of.Targets {
		var d struct{ Result []series }
		if err := p.ask("query_range", url.Values{
			"query": {asked(q.Expr, pictureInterval)}, "start": {fmt.Sprint(began.Unix())}, "end": {fmt.Sprint(now.Unix())}, "step": {"3"},
		}, &d); err != nil {
			t.Fatal(err)
		}
		for _, s := range d.Result {
			all = append(all, named{s, legend(q.LegendFormat, s.Metric), i})
		}
	}
	return all
}

// legend fills in a format of Grafana's.
func legend(format string, labels map[string]string) string {
	for name, value := range labels {
		format = strings.ReplaceAll(format, "{{"+name+"}}", value)
	}
	return format
}

// svg is a picture that is being drawn.
type svg struct{ out strings.Builder }

type box struct{ w, h int }

func (s *svg) begin(x, y int) { fmt.Fprintf(&s.out, `<g transform="translate(%d,%d)">`, x, y) }
func (s *svg) end()           { s.out.WriteString("</g>\n") }

func (s *svg) text(x, y float64, size int, colour, anchor, weight, text string) {
	fmt.Fprintf(&s.out, `<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s" font-weight="%s">%s</text>`, x, y, size, colour, anchor, weight, html.EscapeString(text))
}

// cut shortens a text to a width, at about 11 pixels.
func cut(text string, width float64) string {
	most := max(int(width/6.8), 2)
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// lines draws series between two times, stacked where the panel says so.
func (s *svg) lines(b box, of panel, all []named, from, to float64) {
	left, top, right := 52.0, 30.0, float64(b.w-12)
	perRow := max(1, min((b.w-20)/150, len(all)))
	rows := min((len(all)+perRow-1)/perRow, 3)
	bottom := float64(b.h - 26 - 15*rows)
	stacked := of.FieldConfig.Defaults.Custom.Stacking.Mode == "normal"
	// Each series as a height at each time; where it has no value it has none.
	heights := make([]map[float64]float64, len(all))
	floor := map[float64]float64{}
	most := of.FieldConfig.Defaults.Max
	for i, one := range all {
		heights[i] = map[float64]float64{}
		for _, v := range one.Values {
			if math.IsNaN(v.value) || math.IsInf(v.value, 0) {
				continue
			}
			value := v.value
			if stacked {
				value += floor[v.at]
				floor[v.at] = value
			}
			heights[i][v.at] = value
			most = math.Max(most, value)
		}
	}
	most = nice(most)
	for i := range 5 {
		y := bottom - (bottom-top)*float64(i)/4
		fmt.Fprintf(&s.out, `<path d="M%.0f %.1fH%.0f" stroke="#e6e9ec"/>`, left, y, right)
		if i%2 == 0 {
			s.text(left-5, y+4, 10, "#5a6068", "end", "normal", written(most*float64(i)/4, of.FieldConfig.Defaults.Unit))
		}
	}
	s.text(left, bottom+13, 10, "#5a6068", "start", "normal", written(from-to, "s"))
	s.text(right, bottom+13, 10, "#5a6068", "end", "normal", "now")
	for i := len(all) - 1; i >= 0; i-- {
		times := slices.Sorted(maps.Keys(heights[i]))
		var path strings.Builder
		last := math.Inf(-1)
		for _, at := range times {
			command := "L"
			if at-last > 5 {
				command = "M"
			}
			last = at
			fmt.Fprintf(&path, "%s%.1f %.1f", command, left+(right-left)*(at-from)/math.Max(to-from, 1), bottom-(bottom-top)*heights[i][at]/most)
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(&s.out, `<path d="%s" fill="none" stroke="%s" stroke-width="%s" stroke-linecap="round"/>`, path.String(), colour, map[bool]string{false: "1.5", true: "2.2"}[stacked])
	}
	for i, one := range all {
		if i >= rows*perRow {
			break
		}
		name := one.name
		if i == rows*perRow-1 && len(all) > rows*perRow {
			name = fmt.Sprintf("and %d more", len(all)-i)
		}
		x, y := 12+float64(i%perRow)*float64(b.w-20)/float64(perRow), bottom+28+float64(15*(i/perRow))
		fmt.Fprintf(&s.out, `<rect x="%.1f" y="%.1f" width="9" height="3" fill="%s"/>`, x, y-5, colours[i%len(colours)])
		s.text(x+13, y, 10, "#1f2328", "start", "normal", cut(name, float64(b.w-20)/float64(perRow)-16))
	}
}

// nice is the next round number.
func nice(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 4, 10} {
		if v <= step*power*1.0001 {
			return step * power
		}
	}
	return v
}

// numbers draws values with their names.
func (s *svg) numbers(b box, of panel, all []named) {
	each := float64(b.h-34) / float64(max(len(all), 1))
	for i, one := range all {
		middle := 30 + each*(float64(i)+0.5)
		size := int(math.Min(each*0.45, 30))
		s.text(float64(b.w)/2, middle+float64(size)/4, size, threshold(of, one.Value.value), "middle", "bold", s.mapped(of, "", one.Value.value))
		s.text(float64(b.w)/2, middle+float64(size)/4+15, 11, "#5a6068", "middle", "normal", one.name)
	}
}

// bars draws a bar for each value.
func (s *svg) bars(b box, of panel, all []named) {
	most := 0.0
	for _, one := range all {
		most = math.Max(most, one.Value.value)
	}
	each := float64(b.h-36) / float64(max(len(all), 1))
	left := float64(b.w) * 0.34
	room := float64(b.w) - left - 70
	for i, one := range all {
		y := 30 + each*float64(i)
		thick := math.Min(each*0.66, 18)
		s.text(left-8, y+thick/2+4, 11, "#1f2328", "end", "normal", cut(one.name, left-12))
		s.bar(left, y, room, thick, "#e6e9ec")
		s.bar(left, y, room*one.Value.value/math.Max(most, 1e-9), thick, threshold(of, one.Value.value))
		s.text(left+room+6, y+thick/2+4, 11, "#1f2328", "start", "normal", s.mapped(of, "", one.Value.value))
	}
}

// threshold is the colour that a panel gives to a value.
func threshold(of panel, value float64) string {
	colour := colours[0]
	for _, step := range of.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			colour = map[string]string{"green": "#0b6b4f", "orange": "#a85c00", "red": "#b3261e"}[step.Color]
		}
	}
	return colour
}

func (s *svg) bar(x, y, width, height float64, colour string) {
	fmt.Fprintf(&s.out, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, width, height, colour)
}

// table draws the answers as Grafana does: those with the same labels in one line.
func (s *svg) table(b box, of panel, all []named) {
	rename, hidden := map[string]string{}, map[string]bool{"__name__": true}
	for _, tr := range of.Transformations {
		maps.Copy(rename, tr.Options.RenameByName)
		maps.Copy(hidden, tr.Options.ExcludeByName)
	}
	var columns []string
	lines, order := map[string]map[string]string{}, []string{}
	column := func(name string) {
		if !slices.Contains(columns, name) {
			columns = append(columns, name)
		}
	}
	for _, one := range all {
		key := fmt.Sprint(one.Metric)
		if lines[key] == nil {
			lines[key] = map[string]string{}
			order = append(order, key)
			for _, label := range slices.Sorted(maps.Keys(one.Metric)) {
				if !hidden[label] {
					column(label)
					lines[key][label] = one.Metric[label]
				}
			}
		}
		value := "Value"
		if len(of.Targets) > 1 {
			value = "Value #" + of.Targets[one.query].RefID
		}
		value = cmp.Or(rename[value], value)
		column(value)
		lines[key][value] = s.mapped(of, value, one.Value.value)
	}
	// Columns are as wide as what they hold.
	wide := func(name string) (most float64) {
		most = float64(len(name)) * 1.15
		for _, line := range lines {
			most = math.Max(most, float64(len(line[name])))
		}
		return most + 2
	}
	total := 0.0
	for _, name := range columns {
		total += wide(name)
	}
	at, widths := []float64{}, []float64{}
	for x := 10.0; len(at) < len(columns); x += widths[len(widths)-1] {
		widths = append(widths, float64(b.w-20)*wide(columns[len(at)])/math.Max(total, 1))
		at = append(at, x)
	}
	for i, name := range columns {
		s.text(at[i], 42, 11, "#5a6068", "start", "bold", cut(name, widths[i]))
	}
	for n, key := range order {
		y := 62 + float64(20*n)
		if y > float64(b.h)-6 {
			break
		}
		fmt.Fprintf(&s.out, `<path d="M10 %.1fH%d" stroke="#e6e9ec"/>`, y-14, b.w-10)
		for i, name := range columns {
			s.text(at[i], y, 11, "#1f2328", "start", "normal", cut(lines[key][name], widths[i]))
		}
	}
}

// mapped is a value as the panel shows it: in words, or in its unit; column is empty where there are none.
func (s *svg) mapped(of panel, column string, value float64) string {
	unit := of.FieldConfig.Defaults.Unit
	for _, m := range of.FieldConfig.Defaults.Mappings {
		if word := m.Options[fmt.Sprint(value)].Text; word != "" {
			return word
		}
	}
	for _, o := range of.FieldConfig.Overrides {
		if o.Matcher.Options != column {
			continue
		}
		for _, property := range o.Properties {
			switch v := property.Value.(type) {
			case string:
				unit = v
			case []any:
				for _, m := range v {
					options, _ := m.(data)["options"].(data)
					if word, ok := options[fmt.Sprint(value)].(data); ok {
						return fmt.Sprint(word["text"])
					}
				}
			}
		}
	}
	if d := of.FieldConfig.Defaults.Decimals; d != nil && *d == 0 {
		value = math.Round(value)
	}
	return written(value, unit)
}

// written is a value in its unit, as Grafana calls it.
func written(v float64, unit string) string {
	short := func(v float64) string {
		switch a := math.Abs(v); {
		case a >= 1e6:
			return fmt.Sprintf("%.1fM", v/1e6)
		case a >= 1e4:
			return fmt.Sprintf("%.1fk", v/1e3)
		case a == math.Trunc(a):
			return fmt.Sprintf("%.0f", v)
		case a >= 10:
			return fmt.Sprintf("%.1f", v)
		default:
			return fmt.Sprintf("%.2g", v)
		}
	}
	duration := func(v float64) string {
		switch a := math.Abs(v); {
		case a == 0:
			return "0 s"
		case a < 1e-3:
			return short(math.Round(v*1e7)/10) + " µs"
		case a < 1:
			return short(math.Round(v*1e4)/10) + " ms"
		case a < 120:
			return short(math.Round(v*10)/10) + " s"
		case a < 7200:
			return short(math.Round(v/60)) + " min"
		case a < 2*86400:
			return short(math.Round(v/3600)) + " h"
		default:
			return short(math.Round(v/86400)) + " d"
		}
	}
	switch unit {
	case "s":
		return duration(v)
	case "ops":
		return short(math.Round(v*100)/100) + "/s"
	case "percentunit":
		return short(math.Round(v*1000)/10) + "%"
	case "dateTimeFromNow":
		from := v/1e3 - float64(time.Now().Unix())
		if from < 0 {
			return duration(-from) + " ago"
		}
		return "in " + duration(from)
	default:
		return short(math.Round(v*100) / 100)
	}
}
