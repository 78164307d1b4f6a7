// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"fmt"
	"strconv"
	"time"
)

// Drawings are SVG whose widths are parts of the page's: they fit a telephone and a sheet
// of paper, and their letters stay as large as the page's.

const (
	chartHeight = 120
	// mostBars is how many a chart has room for; beyond it each stands for several days.
	mostBars = 92
)

func percent(part, whole float64) string {
	return strconv.FormatFloat(100*part/whole, 'f', 2, 64) + "%"
}

// chart is what comes by day.
func (p *page) chart(r *report) chartView {
	per := (len(r.days) + mostBars - 1) / mostBars
	n := (len(r.days) + per - 1) / per
	sums := make([]daySum, n)
	var total daySum
	top := 0
	for i, d := range r.days {
		s := &sums[i/per]
		s.rotations += d.rotations
		s.ends += d.ends
		s.expiries += d.expiries
		total.rotations += d.rotations
		total.ends += d.ends
		total.expiries += d.expiries
		top = max(top, s.rotations+s.ends+s.expiries)
	}
	v := chartView{Sum: total.words(), Any: top > 0, Unit: "a day"}
	if per > 1 {
		v.Unit = "in " + count(per, "day")
	}
	top = niceTop(top)
	v.Top = number(top)
	if top%2 == 0 {
		v.Half = number(top / 2)
	}
	start := r.now.UTC()
	for i, s := range sums {
		from, to := start.Add(time.Duration(i*per)*day), start.Add(time.Duration((i+1)*per)*day)
		title := fmt.Sprintf("%s to %s UTC: %s", from.Format("2 Jan 15:04"), to.Format("2 Jan 15:04"), s.words())
		y := float64(chartHeight)
		for _, part := range []struct {
			n     int
			class string
		}{{s.rotations, "rotation"}, {s.ends, "ends"}, {s.expiries, "expiry"}} {
			if part.n == 0 {
				continue
			}
			// One of many must still be seen.
			h := max(1.5, float64(part.n)/float64(top)*(chartHeight-8))
			y -= h
			v.Bars = append(v.Bars, barView{
				X: percent(float64(i)+0.12, float64(n)), Width: percent(0.76, float64(n)), Y: fmt.Sprintf("%.1f", y), Height: fmt.Sprintf("%.1f", h), Class: part.class, Title: title,
			})
		}
	}
	ticks := min(6, n)
	for i := range ticks {
		at := i * n / ticks
		label := start.Add(time.Duration(at*per) * day).Format("2 Jan")
		if i == 0 {
			label = "now"
		}
		v.Ticks = append(v.Ticks, tickView{X: percent(float64(at), float64(n)), Label: label, Anchor: "start"})
	}
	return v
}

func (s *daySum) words() string {
	expiries := "1 expiry"
	if s.expiries != 1 {
		expiries = number(s.expiries) + " expiries"
	}
	return fmt.Sprintf("%s, %s of graces, %s", count(s.rotations, "rotation"), count(s.ends, "end"), expiries)
}

// niceTop is the next number that reads well at an axis.
func niceTop(n int) int {
	for unit := 1; ; unit *= 10 {
		for _, m := range []int{1, 2, 4, 5, 6, 8, 10} {
			if m*unit >= n {
				return max(2, m*unit)
			}
		}
	}
}

// laneSpan is what the time line shows on each side of now.
func laneSpan(r *report) time.Duration { return min(r.horizon.Sub(r.now), 90*day) }

func (p *page) lanes(r *report, v *pageView) {
	half := laneSpan(r)
	start, whole := r.now.Add(-half), 2*half
	at := func(t time.Time) float64 { return min(max(float64(t.Sub(start)), 0), float64(whole)) }
	bar := func(from, to time.Time, y, height, class, title string) (barView, bool) {
		a, b := at(from), at(to)
		if b <= 0 || a >= float64(whole) || b <= a {
			return barView{}, false
		}
		// What is short must still be seen.
		b = max(b, a+float64(whole)/250)
		return barView{X: percent(a, float64(whole)), Width: percent(b-a, float64(whole)), Y: y, Height: height, Class: class, Title: title}, true
	}
	for i := range 5 {
		t := start.Add(whole / 4 * time.Duration(i))
		tick := tickView{X: percent(float64(i), 4), Label: t.UTC().Format("2 Jan"), Anchor: [...]string{"start", "middle", "middle", "middle", "end"}[i]}
		if i == 2 {
			tick.Label = "now"
		}
		v.LaneTicks = append(v.LaneTicks, tick)
	}
	v.LanesLeft = more(r.lanes.left())
	for _, l := range r.lanes.list() {
		ro := l.role
		row := laneView{Role: ro.Name, Owner: p.owner(ro.Owner), Next: p.when(ro.NextRotation.Time, r.now)}
		row.Version, row.Age = versionAndAge(r, ro)
		if ro.NextRotation.IsZero() {
			row.Why = why(ro)
		}
		put := func(b barView, ok bool) {
			if ok {
				row.Bars = append(row.Bars, b)
			}
		}
		put2 := func(from, to time.Time, y, height, class, format string, args ...any) {
			put(bar(from, to, y, height, class, fmt.Sprintf(format, args...)))
		}
		if l.more != nil {
			p.past(l, put2)
		}
		end := r.now.Add(half)
		if at := ro.NextRotation.Time; !at.IsZero() {
			end = at
		}
		if at := ro.Expires.Time; !at.IsZero() && at.Before(end) {
			end = at
		}
		if ro.CurrentVersion > 0 {
			put2(ro.CurrentSince.Time, r.now, "4", "9", "cur", "version %d, current since %s", ro.CurrentVersion, ro.CurrentSince)
			if end.After(r.now) {
				put2(r.now, end, "4", "9", "plan", "version %d, until %s", ro.CurrentVersion, end.UTC().Format(time.RFC3339))
			}
		}
		if ro.PreviousVersion > 0 && !ro.PreviousUntil.IsZero() {
			class, use := "grace", "not in use"
			if ro.PreviousInUse {
				class, use = "used", "still in use"
			}
			put2(latestOf(ro.CurrentSince.Time, start), ro.PreviousUntil.Time, "14", "5", class, "grace of version %d until %s, %s", ro.PreviousVersion, ro.PreviousUntil, use)
		}
		mark := func(t time.Time, class, title string) {
			if x := float64(t.Sub(start)); !t.IsZero() && x >= 0 && x <= float64(whole) {
				row.Marks = append(row.Marks, barView{X: percent(x, float64(whole)), Class: class, Title: title})
			}
		}
		mark(ro.NextRotation.Time, "rotation", "rotates "+ro.NextRotation.String())
		mark(ro.Expires.Time, "expiry", "expires "+ro.Expires.String())
		row.Label = fmt.Sprintf("%s: %s, next rotation %s", ro.Name, row.Version, orElse(ro.NextRotation.String(), "not planned"))
		v.Lanes = append(v.Lanes, row)
	}
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// past draws the versions before the current one, each up to the activation of the next.
func (p *page) past(l *lane, put func(from, to time.Time, y, height, class, format string, args ...any)) {
	to := l.role.CurrentSince.Time
	for i := range l.more.Versions { // newest first
		v := &l.more.Versions[i]
		if v.Version >= l.role.CurrentVersion || v.Activated.IsZero() || to.IsZero() {
			continue
		}
		until := to
		if !v.Ended.IsZero() && v.Ended.Before(until) {
			until = v.Ended.Time
		}
		class := "past"
		if v.Version%2 == 1 {
			class = "past odd"
		}
		put(v.Activated.Time, until, "4", "9", class, "version %d, %s", v.Version, v.State)
		to = v.Activated.Time
	}
}

// ageName is how a class of ages is called.
func ageName(i int) string {
	return [...]string{"under 1 day", "1 to 7 days", "7 to 30 days", "30 to 90 days", "90 to 180 days", "180 days to 1 year", "over 1 year"}[i]
}

func ages(r *report) []ageView {
	top, all := 0, 0
	for _, n := range r.ages {
		top, all = max(top, n), all+n
	}
	v := make([]ageView, len(r.ages))
	for i, n := range r.ages {
		v[i] = ageView{Label: ageName(i), Count: number(n), Width: "0%", Share: "0 %"}
		if i == len(r.ages)-1 {
			v[i].Class = "old"
		}
		if n > 0 {
			v[i].Width = percent(max(float64(n), float64(top)/100), float64(top))
			v[i].Share = strconv.FormatFloat(100*float64(n)/float64(all), 'f', 0, 64) + " %"
			if 100*n < all {
				v[i].Share = "< 1 %"
			}
		}
	}
	return v
}
