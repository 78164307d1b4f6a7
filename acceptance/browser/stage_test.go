// SPDX-License-Identifier: MPL-2.0

package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A fleet with a past cannot be made on a server whose clock is the machine's. So here is
// one on a stage: a server that answers what the engine would, in the shapes that the
// engine's own tests and those of the command hold.

const day = 24 * time.Hour

type object = map[string]any

// actor is a role on the stage.
type actor struct {
	name, owner string
	dynamic     bool
	disabled    bool
	// born are the ages of its versions, the oldest first; the last one is current unless
	// it was revoked.
	born    []time.Duration
	period  time.Duration
	grace   time.Duration // left of the previous version
	users   []string      // of the previous version
	unread  bool
	ends    time.Duration // of the current version
	revoked bool
	kind    string
	problem string
	why     string
	failed  string
}

type stage struct {
	now    time.Time
	actors []actor
	byName map[string]*actor
}

func newStage(now time.Time, actors []actor) *stage {
	s := &stage{now: now, actors: actors, byName: map[string]*actor{}}
	sort.Slice(s.actors, func(i, j int) bool { return s.actors[i].name < s.actors[j].name })
	for i := range s.actors {
		s.byName[s.actors[i].name] = &s.actors[i]
	}
	return s
}

func (s *stage) stamp(from time.Duration) string {
	return s.now.Add(from).UTC().Format(time.RFC3339)
}

func (a *actor) id() string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", hash(a.name)) }

func (a *actor) keyID() string {
	if a.dynamic {
		return ""
	}
	return fmt.Sprintf("k%011d", hash(a.name)%1e11)
}

func hash(text string) uint64 {
	h := uint64(1469598103934665603)
	for _, c := range []byte(text) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h >> 16
}

func (a *actor) current() int {
	if a.revoked {
		return 0
	}
	return len(a.born)
}

// next is when it rotates.
func (a *actor) next() (time.Duration, bool) {
	return a.period - a.born[len(a.born)-1], a.period > 0
}

func (s *stage) entry(a *actor) object {
	e := object{
		"role_id": a.id(), "type": map[bool]string{false: "static", true: "dynamic"}[a.dynamic], "owner": a.owner, "disabled": a.disabled,
		"current_version": a.current(), "key_id": "", "current_since": "", "current_age": 0, "expires": "", "strength": "",
		"next_rotation": "", "rotation": a.why, "previous_version": 0, "previous_until": "", "previous_last_used": "", "previous_in_use": false,
		"problems": []string{},
	}
	if n := a.current(); n > 0 {
		e["key_id"], e["current_since"], e["current_age"] = a.keyID(), s.stamp(-a.born[n-1]), int(a.born[n-1]/time.Second)
	}
	if next, ok := a.next(); ok {
		e["next_rotation"], e["rotation"] = s.stamp(next), "at "+s.stamp(next)
	}
	if a.ends > 0 {
		e["expires"] = s.stamp(a.ends)
	}
	if a.grace > 0 {
		e["previous_version"], e["previous_until"] = len(a.born)-1, s.stamp(a.grace)
		if a.users != nil {
			e["previous_in_use"], e["previous_last_used"] = true, s.stamp(-3*time.Minute)
		}
	}
	if a.problem != "" {
		e["problems"] = []string{s.spoken(a.problem)}
	}
	return e
}

// spoken puts times where a text has a distance from now in brackets.
func (s *stage) spoken(text string) string {
	return distance.ReplaceAllStringFunc(text, func(d string) string {
		from, err := time.ParseDuration(strings.Trim(d, "[]"))
		if err != nil {
			panic(err)
		}
		return s.stamp(from)
	})
}

var distance = regexp.MustCompile(`\[-?[0-9]+h\]`)

func (s *stage) status(a *actor) object {
	never := object{"first_use": ""}
	var versions []object
	for i, age := range slices.Backward(a.born) {
		v := object{"version": i + 1, "state": "retired", "activated": s.stamp(-age), "ends": "", "ended": "", "reported": ""}
		use := object{"first_use": s.stamp(-age + time.Hour), "reads": 12, "reported": never}
		switch {
		case i == len(a.born)-1 && !a.revoked:
			v["state"] = "current"
			if a.unread {
				use = object{"first_use": "", "reads": 0, "reported": never}
			}
			if a.kind == "reported" {
				v["reported"] = s.stamp(-time.Hour)
			}
		case i == len(a.born)-2 && a.grace > 0:
			v["state"], v["ends"] = "previous", s.stamp(a.grace)
		case i == len(a.born)-1:
			v["state"], v["ended"] = "revoked", s.stamp(-2*time.Hour)
		default:
			v["ended"] = s.stamp(-a.born[i+1] + day)
		}
		v["usage"] = use
		versions = append(versions, v)
	}
	used := []object{}
	if a.users != nil {
		used = append(used, object{"version": len(a.born) - 1, "state": "previous", "valid_until": s.stamp(a.grace), "last_accepted": s.stamp(-3 * time.Minute), "clients": a.users})
	}
	st := object{"versions": versions, "still_used": used, "last_error": a.failed, "attempts": 0, "next_attempt": ""}
	if a.failed != "" {
		st["attempts"], st["next_attempt"] = 7, s.stamp(11*time.Minute)
	}
	return st
}

func (s *stage) calendar(within time.Duration) object {
	type due struct {
		at time.Duration
		e  object
	}
	var all []due
	for i := range s.actors {
		a := &s.actors[i]
		put := func(at time.Duration, what string, version int) {
			if at <= within {
				all = append(all, due{at, object{
					"time": s.stamp(at), "what": what, "role": a.name, "role_id": a.id(), "owner": a.owner, "version": version, "key_id": "", "overdue": at < 0,
				}})
			}
		}
		if next, ok := a.next(); ok {
			put(next, "rotation", len(a.born)+1)
		}
		if a.grace > 0 {
			put(a.grace, "retirement", len(a.born)-1)
		}
		if a.ends > 0 {
			put(a.ends, "expiry", len(a.born))
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].at < all[j].at })
	complete := within
	if len(all) > 1000 {
		complete = all[1000].at
		all = all[:1000]
	}
	events := []object{}
	for _, d := range all {
		events = append(events, d.e)
	}
	return object{"now": s.stamp(0), "until": s.stamp(within), "complete_until": s.stamp(complete), "events": events}
}

// page is a page of a list, as the engine cuts it.
func (s *stage) page(r *http.Request, show func(a *actor) object) object {
	after := r.FormValue("after")
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit > 1000 {
		limit = 1000
	}
	from := sort.Search(len(s.actors), func(i int) bool { return s.actors[i].name > after })
	keys, info := []string{}, object{}
	for i := from; i < len(s.actors); i++ {
		if len(keys) == limit {
			return object{"keys": keys, "key_info": info, "next_after": s.actors[i-1].name}
		}
		a := &s.actors[i]
		if e := show(a); e != nil {
			keys, info[a.name] = append(keys, a.name), e
		}
	}
	return object{"keys": keys, "key_info": info}
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/apikeys/")
	var data object
	switch {
	case path == "calendar":
		seconds, _ := strconv.Atoi(r.FormValue("within"))
		data = s.calendar(time.Duration(seconds) * time.Second)
	case path == "inventory":
		data = s.page(r, s.entry)
	case path == "problems":
		data = s.page(r, func(a *actor) object {
			if a.problem == "" {
				return nil
			}
			return object{"problems": a.kind, "since": s.stamp(-2 * time.Hour), "owner": a.owner, "version": a.current()}
		})
	case strings.HasPrefix(path, "status/") && s.byName[path[7:]] != nil:
		data = s.status(s.byName[path[7:]])
	default:
		http.Error(w, `{"errors": []}`, http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(object{"data": data, "warnings": nil})
}

// perform writes the page of a fleet on the stage with the real program.
func perform(t *testing.T, actors []actor, args ...string) (file string) {
	t.Helper()
	server := httptest.NewServer(newStage(time.Now().Truncate(time.Second), actors))
	t.Cleanup(server.Close)
	return fleet(t, server.URL, args...)
}

func fleet(t *testing.T, address string, args ...string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "fleet.html")
	cmd := exec.Command(programs.apikeys, append([]string{"fleet", "-o", file}, args...)...)
	cmd.Env = append(cmd.Environ(), "VAULT_ADDR="+address, "VAULT_TOKEN=root")
	began := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Logf("written in %s", time.Since(began).Round(10*time.Millisecond))
	return file
}

// small is a fleet that shows everything that the page can tell.
func small() []actor {
	const team, pay = "team-commerce", "payments@example.com"
	return []actor{
		{name: "orders", owner: team, born: []time.Duration{86 * day, 56 * day, 26 * day, 20 * time.Hour}, period: 30 * day, grace: 4 * time.Hour, users: []string{"web-7", "nightly-export"}},
		{
			name: "checkout", owner: team, born: []time.Duration{74 * day, 44 * day, 2 * day}, period: 42 * day, grace: 5 * day, unread: true, kind: "unclaimed",
			problem: "nobody has read or used version 3, current since [-48h], and version 2 ends at [120h]: hand it out (creds/checkout), or take it back (rollback/checkout)",
		},
		{name: "search", owner: team, born: []time.Duration{80 * day, 50 * day, 20 * day}, period: 30 * day},
		{name: "payments-eu", owner: pay, born: []time.Duration{89 * day, 61 * day, 33 * day, 5 * day}, period: 28 * day, grace: 2 * day, users: []string{"ledger"}},
		{
			name: "payments-us", owner: pay, born: []time.Duration{61 * day, 33 * day, 5 * day}, period: 28 * day, kind: "reported",
			problem: "version 3 was reported as found in the open at [-2h] and is accepted without end: revoke/payments-us kills it",
		},
		{name: "partner-acme", owner: "partners", born: []time.Duration{412 * day}, why: "only by hand: the role has neither rotation_period nor rotation_schedule"},
		{name: "partner-globex", owner: "partners", born: []time.Duration{71 * day}, ends: 19 * day, why: "only by hand: the role has neither rotation_period nor rotation_schedule", unread: true},
		{
			name: "partner-initech", owner: "partners", born: []time.Duration{230 * day}, revoked: true, kind: "no_current", why: "only by hand: the role has neither rotation_period nor rotation_schedule",
			problem: "has no current key: version 1 is revoked since [-2h]: rotate/partner-initech makes a new one",
		},
		{
			name: "mail-relay", owner: "platform", born: []time.Duration{91 * day}, period: 90 * day, kind: "failing,overdue", failed: "storage: 503",
			problem: "failing since [-2h], 7 attempts: storage: context deadline exceeded",
		},
		{name: "reports", owner: "", born: []time.Duration{35 * day}, why: "paused: rotation_paused is set on the role", disabled: true},
		{name: "batch-jobs", owner: "platform", dynamic: true, born: []time.Duration{70 * day, 12 * day}, period: 60 * day},
		{name: "mobile-push", owner: "platform", born: []time.Duration{83 * day, 53 * day, 23 * day}, period: 30 * day},
	}
}

// large is a fleet of so many roles, of which some have every problem, and whose texts are
// long and hostile.
func large(n int) []actor {
	all := make([]actor, n)
	for i := range all {
		a := &all[i]
		*a = actor{
			name: fmt.Sprintf("customer-%06d", i), owner: fmt.Sprintf("team-%03d", i%700), period: 90 * day, born: []time.Duration{time.Duration(i%(90*24)) * time.Hour},
		}
		switch {
		case i%1000 == 1:
			a.kind, a.problem = "overdue", "the rotation of "+strings.Repeat("& <b>late</b> ", 60)+"is overdue"
		case i%2500 == 2:
			a.kind, a.problem = "reported", "version 1 was reported as found in the open and is accepted"
		case i%50 == 3:
			a.born = []time.Duration{90*day + a.born[0], a.born[0]}
			a.grace = time.Duration(1+i%160) * time.Hour
			if i%150 == 3 {
				a.users = []string{strings.Repeat(`"`, 64), "web-1", "<script>alert(1)</script>", "d", "e", "f", "g", "h"}
			}
		case i%7 == 4:
			a.ends = time.Duration(i%80) * day
		case i%11 == 5:
			a.period, a.why = 0, "only by hand: the role has neither rotation_period nor rotation_schedule"
			a.born[0] *= 6
			a.unread = true
		}
		if i%9 == 0 {
			a.owner = strings.Repeat(`<"`, 256)
		}
	}
	return all
}
