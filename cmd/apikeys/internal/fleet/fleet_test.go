// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// section is a part of a page, as text.
func section(t *testing.T, page, id string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, `<section id="`+id+`">`)
	if !ok {
		t.Fatalf("no section %s", id)
	}
	part, _, _ := strings.Cut(rest, "</section>")
	return words(part)
}

// words are what a person reads.
func words(part string) string {
	part = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(part, " ")
	return strings.Join(strings.Fields(html.UnescapeString(part)), " ")
}

func has(t *testing.T, where, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", where, want, text)
		}
	}
}

func TestPage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		page := w.must("-o", "x.html")

		problems := section(t, page, "problems")
		has(t, "problems", problems,
			"Found in the open, and still accepted 1 role", "partner "+formula, "vault write apikeys/revoke/partner version=1 reason_code=leaked",
			"No current key 1 role", "revoked payments", "has no current key: version 1 is revoked since 2000-04-30 02:00 : rotate/revoked makes a new one", "vault write -f apikeys/rotate/revoked",
		)
		if i, j := strings.Index(problems, "Found in the open"), strings.Index(problems, "No current key"); i > j {
			t.Error("the gravest is not first")
		}
		graces := section(t, page, "graces")
		has(t, "graces", graces,
			// Nobody has read version 5, and two services go on with version 4.
			"orders "+script+" v4 2000-05-02 00:00 in 45 hours in use", script+", nightly-export", "v5, not read yet",
			"rolled platform v2 taken back", "in 4 days in use", "canary", "v1, not read yet",
		)
		calendar := section(t, page, "calendar")
		has(t, "calendar", calendar, "2 rotations, ", "deleted role is gone for good deleted", "expires ending v1 "+punct, "grace ends orders v4", "grace ends rolled v2", "new key becomes current billing v5")
		has(t, "time line", section(t, page, "timeline"), "orders "+script+" v5 2 hours version 4, previous", "paused: rotation_paused is set on the role", "only by hand")
		if line := section(t, page, "timeline"); strings.Contains(line, "version 2, withdrawn") {
			t.Errorf("a version that was taken back is drawn before the one that is current again: %s", line)
		}
		has(t, "ages", section(t, page, "ages"), "under 1 day 3", "90 to 180 days 5", "7 roles without a planned rotation")
		idle := section(t, page, "unused")
		has(t, "unused", idle, "sleeping no owner v1", "ending", "paused platform v1")
		for _, name := range []string{"billing", "partner", "dynamic"} {
			if strings.Contains(idle, name) {
				t.Errorf("%s was used, or is not asked for: %s", name, idle)
			}
		}
		has(t, "owners", section(t, page, "owners"), "payments 3 1 1 0", "no owner 1 0 0 0")
		roles := section(t, page, "roles")
		for _, name := range roleNames {
			has(t, "roles", roles, name)
		}
		head, _, _ := strings.Cut(page, "<section")
		has(t, "head", words(head), "API keys apikeys/", "9 roles at http://vault.example.com", "As of 2000-04-30 02:0", "2 with problems 2 urgent", "2 old keys still in use of 3 graces in progress")
	})
}

// TestPageBringsNothing: no script, no link but to its own parts, nothing from elsewhere; the one style is the
// one that the policy names.
func TestPageBringsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		page := w.must()
		_, rest, _ := strings.Cut(page, "<style>")
		style, rest, _ := strings.Cut(rest, "</style>")
		sum := sha256.Sum256([]byte(style))
		policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
		has(t, "head", html.UnescapeString(page), `<meta http-equiv="Content-Security-Policy" content="`+policy+`">`)
		for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(page[:strings.Index(page, "<style>")]+rest, -1) {
			if regexp.MustCompile(`(?i)^<(script|link|img|form|iframe|object|embed|base|image|use|foreignObject)\b|\bhref="[^#]|\b(src|style|on[a-z]+)=|javascript:|url\(`).MatchString(tag) {
				t.Errorf("tag %s", tag)
			}
		}
		if strings.Contains(page, script) || strings.Contains(style, "url(") || strings.Contains(style, "@import") {
			t.Error("a text of the mount is markup, or the style asks for more")
		}
	})
}

func TestOwnerAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		for _, format := range []string{"html", "csv", "json", "ics"} {
			out := w.must("-format", format, "-owner", "payments")
			for _, other := range []string{"orders", "partner", "rolled", "sleeping"} {
				if regexp.MustCompile(`\b` + other + `\b`).MatchString(out) {
					t.Errorf("%s of payments names %s", format, other)
				}
			}
			has(t, format, out, "billing")
		}
	})
}

func TestTable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		out := w.must("-format", "csv")
		if strings.Count(out, "\r\n") != len(roleNames)+1 {
			t.Errorf("lines do not end in CRLF:\n%s", out)
		}
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]int{}
		for i, name := range rows[0] {
			at[name] = i
		}
		found := map[string][]string{}
		for _, row := range rows[1:] {
			found[row[at["role"]]] = row
		}
		if got := sorted(found); !slices.Equal(got, roleNames) {
			t.Fatalf("%q", got)
		}
		for role, want := range map[string]map[string]string{
			"partner": {"owner": "'" + formula, "current_version": "1", "age_days": "120", "next_rotation": ""},
			"orders":  {"owner": script, "current_version": "5", "previous_version": "4", "previous_in_use": "true", "age_days": "0"},
			"ending":  {"owner": punct, "expires": "2000-05-05T00:00:00Z"},
			"revoked": {"current_version": "0", "age_days": "", "key_id": ""},
		} {
			for column, value := range want {
				if got := found[role][at[column]]; got != value {
					t.Errorf("%s: %s is %q, want %q", role, column, got, value)
				}
			}
		}
		has(t, "problems", found["revoked"][at["problems"]], "has no current key")
	})
}

func TestHarmless(t *testing.T) {
	for cell, want := range map[string]string{
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\tx": "'\tx", "\rx": "'\rx", "\n=1": "'\n=1", " =1": "' =1", "＝1": "'＝1",
		"": "", "team": "team", "a=b": "a=b", "2026-01-01": "2026-01-01",
	} {
		if got := harmless(cell); got != want {
			t.Errorf("%q becomes %q, want %q", cell, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		var d struct {
			Schema  int    `json:"schema"`
			Now     string `json:"now"`
			Mount   string `json:"mount"`
			Roles   []role `json:"roles"`
			Summary struct {
				Roles, Static, Dynamic int
				Problems               int `json:"with_problems"`
				InUse                  int `json:"graces_in_use"`
				NeverRead              int `json:"never_read"`
				Ages                   map[string]int
			} `json:"summary"`
			Problems []documentProblem `json:"problems"`
			Graces   []documentGrace   `json:"graces"`
			Events   []documentEvent   `json:"events"`
			Idle     []documentIdle    `json:"never_read"`
			Owners   []documentOwner   `json:"owners"`
		}
		text := w.must("-format", "json", "-within", "35d")
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "null") {
			t.Error("a list is null")
		}
		var names []string
		for _, ro := range d.Roles {
			names = append(names, ro.Name)
		}
		if !slices.Equal(names, roleNames) || d.Schema != 1 || d.Mount != "apikeys" || !strings.HasPrefix(d.Now, "2000-04-30T02:0") {
			t.Errorf("%q, %+v", names, d)
		}
		if s := d.Summary; s.Roles != 9 || s.Static != 8 || s.Dynamic != 1 || s.Problems != 2 || s.InUse != 2 || s.NeverRead != len(d.Idle) || s.Ages["under_1_day"] != 3 {
			t.Errorf("%+v", s)
		}
		if len(d.Problems) != 2 || d.Problems[0].Role != "partner" || d.Problems[0].Owner != formula || d.Problems[0].Kinds[0] != "reported" || len(d.Problems[0].Texts) != 1 {
			t.Errorf("%+v", d.Problems)
		}
		if g := d.Graces; len(g) != 3 || g[0].Role != "orders" || !slices.Equal(g[0].Clients, []string{script, "nightly-export"}) && !slices.Equal(g[0].Clients, []string{"nightly-export", script}) ||
			g[0].Successor != "not read or used" || g[1].State != "withdrawn" {
			t.Errorf("%+v", g)
		}
		for _, e := range d.Events {
			if e.Role == "billing" && e.What == rotates {
				t.Errorf("%+v is further than was asked for", e)
			}
		}
		if len(d.Events) != 6 || d.Events[0].What != "retirement" || len(d.Owners) != 6 {
			t.Errorf("%+v %+v", d.Events, d.Owners)
		}
	})
}

// TestPages: a fleet of more than one page is read as a whole, also while it changes.
func TestPages(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.many(2*pageSize + 3)
		out := w.must("-format", "csv")
		if n := strings.Count(out, "\nr0"); n != 2*pageSize+3 || w.count("inventory") != 3 {
			t.Errorf("%d roles in %d pages", n, w.count("inventory"))
		}
		// Roles go between the pages, and between a page and a look at a status.
		w.before = func(path string, _ http.ResponseWriter) int {
			if path == "inventory" && w.count("inventory") == 5 {
				w.do(logical.DeleteOperation, "roles/r01000", nil)
			}
			if path == "status/r00007" {
				w.do(logical.DeleteOperation, "roles/r00007", nil)
			}
			return 0
		}
		page := w.must()
		has(t, "head", words(page), number(2*pageSize+2)+" roles at")
		if n := w.count("status/"); n != keptLanes {
			t.Errorf("%d looks at a status", n)
		}
	})
}

func TestEmptyMount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, format := range []string{"html", "csv", "json", "ics"} {
			if out := w.must("-format", format); out == "" {
				t.Errorf("%s is empty", format)
			}
		}
		has(t, "page", words(w.must()), "No role has a problem.", "There is no role.", "Nothing is planned.")
	})
}

// TestRepeats: what passes is waited for, and what does not is told at once.
func TestRepeats(t *testing.T) {
	for name, test := range map[string]struct {
		status, times int
		header        string
		path          string
		err           string
		least, most   time.Duration
	}{
		"limited":          {status: 429, times: 2, header: "7", path: "inventory", least: 14 * time.Second, most: 14 * time.Second},
		"limited for long": {status: 429, times: 1, header: "86400", path: "inventory", least: longestPause, most: longestPause},
		"sealed":           {status: 503, times: 3, path: "calendar", least: 3500 * time.Millisecond, most: 3500 * time.Millisecond},
		"stepped down":     {status: 500, times: 1, path: "status/orders", least: firstPause, most: firstPause},
		"not current":      {status: 412, times: 1, path: "problems", least: firstPause, most: firstPause},
		"sealed for good":  {status: 503, times: 99, path: "inventory", err: "list apikeys/inventory: the server answers 503: not now", least: 20 * time.Second, most: time.Minute},
		"forbidden":        {status: 403, times: 99, path: "calendar", err: "read apikeys/calendar: not now: the token's policy lacks it; bootstrap/policies/fleet.hcl"},
		"wrong mount":      {status: 404, times: 99, path: "calendar", err: "is the engine mounted at apikeys/? -mount says where"},
		"refused":          {status: 400, times: 99, path: "status/orders", err: "read apikeys/status/orders: the server answers 400: not now"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.write("roles/orders", object{})
				left := test.times
				w.before = func(path string, rw http.ResponseWriter) int {
					if path != test.path || left == 0 {
						return 0
					}
					left--
					if test.header != "" {
						rw.Header().Set("Retry-After", test.header)
					}
					return test.status
				}
				began := time.Now()
				out, err := w.fleet()
				took := time.Since(began)
				if test.err == "" {
					has(t, "page", words(out), "orders no owner")
				}
				if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
					t.Errorf("%v, want %q", err, test.err)
				}
				if took < test.least || took > test.most {
					t.Errorf("took %s, want %s to %s", took, test.least, test.most)
				}
			})
		})
	}
}

// TestMountWideTrouble: what is wrong with the mount is told once, and not of each role.
func TestMountWideTrouble(t *testing.T) {
	text := `the mount's mark was written at <b>2031</b>`
	r := newReport(&calendar{Now: stamp{time.Now()}, Complete: stamp{time.Now()}}, day, "", 10)
	r.warn([]string{text})
	r.warn([]string{text})
	r.role(&role{Name: "orders", Type: "static", Problems: []string{text}})
	r.role(&role{Name: "mail", Type: "static", Problems: []string{text, "is overdue"}})
	if r.troubled() != 1 || len(r.warnings) != 1 || r.groups[otherKind].list()[0].role.Name != "mail" {
		t.Errorf("%d troubled, %q", r.troubled(), r.warnings)
	}
}

// TestCommandsOfThePage: what the page says to do can be done as it is written.
func TestCommandsOfThePage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settledFleet(w)
		w.write("roles/handed", object{"owner": "partners", "reveal": "once", "grace_period": "48h"})
		w.key("handed")
		w.write("rotate/handed", object{})
		w.write("roles/over", object{"valid_until": time.Now().Add(6 * day).UTC().Format(time.RFC3339), "rotation_period": "0"})
		w.pass(30 * time.Hour)
		page := w.must()
		has(t, "problems", section(t, page, "problems"), "Nobody has come for the new key 2 roles", "The role ends soon 1 role")
		var done []string
		for _, code := range regexp.MustCompile(`<code>vault ([^<]*)</code>`).FindAllStringSubmatch(page, -1) {
			words := strings.Fields(html.UnescapeString(code[1]))
			path := ""
			data := object{}
			for _, word := range words[1:] {
				if name, value, ok := strings.Cut(word, "="); ok {
					data[name] = strings.ReplaceAll(value, "…", time.Now().Add(90*day).UTC().Format(time.RFC3339))
				} else if !strings.HasPrefix(word, "-") {
					path = strings.TrimPrefix(word, "apikeys/")
				}
			}
			if words[0] == "read" {
				w.do(logical.ReadOperation, path, nil)
			} else {
				w.write(path, data)
			}
			done = append(done, path)
		}
		slices.Sort(done)
		if want := []string{"grace/handed", "grace/orders", "revoke/partner", "roles/over", "rotate/revoked"}; !slices.Equal(done, want) {
			t.Errorf("%q, want %q", done, want)
		}
		has(t, "problems", section(t, w.must(), "problems"), "No role has a problem.")
	})
}
