// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// What a report holds of a fleet, whatever its size.
const (
	keptEvents   = 1000
	keptProblems = 50 // of each kind
	keptGraces   = 250
	keptLanes    = 40
	keptRoles    = 1000
	keptOwners   = 20000
	// keptKinds bounds what is held of the index of problems.
	keptKinds = 50000
	// settled is how long a key is current before it is odd that nobody has come for it.
	settled = day
)

// report is what is told of a fleet. Roles are added one by one, and most of them are
// only counted.
type report struct {
	now, horizon time.Time
	// complete is before what the engine's calendar told everything; what is later comes
	// from the roles. A list that was cut has some of that, too.
	complete time.Time
	owner    string // the one asked for; empty: all
	warnings []string

	roles, static, dynamic, disabled, noCurrent, unplanned int
	used                                                   int // graces whose old version is in use
	soon                                                   int // rotations of the next week
	ages                                                   [len(ageBounds) + 1]int
	owners                                                 map[string]*ownerSum
	rest                                                   ownerSum // of owners beyond those kept
	days                                                   []daySum
	late                                                   int // events that should have happened

	kinds  map[string]kinds
	ending map[string][]coming // ends of versions, by role, as the calendar has them

	events  *best[event]
	groups  map[string]*best[*problem]
	graces  *best[*grace]
	lanes   *best[*lane]
	listed  *best[*role]
	oldest  *best[*role]
	idle    []*role
	lookers int // roles whose use was looked at
	asked   int // static keys that could be idle
}

// ageBounds are the upper bounds of the classes of key ages but the last.
var ageBounds = [...]time.Duration{day, 7 * day, 30 * day, 90 * day, 180 * day, 365 * day}

type ownerSum struct {
	name                        string
	roles, problems, graces, in int
	oldest                      time.Time
	next                        time.Time
}

type daySum struct{ rotations, ends, expiries int }

// event is something to come.
type event struct {
	at            time.Time
	what          string
	role, id, own string
	version       int // that ends, or that becomes current; 0: not known
	late          bool
}

// What an event may be. The engine tells a rotation from the activation of a version that
// was staged; to who waits for a date they are the same.
const (
	rotates  = "rotation"
	retires  = "retirement"
	expires  = "expiry"
	lapses   = "lapse"
	isPurged = "purge"
)

type problem struct {
	role  *role
	kinds []string // the gravest first
	since time.Time
	more  *status
}

// grace is a version that has been replaced or taken back, and is still accepted.
type grace struct {
	role    *role
	version int
	until   time.Time
	used    bool // since it was replaced
	last    time.Time
	state   string
	clients []string
	// unread says that nobody is known to have come for the current version; not known
	// without a look at the status.
	unread, looked bool
}

// lane is a role on the time line.
type lane struct {
	role *role
	next time.Time
	more *status
}

func newReport(c *calendar, within time.Duration, owner string, details int) *report {
	r := &report{
		now: c.Now.Time, horizon: c.Now.Add(within), complete: c.Complete.Time, owner: owner, warnings: c.Warnings,
		owners: map[string]*ownerSum{}, kinds: map[string]kinds{}, ending: map[string][]coming{}, groups: map[string]*best[*problem]{},
		days: make([]daySum, int((within+day-1)/day)),
		events: newBest(keptEvents, func(a, b event) int {
			return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.role, b.role), cmp.Compare(a.version, b.version))
		}),
		// Those in use first, since they are outages to come; then by their ends.
		graces: newBest(keptGraces, func(a, b *grace) int {
			return cmp.Or(-compareBool(a.used, b.used), a.until.Compare(b.until), cmp.Compare(a.role.Name, b.role.Name))
		}),
		lanes: newBest(keptLanes, func(a, b *lane) int {
			return cmp.Or(latest(a.next).Compare(latest(b.next)), cmp.Compare(a.role.Name, b.role.Name))
		}),
		listed: newBest(keptRoles, func(a, b *role) int { return cmp.Compare(a.Name, b.Name) }),
		oldest: newBest(details, func(a, b *role) int {
			return cmp.Or(a.CurrentSince.Compare(b.CurrentSince.Time), cmp.Compare(a.Name, b.Name))
		}),
	}
	for _, e := range c.Events {
		// That the next key is made some minutes before its date is nobody's date.
		if owner != "" && e.Owner != owner || e.What == "staging" || !e.Time.Before(c.Complete.Time) {
			continue
		}
		if e.What == "activation" {
			e.What = rotates
		}
		if e.What == retires || e.What == expires {
			r.ending[e.Role] = append(r.ending[e.Role], e)
		}
		r.add(event{at: e.Time.Time, what: e.What, role: e.Role, id: e.RoleID, own: e.Owner, version: e.Version, late: e.Overdue})
	}
	return r
}

// latest puts a time that is none last.
func latest(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return t
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// add counts an event.
func (r *report) add(e event) {
	if e.what == rotates && e.at.Before(r.now.Add(7*day)) {
		r.soon++
	}
	if e.at.After(r.horizon) {
		return
	}
	if e.late {
		r.late++
	}
	if i := int(e.at.Sub(r.now) / day); !e.at.Before(r.now) && i < len(r.days) {
		switch e.what {
		case rotates:
			r.days[i].rotations++
		case retires:
			r.days[i].ends++
		case expires:
			r.days[i].expiries++
		}
	}
	r.events.add(e)
}

// later are the events of a role that the engine's calendar has not told.
func (r *report) later(ro *role) []event {
	all := eventsOf(ro)
	return slices.DeleteFunc(all, func(e event) bool { return e.at.Before(r.complete) })
}

// eventsOf is what a role's own entry says of what comes.
func eventsOf(ro *role) []event {
	base := event{role: ro.Name, id: ro.ID, own: ro.Owner}
	var all []event
	put := func(at stamp, what string, n int) {
		if e := base; !at.IsZero() {
			e.at, e.what, e.version = at.Time, what, n
			all = append(all, e)
		}
	}
	put(ro.NextRotation, rotates, 0)
	put(ro.PreviousUntil, retires, ro.PreviousVersion)
	put(ro.Expires, expires, ro.CurrentVersion)
	return all
}

// takes reports whether a role belongs to the report.
func (r *report) takes(ro *role) bool { return r.owner == "" || ro.Owner == r.owner }

// role counts a role.
func (r *report) role(ro *role) {
	r.roles++
	switch {
	case ro.Type == "":
		// A record that this build of the engine cannot read.
	case ro.static():
		r.static++
	default:
		r.dynamic++
	}
	if ro.Disabled {
		r.disabled++
	}
	if ro.CurrentVersion == 0 {
		r.noCurrent++
	}
	if ro.NextRotation.IsZero() {
		r.unplanned++
	}
	own := r.sum(ro.Owner)
	own.roles++
	for _, e := range r.later(ro) {
		r.add(e)
	}
	if at := ro.CurrentSince; !at.IsZero() {
		age := r.now.Sub(at.Time)
		i := 0
		for i < len(ageBounds) && age >= ageBounds[i] {
			i++
		}
		r.ages[i]++
		if own.oldest.IsZero() || at.Before(own.oldest) {
			own.oldest = at.Time
		}
		if ro.static() && age >= settled && !ro.Disabled {
			r.asked++
			r.oldest.add(ro)
		}
	}
	if at := ro.NextRotation; !at.IsZero() && (own.next.IsZero() || at.Before(own.next)) {
		own.next = at.Time
	}
	r.gracesOf(ro, own)
	r.trouble(ro, own)
	next := ro.NextRotation.Time
	if end := ro.PreviousUntil.Time; !end.IsZero() && end.Before(latest(next)) {
		next = end
	}
	r.lanes.add(&lane{role: ro, next: next})
	r.listed.add(ro)
}

// sum is what is counted of an owner.
func (r *report) sum(owner string) *ownerSum {
	if own := r.owners[owner]; own != nil {
		return own
	}
	if len(r.owners) >= keptOwners {
		return &r.rest
	}
	own := &ownerSum{name: owner}
	r.owners[owner] = own
	return own
}

func (r *report) gracesOf(ro *role, own *ownerSum) {
	put := func(g *grace) {
		own.graces++
		if g.used {
			own.in++
			r.used++
		}
		r.graces.add(g)
	}
	if ro.PreviousVersion > 0 {
		put(&grace{role: ro, version: ro.PreviousVersion, until: ro.PreviousUntil.Time, used: ro.PreviousInUse, last: ro.PreviousLastUsed.Time, state: "previous"})
	}
	// Others that end are those taken back, or replaced more than once.
	for _, e := range r.ending[ro.Name] {
		if e.What == retires && e.Version != ro.PreviousVersion && e.Version != ro.CurrentVersion {
			put(&grace{role: ro, version: e.Version, until: e.Time.Time})
		}
	}
}

// gravity is the order of kinds of problems: keys that are out, and consumers without
// one, come first.
var gravity = []string{"reported", "no_current", "unclaimed", "in_use", "failing", "overdue", "ends_soon", "schema", "clock", "rival", otherKind}

// otherKind is a problem whose kind is not known: it came while the fleet was read.
const otherKind = "other"

func (r *report) trouble(ro *role, own *ownerSum) {
	// What is wrong with the mount is told of each role, and shown once.
	ro.Problems = slices.DeleteFunc(ro.Problems, func(text string) bool { return slices.Contains(r.warnings, text) })
	if len(ro.Problems) == 0 {
		return
	}
	own.problems++
	known := r.kinds[ro.Name]
	p := &problem{role: ro, since: known.Since.Time}
	if known.Kinds != "" {
		p.kinds = strings.Split(known.Kinds, ",")
	}
	slices.SortStableFunc(p.kinds, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	if len(p.kinds) == 0 {
		p.kinds = []string{otherKind}
	}
	kind := gravity[rank(p.kinds[0])]
	if r.groups[kind] == nil {
		r.groups[kind] = newBest(keptProblems, func(a, b *problem) int {
			return cmp.Or(latest(a.since).Compare(latest(b.since)), cmp.Compare(a.role.Name, b.role.Name))
		})
	}
	r.groups[kind].add(p)
}

func rank(kind string) int {
	if i := slices.Index(gravity, kind); i >= 0 {
		return i
	}
	return len(gravity) - 1
}

// troubled is how many roles have problems.
func (r *report) troubled() int {
	n := 0
	for _, g := range r.groups {
		n += g.seen
	}
	return n
}

// inspected are the roles whose status is worth a call each, the gravest first, at most
// so many: trouble, graces, what the time line shows, and keys that nobody may want.
func (r *report) inspected(limit int) []string {
	var names []string
	seen := map[string]bool{}
	put := func(name string) {
		if !seen[name] && len(names) < limit {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, kind := range gravity {
		if g := r.groups[kind]; g != nil {
			for _, p := range g.list() {
				put(p.role.Name)
			}
		}
	}
	for _, g := range r.graces.list() {
		put(g.role.Name)
	}
	for _, l := range r.lanes.list() {
		put(l.role.Name)
	}
	for _, ro := range r.oldest.list() {
		put(ro.Name)
	}
	return names
}

// details adds what the status of roles tells. A role that is gone by now tells nothing.
func (r *report) details(of map[string]*status) {
	for _, g := range r.groups {
		for _, p := range g.list() {
			p.more = of[p.role.Name]
		}
	}
	for _, g := range r.graces.list() {
		s := of[g.role.Name]
		if s == nil {
			continue
		}
		if v := s.version(g.version); v != nil {
			g.state = v.State
		}
		if cur := s.version(g.role.CurrentVersion); cur != nil {
			g.looked, g.unread = true, !cur.known()
		}
		for _, u := range s.StillUsed {
			if u.Version == g.version {
				g.clients = u.Clients
				if !g.used {
					g.used = true
					r.used++
					r.sum(g.role.Owner).in++
				}
				if u.LastAccepted.After(g.last) {
					g.last = u.LastAccepted.Time
				}
			}
		}
	}
	for _, l := range r.lanes.list() {
		l.more = of[l.role.Name]
	}
	for _, ro := range r.oldest.list() {
		s := of[ro.Name]
		if s == nil {
			continue
		}
		r.lookers++
		if v := s.version(ro.CurrentVersion); v != nil && !v.known() {
			r.idle = append(r.idle, ro)
		}
	}
	r.graces.cut()
}

// ownersByTrouble are the sums by owner, those with problems first.
func (r *report) ownersByTrouble() []*ownerSum {
	return slices.SortedFunc(maps.Values(r.owners), func(a, b *ownerSum) int {
		return cmp.Or(cmp.Compare(b.problems, a.problems), cmp.Compare(b.in, a.in), cmp.Compare(b.roles, a.roles), cmp.Compare(a.name, b.name))
	})
}
