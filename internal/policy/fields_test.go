// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fieldCase is one value of a field: taken and shown as want, or refused with a
// text that has the parts.
type fieldCase struct {
	field  string
	value  any
	want   any
	refuse []string
}

func fieldCases(t testing.TB) []fieldCase {
	key := someKey(t)
	redacted := "[key " + key.ID() + "]"
	x := strings.Repeat
	num := func(i int) string { return fmt.Sprint("n", i) }
	bad := func(parts ...string) []string { return parts }
	type m = map[string]string
	return []fieldCase{
		{field: "description", value: "what for\n\tand why", want: "what for\n\tand why"},
		{field: "description", value: "", want: ""},
		{field: "description", value: x("ä", 512), want: x("ä", 512)},
		{field: "description", value: x("ä", 513), refuse: bad("description: 513: has more than 512 characters: shorten it")},
		{field: "description", value: "see " + key.Reveal() + "!", want: "see " + redacted + "!"},
		{field: "description", value: "\xff\xfe", refuse: bad(`description: "\xff\xfe": is not valid UTF-8: send text in UTF-8`)},
		{field: "description", value: "a\r\nb", refuse: bad(`description: "a\r\nb": holds a line break (U+000D), as character 2: remove it`)},
		{field: "owner", value: "team-payments", want: "team-payments"},
		{field: "owner", value: "", want: ""},
		{field: "owner", value: key.Reveal(), want: redacted},
		{field: "owner", value: x("o", 512), want: x("o", 512)},
		{field: "owner", value: x("o", 513), refuse: bad("owner: 513: has more than 512 characters")},
		{field: "owner", value: "a\nb", refuse: bad(`owner: "a\nb": holds a line break (U+000A)`)},
		{field: "owner", value: "a\u2066b", refuse: bad(`owner: "a\u2066b": holds a mark that changes the direction of text (U+2066)`)},

		{field: "metadata", value: m{"team": "a", "n": "ö"}, want: m{"team": "a", "n": "ö"}},
		{field: "metadata", value: m{}, want: m{}},
		{field: "metadata", value: m{"k": ""}, want: m{"k": ""}},
		{field: "metadata", value: m{"k": "x" + key.Reveal()}, want: m{"k": "x" + redacted}},
		{field: "metadata", value: mapOf(64, num), want: mapOf(64, num)},
		{field: "metadata", value: mapOf(65, num), refuse: bad("metadata: 65: has more than 64 names: remove some")},
		{field: "metadata", value: m{x("ü", 64): x("ü", 512)}, want: m{x("ü", 64): x("ü", 512)}},
		{field: "metadata", value: m{x("ü", 65): ""}, refuse: bad("metadata name: 65: has more than 64 characters: shorten it")},
		{field: "metadata", value: m{"k": x("v", 513)}, refuse: bad(`metadata "k": 513: has more than 512 characters: shorten it`)},
		{field: "metadata", value: m{"": "v"}, refuse: bad(`metadata: "": a name is empty: name every value`)},
		{field: "metadata", value: m{" \u00a0": "v"}, refuse: bad(`a name is empty: name every value`)},
		{field: "metadata", value: m{"x" + key.Reveal(): "v"}, refuse: bad(`metadata: "x` + redacted + `": a name holds an API key: use another name`)},
		{field: "metadata", value: m{"a\x00": "v"}, refuse: bad(`metadata name: "a\x00": holds a control character (U+0000)`)},
		{field: "metadata", value: m{"a\n": "v"}, refuse: bad(`metadata name: "a\n": holds a line break`)},
		{field: "metadata", value: m{"k": "a\nb"}, refuse: bad(`metadata "k": "a\nb": holds a line break (U+000A)`)},
		{field: "metadata", value: m{"a": "ok", "b": "\x01", "c": "\x02"}, refuse: bad(`metadata "b": `)},

		{field: "scopes", value: []string{"orders:read", "a:*", "*", "x"}, want: []string{"orders:read", "a:*", "*", "x"}},
		{field: "scopes", value: []string{}, want: []string{}},
		{field: "scopes", value: []string{"A-Z.a_z:0"}, want: []string{"A-Z.a_z:0"}},
		{field: "scopes", value: []string{"a", "a"}, want: []string{"a", "a"}},
		{field: "scopes", value: listOf(128, num), want: listOf(128, num)},
		{field: "scopes", value: listOf(129, num), refuse: bad("scopes: 129: has more than 128 entries: combine some with *")},
		{field: "scopes", value: []string{x("s", 128)}, want: []string{x("s", 128)}},
		{field: "scopes", value: []string{x("s", 129)}, refuse: bad("has more than 128 characters: shorten it")},
		{field: "scopes", value: []string{""}, refuse: bad(`scopes: "": must be segments`)},
		{field: "scopes", value: []string{"ok", "*:read"}, refuse: bad(`scopes: "*:read": must be segments of A-Z a-z 0-9 . _ - joined by colons, with * as last segment only: write orders:read`)},
		{field: "scopes", value: []string{"a::b"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"a:"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{":a"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"a b"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"a*"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"a:**"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"a\n"}, refuse: bad(`"a\n": must be segments`)},
		{field: "scopes", value: []string{"ok\n:x"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"ſcope"}, refuse: bad("must be segments")},
		{field: "scopes", value: []string{"x:" + key.Reveal()}, refuse: bad(`scopes: "x:` + redacted + `": holds an API key: use another name`)},

		{field: "prefix", value: "acme_live", want: "acme_live"},
		{field: "prefix", value: "ak", want: "ak"},
		{field: "prefix", value: "abcdefghijklmnop_bcdefghijklmno", want: "abcdefghijklmnop_bcdefghijklmno"},
		{field: "prefix", value: "abcdefghijklmnop_bcdefghijklmnopq", refuse: bad("prefix: ", "at most 32 characters")},
		{field: "prefix", value: "", refuse: bad(`prefix: "": a prefix is one or more parts joined by _`, "write something like ak or acme_live")},
		{field: "prefix", value: "Ak", refuse: bad("a prefix is")},
		{field: "prefix", value: "ak\n", refuse: bad(`prefix: "ak\n": a prefix is`)},

		{field: "rotation_schedule", value: "0 3 * * 1", want: "0 3 * * 1"},
		{field: "rotation_schedule", value: "", want: ""},
		{field: "rotation_schedule", value: "CRON_TZ=Europe/Berlin 30 2 * * *\n", want: "CRON_TZ=Europe/Berlin 30 2 * * *\n"},
		{field: "rotation_schedule", value: x("0,", 123) + "0 0 * * *", want: x("0,", 123) + "0 0 * * *"},
		{field: "rotation_schedule", value: x("0,", 124) + "0 0 * * *", refuse: bad("rotation_schedule: 257: has more than 256 characters: shorten it")},
		{field: "rotation_schedule", value: "@daily", refuse: bad(`rotation_schedule: "@daily": a schedule has five fields`, "write something like")},
		{field: "rotation_schedule", value: "61 0 * * *", refuse: bad(`a schedule has five fields`, "61", "write something like")},
		{field: "rotation_schedule", value: "0 0 30 2 *", refuse: bad(`rotation_schedule: "0 0 30 2 *": the schedule never comes up: write something like`)},
		{field: "rotation_schedule", value: "CRON_TZ=Mars/Olympus 0 0 * * *", refuse: bad("a schedule has five fields", "unknown time zone Mars/Olympus", "write something like")},
		{field: "rotation_schedule", value: "CRON_TZ=" + key.Reveal() + " 0 0 * * *", refuse: bad("CRON_TZ=" + redacted)},
		{field: "rotation_schedule", value: "\x00 0 * * *", refuse: bad(`"\x00 0 * * *": holds a control character`)},
		{field: "rotation_schedule", value: "0\u20283 * * *", refuse: bad("holds a line break (U+2028)")},
		{field: "rotation_schedule", value: "\xff 0 * * *", refuse: bad(`is not valid UTF-8`)},

		{field: "valid_until", value: "2027-01-31T08:00:00Z", want: "2027-01-31T08:00:00Z"},
		{field: "valid_until", value: "2027-01-31T10:00:00.250+02:00", want: "2027-01-31T10:00:00.250+02:00"},
		{field: "valid_until", value: "9999-12-31T23:59:59Z", want: "9999-12-31T23:59:59Z"},
		{field: "valid_until", value: "", want: ""}, // of a role that has none
		{field: "valid_until", value: "9999-12-31T23:59:59-01:00", refuse: bad(`valid_until: "9999-12-31T23:59:59-01:00": is no time that can come: give a time such as`)},
		{field: "valid_until", value: "1969-12-31T23:59:59Z", refuse: bad("is no time that can come")},
		{field: "valid_until", value: "2027-01-31", refuse: bad(`valid_until: "2027-01-31": is not a time as RFC 3339 writes it: give a time such as`)},
		{field: "valid_until", value: "30d", refuse: bad("is not a time as RFC 3339 writes it")},
		{field: "valid_until", value: " 2027-01-31T08:00:00Z", refuse: bad("is not a time as RFC 3339 writes it")},
		{field: "valid_until", value: key.Reveal(), refuse: bad(`valid_until: "` + redacted + `": is not a time`)},

		{field: "rotation_paused", value: true, want: true},
		{field: "rotation_paused", value: false, want: false},
		{field: "reveal", value: "once", want: "once"},
		{field: "reveal", value: "always", want: "always"},
		{field: "reveal", value: "", refuse: bad(`reveal: "": must be one of always, once: choose one`)},
		{field: "reveal", value: "Once", refuse: bad(`reveal: "Once": must be one of`)},

		{field: "allowed_cidrs", value: []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32"}, want: []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32"}},
		{field: "allowed_cidrs", value: []string{}, want: []string{}},
		{field: "allowed_cidrs", value: []string{"10.0.0.0/33"}, refuse: bad(`allowed_cidrs: "10.0.0.0/33": must be a network or an address: write something like 10.0.0.0/8`)},
		{field: "allowed_cidrs", value: []string{"::1", ""}, refuse: bad(`allowed_cidrs: "": must be a network`)},
		{field: "allowed_cidrs", value: []string{"::ffff:0:0/90"}, refuse: bad(`"::ffff:0:0/90": is a network of IPv4 and IPv6 addresses at once: write something like`)},
		{field: "allowed_cidrs", value: listOf(256, func(i int) string { return fmt.Sprint("10.0.0.", i) }), want: listOf(256, func(i int) string { return fmt.Sprint("10.0.0.", i) })},
		{field: "allowed_cidrs", value: listOf(257, func(int) string { return "::1" }), refuse: bad("allowed_cidrs: 257: has more than 256 entries: combine some into larger networks")},

		{field: "rate_limit", value: 2.5, want: 2.5},
		{field: "rate_limit", value: 0.0, want: 0.0},
		{field: "rate_limit", value: 1e6, want: 1e6},
		{field: "rate_limit", value: 1000000.5, refuse: bad("rate_limit: 1.0000005e+06: must be from 0 to 1000000: give requests per second, or 0 for no limit")},
		{field: "rate_limit", value: -0.1, refuse: bad("rate_limit: -0.1: must be from 0 to 1000000")},
		{field: "rate_limit", value: math.NaN(), refuse: bad("rate_limit: NaN: must be from 0")},
		{field: "rate_limit", value: math.Inf(1), refuse: bad("rate_limit: +Inf: must be from 0")},
		{field: "rate_limit", value: math.Inf(-1), refuse: bad("rate_limit: -Inf: must be from 0")},

		{field: "on_leak", value: "revoke", want: "revoke"},
		{field: "on_leak", value: "rotate", want: "rotate"},
		{field: "on_leak", value: "alert", want: "alert"},
		{field: "on_leak", value: "ignore", refuse: bad(`on_leak: "ignore": must be one of revoke, rotate, alert: choose one`)},
		{field: "disabled", value: true, want: true},
		{field: "disabled", value: false, want: false},
		{field: "deletion_protection", value: true, want: true},
		{field: "deletion_protection", value: false, want: false},
	}
}

// durationBounds are the least and the most that a field takes by itself.
var durationBounds = map[string]struct {
	least, most       int
	tooShort, tooLong string
	zero              bool // besides
}{
	"ttl":              {least: 0, most: 316224000, tooShort: "at least 0 seconds", tooLong: "at most 87840h (316224000 seconds)"},
	"max_ttl":          {least: 0, most: 316224000, tooShort: "at least 0 seconds", tooLong: "at most 87840h (316224000 seconds)"},
	"rotation_period":  {least: 60, most: 316224000, tooShort: "must be 0 (only by hand) or at least 1m (60 seconds)", tooLong: "at most 87840h (316224000 seconds)", zero: true},
	"rotation_window":  {least: 3600, most: 316224000, tooShort: "must be 0 (none) or at least 1h (3600 seconds)", tooLong: "at most 87840h (316224000 seconds)", zero: true},
	"rotation_jitter":  {least: 0, most: 316224000, tooShort: "at least 0 seconds", tooLong: "at most 87840h (316224000 seconds)"},
	"grace_period":     {least: 0, most: 316224000, tooShort: "at least 0 seconds", tooLong: "at most 87840h (316224000 seconds)"},
	"max_grace_period": {least: 0, most: 316224000, tooShort: "at least 0 seconds", tooLong: "at most 87840h (316224000 seconds)"},

	"refresh_interval":  {least: 1, most: 2592000, tooShort: "at least 1 second", tooLong: "at most 720h (2592000 seconds)"},
	"leak_grace_period": {least: 0, most: 604800, tooShort: "at least 0 seconds", tooLong: "at most 168h (604800 seconds)"},
}

func mapOf(n int, entry func(i int) string) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[entry(i)] = entry(i)
	}
	return m
}

func listOf(n int, entry func(i int) string) []string {
	list := []string{}
	for i := range n {
		list = append(list, entry(i))
	}
	return list
}

func TestFieldRules(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range fieldCases(t) {
		seen[c.field] = true
		p, resets, err := new(Policy).With(map[string]any{c.field: c.value})
		if c.refuse != nil {
			if p != nil || resets {
				t.Errorf("%s %q: refused, and yet a policy", c.field, c.value)
			}
			wantRefusal(t, err, c.field, c.refuse...)
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", c.field, c.value, err)
			continue
		}
		if got := shown(t, p, Static, mount)[c.field]; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: shown as %#v, want %#v", c.field, c.value, got, c.want)
		}
	}
	for _, f := range Fields {
		if _, isDuration := durationBounds[f.Name]; !seen[f.Name] && !isDuration {
			t.Errorf("%s is not tested", f.Name)
		}
	}
}

func TestDurationBounds(t *testing.T) {
	for _, f := range Fields {
		b, tested := durationBounds[f.Name]
		if tested != (f.Kind == Duration) {
			t.Errorf("%s: a duration: %v, tested: %v", f.Name, f.Kind == Duration, tested)
		}
		if !tested {
			continue
		}
		good := []int{b.least, b.least + 1, b.most}
		if b.zero {
			good = append(good, 0)
		}
		for _, n := range good {
			p, _, err := new(Policy).With(map[string]any{f.Name: n})
			if err != nil {
				t.Errorf("%s %d: %v", f.Name, n, err)
				continue
			}
			v := reflect.Indirect(reflect.ValueOf(p).Elem().Field(fieldIndex[f.Name]))
			if !v.IsValid() || v.Int() != int64(n) {
				t.Errorf("%s %d: stored as %v", f.Name, n, v)
			}
		}
		_, _, err := new(Policy).With(map[string]any{f.Name: b.least - 1})
		wantRefusal(t, err, f.Name, fmt.Sprintf("%s: %d: ", f.Name, b.least-1), b.tooShort+": give a longer one")
		_, _, err = new(Policy).With(map[string]any{f.Name: b.most + 1})
		wantRefusal(t, err, f.Name, fmt.Sprintf("%s: %d: must be ", f.Name, b.most+1), b.tooLong+": give a shorter one")
		for _, n := range []int{-5, math.MinInt, math.MaxInt} {
			_, _, err = new(Policy).With(map[string]any{f.Name: n})
			wantRefusal(t, err, f.Name, fmt.Sprint(n))
		}
	}
}

// What a caller hands over is told apart from what an operator wrote.
func TestValuesOfAnotherTypeAreTheProgramsMistake(t *testing.T) {
	values := map[Kind]any{
		Text: "a", Choice: "a", List: []string{}, Map: map[string]string{}, Switch: true, Duration: 1, Number: 1.0,
	}
	others := []any{"a", []string{}, map[string]string{}, true, 1, 1.0, int64(1), []any{"a"}, map[string]any{"a": 1}, struct{}{}}
	for _, f := range Fields {
		for _, v := range others {
			if reflect.TypeOf(v) == reflect.TypeOf(values[f.Kind]) {
				continue
			}
			p, _, err := new(Policy).With(map[string]any{f.Name: v})
			if p != nil || err == nil || !strings.Contains(err.Error(), f.Name) || strings.Contains(err.Error(), "must") {
				t.Errorf("%s %#v: %v %v", f.Name, v, p, err)
			}
		}
	}
	if Kind(99).holds("a") {
		t.Error("an unknown kind holds a text")
	}
}

// Every field of a policy can be written, is documented, and is stored under the
// name that it is shown under.
func TestFieldsAreWhatIsStored(t *testing.T) {
	var names, inStore []string
	for name := range fieldIndex {
		inStore = append(inStore, name)
	}
	clears := map[string]bool{"description": true, "owner": true, "metadata": true, "scopes": true, "rotation_schedule": true}
	view := shown(t, &Policy{}, Static, mount)
	for _, f := range Fields {
		names = append(names, f.Name)
		if f.About == "" || !strings.HasSuffix(f.About, ".") {
			t.Errorf("%s is documented as %q", f.Name, f.About)
		}
		if (f.Kind == Choice) != (len(f.Choices) > 0) {
			t.Errorf("%s: choices %v", f.Name, f.Choices)
		}
		if f.Default != nil {
			if !f.Kind.holds(f.Default) || !reflect.DeepEqual(asGiven(view)[f.Name], f.Default) {
				t.Errorf("%s: the default is %v, shown as %v", f.Name, f.Default, view[f.Name])
			}
		}
		if f.Clears != clears[f.Name] {
			t.Errorf("%s: cleared by the empty text: %v", f.Name, f.Clears)
		}
		if !f.Kind.holds(asGiven(view)[f.Name]) {
			t.Errorf("%s is shown as %#v", f.Name, view[f.Name])
		}
	}
	slices.Sort(names)
	slices.Sort(inStore)
	if !slices.Equal(names, inStore) || len(view) != len(names) {
		t.Errorf("fields %v, stored %v, shown %v", names, inStore, view)
	}
}

func TestChoicesCanBeChosen(t *testing.T) {
	for _, f := range Fields {
		for _, c := range f.Choices {
			p := must(t, nil, map[string]any{f.Name: c}, Static)
			if got := shown(t, p, Static, mount)[f.Name]; got != c {
				t.Errorf("%s %s: shown as %v", f.Name, c, got)
			}
		}
	}
}
