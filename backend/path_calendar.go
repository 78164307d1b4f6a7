// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	maxCalendarAhead = 90 * 24 * time.Hour
	// maxCalendarBehind is how far back the calendar looks for what is overdue.
	maxCalendarBehind = 30 * 24 * time.Hour
	maxCalendarRoles  = 1000
	// calendarWaste is how many entries that no longer lead to a role are passed.
	calendarWaste = 4 * maxCalendarRoles
	// calendarListed is how far ahead the table looks: command lines give lists no
	// parameters.
	calendarListed = 7 * 24 * time.Hour
)

// What the calendar announces.
const (
	comesStaging    = "staging"    // the next version is made, to be activated later
	comesRotation   = "rotation"   // the next version is made and activated
	comesActivation = "activation" // a version that exists becomes current
	comesRetirement = "retirement"
	comesExpiry     = "expiry"
	comesLapse      = "lapse" // a held version was not promoted
	comesPurge      = "purge" // a deleted role cannot be restored any more
)

func (b *backend) pathsCalendar() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "calendar/?", suffix: "calendar",
		synopsis: "What rotates or retires next, in all roles.",
		fields: fieldSet{
			"within": {kind: kindDuration, query: true, def: 24 * 60 * 60, about: "How far to look ahead: up to 90 days. A list looks a week ahead if this is absent."},
			"limit": {
				kind: kindInteger, query: true, def: maxCalendarRoles,
				about: "Read so many roles at most; from 1 to 1000. In a list: list so many events at most; 0 or less is no limit.",
			},
			"after": {kind: kindText, query: true, empty: emptyTaken, about: "Lists only: list what comes after this event."},
		},
		ops: map[logical.Operation]operation{
			logical.ReadOperation: {
				do: b.calendar, told: "What comes.",
				answer: map[string]*framework.FieldSchema{
					"now":   {Type: framework.TypeString, Description: "The instant that this answer describes (RFC 3339).", Required: true},
					"until": {Type: framework.TypeString, Description: "The end of what was asked for (RFC 3339).", Required: true},
					"events": {Type: framework.TypeSlice, Required: true, Description: "By time: time, what (staging, rotation, activation, retirement, expiry, lapse, or purge of a deleted role), " +
						"role, role_id, owner, version, key_id, and overdue if it should have happened."},
					"complete_until": {Type: framework.TypeString, Required: true, Description: "Everything before this instant is listed; earlier than until if limit cut the list short."},
				},
			},
			logical.ListOperation: {
				do: b.listCalendar, verb: "list", summary: "What comes, as a table.", told: "The events, in order, by their times.",
				answer: listFields("By event: what, role and owner (both are cut), version (0: of none), and overdue."),
			},
		},
		help: `
Lists what is known to come within the time asked for: the staging and the
activation of each role's next version, the ends of versions (retirement after
a grace, expiry, lapse of a version that is held), and when deleted roles are
gone for good. Only the next rotation of a role is listed, not those after it.

It is read from the calendar that the engine itself works by, so it costs what
is due, not what there is.

As a list it is a table of the next seven days that fits a screen:

    vault list -detailed apikeys/calendar`,
	})}
}

// coming is one line of the calendar.
type coming struct {
	at    time.Time
	what  string
	rec   *roleRecord
	n     int
	keyID string
}

// readCalendar reads how far ahead the request looks, and at how many roles. What
// limit cuts of a list are its events.
func readCalendar(in *input, listed bool) (within time.Duration, roles int, err error) {
	ahead, given := in.seconds("within")
	if listed && !given {
		ahead = policy.Seconds(policy.InSeconds(calendarListed))
	}
	if ahead < 1 || int64(ahead) > policy.InSeconds(maxCalendarAhead) {
		return 0, 0, refusal.New("within", int64(ahead), "must be from 1 second to 90 days", "ask for less")
	}
	if listed {
		return ahead.Duration(), maxCalendarRoles, nil
	}
	if in.text("after") != "" {
		return 0, 0, refusal.New("after", nil, "is for lists", "list the calendar, or ask for a shorter time")
	}
	limit := in.integer("limit")
	if limit < 1 || limit > maxCalendarRoles {
		return 0, 0, refusal.New("limit", limit, "must be from 1 to 1000", "ask for a shorter time")
	}
	return ahead.Duration(), int(limit), nil
}

func (b *backend) calendar(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	within, limit, err := readCalendar(in, false)
	if err != nil {
		return nil, err
	}
	c, err := b.comingWithin(ctx, req.Storage, within, limit)
	if err != nil {
		return nil, err
	}
	view := make([]any, len(c.events))
	for i, e := range c.events {
		view[i] = map[string]any{
			"time": stamp(e.at), "what": e.what, "role": e.rec.Name, "role_id": e.rec.ID, "owner": e.rec.Policy.Owner,
			"version": e.n, "key_id": e.keyID, "overdue": e.at.Before(c.now),
		}
	}
	return answer(map[string]any{"now": stamp(c.now), "until": stamp(c.until), "events": view, "complete_until": stamp(c.complete)}, c.warnings()...), nil
}

// listCalendar is calendar as a table. An event goes by its time; of those of one
// second the later ones by a number, too.
func (b *backend) listCalendar(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	within, limit, err := readCalendar(in, true)
	if err != nil {
		return nil, err
	}
	c, err := b.comingWithin(ctx, req.Storage, within, limit)
	if err != nil {
		return nil, err
	}
	w := windowOf(in)
	if !in.given("limit") {
		w.limit = 0
	}
	byName := map[string]coming{}
	var names []string
	before, n := "", 0
	for _, e := range c.events {
		name := stamp(e.at)
		if name != before {
			before, n = name, 1
		} else {
			n++
			// More digits than there can be events, so that names have their order.
			name = fmt.Sprintf("%s-%05d", before, n)
		}
		byName[name] = e
		if name > w.after {
			names = append(names, name)
		}
	}
	resp, err := w.collectRest(names, func(name string) (map[string]any, error) {
		e := byName[name]
		return map[string]any{
			"what": e.what, "role": column(e.rec.Name, ownerColumn), "owner": column(e.rec.Policy.Owner, nameColumn),
			"version": e.n, "overdue": e.at.Before(c.now),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	for _, text := range c.warnings() {
		resp.AddWarning(text)
	}
	return resp, nil
}

// calendarPart is what the calendar has for some time.
type calendarPart struct {
	now, until, complete time.Time
	limit                int // of roles
	events               []coming
	broken               []string // roles whose plan cannot be read
}

func (c *calendarPart) warnings() []string {
	var all []string
	if c.complete.Before(c.until) {
		all = append(all, fmt.Sprintf("more than %d roles are due until then: the list is complete only until %s", c.limit, stamp(c.complete)))
	}
	if len(c.broken) > 0 {
		all = append(all, "the plan of these roles cannot be read, see their status: "+strings.Join(c.broken, ", "))
	}
	return all
}

// comingWithin is what comes within so long, of at most limit roles, in order.
func (b *backend) comingWithin(ctx context.Context, s logical.Storage, within time.Duration, limit int) (*calendarPart, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := b.loadMark(ctx, s); err != nil {
		return nil, err
	}
	now := b.now()
	c := &calendarPart{now: now, until: now.Add(within), limit: limit}
	roles, complete, err := b.dueRoles(ctx, s, now, c.until, limit)
	if err != nil {
		return nil, err
	}
	c.complete = complete
	for _, rec := range roles {
		es, err := b.comingOf(rec, lim)
		if err != nil {
			c.broken = append(c.broken, rec.Name)
			continue
		}
		c.events = append(c.events, es...)
	}
	c.events = slices.DeleteFunc(c.events, func(e coming) bool { return e.at.After(c.until) })
	slices.SortStableFunc(c.events, func(a, b coming) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.rec.Name, b.rec.Name), cmp.Compare(a.n, b.n))
	})
	return c, nil
}

// dueRoles reads the roles that the calendar names up to until, at most limit
// of them, and says up to when that is complete. A role is filed under the first
// instant at which something is to happen to it, so these are all that have
// something in that time.
func (b *backend) dueRoles(ctx context.Context, s logical.Storage, now, until time.Time, limit int) ([]*roleRecord, time.Time, error) {
	// What is overdue may be filed where the ticks are now, which is behind the
	// clock after a pause.
	from := now
	if c := b.cursor(); !c.IsZero() && c.Before(from) {
		from = c
	}
	from = from.Add(-tickOverlap * time.Minute)
	if oldest := now.Add(-maxCalendarBehind); from.Before(oldest) {
		from = oldest
	}
	var roles []*roleRecord
	seen := map[string]bool{}
	complete := until
	entries := 0
	for e, err := range dueEntries(ctx, s, from, until) {
		if err != nil {
			return nil, time.Time{}, err
		}
		if seen[e.name] {
			continue
		}
		if entries++; len(roles) == limit || entries > calendarWaste {
			complete = e.minute
			break
		}
		seen[e.name] = true
		rec, err := b.filed(ctx, s, e.name)
		if err != nil && !errors.Is(err, errSchema) {
			return nil, time.Time{}, err
		}
		if rec != nil {
			roles = append(roles, rec)
		}
	}
	return roles, complete, nil
}

// filed is the role, or the deleted one, that an entry of the calendar names; nil if
// there is none.
func (b *backend) filed(ctx context.Context, s logical.Storage, name string) (*roleRecord, error) {
	if id, ok := strings.CutPrefix(name, deletedMark); ok {
		return getRecord[roleRecord](ctx, s, deletedPath(id))
	}
	return b.storedRole(ctx, s, name)
}

// comingOf is what is known to come for one role.
func (b *backend) comingOf(rec *roleRecord, lim policy.Limits) ([]coming, error) {
	if !rec.Deleted.IsZero() {
		return []coming{{at: rec.PurgeAt, what: comesPurge, rec: rec}}, nil
	}
	r, err := b.lookOf(rec, lim)
	if err != nil {
		return nil, err
	}
	now := r.now
	var events []coming
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		st, _ := rec.Ring.Status(v.N, now)
		if st.State.Ended() {
			continue
		}
		if st.State == keyring.Pending && !v.Activate.IsZero() && r.endsBeforeTheRole(v.Activate) {
			events = append(events, coming{at: v.Activate, what: comesActivation, rec: rec, n: v.N, keyID: v.KeyID})
		}
		if st.Until.IsZero() {
			continue
		}
		what := comesRetirement
		switch {
		case st.Until.Equal(v.Expires), st.Until.Equal(rec.Ring.Until):
			what = comesExpiry
		case st.State == keyring.Pending:
			what = comesLapse
		}
		events = append(events, coming{at: st.Until, what: what, rec: rec, n: v.N, keyID: v.KeyID})
	}
	if stage := r.stageAt(); !stage.IsZero() && !b.mountPaused() {
		next, at := rec.Ring.Last+1, r.next()
		if stage.Before(at) && at.After(now) {
			events = append(events, coming{at: stage, what: comesStaging, rec: rec, n: next})
		}
		events = append(events, coming{at: at, what: comesRotation, rec: rec, n: next})
	}
	return events, nil
}
