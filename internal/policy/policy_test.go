// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWithLeavesThePolicyAlone(t *testing.T) {
	stored := must(t, nil, map[string]any{
		"owner": "a", "metadata": map[string]string{"a": "1"}, "scopes": []string{"x"}, "allowed_cidrs": []string{"::1"}, "ttl": 0,
	}, Static)
	before, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{
		"owner": "b", "metadata": map[string]any{"b": "2"}, "scopes": []string{"y"}, "allowed_cidrs": []string{"::2"}, "ttl": 1, "rotation_period": 0,
	}
	p := must(t, stored, given, Static)
	view := shown(t, p, Static, mount)
	given["scopes"].([]string)[0] = "changed"
	given["allowed_cidrs"].([]string)[0] = "changed"
	for _, v := range view {
		switch v := v.(type) {
		case []string:
			for i := range v {
				v[i] = "changed"
			}
		case map[string]string:
			v["b"] = "changed"
		}
	}
	if after, err := json.Marshal(stored); err != nil || string(after) != string(before) {
		t.Errorf("%s, then %s", before, after)
	}
	if p.Scopes[0] != "y" || p.AllowedCIDRs[0] != "::2" || p.Metadata["b"] != "2" {
		t.Errorf("shared with its caller: %+v", p)
	}
}

func TestNilResets(t *testing.T) {
	given := map[string]any{
		"description": "d", "owner": "o", "metadata": map[string]string{"a": "1"}, "scopes": []string{"x"}, "prefix": "bk", "ttl": 7200, "max_ttl": 7300,
		"rotation_period": 3600, "rotation_window": 3600, "rotation_jitter": 60, "rotation_paused": true, "valid_until": "2027-01-31T08:00:00Z",
		"grace_period": 60, "max_grace_period": 120, "refresh_interval": 60,
		"allowed_cidrs": []string{"::1"}, "rate_limit": 1.0, "on_leak": "alert", "leak_grace_period": 60, "disabled": true, "deletion_protection": true,
	}
	all, resets, err := new(Policy).With(given)
	if err != nil || resets {
		t.Fatal(resets, err)
	}
	scheduled, _, err := new(Policy).With(map[string]any{"rotation_schedule": "0 3 * * *"})
	if err != nil {
		t.Fatal(err)
	}
	revealing, _, err := new(Policy).With(map[string]any{"reveal": "once"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Fields {
		p := all
		switch f.Name {
		case "rotation_schedule":
			p = scheduled
		case "reveal":
			p = revealing
		}
		next, resets, err := p.With(map[string]any{f.Name: nil})
		if err != nil || !resets {
			t.Errorf("%s: %v %v", f.Name, resets, err)
			continue
		}
		if !SameField(f.Name, next, &Policy{}) || SameField(f.Name, next, p) {
			t.Errorf("%s is not reset", f.Name)
		}
		for _, other := range Fields {
			if other.Name != f.Name && !SameField(other.Name, next, p) {
				t.Errorf("the reset of %s changes %s", f.Name, other.Name)
			}
		}
		// Again it is none.
		if again, resets, err := next.With(map[string]any{f.Name: nil}); err != nil || resets || !reflect.DeepEqual(again, next) {
			t.Errorf("%s, again: %v %v", f.Name, resets, err)
		}
	}
	// A reset is told beside another one that was none.
	if _, resets, _ := all.With(map[string]any{"description": nil, "rotation_schedule": nil}); !resets {
		t.Error("the reset of a field was forgotten")
	}
}

// An empty text, which an unset variable leaves, takes no end away.
func TestEmptyTakesNoEndAway(t *testing.T) {
	p := must(t, nil, map[string]any{"valid_until": "2027-01-31T08:00:00Z"}, Static)
	_, _, err := p.With(map[string]any{"valid_until": ""})
	wantRefusal(t, err, "valid_until", `valid_until: "": is empty: leave it out; null in a patch takes the end away`)
	stored := &Policy{ValidUntil: "by another build"}
	if _, _, err := stored.With(map[string]any{"valid_until": "by another build"}); err != nil {
		t.Errorf("what is stored is refused: %v", err)
	}
	if _, err := stored.Effective(roleID, Static, mount); err == nil {
		t.Error("an end that cannot be read is none")
	}
}

func TestMetadataIsReplacedOrMerged(t *testing.T) {
	stored := must(t, nil, map[string]any{"metadata": map[string]string{"a": "1", "b": "2"}}, Static)
	for _, c := range []struct {
		given any
		want  map[string]string
	}{
		{map[string]string{"c": "3"}, map[string]string{"c": "3"}},
		{map[string]string{}, nil},
		{map[string]any{}, map[string]string{"a": "1", "b": "2"}},
		{map[string]any{"b": nil, "c": "3", "x": nil}, map[string]string{"a": "1", "c": "3"}},
		{map[string]any{"a": nil, "b": nil}, nil},
		{map[string]any{"a": ""}, map[string]string{"a": "", "b": "2"}},
		{nil, nil},
	} {
		p := must(t, stored, map[string]any{"metadata": c.given}, Static)
		if !reflect.DeepEqual(p.Metadata, c.want) {
			t.Errorf("%v: %v, want %v", c.given, p.Metadata, c.want)
		}
	}
	full, err := changed(nil, map[string]any{"metadata": mapOf(64, func(i int) string { return fmt.Sprint(i) })}, Static, mount)
	if err != nil {
		t.Fatal(err)
	}
	_, err = changed(full, map[string]any{"metadata": map[string]any{"one more": "x"}}, Static, mount)
	wantRefusal(t, err, "metadata", "65: has more than 64 names")
	must(t, full, map[string]any{"metadata": map[string]any{"one more": "x", "0": nil}}, Static)
	if p, _, err := stored.With(map[string]any{"metadata": map[string]any{"a": 1}}); err == nil {
		t.Errorf("a number is taken: %v", p.Metadata)
	}
}

// An emptied list is stored like one that was never written.
func TestEmptyIsAbsent(t *testing.T) {
	for _, field := range []string{"scopes", "allowed_cidrs"} {
		p, _, err := (&Policy{Scopes: []string{"a"}, AllowedCIDRs: []string{"::1"}}).With(map[string]any{field: []string{}})
		if err != nil || !SameField(field, p, &Policy{}) {
			t.Errorf("%s: %#v %v", field, p, err)
		}
	}
}

func TestSameField(t *testing.T) {
	five, six := Seconds(5), Seconds(6)
	for _, c := range []struct {
		name string
		a, b Policy
		same bool
	}{
		{"ttl", Policy{}, Policy{}, true},
		{"ttl", Policy{TTL: &five}, Policy{TTL: seconds(5)}, true},
		{"ttl", Policy{TTL: &five}, Policy{TTL: &six}, false},
		{"ttl", Policy{}, Policy{TTL: new(Seconds)}, false},
		{"ttl", Policy{TTL: &five, Owner: "a"}, Policy{TTL: &five, Owner: "b"}, true},
		{"metadata", Policy{Metadata: map[string]string{"a": "1"}}, Policy{Metadata: map[string]string{"a": "2"}}, false},
		{"name", Policy{}, Policy{}, false},
	} {
		if got := SameField(c.name, &c.a, &c.b); got != c.same {
			t.Errorf("%s of %+v and %+v: %v", c.name, c.a, c.b, got)
		}
	}
}

func TestOtherNamesAreTheCallersToJudge(t *testing.T) {
	p, resets, err := new(Policy).With(map[string]any{"name": "r", "type": 3, "created": nil})
	if err != nil || resets || !reflect.DeepEqual(p, &Policy{}) {
		t.Errorf("%+v %v %v", p, resets, err)
	}
}

func TestShownPeriodOfAScheduleIsNoPeriod(t *testing.T) {
	p := must(t, nil, map[string]any{"rotation_schedule": "0 3 * * *", "rotation_period": 0}, Static)
	if p.RotationPeriod != nil {
		t.Error("the period was stored")
	}
	p = must(t, p, map[string]any{"rotation_schedule": ""}, Static)
	if got := shown(t, p, Static, mount)["rotation_period"]; got != int64(7776000) {
		t.Errorf("without schedule: %v", got)
	}
	p = must(t, p, map[string]any{"rotation_period": 0}, Static)
	if p.RotationPeriod == nil || *p.RotationPeriod != 0 {
		t.Error("by hand only was not stored")
	}
}

func TestSeconds(t *testing.T) {
	if d := Seconds(90).Duration(); d != 90*time.Second {
		t.Error(d)
	}
	if n := InSeconds(90*time.Second + 999*time.Millisecond); n != 90 {
		t.Error(n)
	}
	five := Seconds(5)
	if d := OrDefault(&five, time.Hour); d != 5*time.Second {
		t.Error(d)
	}
	if d := OrDefault(nil, time.Hour); d != time.Hour {
		t.Error(d)
	}
	if d := OrDefault(new(Seconds), time.Hour); d != 0 {
		t.Error("zero is not what was never written:", d)
	}
}

// drawGiven draws fields that mostly go together.
func drawGiven(t *rapid.T, label string) map[string]any {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("aZ 0_-ü:")), 0, 12, -1)
	list := func(entries ...string) *rapid.Generator[any] {
		return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(entries), 0, 4), func(l []string) any { return l })
	}
	seconds := func(ns ...int) *rapid.Generator[any] { return rapid.SampledFrom(ns).AsAny() }
	name := rapid.StringOfN(rapid.RuneFrom([]rune("abü")), 1, 3, -1)
	generators := map[string]*rapid.Generator[any]{
		"description": text.AsAny(),
		"owner":       text.AsAny(),
		"metadata": rapid.OneOf(
			rapid.MapOfN(name, text, 0, 4).AsAny(),
			rapid.MapOfN(name, rapid.OneOf(text.AsAny(), rapid.Just[any](nil)), 0, 4).AsAny(),
		),
		"scopes":              list("a", "a:*", "*", "b:c"),
		"prefix":              rapid.SampledFrom([]string{"ak", "acme_live"}).AsAny(),
		"ttl":                 seconds(0, 60, 3600, 90000, 40000000),
		"max_ttl":             seconds(0, 3600, 90000),
		"rotation_period":     seconds(0, 0, 60, 3600, 86400, 7776000),
		"rotation_schedule":   rapid.SampledFrom([]string{"", "", "0 3 * * *", "CRON_TZ=Europe/Berlin 30 2 * * 1-5"}).AsAny(),
		"rotation_window":     seconds(0, 0, 3600, 7200, 40000000),
		"rotation_jitter":     seconds(0, 1, 600, 3600),
		"valid_until":         rapid.SampledFrom([]string{"2027-01-31T08:00:00Z", "2027-01-31T10:00:00.5+02:00"}).AsAny(),
		"rotation_paused":     rapid.Bool().AsAny(),
		"grace_period":        seconds(0, 1, 600, 86400),
		"max_grace_period":    seconds(0, 600, 86400, 400000),
		"refresh_interval":    seconds(1, 300, 300, 2592000),
		"reveal":              rapid.SampledFrom([]string{"always", "always", "once"}).AsAny(),
		"allowed_cidrs":       list("10.0.0.0/8", "::1", "::ffff:192.0.2.0/120"),
		"rate_limit":          rapid.SampledFrom([]float64{0, 0.5, 1000}).AsAny(),
		"on_leak":             rapid.SampledFrom([]string{"revoke", "rotate", "alert"}).AsAny(),
		"leak_grace_period":   seconds(0, 3600, 604800),
		"disabled":            rapid.Bool().AsAny(),
		"deletion_protection": rapid.Bool().AsAny(),
	}
	given := map[string]any{}
	for _, f := range Fields {
		switch rapid.IntRange(0, 9).Draw(t, label+f.Name+"?") {
		case 0, 1, 2:
			given[f.Name] = generators[f.Name].Draw(t, label+f.Name)
		case 3:
			given[f.Name] = nil
		}
	}
	return given
}

// drawPolicy draws one that the rules accept.
func drawPolicy(t *rapid.T, typ string) *Policy {
	var p *Policy
	for i := range 3 {
		if next, err := changed(p, drawGiven(t, fmt.Sprint(i, " ")), typ, mount); err == nil {
			p = next
		}
	}
	if p == nil {
		p = &Policy{}
	}
	return p
}

func drawType(t *rapid.T) string { return rapid.SampledFrom([]string{Static, Dynamic}).Draw(t, "type") }

// What was read can be written back, on this mount and on any that it becomes:
// it is never refused, and the role stays what it was.
func TestWritingBackWhatWasReadChangesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		typ := drawType(rt)
		p := drawPolicy(rt, typ)
		most := time.Duration(rapid.SampledFrom([]int{0, 60, 3600, 172800, 9000000}).Draw(rt, "mount's maximum")) * time.Second
		later := Limits{
			StageAhead: time.Duration(rapid.IntRange(0, 90000).Draw(rt, "stage_ahead")) * time.Second,
			Leases:     func() (time.Duration, time.Duration) { return most / 2, most },
		}
		for _, lim := range []Limits{mount, later} {
			before, err := p.Effective(roleID, typ, lim)
			if err != nil {
				rt.Fatal(err)
			}
			view := p.Show(before)
			next, resets, err := p.With(asGiven(view))
			if err != nil || resets {
				rt.Fatalf("%v: %v", resets, err)
			}
			if err := Check(p, next, roleID, typ, lim); err != nil {
				rt.Fatal(err)
			}
			after, err := next.Effective(roleID, typ, lim)
			if err != nil {
				rt.Fatal(err)
			}
			if again := next.Show(after); !reflect.DeepEqual(again, view) {
				rt.Fatalf("%v, then %v", view, again)
			}
			if !reflect.DeepEqual(before, after) {
				rt.Fatalf("%+v, then %+v", before, after)
			}
		}
	})
}

// A request whose answer was lost can be repeated, and a policy survives its
// storage.
func TestWithIsIdempotent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPolicy(rt, drawType(rt))
		given := drawGiven(rt, "again ")
		once, _, err := p.With(given)
		if err != nil {
			wantRefusal(rt, err, "")
			return
		}
		twice, resets, err := once.With(given)
		if err != nil || resets || !reflect.DeepEqual(once, twice) {
			rt.Fatalf("%+v, then %+v, %v, %v", once, twice, resets, err)
		}
		data, err := json.Marshal(once)
		if err != nil {
			rt.Fatal(err)
		}
		read := &Policy{}
		if err := json.Unmarshal(data, read); err != nil || !reflect.DeepEqual(once, read) {
			rt.Fatalf("%+v, read as %+v: %v", once, read, err)
		}
	})
}

// With names one field after the other or all at once: the policy is the same.
func TestFieldsAreIndependent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPolicy(rt, drawType(rt))
		given := drawGiven(rt, "given ")
		// The two that give way to each other are one.
		delete(given, "rotation_schedule")
		at, _, err := p.With(given)
		if err != nil {
			rt.Fatal(err)
		}
		// What reveal does to the rotation depends on what the same write says of it.
		together := map[string]any{}
		for _, name := range []string{"reveal", "rotation_period", "rotation_window"} {
			if v, named := given[name]; named {
				together[name] = v
				delete(given, name)
			}
		}
		one, _, err := p.With(together)
		if err != nil {
			rt.Fatal(err)
		}
		for name, v := range maps.All(given) {
			if one, _, err = one.With(map[string]any{name: v}); err != nil {
				rt.Fatal(err)
			}
		}
		if !reflect.DeepEqual(at, one) {
			rt.Fatalf("%+v at once, %+v one by one", at, one)
		}
	})
}

// Keys that are handed out once are rotated by themselves only where somebody has
// said so; roles of before that rule go on as they were.
func TestHandedOutOnceIsNotRotatedUnasked(t *testing.T) {
	const reveal, period, schedule = "reveal", "rotation_period", "rotation_schedule"
	cron := "0 3 * * *"
	two := Seconds(7200)
	older := &Policy{Reveal: RevealOnce} // as a build of before stored it
	for _, c := range []struct {
		name       string
		from       *Policy
		writes     []map[string]any
		period     *Seconds
		schedule   string
		wantResets bool
	}{
		{name: "created", writes: []map[string]any{{reveal: "once"}}, period: new(Seconds)},
		{name: "created with a period", writes: []map[string]any{{reveal: "once", period: 7200}}, period: &two},
		{name: "created with a schedule", writes: []map[string]any{{reveal: "once", schedule: cron}}, schedule: cron},
		{name: "created without a schedule", writes: []map[string]any{{reveal: "once", schedule: ""}}, period: new(Seconds)},
		{name: "switched", writes: []map[string]any{{}, {reveal: "once"}}, period: new(Seconds)},
		{name: "switched from a period", writes: []map[string]any{{period: 3600}, {reveal: "once"}}, period: new(Seconds)},
		{name: "switched from a schedule", writes: []map[string]any{{schedule: cron}, {reveal: "once"}}, period: new(Seconds)},
		{name: "switched, and a period", writes: []map[string]any{{schedule: cron}, {reveal: "once", schedule: "", period: 7200}}, period: &two},
		{name: "switched, and reset", writes: []map[string]any{{period: 3600}, {reveal: "once", period: nil}}, period: new(Seconds), wantResets: true},
		{name: "written again", writes: []map[string]any{{reveal: "once", period: 7200}, {reveal: "once"}}, period: &two},
		{name: "something else written", writes: []map[string]any{{reveal: "once", period: 7200}, {"owner": "a"}}, period: &two},
		{name: "a period afterwards", writes: []map[string]any{{reveal: "once"}, {period: 7200}}, period: &two},
		{name: "its period reset", writes: []map[string]any{{reveal: "once", period: 7200}, {period: nil}}, period: new(Seconds), wantResets: true},
		{name: "its schedule cleared", writes: []map[string]any{{reveal: "once", schedule: cron}, {schedule: ""}}, period: new(Seconds)},
		{name: "its schedule reset", writes: []map[string]any{{reveal: "once", schedule: cron}, {schedule: nil}}, period: new(Seconds), wantResets: true},
		{name: "reset again", writes: []map[string]any{{reveal: "once"}, {period: nil}}, period: new(Seconds)},
		{name: "for everybody again", writes: []map[string]any{{reveal: "once"}, {reveal: "always"}}, period: new(Seconds)},
		{name: "an older role", from: older, writes: []map[string]any{{"owner": "a"}}},
		{name: "an older role, written back", from: older, writes: []map[string]any{{reveal: "once"}}},
		{name: "an older role, reset", from: older, writes: []map[string]any{{period: nil}}},
		{name: "an older role, away and back", from: older, writes: []map[string]any{{reveal: "always"}, {reveal: "once"}}, period: new(Seconds)},
	} {
		p := &Policy{}
		if c.from != nil {
			*p = *c.from
		}
		resets := false
		for _, given := range c.writes {
			var err error
			if p, resets, err = p.With(given); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if !reflect.DeepEqual(p.RotationPeriod, c.period) || p.RotationSchedule != c.schedule || resets != c.wantResets {
			t.Errorf("%s: period %v, schedule %q, reset %v", c.name, p.RotationPeriod, p.RotationSchedule, resets)
		}
	}
}
