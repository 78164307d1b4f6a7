// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"archive/zip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedules against a reference that looks at the clock of a zone minute by
// minute, around the changes of every zone.

// zone is one of those that a schedule may name. Its changes are those of the
// years tested.
type zone struct {
	name    string
	loc     *time.Location
	changes []int64
}

// zoneData are the zones of time/tzdata, which the plugin carries, by name. The
// machine's own may be others.
var zoneData = sync.OnceValues(func() (map[string][]byte, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src", "time", "tzdata", "zzipdata.go"))
	if err != nil {
		return nil, err
	}
	_, quoted, _ := strings.Cut(string(source), "const zipdata = ")
	data, err := strconv.Unquote(strings.TrimSpace(quoted))
	if err != nil {
		return nil, fmt.Errorf("time/tzdata: %w", err)
	}
	archive, err := zip.NewReader(strings.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	zones := map[string][]byte{}
	for _, file := range archive.File {
		// The archive has no checksums to verify, so it is read as it lies there.
		raw, err := file.OpenRaw()
		if err != nil {
			return nil, err
		}
		if zones[file.Name], err = io.ReadAll(raw); err != nil {
			return nil, err
		}
	}
	return zones, nil
})

func zoneNames(t testing.TB) []string {
	t.Helper()
	data, err := zoneData()
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) < 500 || !slices.Contains(names, "Asia/Beirut") {
		t.Fatalf("only %d zones are found", len(names))
	}
	return names
}

func embedded(t testing.TB, name string) *time.Location {
	t.Helper()
	data, err := zoneData()
	if err != nil {
		t.Fatal(err)
	}
	loc, err := time.LoadLocationFromTZData(name, data[name])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return loc
}

// distinctZones are the zones that differ in offset or changes in a span of
// time, each under the first of its names.
func distinctZones(t testing.TB, from, to time.Time) []zone {
	t.Helper()
	var zones []zone
	seen := map[string]bool{}
	for _, name := range zoneNames(t) {
		z := zone{name: name, loc: embedded(t, name)}
		like := strconv.Itoa(offsetAt(z.loc, from.Unix()))
		for _, change := range changesOf(z.loc, from.Unix(), to.Unix()) {
			z.changes = append(z.changes, change)
			like += fmt.Sprintf(" %d:%d", change, offsetAt(z.loc, change))
		}
		if !seen[like] {
			seen[like] = true
			zones = append(zones, z)
		}
	}
	return zones
}

func offsetAt(loc *time.Location, at int64) int {
	_, offset := time.Unix(at, 0).In(loc).Zone()
	return offset
}

// changesOf are the instants at which the clocks change: those between two looks
// at the offset that differ.
func changesOf(loc *time.Location, from, to int64) []int64 {
	const look = 12 * 60 * 60
	var changes []int64
	for at, offset := from, offsetAt(loc, from); at < to; at += look {
		after := offsetAt(loc, at+look)
		if after == offset {
			continue
		}
		before, reached := at, at+look
		for reached-before > 1 {
			if middle := (before + reached) / 2; offsetAt(loc, middle) == offset {
				before = middle
			} else {
				reached = middle
			}
		}
		changes = append(changes, reached)
		at, offset = reached-look, offsetAt(loc, reached)
	}
	return changes
}

// face is what a clock shows at a full minute.
type face struct {
	minute, hour, day, month, weekday int
}

func faceAt(t time.Time) face {
	return face{t.Minute(), t.Hour(), t.Day(), int(t.Month()), int(t.Weekday())}
}

// minute is a full one on the clock.
type minute struct {
	n int64 // since 1970
	face
}

// tick is an instant at which the clock comes to full minutes: to one, or beyond
// several that it skips, the last of which it may show.
type tick struct {
	at      int64
	minutes []minute
	shows   bool // the last one
}

// ticks reads the clock of a zone step by step.
func ticks(loc *time.Location, from, to int64) []tick {
	step := int64(60)
	from = floor(from, step) * step
	for at := from; at <= to; at += 60 * 60 {
		if offsetAt(loc, at)%60 != 0 {
			step = 1
		}
	}
	var all []tick
	last := localAt(loc, from-step)
	for at := from; at <= to; at += step {
		local := localAt(loc, at)
		full := local%60 == 0
		t := tick{at: at, shows: full}
		if local < last { // turned back
			if full {
				t.minutes = []minute{minuteOf(local / 60)}
			}
		} else {
			for m := floor(last, 60) + 1; m*60 <= local; m++ {
				t.minutes = append(t.minutes, minuteOf(m))
			}
		}
		if len(t.minutes) > 0 {
			all = append(all, t)
		}
		last = local
	}
	return all
}

func minuteOf(n int64) minute {
	return minute{n, faceAt(time.Unix(n*60, 0).UTC())}
}

func localAt(loc *time.Location, at int64) int64 {
	t := time.Unix(at, 0).In(loc)
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	return time.Date(year, month, day, hour, minute, second, 0, time.UTC).Unix()
}

// reference is when a schedule comes up, by the rules as they are told.
func reference(all []tick, everyHour bool, match func(face) bool) []int64 {
	var due []int64
	lowest, highest := all[0].minutes[0].n, all[0].minutes[0].n
	for _, t := range all {
		for _, m := range t.minutes {
			lowest, highest = min(lowest, m.n), max(highest, m.n)
		}
	}
	seen := make([]bool, highest-lowest+1)
	for _, t := range all {
		up := false
		for i, m := range t.minutes {
			here := t.shows && i == len(t.minutes)-1
			if everyHour && here || !everyHour && !seen[m.n-lowest] {
				up = up || match(m.face)
			}
			seen[m.n-lowest] = true
		}
		if up {
			due = append(due, t.at)
		}
	}
	return due
}

// tried are schedules and what they mean.
var tried = []struct {
	expr      string
	everyHour bool
	match     func(face) bool
}{
	{"*/7 * * * *", true, func(c face) bool { return c.minute%7 == 0 }},
	{"30 * * * *", true, func(c face) bool { return c.minute == 30 }},
	{"10,50 0-23 * * 0", true, func(c face) bool { return (c.minute == 10 || c.minute == 50) && c.weekday == 0 }},
	{"*/20 0-22 * * *", false, func(c face) bool { return c.minute%20 == 0 && c.hour <= 22 }},
	{"0 */2 * * *", false, func(c face) bool { return c.minute == 0 && c.hour%2 == 0 }},
	{"30 2 * * *", false, func(c face) bool { return c.minute == 30 && c.hour == 2 }},
	{"0 0 * * *", false, func(c face) bool { return c.minute == 0 && c.hour == 0 }},
	{"15,45 0,1,3,23 * * *", false, func(c face) bool {
		return (c.minute == 15 || c.minute == 45) && slices.Contains([]int{0, 1, 3, 23}, c.hour)
	}},
	{"0 3 * * 0", false, func(c face) bool { return c.minute == 0 && c.hour == 3 && c.weekday == 0 }},
	{"30 0 * * SAT,SUN", false, func(c face) bool { return c.minute == 30 && c.hour == 0 && (c.weekday == 6 || c.weekday == 0) }},
	{"59 1 1 * *", false, func(c face) bool { return c.minute == 59 && c.hour == 1 && c.day == 1 }},
	{"0 2 29 FEB ?", false, func(c face) bool { return c.minute == 0 && c.hour == 2 && c.day == 29 && c.month == 2 }},
	{"1 0 25-31 3,4,10 5", false, func(c face) bool {
		return c.minute == 1 && c.hour == 0 && (c.month == 3 || c.month == 4 || c.month == 10) && (c.day >= 25 || c.weekday == 5)
	}},
}

func inZone(t testing.TB, expr string, loc *time.Location) *scheduleCadence {
	t.Helper()
	return newSchedule(schedule(t, expr).wall, loc)
}

const (
	testedYears = 10
	aroundDays  = 3
)

// TestSchedulesAroundChanges takes one of some zones and schedules; all of them,
// and all the years over which distances are measured, with SCHEDULES=all.
func TestSchedulesAroundChanges(t *testing.T) {
	years, share := testedYears, 0.2
	if os.Getenv("SCHEDULES") == "all" {
		years, share = distanceYears, 1
	}
	zones := distinctZones(t, distanceEpoch, distanceEpoch.AddDate(years, 0, 0))
	random := rand.New(rand.NewPCG(1, 2)) // the same sample each time
	changes, up := 0, 0
	var mu sync.Mutex
	t.Run("zones", func(t *testing.T) {
		for _, z := range zones {
			var sample []int
			for i := range tried {
				if random.Float64() < share {
					sample = append(sample, i)
				}
			}
			t.Run(z.name, func(t *testing.T) {
				t.Parallel()
				n := aroundChanges(t, z, sample)
				mu.Lock()
				defer mu.Unlock()
				changes, up = changes+len(z.changes), up+n
			})
		}
	})
	t.Logf("%d zones, %d changes, %d activations", len(zones), changes, up)
	if len(zones) < 50 || changes < 500 || up < 10000 {
		t.Error("too few to say anything")
	}
}

func aroundChanges(t *testing.T, z zone, sample []int) (up int) {
	t.Helper()
	const day = 24 * 60 * 60
	var schedules []*scheduleCadence
	for _, i := range sample {
		schedules = append(schedules, inZone(t, tried[i].expr, z.loc))
	}
	for _, change := range z.changes {
		from, to := change-aroundDays*day, change+aroundDays*day
		all := ticks(z.loc, from-3*day, to) // what was shown before is not due again
		for k, i := range sample {
			want := slices.DeleteFunc(reference(all, tried[i].everyHour, tried[i].match), func(at int64) bool { return at < from })
			sameActivations(t, schedules[k], z.name+" "+tried[i].expr, want, from, to)
			up += len(want)
		}
	}
	return up
}

// sameActivations holds the activations of a schedule from one instant to
// another, both included, to those wanted.
func sameActivations(t testing.TB, s *scheduleCadence, what string, want []int64, from, to int64) {
	t.Helper()
	last := from - 1
	for _, at := range want {
		for _, near := range []time.Time{time.Unix(last, 0), time.Unix(last+(at-last)/2, 0), time.Unix(at, -1)} {
			if got := s.next(near); got.Unix() != at || got.Nanosecond() != 0 || got.Location() != time.UTC {
				t.Fatalf("%s after %s: %s, want %s", what, near.UTC(), got, time.Unix(at, 0).In(s.zone))
			}
		}
		if d := time.Duration(at-last) * time.Second; last >= from && (d < s.shortest || d > s.longest) {
			t.Fatalf("%s: %s before %s, measured %s to %s", what, d, time.Unix(at, 0).UTC(), s.shortest, s.longest)
		}
		last = at
	}
	if got := s.next(time.Unix(last, 0)); got.Unix() <= to {
		t.Fatalf("%s after %s: %s, want none up to %s", what, time.Unix(last, 0).UTC(), got, time.Unix(to, 0).UTC())
	}
}

// Changes of the past that rules of today have none of: days left out and days
// lived twice, offsets with seconds, half hours, two changes within a week. The
// clocks may do such things again.
func TestSchedulesAroundOddChanges(t *testing.T) {
	for _, c := range []struct{ zone, at string }{
		{"Pacific/Apia", "2011-12-30T10:00:00Z"},
		{"Pacific/Apia", "1892-07-04T12:00:00Z"},
		{"Pacific/Kwajalein", "1993-08-21T12:00:00Z"},
		{"Asia/Manila", "1844-12-31T16:00:00Z"},
		{"America/Juneau", "1867-10-18T12:00:00Z"},
		{"Africa/Monrovia", "1972-01-07T00:44:30Z"},
		{"Europe/Amsterdam", "1937-07-01T00:00:00Z"},
		{"Europe/Dublin", "1916-10-01T02:25:21Z"},
		{"Asia/Pyongyang", "2018-05-04T15:00:00Z"},
		{"America/Caracas", "2016-05-01T07:00:00Z"},
		{"America/St_Johns", "2006-10-29T02:31:00Z"},
		{"Europe/London", "1947-04-13T01:00:00Z"},
		{"Africa/Cairo", "2014-05-15T22:00:00Z"},
		{"Antarctica/Casey", "2010-03-04T15:00:00Z"},
		{"Antarctica/Troll", "2026-03-29T01:00:00Z"},
	} {
		t.Run(c.zone+c.at[:4], func(t *testing.T) {
			t.Parallel()
			const day = 24 * 60 * 60
			loc, when := embedded(t, c.zone), at(t, c.at).Unix()
			if len(changesOf(loc, when-day, when+day)) == 0 {
				t.Fatal("the clocks do not change")
			}
			from, to := when-2*day, when+2*day
			all := ticks(loc, from-3*day, to)
			for _, try := range tried {
				want := slices.DeleteFunc(reference(all, try.everyHour, try.match), func(at int64) bool { return at < from })
				s := inZone(t, try.expr, loc)
				s.shortest, s.longest = 0, 1<<62 // measured over years to come only
				sameActivations(t, s, c.zone+" "+try.expr, want, from, to)
			}
		})
	}
}

// Distances against those of all activations in the years over which they are
// measured.
func TestMeasuredDistances(t *testing.T) {
	share := 0.04
	if os.Getenv("SCHEDULES") == "all" {
		share = 1
	}
	zones := distinctZones(t, distanceEpoch, distanceEpoch.AddDate(distanceYears, 0, 0))
	random := rand.New(rand.NewPCG(3, 4)) // the same sample each time
	end := distanceEpoch.AddDate(distanceYears, 0, 0)
	for _, z := range zones {
		for _, try := range tried[2:] { // the others come up too often to look at all
			if random.Float64() >= share {
				continue
			}
			t.Run(z.name+" "+try.expr, func(t *testing.T) {
				t.Parallel()
				s := inZone(t, try.expr, z.loc)
				last := s.next(distanceEpoch.Add(-time.Second))
				shortest, longest := time.Duration(1<<62), time.Duration(0)
				for {
					n := s.next(last)
					if !n.After(last) {
						t.Fatalf("%s after %s", n, last)
					}
					if !n.Before(end) {
						break
					}
					if !try.match(faceAt(n.In(z.loc))) && offsetAt(z.loc, n.Unix()) <= offsetAt(z.loc, n.Unix()-1) {
						t.Fatalf("%s is none", n.In(z.loc))
					}
					shortest, longest = min(shortest, n.Sub(last)), max(longest, n.Sub(last))
					last = n
				}
				if s.shortest != shortest || s.longest != longest {
					t.Errorf("%s to %s, want %s to %s", s.shortest, s.longest, shortest, longest)
				}
			})
		}
	}
}

// The stretches in which a schedule takes the offset for the same, against the
// offset.
func TestClocksDoNotChangeWithinAStretch(t *testing.T) {
	step := int64(6 * 60 * 60)
	if os.Getenv("SCHEDULES") == "all" {
		step = 15 * 60
	}
	end := distanceEpoch.AddDate(distanceYears, 0, 0)
	for _, z := range distinctZones(t, distanceEpoch, end) {
		t.Run(z.name, func(t *testing.T) {
			t.Parallel()
			s := &scheduleCadence{zone: z.loc, wall: schedule(t, "0 0 * * *").wall}
			at := distanceEpoch.Unix()
			for st := range s.stretches(at) {
				if st.begin != at || st.end <= at {
					t.Fatalf("%+v follows %d", st, at)
				}
				for ; at < min(st.end, end.Unix()); at = min(at+step, st.end) {
					if offset := int64(offsetAt(z.loc, at)); offset != st.offset {
						t.Fatalf("%d at %s in %+v", offset, time.Unix(at, 0).UTC(), st)
					}
				}
				if offset := int64(offsetAt(z.loc, st.end-1)); offset != st.offset {
					t.Fatalf("%d at the end of %+v", offset, st)
				}
				if at = st.end; at >= end.Unix() {
					break
				}
			}
		})
	}
}

// FuzzNext holds the next activation to the reference: any zone, instant and
// fields.
func FuzzNext(f *testing.F) {
	names := zoneNames(f)
	add := func(zone, from string, minutes uint64, hours uint32, dom uint32, months uint16, dow, stars uint8) {
		when, err := time.Parse(time.RFC3339, from)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(slices.Index(names, zone)), when.Unix(), minutes, hours, dom, months, dow, stars)
	}
	add("Asia/Beirut", "2026-03-28T12:00:00Z", 1, 1<<3, 1<<32-1, 1<<13-1, 1, 3)
	add("Europe/Berlin", "2026-10-25T00:15:00Z", 1<<30, 1<<2, 1<<32-1, 1<<13-1, 1<<7-1, 3)
	add("Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1<<15, 1<<24-1, 1<<32-1, 1<<13-1, 1<<7-1, 3)
	add("Pacific/Apia", "2011-12-29T12:00:00Z", 1<<45, 1<<24-2, 1<<30, 1<<12, 1<<5, 0)
	add("Africa/Monrovia", "1972-01-06T12:00:00Z", 1, 1, 1<<32-1, 1<<13-1, 1<<7-1, 3)
	add("America/New_York", "2096-12-31T12:00:00Z", 1, 1, 1<<1, 1<<1, 1<<7-1, 2)
	f.Fuzz(func(t *testing.T, zone uint16, from int64, minutes uint64, hours, dom uint32, months uint16, dow, stars uint8) {
		const century, day = 100 * 366 * 24 * 60 * 60, 24 * 60 * 60
		from %= century + century/2
		spec := &cron.SpecSchedule{Minute: minutes, Hour: uint64(hours), Dom: uint64(dom), Month: uint64(months), Dow: uint64(dow)}
		// A star names all days.
		if stars&1 != 0 {
			spec.Dom = 1<<32 - 1 | starBit
		}
		if stars&2 != 0 {
			spec.Dow = 1<<7 - 1 | starBit
		}
		wall, loc := newCalendar(spec), embedded(t, names[int(zone)%len(names)])
		if wall.empty() {
			return
		}
		match := func(c face) bool {
			byDay, byWeek := spec.Dom>>c.day&1 != 0, spec.Dow>>c.weekday&1 != 0
			days := byDay || byWeek
			if stars&3 != 0 {
				days = byDay && byWeek
			}
			return spec.Minute>>c.minute&1 != 0 && spec.Hour>>c.hour&1 != 0 && spec.Month>>c.month&1 != 0 && days
		}
		s := newSchedule(wall, loc)
		got := s.next(time.Unix(from, 0))
		to := from + 3*day
		want := slices.DeleteFunc(reference(ticks(loc, from-3*day, to), hours&allHours == allHours, match), func(at int64) bool { return at <= from })
		switch {
		case len(want) > 0 && got.Unix() != want[0]:
			t.Fatalf("%s after %s: %s, want %s", loc, time.Unix(from, 0).UTC(), got, time.Unix(want[0], 0).UTC())
		case len(want) == 0 && got.Unix() <= to:
			t.Fatalf("%s after %s: %s, want none", loc, time.Unix(from, 0).UTC(), got)
		case len(want) == 0 && !match(faceAt(got.In(loc))) && offsetAt(loc, got.Unix()) <= offsetAt(loc, got.Unix()-1):
			t.Fatalf("%s after %s: %s is none", loc, time.Unix(from, 0).UTC(), got.In(loc))
		}
		if again := s.next(got.Add(-time.Nanosecond)); !again.Equal(got) {
			t.Fatalf("%s: %s from afar, %s from near", loc, got, again)
		}
		after := s.next(got)
		if !after.After(got) {
			t.Fatalf("%s: %s after %s", loc, after, got)
		}
		if d := after.Sub(got); !got.Before(distanceEpoch) && after.Before(distanceEpoch.AddDate(distanceYears, 0, 0)) && (d < s.shortest || d > s.longest) {
			t.Fatalf("%s: %s before %s, measured %s to %s", loc, d, after, s.shortest, s.longest)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	for _, expr := range []string{
		"0 2 29 2 *", "CRON_TZ=Europe/Berlin 0 2 29 2 *", "CRON_TZ=Africa/Casablanca * * 29 2 *", "CRON_TZ=Europe/Berlin 30 2 * * *", "CRON_TZ=Europe/Berlin */7 * * * *",
	} {
		b.Run(expr, func(b *testing.B) {
			s := schedule(b, expr)
			for b.Loop() {
				s.next(distanceEpoch.AddDate(0, 3, 0))
			}
		})
		b.Run("parse "+expr, func(b *testing.B) {
			for b.Loop() {
				if _, err := newParsedSchedule(expr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
