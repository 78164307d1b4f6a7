// SPDX-License-Identifier: MPL-2.0

package timeline

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

// life is a key that passes through some of the states at times of its own.
type life struct {
	verifies, activates, superseded, ends int // minutes; in this order
	how                                   Moment
	disabled                              bool
}

func (l *life) moment(t time.Time) Moment {
	m := Moment{Until: at(l.ends), End: "hard"}
	if !l.how.HoldUntil.IsZero() {
		m.End = "planned"
	}
	live := Valid
	if l.disabled {
		live = Disabled
	}
	switch {
	case !t.Before(at(l.ends)):
		end := l.how
		end.Until, end.End = m.Until, m.End
		return end
	case t.Before(at(l.verifies)):
		m.Code, m.State = NotFound, "pending"
	case t.Before(at(l.activates)):
		m.Code, m.State = live, "pending"
	case t.Before(at(l.superseded)):
		m.Code, m.State = live, "current"
	default:
		m.Code, m.State = live, "previous"
	}
	return m
}

func drawLife(t *rapid.T) *life {
	minutes := rapid.SliceOfN(rapid.IntRange(-50, 50), 4, 4).Draw(t, "minutes")
	l := &life{disabled: rapid.Bool().Draw(t, "disabled")}
	sum := minutes[0]
	for i, p := range []*int{&l.verifies, &l.activates, &l.superseded, &l.ends} {
		if i > 0 {
			sum += max(minutes[i], -minutes[i])
		}
		*p = sum
	}
	l.how = rapid.SampledFrom([]Moment{
		{Code: Retired, State: "retired", Reason: "grace_ended", HoldUntil: at(l.ends + 30)},
		{Code: Retired, State: "retired", Reason: "superseded"},
		{Code: Expired, State: "expired", Renewable: true},
		{Code: Revoked, State: "revoked"},
	}).Draw(t, "end")
	return l
}

func TestTimelineSaysWhatWasAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLife(t)
		now := at(rapid.IntRange(-100, 100).Draw(t, "now"))
		dates := []time.Time{at(l.verifies), at(l.activates), at(l.superseded), at(l.ends), at(7), now}
		raw, err := json.Marshal(Build(now, dates, l.moment))
		if err != nil {
			t.Fatal(err)
		}
		var entries []Entry
		if err := json.Unmarshal(raw, &entries); err != nil {
			t.Fatal(err)
		}
		line, err := Parse(entries)
		if err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		for minute := range 400 {
			for _, nudge := range []time.Duration{-1, 0, 1} {
				when := at(minute - 150).Add(nudge)
				if when.Before(now) {
					continue
				}
				m, i := l.moment(when), line.At(when.UnixNano())
				if line.Code(i) != m.Code || line.State(i) != m.State || line.Reason(i) != m.Reason || line.End(i) != m.End {
					t.Fatalf("at %v: %v %s %s %s, want %+v", when, line.Code(i), line.State(i), line.Reason(i), line.End(i), m)
				}
				if line.Renewable(i) != (m.Code.Ended() && m.Renewable) {
					t.Fatalf("at %v: renewable %v", when, line.Renewable(i))
				}
			}
		}
		if end, known := line.Ends(line.At(now.UnixNano())); !known || end != at(l.ends).UnixNano() {
			t.Fatalf("ends %v, %v", time.Unix(0, end).UTC(), known)
		}
		if i := line.At(now.Add(-time.Hour).UnixNano()); i != 0 {
			t.Fatalf("an hour before its first instant entry %d holds", i)
		}
		again, err := Parse(line.Entries())
		if err != nil || len(again) != len(line) {
			t.Fatal(err)
		}
		for i := range line {
			if again[i] != line[i] {
				t.Fatalf("entry %d: %+v, was %+v", i, again[i], line[i])
			}
		}
	})
}

// Who decided may have had a clock that was ahead: the end holds, and another one comes
// before its date.
func TestEndOfAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	entries := Build(start, []time.Time{at(1)}, func(now time.Time) Moment {
		if now.Before(at(1)) {
			return Moment{Code: Expired, State: "expired", Until: at(5), End: "hard"}
		}
		return Moment{Code: Retired, State: "retired", Reason: "superseded", Until: at(1), End: "hard"}
	})
	line, err := Parse(entries)
	if err != nil {
		t.Fatalf("%v: %+v", err, entries)
	}
	if first, second := line.Code(line.At(start.UnixNano())), line.Code(line.At(at(1).UnixNano())); first != Expired || second != Retired {
		t.Errorf("%v, then %v", first, second)
	}
	if !entries[0].From.Equal(start) {
		t.Errorf("from %v", entries[0].From)
	}
}

// What is told differs in something from entry to entry, and there are never more than an
// edge takes.
func TestBuild(t *testing.T) {
	var dates []time.Time
	for i := range 2 * MaxEntries {
		dates = append(dates, at(i))
	}
	names := []string{"current", "previous"}
	entries := Build(start, dates, func(t time.Time) Moment {
		return Moment{State: names[int(t.Sub(start)/time.Minute)%2]}
	})
	if _, err := Parse(entries); err != nil || len(entries) != MaxEntries {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	entries = Build(start, dates, func(t time.Time) Moment {
		if t.Before(at(5)) {
			return Moment{State: "current"}
		}
		return Moment{State: "current", End: "hard"}
	})
	if len(entries) != 2 || entries[1].End != "hard" || !entries[1].From.Equal(at(5)) {
		t.Errorf("%+v", entries)
	}
}

func TestHeld(t *testing.T) {
	line, err := Parse([]Entry{
		{From: at(0), Code: "VALID", State: "previous", End: "planned"},
		{From: at(10), Code: "RETIRED", State: "retired", Reason: "grace_ended", HoldUntil: at(20)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ now, confirmed, want int }{
		{9, 5, 0},
		{10, 5, 0},  // held back: nobody could be asked since before the end
		{19, 9, 0},  // still
		{20, 5, 1},  // until then
		{15, 10, 1}, // the end itself was confirmed
		{15, 12, 1},
	} {
		if got := line.Held(at(test.now).UnixNano(), at(test.confirmed).UnixNano()); got != test.want {
			t.Errorf("at %d, confirmed at %d: entry %d, want %d", test.now, test.confirmed, got, test.want)
		}
	}
	line[1].hold = 0
	if line.Held(at(10).UnixNano(), at(5).UnixNano()) != 1 {
		t.Error("an end that is not held back was")
	}
	if _, known := line[:1].Ends(0); known {
		t.Error("an open timeline ends")
	}
}

func TestParseRefuses(t *testing.T) {
	good := Entry{From: at(0), Code: "VALID", State: "current"}
	with := func(change func(e *Entry)) Entry {
		e := good
		change(&e)
		return e
	}
	long := make([]Entry, MaxEntries+1)
	for i := range long {
		long[i] = with(func(e *Entry) { e.From = at(i) })
	}
	if _, err := Parse(long[:MaxEntries]); err != nil {
		t.Error(err)
	}
	for name, entries := range map[string][]Entry{
		"no entries":    nil,
		"too many":      long,
		"unknown code":  {with(func(e *Entry) { e.Code = "RATE_LIMITED" })},
		"unknown state": {with(func(e *Entry) { e.State = "asleep" })},
		"unknown end":   {with(func(e *Entry) { e.End = "soft" })},
		"no instant":    {with(func(e *Entry) { e.From = time.Time{} })},
		"same instant":  {good, good},
		"backwards":     {good, with(func(e *Entry) { e.From = at(-1) })},
		"after an end":  {with(func(e *Entry) { e.Code, e.State = "REVOKED", "revoked" }), with(func(e *Entry) { e.From = at(1) })},
	} {
		if line, err := Parse(entries); err == nil || strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%s: %v, %v", name, line, err)
		}
	}
}

func TestJudgingAllocatesNothing(t *testing.T) {
	line, err := Parse([]Entry{{From: at(0), Code: "VALID", State: "current"}, {From: at(9), Code: "EXPIRED", State: "expired"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		i := line.Held(at(5).UnixNano(), 0)
		_, _ = line.Code(i), line.State(i)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
