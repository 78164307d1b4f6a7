// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestAnySize: a page of any fleet is at most 5 MiB, whatever its texts are, and what is
// held meanwhile does not grow with the number of roles.
func TestAnySize(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	owner, id, quotes, turns := strings.Repeat(`"`, 512), strings.Repeat("'", 200), strings.Repeat("'", 2000), strings.Repeat("\u202e<", 2000)
	for name, test := range map[string]struct {
		roles  int
		owners int
		worst  bool
	}{
		"the most that is listed": {keptRoles, keptRoles, true},
		"100,000 of few owners":   {100_000, 300, true},
		"100,000 of as many":      {100_000, 100_000, true},
		"100,000 in order":        {100_000, 300, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &calendar{Now: stamp{now}, Complete: stamp{now.Add(day)}}
			r := newReport(c, 400*day, "", maxDetails)
			r.warn([]string{strings.Repeat(`"`, 5000)})
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			of := map[string]*status{}
			for i := range test.roles {
				ro := &role{
					Name: fmt.Sprintf("%0128d", i), ID: "00000000-0000-4000-8000-000000000000", Type: "static", CurrentVersion: 2, KeyID: id,
					CurrentSince: stamp{now.Add(-time.Duration(i%9000) * time.Hour)}, NextRotation: stamp{now.Add(time.Duration(i%9000) * time.Hour)},
					Owner: fmt.Sprint(i%test.owners) + owner,
				}
				if test.worst {
					ro.PreviousVersion, ro.PreviousUntil, ro.PreviousInUse = 1, stamp{now.Add(time.Duration(i) * time.Second)}, true
					ro.Expires = stamp{now.Add(time.Duration(i%300) * day)}
					ro.Problems = []string{quotes, turns, "three", "four", "five"}
					r.kinds[ro.Name] = kinds{Kinds: gravity[i%len(gravity)]}
				}
				r.role(ro)
				if i < maxDetails {
					s := &status{LastError: strings.Repeat("<", 1000), Versions: []keyVersion{{Version: 2, State: "current"}, {Version: 1, State: "previous"}}}
					for range 100 {
						s.Versions = append(s.Versions, keyVersion{Version: 1, State: "retired", Activated: stamp{now.Add(-time.Duration(i) * time.Hour)}})
					}
					of[ro.Name] = s
				}
			}
			for _, g := range r.graces.list() {
				g.clients = []string{}
				for range 100 {
					g.clients = append(g.clients, strings.Repeat(`"`, 128))
				}
			}
			if n := r.held(); n > 5*maxDetails {
				t.Errorf("%d things are held of %d roles", n, test.roles)
			}
			r.details(of)
			runtime.GC()
			runtime.ReadMemStats(&after)
			var out bytes.Buffer
			if err := newPage(&out, &options{mount: "apikeys", server: "https://vault.example.com"}, now).end(r); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d KiB of page, %d MiB held", out.Len()>>10, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>20)
			if out.Len() > 5<<20 {
				t.Errorf("%d bytes", out.Len())
			}
			if n := strings.Count(out.String(), "<tr"); test.roles > keptRoles && n > 600 {
				t.Errorf("%d lines of tables", n)
			}
			has(t, "page", words(out.String()), count(test.roles, "role")+" at https://vault.example.com")
		})
	}
}

// held is how many roles, events and sums a report holds, without the index of problems.
func (r *report) held() int {
	n := len(r.events.all) + len(r.graces.all) + len(r.lanes.all) + len(r.listed.all) + len(r.oldest.all) + len(r.owners)
	for _, g := range r.groups {
		n += len(g.all)
	}
	return n
}

func TestBest(t *testing.T) {
	b := newBest(3, func(a, b int) int { return cmp.Compare(a, b) })
	for i := range 1000 {
		b.add((i*37 + 11) % 1000)
	}
	if got := fmt.Sprint(b.list(), b.left(), b.seen); got != "[0 1 2] 997 1000" {
		t.Error(got)
	}
	few := newBest(3, func(a, b int) int { return cmp.Compare(a, b) })
	few.add(2)
	few.add(1)
	if got := fmt.Sprint(few.list(), few.left()); got != "[1 2] 0" {
		t.Error(got)
	}
}

func TestWords(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "now", time.Second: "in 1 second", -90 * time.Second: "90 seconds ago", 2 * time.Minute: "in 2 minutes", -119 * time.Minute: "119 minutes ago",
		47 * time.Hour: "in 47 hours", 48 * time.Hour: "in 2 days", -729 * day: "729 days ago", 730 * day: "in 2 years",
	} {
		if got := relative(now.Add(d), now); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", 100: "100", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
	for text, want := range map[string]string{
		"a\r\nb\tc": "a b c", "a\x00b\x1b[31m": "ab[31m", "a\u202eb\u2066": "ab", "  a  ": "a", "12345678901": "123456789…", "\xff": "",
	} {
		if got := clean(text, 10); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	for n, want := range map[int]int{0: 2, 1: 2, 3: 4, 7: 8, 9: 10, 11: 20, 41: 50, 999: 1000} {
		if got := niceTop(n); got != want {
			t.Errorf("the top of %d is %d, want %d", n, got, want)
		}
	}
}

func TestWhoHasCome(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: false,
		`{"usage": {"reads": 0, "first_use": "", "reported": {"first_use": ""}}}`:                     false,
		`{"usage": {"reads": 1, "first_use": "", "reported": {"first_use": ""}}}`:                     true,
		`{"usage": {"reads": 0, "first_use": "2026-01-01T00:00:00Z", "reported": {"first_use": ""}}}`: true,
		`{"usage": {"reads": 0, "first_use": "", "reported": {"first_use": "2026-01-01T00:00:00Z"}}}`: true,
	} {
		var v keyVersion
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.known() != want {
			t.Errorf("%s: %v %v", text, v.known(), err)
		}
	}
}

// TestVersionToRevoke: the version that was reported and lives, not another one.
func TestVersionToRevoke(t *testing.T) {
	at := stamp{time.Now()}
	p := &page{o: &options{mount: "keys", namespace: "team"}}
	pr := &problem{role: &role{Name: "orders"}}
	if got, want := p.todo(kindViews["reported"].command, pr), "vault read -namespace=team keys/status/orders"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	pr.more = &status{Versions: []keyVersion{{Version: 4}, {Version: 3, Reported: at}, {Version: 2}, {Version: 1, Reported: at, Ended: at}}}
	if got, want := p.todo(kindViews["reported"].command, pr), "vault write -namespace=team keys/revoke/orders version=3 reason_code=leaked"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestTimeLineAfterRollback: what was taken back is none of the versions before.
func TestTimeLineAfterRollback(t *testing.T) {
	now := time.Now()
	r := newReport(&calendar{Now: stamp{now}, Complete: stamp{now}}, 90*day, "", 10)
	r.role(&role{Name: "orders", Type: "static", CurrentVersion: 2, CurrentSince: stamp{now.Add(-day)}})
	r.details(map[string]*status{"orders": {Versions: []keyVersion{
		{Version: 3, State: "withdrawn", Activated: stamp{now.Add(-3 * day)}},
		{Version: 2, State: "current", Activated: stamp{now.Add(-40 * day)}},
		{Version: 1, State: "retired", Activated: stamp{now.Add(-50 * day)}},
	}}})
	var out bytes.Buffer
	if err := newPage(&out, &options{mount: "apikeys"}, now).end(r); err != nil {
		t.Fatal(err)
	}
	line := section(t, out.String(), "timeline")
	has(t, "time line", line, "version 1, retired", "version 2, current since")
	if strings.Contains(line, "version 3") {
		t.Error(line)
	}
}
