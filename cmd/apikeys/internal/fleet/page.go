// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Parse(pageText))
)

// pagePolicy lets the page have the one style that it brings, and nothing else: no script,
// no image, no font, no form, no frame.
func pagePolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// What a page shows at most, so that it stays a page.
const (
	shownProblems = 20 // of each kind
	shownEvents   = 60
	shownGraces   = 60
	shownIdle     = 60
	shownOwners   = 60
	shownText     = 300 // characters of a text of the server
	shownOwner    = 60
	shownUsers    = 6
	shownID       = 16 // those of imported keys are longer
)

// page is the report for people.
type page struct {
	w   io.Writer
	o   *options
	now time.Time // by this machine's clock
}

func newPage(w io.Writer, o *options, now time.Time) format { return &page{w, o, now} }

func (p *page) begin(*report) error       { return nil }
func (p *page) role(*report, *role) error { return nil }
func (p *page) end(r *report) error       { return pageTemplate.Execute(p.w, p.view(r)) }

// command is a command line with the mount and its namespace put in.
func (p *page) command(words string) string {
	if p.o.namespace != "" {
		words = strings.Replace(words, "vault write", "vault write -namespace="+p.o.namespace, 1)
		words = strings.Replace(words, "vault read", "vault read -namespace="+p.o.namespace, 1)
	}
	return strings.ReplaceAll(words, "MOUNT", p.o.mount)
}

// when is an instant, absolute and as seen from the report's.
type when struct{ Stamp, Text, Relative string }

func (p *page) when(t, now time.Time) when {
	if t.IsZero() {
		return when{}
	}
	t = t.UTC()
	return when{t.Format(time.RFC3339), t.Format("2006-01-02 15:04"), relative(t, now)}
}

type (
	pageView struct {
		Policy              string
		Style               template.CSS
		Server, Namespace   string
		Mount, Owner        string
		Version             string
		Now                 when
		ClockOff            string
		Within              string
		Warnings            []string
		Tiles               []tileView
		Groups              []groupView
		Graces              []graceView
		GracesLeft          string
		Chart               chartView
		Events              []eventView
		EventsLeft          string
		Lanes               []laneView
		LanesLeft           string
		LaneTicks           []tickView
		Ages                []ageView
		Idle                []idleView
		IdleLeft            string
		Looked, ToLookAt    string
		LookedAll           bool
		Owners              []ownerView
		OwnersLeft          string
		Roles               []roleView
		RolesLeft           bool
		Total               string
		Disabled, Unplanned string
	}
	tileView struct{ Value, Label, Note, Class string }
	// pieceView is a part of a sentence, or an instant in it.
	pieceView struct {
		Text string
		Time when
	}
	problemView struct {
		Role, Owner, Error string
		Also               []string
		Texts              [][]pieceView
		Since, NextTry     when
		Command            string
	}
	groupView struct {
		Title, Todo, Count, Class, Left string
		Roles                           []problemView
	}
	graceView struct {
		Role, Owner, Version, State string
		Until, Last                 when
		Used                        bool
		By, Successor               string
		Class                       string
	}
	eventView struct {
		At          when
		What, Class string
		Role, Owner string
		Version     string
		Late        bool
	}
	tickView  struct{ X, Label, Anchor string }
	barView   struct{ X, Width, Y, Height, Class, Title string }
	chartView struct {
		Bars      []barView
		Ticks     []tickView
		Top, Half string
		Sum, Unit string
		Any       bool
	}
	laneView struct {
		Role, Owner, Version, Age, Label string
		Next                             when
		Why                              string
		Bars                             []barView
		Marks                            []barView
	}
	ageView  struct{ Label, Count, Share, Width, Class string }
	idleView struct {
		Role, Owner, Version, KeyID string
		Since                       when
	}
	ownerView struct {
		Owner                          string
		Roles, Problems, Graces, InUse string
		Trouble                        bool
		Age                            string
		Next                           when
	}
	roleView struct {
		Role, Type, Owner, Version, Age, KeyID string
		Next                                   when
		Why                                    string
		Trouble, Disabled                      bool
	}
)

// kindViews say what a kind of problem is, and what to do about it.
var kindViews = map[string]struct{ title, todo, command string }{
	"reported": {
		"Found in the open, and still accepted",
		"Somebody has these keys who should not. Revoke the version: a replacement is made in the same step, and the owner's services have to read it.",
		"vault write MOUNT/revoke/ROLE version=VERSION reason_code=leaked",
	},
	"no_current": {
		"No current key",
		"Whoever reads these roles gets an error. Make a new key, or find out who ended the last one.",
		"vault write -f MOUNT/rotate/ROLE",
	},
	"unclaimed": {
		"Nobody has come for the new key",
		"When the old one ends, these services fail. Tell the owner, and give them time: extend the grace.",
		"vault write MOUNT/grace/ROLE version=PREVIOUS valid_until=7d",
	},
	"in_use": {
		"The old key is in use and about to end",
		"When it ends, these services fail. status says who uses it: have them read the new key, or extend the grace.",
		"vault write MOUNT/grace/ROLE version=PREVIOUS valid_until=7d",
	},
	"failing": {
		"Automatic work fails",
		"The key stays valid and the work is tried again, so this is not yet an outage. The error says what to mend.",
		"vault read MOUNT/status/ROLE",
	},
	"overdue": {
		"Rotation is late",
		"The key stays valid. If these are many, the worker is behind or no node may write: look at the server's log.",
		"vault read MOUNT/status/ROLE",
	},
	"ends_soon": {
		"The role ends soon",
		"All its keys expire then, and nothing replaces them. If it is to go on, raise valid_until.",
		"vault write MOUNT/roles/ROLE valid_until=…",
	},
	"schema": {
		"Written by a newer build",
		"This node's plugin cannot read these roles. Upgrade it.", "",
	},
	"clock": {
		"A clock ran ahead",
		"A server's clock was wrong when these roles were written. Look at the time service of all nodes.",
		"vault read MOUNT/status/ROLE",
	},
	"rival": {
		"Two instances work on one storage",
		"Find the server that is a copy or that does not know that it was replaced, and stop it.", "",
	},
	otherKind: {
		"Came up while this was read",
		"Look at the role.", "vault read MOUNT/status/ROLE",
	},
}

var kindNames = map[string]string{
	"reported": "found in the open", "no_current": "no current key", "unclaimed": "nobody came for the new key", "in_use": "old key in use near its end", "failing": "failing", "overdue": "late",
	"ends_soon": "ends soon", "schema": "newer build", "clock": "clock", "rival": "two instances", otherKind: "other",
}

var eventNames = map[string]string{
	rotates: "new key becomes current", retires: "grace ends", expires: "expires", lapses: "staged key lapses", isPurged: "deleted role is gone for good",
}

// eventClasses are those that the chart has, too.
var eventClasses = map[string]string{rotates: "rotation", retires: "ends", expires: "expiry"}

// grave are the kinds that need somebody now.
var grave = map[string]bool{"reported": true, "no_current": true, "unclaimed": true, "in_use": true}

func (p *page) view(r *report) *pageView {
	v := &pageView{
		Policy: pagePolicy(), Style: template.CSS(pageStyle), //nolint:gosec // a constant
		Server: p.o.server, Namespace: p.o.namespace, Mount: p.o.mount, Owner: clean(r.owner, 512), Version: version.Version,
		Now: p.when(r.now, r.now), Within: span(r.horizon.Sub(r.now)), Total: count(r.roles, "role"),
	}
	if off := p.now.Sub(r.now); off.Abs() > time.Minute {
		v.ClockOff = span(off)
	}
	for _, text := range r.warnings {
		v.Warnings = append(v.Warnings, clean(text, shownText))
	}
	v.Groups = p.groups(r)
	p.graces(r, v)
	v.Chart = p.chart(r)
	p.events(r, v)
	p.lanes(r, v)
	v.Ages = ages(r)
	p.idle(r, v)
	p.owners(r, v)
	p.roles(r, v)
	v.Tiles = tiles(r)
	if r.disabled > 0 {
		v.Disabled = count(r.disabled, "role")
	}
	if r.unplanned > 0 {
		v.Unplanned = count(r.unplanned, "role")
	}
	return v
}

func tiles(r *report) []tileView {
	mark := func(n int, class string) string {
		if n == 0 {
			return "calm"
		}
		return class
	}
	urgent := 0
	for kind, g := range r.groups {
		if grave[kind] {
			urgent += g.seen
		}
	}
	note := "none is urgent"
	if urgent > 0 {
		note = number(urgent) + " urgent"
	}
	if r.troubled() == 0 {
		note = "nothing to do"
	}
	class := mark(r.troubled(), "warn")
	if urgent > 0 {
		class = "bad"
	}
	looked := "of " + number(r.lookers) + " looked at"
	if r.lookers < r.asked {
		looked += ", " + number(r.asked-r.lookers) + " not"
	}
	return []tileView{
		{number(r.troubled()), "with problems", note, class},
		{number(r.used), "old keys still in use", "of " + count(r.graces.seen, "grace") + " in progress", mark(r.used, "warn")},
		{number(r.soon), "rotations in 7 days", number(r.late) + " overdue", "calm"},
		{number(len(r.idle)), "keys nobody has used", looked, mark(len(r.idle), "warn")},
		{number(r.roles), "roles", number(r.static) + " static, " + number(r.dynamic) + " dynamic", "calm"},
	}
}

func (p *page) owner(text string) string { return clean(text, shownOwner) }

func (p *page) groups(r *report) []groupView {
	var all []groupView
	for _, kind := range gravity {
		g := r.groups[kind]
		if g == nil {
			continue
		}
		words := kindViews[kind]
		v := groupView{Title: words.title, Todo: words.todo, Count: count(g.seen, "role"), Class: "warn"}
		if grave[kind] {
			v.Class = "bad"
		}
		kept := g.list()
		for _, pr := range kept[:min(len(kept), shownProblems)] {
			row := problemView{Role: pr.role.Name, Owner: p.owner(pr.role.Owner), Since: p.when(pr.since, r.now), Command: p.todo(words.command, pr)}
			for _, text := range pr.role.Problems {
				row.Texts = append(row.Texts, p.pieces(clean(text, shownText), r.now))
				if len(row.Texts) == 4 {
					break
				}
			}
			for _, k := range pr.kinds[1:] {
				row.Also = append(row.Also, kindNames[gravity[rank(k)]])
			}
			if pr.more != nil && pr.more.LastError != "" {
				row.NextTry = p.when(pr.more.NextAttempt.Time, r.now)
			}
			v.Roles = append(v.Roles, row)
		}
		v.Left = more(g.seen - len(v.Roles))
		all = append(all, v)
	}
	return all
}

var instant = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z`)

// pieces are a sentence of the engine with its times as the page writes them.
func (p *page) pieces(text string, now time.Time) []pieceView {
	var all []pieceView
	from := 0
	for _, at := range instant.FindAllStringIndex(text, -1) {
		t, err := time.Parse(time.RFC3339, text[at[0]:at[1]])
		if err != nil {
			continue
		}
		all = append(all, pieceView{Text: text[from:at[0]]}, pieceView{Time: p.when(t, now)})
		from = at[1]
	}
	return append(all, pieceView{Text: text[from:]})
}

// todo is a command with its names put in; none where one is not known.
func (p *page) todo(words string, pr *problem) string {
	if strings.Contains(words, "VERSION") {
		n := 0
		if pr.more != nil {
			for i := range pr.more.Versions {
				if v := &pr.more.Versions[i]; !v.Reported.IsZero() && v.Ended.IsZero() {
					n = v.Version
				}
			}
		}
		if n == 0 {
			words = "vault read MOUNT/status/ROLE"
		}
		words = strings.ReplaceAll(words, "VERSION", strconv.Itoa(n))
	}
	words = strings.ReplaceAll(words, "PREVIOUS", strconv.Itoa(pr.role.PreviousVersion))
	return strings.ReplaceAll(p.command(words), "ROLE", pr.role.Name)
}

func (p *page) graces(r *report, v *pageView) {
	all := r.graces.list()
	v.GracesLeft = more(r.graces.seen - min(len(all), shownGraces))
	for _, g := range all[:min(len(all), shownGraces)] {
		row := graceView{
			Role: g.role.Name, Owner: p.owner(g.role.Owner), Version: "v" + strconv.Itoa(g.version), State: g.state,
			Until: p.when(g.until, r.now), Last: p.when(g.last, r.now), Used: g.used, Class: "calm",
		}
		if g.used {
			row.Class = "warn"
			if g.until.Sub(r.now) < day {
				row.Class = "bad"
			}
		}
		var by []string
		for _, c := range g.clients[:min(len(g.clients), shownUsers)] {
			by = append(by, clean(c, shownOwner))
		}
		if n := len(g.clients) - len(by); n > 0 {
			by = append(by, number(n)+" more")
		}
		row.By = strings.Join(by, ", ")
		switch {
		case g.role.CurrentVersion == 0:
			row.Successor = "none"
		case !g.looked:
			row.Successor = "v" + strconv.Itoa(g.role.CurrentVersion)
		case g.unread:
			row.Successor = "v" + strconv.Itoa(g.role.CurrentVersion) + ", not read yet"
		default:
			row.Successor = "v" + strconv.Itoa(g.role.CurrentVersion) + ", read"
		}
		v.Graces = append(v.Graces, row)
	}
}

func (p *page) events(r *report, v *pageView) {
	all := r.events.list()
	shown := all[:min(len(all), shownEvents)]
	for _, e := range shown {
		row := eventView{At: p.when(e.at, r.now), What: eventNames[e.what], Class: eventClasses[e.what], Role: e.role, Owner: p.owner(e.own), Late: e.late}
		if row.What == "" {
			row.What = clean(e.what, 40)
		}
		if e.version > 0 {
			row.Version = "v" + strconv.Itoa(e.version)
		}
		v.Events = append(v.Events, row)
	}
	v.EventsLeft = more(r.events.seen - len(shown))
}

func (p *page) idle(r *report, v *pageView) {
	v.Looked, v.ToLookAt, v.LookedAll = number(r.lookers), number(r.asked), r.lookers >= r.asked
	for _, ro := range r.idle[:min(len(r.idle), shownIdle)] {
		v.Idle = append(v.Idle, idleView{ro.Name, p.owner(ro.Owner), "v" + strconv.Itoa(ro.CurrentVersion), clean(ro.KeyID, shownID), p.when(ro.CurrentSince.Time, r.now)})
	}
	v.IdleLeft = more(len(r.idle) - len(v.Idle))
}

func (p *page) owners(r *report, v *pageView) {
	all := r.ownersByTrouble()
	for _, own := range all[:min(len(all), shownOwners)] {
		row := ownerView{
			Owner: p.owner(own.name), Roles: number(own.roles), Problems: number(own.problems), Graces: number(own.graces), InUse: number(own.in),
			Trouble: own.problems > 0, Next: p.when(own.next, r.now),
		}
		if !own.oldest.IsZero() {
			row.Age = span(r.now.Sub(own.oldest))
		}
		v.Owners = append(v.Owners, row)
	}
	if n := len(all) - len(v.Owners); n > 0 || r.rest.roles > 0 {
		left := r.rest
		for _, own := range all[len(v.Owners):] {
			left.roles += own.roles
			left.problems += own.problems
		}
		v.OwnersLeft = fmt.Sprintf("%s more have %s, %s of them with problems.", count(n, "owner"), count(left.roles, "role"), number(left.problems))
		if r.rest.roles > 0 {
			v.OwnersLeft = "More than " + v.OwnersLeft
		}
	}
}

func (p *page) roles(r *report, v *pageView) {
	if r.listed.left() > 0 {
		v.RolesLeft = true
		return
	}
	for _, ro := range r.listed.list() {
		v.Roles = append(v.Roles, p.roleRow(r, ro))
	}
}

func (p *page) roleRow(r *report, ro *role) roleView {
	row := roleView{
		Role: ro.Name, Type: clean(ro.Type, 20), Owner: p.owner(ro.Owner), KeyID: clean(ro.KeyID, shownID), Next: p.when(ro.NextRotation.Time, r.now),
		Trouble: len(ro.Problems) > 0, Disabled: ro.Disabled,
	}
	row.Version, row.Age = versionAndAge(r, ro)
	if ro.NextRotation.IsZero() {
		row.Why = why(ro)
	}
	return row
}

// why is in short why a role has no next rotation.
func why(ro *role) string {
	text, _, _ := strings.Cut(ro.Rotation, ": the role has neither")
	return clean(text, 70)
}

func versionAndAge(r *report, ro *role) (text, age string) {
	if ro.CurrentVersion == 0 {
		return "none", ""
	}
	if !ro.CurrentSince.IsZero() {
		age = span(r.now.Sub(ro.CurrentSince.Time))
	}
	return "v" + strconv.Itoa(ro.CurrentVersion), age
}
