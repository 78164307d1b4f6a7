// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"encoding/json"
	"io"
	"strings"
	"time"
)

// documentSchema is raised where a field of the document changes its meaning or goes.
const documentSchema = 1

// document is the report for programs. Roles are written as they are read, one a line.
type document struct {
	w   io.Writer
	err error
	o   *options
	now time.Time
	n   int
}

func newDocument(w io.Writer, o *options, now time.Time) format {
	return &document{w: w, o: o, now: now}
}

func (d *document) text(s string) {
	if d.err == nil {
		_, d.err = io.WriteString(d.w, s)
	}
}

func (d *document) value(v any) {
	if d.err != nil {
		return
	}
	raw, err := json.Marshal(v)
	if err != nil {
		d.err = err
		return
	}
	_, d.err = d.w.Write(raw)
}

func (d *document) member(name string, v any) {
	d.text(",\n")
	d.value(name)
	d.text(": ")
	d.value(v)
}

func (d *document) begin(r *report) error {
	d.text(`{"schema": `)
	d.value(documentSchema)
	d.member("generated", stamp{d.now})
	d.member("now", stamp{r.now})
	d.member("server", d.o.server)
	d.member("namespace", d.o.namespace)
	d.member("mount", d.o.mount)
	d.member("owner", d.o.owner)
	d.member("until", stamp{r.horizon})
	d.text(",\n\"roles\": [")
	return d.err
}

func (d *document) role(_ *report, ro *role) error {
	if d.n > 0 {
		d.text(",")
	}
	d.n++
	d.text("\n  ")
	if ro.Problems == nil {
		ro.Problems = []string{}
	}
	d.value(ro)
	return d.err
}

type (
	documentProblem struct {
		Role        string   `json:"role"`
		Owner       string   `json:"owner"`
		Kinds       []string `json:"kinds"`
		Since       stamp    `json:"since"`
		Texts       []string `json:"texts"`
		LastError   string   `json:"last_error"`
		NextAttempt stamp    `json:"next_attempt"`
	}
	documentGrace struct {
		Role     string   `json:"role"`
		Owner    string   `json:"owner"`
		Version  int      `json:"version"`
		State    string   `json:"state"`
		Until    stamp    `json:"until"`
		InUse    bool     `json:"in_use"`
		LastUsed stamp    `json:"last_used"`
		Clients  []string `json:"clients"`
		// Not known without a look at the status.
		Successor string `json:"successor"`
	}
	documentEvent struct {
		Time    stamp  `json:"time"`
		What    string `json:"what"`
		Role    string `json:"role"`
		RoleID  string `json:"role_id"`
		Owner   string `json:"owner"`
		Version int    `json:"version"`
		Overdue bool   `json:"overdue"`
	}
	documentOwner struct {
		Owner        string `json:"owner"`
		Roles        int    `json:"roles"`
		Problems     int    `json:"problems"`
		Graces       int    `json:"graces"`
		InUse        int    `json:"graces_in_use"`
		Oldest       stamp  `json:"oldest_key"`
		NextRotation stamp  `json:"next_rotation"`
	}
	documentIdle struct {
		Role    string `json:"role"`
		Owner   string `json:"owner"`
		Version int    `json:"version"`
		KeyID   string `json:"key_id"`
		Since   stamp  `json:"since"`
	}
)

func (d *document) end(r *report) error {
	d.text("\n]")
	problems, graces, events, owners, idle := []documentProblem{}, []documentGrace{}, []documentEvent{}, []documentOwner{}, []documentIdle{}
	for _, kind := range gravity {
		if r.groups[kind] == nil {
			continue
		}
		for _, p := range r.groups[kind].list() {
			v := documentProblem{Role: p.role.Name, Owner: p.role.Owner, Kinds: p.kinds, Since: stamp{p.since}, Texts: p.role.Problems}
			if p.more != nil {
				v.LastError, v.NextAttempt = p.more.LastError, p.more.NextAttempt
			}
			problems = append(problems, v)
		}
	}
	for _, g := range r.graces.list() {
		v := documentGrace{
			Role: g.role.Name, Owner: g.role.Owner, Version: g.version, State: g.state, Until: stamp{g.until}, InUse: g.used, LastUsed: stamp{g.last}, Clients: g.clients,
		}
		if v.Clients == nil {
			v.Clients = []string{}
		}
		if g.looked {
			v.Successor = map[bool]string{true: "not read or used", false: "read or used"}[g.unread]
		}
		graces = append(graces, v)
	}
	for _, e := range r.events.list() {
		events = append(events, documentEvent{stamp{e.at}, e.what, e.role, e.id, e.own, e.version, e.late})
	}
	for _, own := range r.ownersByTrouble() {
		owners = append(owners, documentOwner{own.name, own.roles, own.problems, own.graces, own.in, stamp{own.oldest}, stamp{own.next}})
	}
	for _, ro := range r.idle {
		idle = append(idle, documentIdle{ro.Name, ro.Owner, ro.CurrentVersion, ro.KeyID, ro.CurrentSince})
	}
	ages := map[string]int{}
	for i, n := range r.ages {
		ages[strings.ReplaceAll(ageName(i), " ", "_")] = n
	}
	d.member("summary", map[string]any{
		"roles": r.roles, "static": r.static, "dynamic": r.dynamic, "disabled": r.disabled, "no_current_key": r.noCurrent, "without_next_rotation": r.unplanned,
		"with_problems": r.troubled(), "graces": r.graces.seen, "graces_in_use": r.used, "rotations_in_7_days": r.soon, "overdue": r.late,
		"events": r.events.seen, "looked_at": r.lookers, "to_look_at": r.asked, "never_read": len(r.idle), "ages": ages,
	})
	if r.warnings == nil {
		r.warnings = []string{}
	}
	d.member("warnings", r.warnings)
	d.member("problems", problems)
	d.member("graces", graces)
	d.member("events", events)
	d.member("never_read", idle)
	d.member("owners", owners)
	d.text("}\n")
	return d.err
}
