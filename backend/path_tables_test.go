// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/logical"
)

// widthOf is how wide the command lines of servers print a list: four blanks
// between the columns.
func widthOf(names []string, info map[string]map[string]any) int {
	widths := map[string]int{"Keys": 4}
	put := func(column string, value any) {
		text := fmt.Sprint(value)
		if text == "" {
			text = "n/a"
		}
		widths[column] = max(widths[column], len(column), utf8.RuneCountInString(text))
	}
	for _, name := range names {
		put("Keys", name)
		for column, value := range info[name] {
			put(column, value)
		}
	}
	width := 4 * (len(widths) - 1)
	for _, w := range widths {
		width += w
	}
	return width
}

// expectTable: the list fits a screen, and tells the same of each name.
func (m *testMount) expectTable(path, columns string) (names []string, info map[string]map[string]any) {
	m.t.Helper()
	names, info, _ = m.listed(path, nil)
	if width := widthOf(names, info); width > 120 {
		m.t.Errorf("%s is %d characters wide", path, width)
	}
	for _, name := range names {
		if got := strings.Join(sortedKeys(info[name]), " "); got != columns {
			m.t.Errorf("%s, %s has the columns %s, want %s", path, name, got, columns)
		}
	}
	return names, info
}

func TestVersionsAsATable(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	for range 10 {
		m.clock.advance(time.Minute)
		m.write("rotate/r", map[string]any{"grace_period": 60})
	}
	m.ask(m.read("creds/r")["api_key"])
	m.write("rotate/r", map[string]any{"stage": true})
	names, info := m.expectTable("versions/r", "key_id last_used reads since state until")
	if got := strings.Join(names, " "); got != "12 11 10 9 8 7 6 5 4 3 2 1" {
		t.Errorf("versions %s", got)
	}
	for n, want := range map[string]string{
		"12": "pending 0   2026-03-09T09:10:00Z", "11": "current 1 2026-03-02T09:10:00Z 2026-03-02T09:10:00Z ",
		"10": "previous 0 2026-03-02T09:09:00Z  2026-03-02T09:11:00Z", "9": "retired 0 2026-03-02T09:08:00Z  2026-03-02T09:10:00Z",
	} {
		v := info[n]
		num, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(v["state"], " ", v["reads"], " ", v["since"], " ", v["last_used"], " ", v["until"]); got != want {
			t.Errorf("version %s: %s, want %s", n, got, want)
		}
		if v["key_id"] != m.record("r").Ring.Get(num).KeyID {
			t.Errorf("version %s has the key id %v", n, v["key_id"])
		}
	}
	for _, limit := range []int{1, 5, 12, 13} {
		if got := m.paged("versions/r/", limit, nil); strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
	m.refused(logical.ListOperation, "versions/r", map[string]any{"after": "x"}, "after: \"x\": is not the number of a version")
	if resp, err := m.do(logical.ListOperation, "versions/none", nil); resp != nil || err != nil {
		t.Errorf("an absent role answers %v %v", resp, err)
	}
	m.write("import", map[string]any{"batch": `{"role":"i","key":"sk-0123456789-from-elsewhere"}`})
	m.ask("sk-0123456789-from-elsewhere")
	m.write("rotate/i", nil)
	m.expectTable("versions/i", "key_id last_used reads since state until")
}

func TestHistoryAsATable(t *testing.T) {
	m := newMount(t)
	m.request.DisplayName = "token-" + strings.Repeat("somebody ", 20)
	m.write("roles/r", nil)
	for i := range 45 {
		if i%7 == 0 {
			m.clock.advance(time.Hour)
		}
		m.write("rotate/r", map[string]any{"force": true, "reason": strings.Repeat("why\nnot ", 50)})
	}
	all := m.read("history/r")
	entries := all["entries"].([]any)
	names, info := m.expectTable("history/r", "by cause kind reason version")
	if len(names) != len(entries) || len(entries) < 20 {
		t.Fatalf("%d of %d entries", len(names), len(entries))
	}
	for i, e := range entries {
		e := e.(map[string]any)
		row := info[names[i]]
		if !strings.HasPrefix(names[i], e["time"].(string)) || row["kind"] != e["kind"] || row["version"] != e["version"] || row["cause"] != e["cause"] {
			t.Errorf("entry %d is %s %v, want %v", i, names[i], row, e)
		}
	}
	for _, limit := range []int{1, 7, 1000} {
		if got := m.paged("history/r", limit, nil); strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
	resp, err := m.do(logical.ListOperation, "history/r", nil)
	older := all["older_page"]
	if err != nil || number(t, older) < 0 || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], fmt.Sprint("page=", older)) {
		t.Errorf("older page %v, and the list says %v, %v", older, resp, err)
	}
	if names, _, _ := m.listed("history/r", map[string]any{"page": older}); len(names) == 0 {
		t.Error("a page of the archive is no table")
	}
	m.refused(logical.ReadOperation, "history/r", map[string]any{"after": "2026"}, "after: is for lists")
	if resp, err := m.do(logical.ListOperation, "history/none", nil); resp != nil || err != nil {
		t.Errorf("an absent role answers %v %v", resp, err)
	}
}

func TestProblemsAsATable(t *testing.T) {
	m := newMount(t)
	name := func(what string) string { return (what + "-" + strings.Repeat("x", 30))[:30] }
	setRole := func(what string, fields map[string]any) {
		all := map[string]any{"owner": "the team that is called\u00a0" + what + " and more"}
		for f, v := range fields {
			all[f] = v
		}
		m.write("roles/"+name(what), all)
	}
	setRole("fine", nil)
	setRole("dead", nil)
	m.write("revoke/"+name("dead"), map[string]any{"all": true, "rotate": false})
	setRole("leaked", map[string]any{"on_leak": "alert"})
	m.clock.advance(time.Minute)
	m.write("report", map[string]any{"key": m.read("creds/" + name("leaked"))["api_key"]})
	setRole("deserted", map[string]any{"reveal": "once", "grace_period": "2h"})
	m.write("rotate/"+name("deserted"), nil)
	setRole("failing", map[string]any{"rotation_period": "1h"})
	m.storage = &failingPut{Storage: m.storage, prefix: keyPrefix}
	m.run(65 * time.Minute)

	names, info := m.expectTable("problems", "owner problems since version")
	if got := m.problemList(); got != strings.Join(names, " ") {
		t.Errorf("problems are %v, and by the inventory %s", names, got)
	}
	for what, want := range map[string]string{
		"dead": "no_current 2026-03-02T09:00:00Z 0", "leaked": "reported 2026-03-02T09:01:00Z 1", "deserted": "unclaimed 2026-03-02T10:01:00Z 2",
		"failing": "failing,overdue 2026-03-02T09:51:00Z 1", "fine": "<nil> <nil> <nil>",
	} {
		i := info[name(what)]
		if got := fmt.Sprint(i["problems"], " ", i["since"], " ", i["version"]); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	for _, limit := range []int{1, 3, 1000} {
		if got := m.paged("problems/", limit, nil); strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
}

// The table of the calendar has what a read of the same time has, in its order, a
// week if nobody says how long.
func TestCalendarAsATable(t *testing.T) {
	m := newMount(t)
	for i := range 14 {
		m.write(fmt.Sprint("roles/role-of-somebody-who-likes-long-names-", i), map[string]any{
			"rotation_period": "48h", "owner": "the team that is called\u00a0something long",
		})
	}
	m.write("roles/later", map[string]any{"rotation_period": "192h"})
	m.clock.advance(48*time.Hour + time.Hour) // what the server slept through is overdue
	events := m.must(logical.ReadOperation, "calendar", map[string]any{"within": "168h"})["events"].([]any)
	names, info := m.expectTable("calendar/", "overdue owner role version what")
	if len(names) != len(events) || len(events) < 15 {
		t.Fatalf("%d of %d events: %v", len(names), len(events), names)
	}
	seen := map[string]bool{}
	for i, e := range events {
		e, row := e.(map[string]any), info[names[i]]
		if !strings.HasPrefix(names[i], e["time"].(string)) || seen[names[i]] || row["what"] != e["what"] || row["version"] != e["version"] || row["overdue"] != e["overdue"] {
			t.Errorf("event %d is %s %v, want %v", i, names[i], row, e)
		}
		if role := strings.TrimSuffix(row["role"].(string), "…"); !strings.HasPrefix(e["role"].(string), role) {
			t.Errorf("event %d is of %s, want %s", i, role, e["role"])
		}
		seen[names[i]] = true
	}
	for _, limit := range []int{1, 4, 11, 1000} {
		if got := m.paged("calendar/", limit, nil); strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("pages of %d: %v, want %v", limit, got, names)
		}
	}
	if names, _, _ := m.listed("calendar/", map[string]any{"within": "1s"}); len(names) != 14 {
		t.Errorf("what is overdue are %d events: %v", len(names), names)
	}
	if got := m.read("calendar"); got["until"] != stamp(m.clock.Now().Add(24*time.Hour)) {
		t.Errorf("a read looks ahead until %v", got["until"])
	}
	m.refused(logical.ReadOperation, "calendar", map[string]any{"after": "2026"}, "after: is for lists")
	m.refused(logical.ListOperation, "calendar/", map[string]any{"within": "2161h"}, "within", "90 days")
}
