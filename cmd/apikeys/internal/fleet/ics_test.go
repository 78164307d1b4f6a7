// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/logical"
)

// parseFeed reads a calendar as a client does, and complains of what one would.
func parseFeed(t *testing.T, text string) (events map[string]map[string]string) {
	t.Helper()
	if !strings.HasSuffix(text, "END:VCALENDAR\r\n") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r") {
		t.Error("lines do not end in CRLF, or the end is missing")
	}
	for _, line := range strings.Split(text, "\r\n") {
		if len(line) > 75 || !utf8.ValidString(line) {
			t.Errorf("%d octets, or a character is cut: %q", len(line), line)
		}
	}
	events = map[string]map[string]string{}
	var event map[string]string
	depth := []string{}
	for _, line := range strings.Split(strings.TrimSuffix(strings.ReplaceAll(text, "\r\n ", ""), "\r\n"), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !regexp.MustCompile(`^[A-Z-]+(;[A-Z]+=[A-Z]+)*$`).MatchString(name) {
			t.Errorf("no content line: %q", line)
		}
		switch name {
		case "BEGIN":
			depth = append(depth, value)
			if value == "VEVENT" {
				event = map[string]string{}
			}
			continue
		case "END":
			if depth[len(depth)-1] != value {
				t.Errorf("%s ends in %v", value, depth)
			}
			depth = depth[:len(depth)-1]
			if value == "VEVENT" {
				if events[event["UID"]] != nil {
					t.Errorf("UID %s is there twice", event["UID"])
				}
				events[event["UID"]] = event
				event = nil
			}
			continue
		}
		if event != nil {
			if _, twice := event[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			event[name] = value
		}
	}
	for _, e := range events {
		for _, name := range []string{"DTSTAMP", "DTSTART"} {
			if _, err := time.Parse("20060102T150405Z", e[name]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	return events
}

// bySummary finds an event.
func bySummary(events map[string]map[string]string, summary string) map[string]string {
	for _, e := range events {
		if e["SUMMARY"] == summary {
			return e
		}
	}
	return nil
}

func TestFeed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		before := parseFeed(t, w.must("-format", "ics"))
		var summaries []string
		for _, e := range before {
			summaries = append(summaries, e["SUMMARY"]+" "+e["DTSTART"])
		}
		slices.Sort(summaries)
		if want := []string{
			"billing: a new key becomes current 20000609T000000Z",
			"billing: version 3 ends 20000501T000000Z",
			"ending: version 1 expires 20000505T000000Z",
			"orders: a new key becomes current 20000530T000000Z",
			"orders: version 4 ends 20000502T000000Z",
			"rolled: version 2 ends 20000505T020000Z",
		}; !slices.Equal(summaries, want) {
			t.Errorf("%q, want %q", summaries, want)
		}
		ending := bySummary(before, "ending: version 1 expires")
		if got := ending["DESCRIPTION"]; !strings.Contains(got, `\nOwner: ops\; "night\, shift" \\ EMEA\nLook: `) {
			t.Errorf("%q", got)
		}

		// The same event keeps its UID when its date moves, and wins over the older copy.
		orders := bySummary(before, "orders: a new key becomes current")
		w.write("roles/orders", object{"rotation_period": "20d"})
		w.pass(2 * time.Minute)
		moved := parseFeed(t, w.must("-format", "ics"))[orders["UID"]]
		if moved["SUMMARY"] != orders["SUMMARY"] || moved["DTSTART"] == orders["DTSTART"] || moved["DTSTAMP"] <= orders["DTSTAMP"] || number64(t, moved["SEQUENCE"]) <= number64(t, orders["SEQUENCE"]) {
			t.Errorf("%v, moved %v", orders, moved)
		}
		// Staged or not, it is the same rotation.
		w.write("rotate/orders", object{"activate_at": "72h"})
		staged := parseFeed(t, w.must("-format", "ics"))[orders["UID"]]
		if staged["SUMMARY"] != orders["SUMMARY"] || staged["DTSTART"] == moved["DTSTART"] {
			t.Errorf("%v, staged %v", moved, staged)
		}
		// The one after it is another.
		w.write("promote/orders", object{})
		after := parseFeed(t, w.must("-format", "ics"))
		if next := bySummary(after, orders["SUMMARY"]); next == nil || next["UID"] == orders["UID"] || after[orders["UID"]] != nil {
			t.Errorf("%v after %v", next, orders)
		}
		// A nearer horizon has what is nearer, and no more.
		near := parseFeed(t, w.must("-format", "ics", "-within", "4d"))
		for _, e := range after {
			if there, want := near[e["UID"]] != nil, e["DTSTART"] <= time.Now().UTC().Add(4*day).Format(icsTime); there != want {
				t.Errorf("%s at %s is there: %v", e["SUMMARY"], e["DTSTART"], there)
			}
		}
	})
}

func number64(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		t.Error(err)
	}
	return n
}

// TestFeedOfManyRoles: what the engine's calendar cuts off, the roles' own dates have, and
// nothing is there twice.
func TestFeedOfManyRoles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.many(1200)
		for i := range 30 {
			w.do(logical.UpdateOperation, "rotate/r"+pad(i), object{})
			w.do(logical.UpdateOperation, "rotate/r"+pad(1150+i), object{})
		}
		events := parseFeed(t, w.must("-format", "ics"))
		rotations, ends := 0, 0
		for _, e := range events {
			switch e["CATEGORIES"] {
			case "ROTATION":
				rotations++
			case "END OF GRACE":
				ends++
			}
		}
		if rotations != 1200 || ends != 60 {
			t.Errorf("%d rotations, %d ends", rotations, ends)
		}
		page := w.must()
		has(t, "calendar", section(t, page, "calendar"), "1,200 rotations, 60 ends of graces, 0 expiries")
	})
}

func pad(i int) string { return strings.Repeat("0", 5-len(strconv.Itoa(i))) + strconv.Itoa(i) }

func TestFolding(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("x", 75), strings.Repeat("x", 76), strings.Repeat("x", 74) + "äöü", strings.Repeat("€", 100), strings.Repeat("x", 72) + "😀😀", "", strings.Repeat("y", 1000),
	} {
		var out bytes.Buffer
		f := &feed{w: &out}
		f.line(text)
		got := out.String()
		if strings.ReplaceAll(strings.TrimSuffix(got, "\r\n"), "\r\n ", "") != text {
			t.Errorf("%q is not %q", got, text)
		}
		for _, line := range strings.Split(got, "\r\n") {
			if len(line) > 75 || !utf8.ValidString(line) {
				t.Errorf("%d octets in %q", len(line), line)
			}
		}
		if len(text) <= 75 && strings.Count(got, "\r\n") != 1 {
			t.Errorf("%q is folded", got)
		}
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"a;b,c\\d":                       `a\;b\,c\\d`,
		"one\ntwo":                       `one\ntwo`,
		"END:VEVENT\r\nBEGIN:VEVENT\x00": `END:VEVENT\nBEGIN:VEVENT`,
		"\xff plain: \"x\"":              ` plain: "x"`,
	} {
		if got := escape(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
