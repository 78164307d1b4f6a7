// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// ruleCase is a policy that is accepted or, if refuse is given, refused.
type ruleCase struct {
	typ    string // static unless given
	given  map[string]any
	refuse string
}

func (c ruleCase) String() string { return fmt.Sprint(c.typ, c.given) }

func TestRulesBetweenFields(t *testing.T) {
	type g = map[string]any
	const day = 86400
	for _, c := range []ruleCase{
		{given: g{}},
		{typ: Dynamic, given: g{}},

		{given: g{"max_ttl": 0}},
		{given: g{"max_ttl": 1}, refuse: "max_ttl: 1: a static role's key has no lease to renew: leave it out, or use ttl"},

		{typ: Dynamic, given: g{"refresh_interval": 300}},
		{typ: Dynamic, given: g{"refresh_interval": 301}, refuse: "refresh_interval: 301: a dynamic role's readers renew a lease instead: leave it out"},
		{typ: Dynamic, given: g{"reveal": "always"}},
		{typ: Dynamic, given: g{"reveal": "once"}, refuse: `reveal: "once": a dynamic role's key is handed out once anyway: leave it out`},

		{typ: Dynamic, given: g{"ttl": 1}},
		{typ: Dynamic, given: g{"ttl": 0}, refuse: "ttl: 0: a lease has a lifetime: give at least 1 second, or leave it out for the default"},
		{typ: Dynamic, given: g{"ttl": 2 * day}},
		{typ: Dynamic, given: g{"ttl": 2*day + 1}, refuse: "ttl: 172801: must be at most 48h (172800 seconds), the mount's maximum: give a shorter one, or tune the mount's max_lease_ttl"},
		{typ: Dynamic, given: g{"max_ttl": 1}},
		{typ: Dynamic, given: g{"max_ttl": 0}, refuse: "max_ttl: 0: a lease has an end: give at least 1 second, or leave it out for the mount's maximum"},
		{typ: Dynamic, given: g{"max_ttl": 2 * day}},
		{typ: Dynamic, given: g{"max_ttl": 2*day + 1}, refuse: "max_ttl: 172801: must be at most 48h (172800 seconds), the mount's maximum: give a shorter one, or tune the mount's max_lease_ttl"},
		{typ: Dynamic, given: g{"ttl": 3600, "max_ttl": 3600}},
		{typ: Dynamic, given: g{"ttl": 3601, "max_ttl": 3600}, refuse: "max_ttl: 3600: must be at least ttl, which is 1h1s (3601 seconds): raise it or lower ttl"},

		{given: g{"rotation_schedule": "0 3 * * *", "rotation_period": 0}},
		{given: g{"rotation_schedule": "0 3 * * *", "rotation_period": 60}, refuse: `rotation_period: 60: is exclusive with rotation_schedule, which is "0 3 * * *": write rotation_schedule="" with it, or leave it out`},

		{given: g{"rotation_window": 0, "rotation_period": 3600}},
		{given: g{"rotation_window": 3600, "rotation_schedule": "0 3 * * *"}},
		{typ: Dynamic, given: g{"rotation_window": 3600, "rotation_schedule": "0 3 * * *"}},
		{given: g{"rotation_window": day - 1, "rotation_schedule": "0 3 * * *"}},
		{given: g{"rotation_window": day, "rotation_schedule": "0 3 * * *"}, refuse: "rotation_window: 86400: must be shorter than the shortest distance between activations, which is 24h (86400 seconds): give a shorter one, or rotate less often"},
		{given: g{"rotation_window": 3600, "rotation_schedule": "0 1,2 * * *"}, refuse: "rotation_window: 3600: must be shorter than the shortest distance between activations, which is 1h (3600 seconds)"},
		{given: g{"rotation_window": 3600}, refuse: "rotation_window: 3600: goes with rotation_schedule, and the role has none: give a schedule, or leave it out"},
		{given: g{"rotation_window": 3600, "rotation_period": 86400}, refuse: "rotation_window: 3600: goes with rotation_schedule, and the role has none"},

		// The jitter is part of the ttl's sum, too.
		{given: g{"rotation_period": 3600, "rotation_jitter": 899}},
		{given: g{"rotation_period": 3600, "rotation_jitter": 900}, refuse: "rotation_jitter: 900: must be less than a quarter of the distance between activations, which is 1h (3600 seconds): give a shorter one"},
		{given: g{"rotation_period": 0, "rotation_jitter": 900000}},
		{given: g{"rotation_period": 60, "rotation_jitter": 0}},
		{given: g{"rotation_schedule": "0 1,2 * * *", "rotation_jitter": 899}},
		{given: g{"rotation_schedule": "0 1,2 * * *", "rotation_jitter": 900}, refuse: "rotation_jitter: 900: must be less than a quarter of the distance between activations, which is 1h (3600 seconds)"},

		{given: g{"rotation_period": 3600, "grace_period": 9 * 3600}},
		{given: g{"rotation_period": 3600, "grace_period": 9*3600 + 1}, refuse: "grace_period: 32401: must be at most nine distances between activations, 9h (32400 seconds): give a shorter one, or rotate less often"},
		{given: g{"rotation_period": 3600, "max_grace_period": 9 * 3600}},
		{given: g{"rotation_period": 3600, "max_grace_period": 9*3600 + 1}, refuse: "max_grace_period: 32401: must be at most nine distances between activations, 9h (32400 seconds)"},
		{given: g{"rotation_period": 0, "grace_period": 1000 * day, "max_grace_period": 2000 * day}},
		{given: g{"rotation_schedule": "0 1,2 * * *", "grace_period": 9*3600 + 1}, refuse: "grace_period: 32401: must be at most nine distances"},
		{given: g{"grace_period": 100, "max_grace_period": 100}},
		{given: g{"grace_period": 100, "max_grace_period": 99}, refuse: "max_grace_period: 99: must be at least grace_period, which is 1m40s (100 seconds): raise it or lower grace_period"},
		{given: g{"rotation_period": 3600, "max_grace_period": 1799}, refuse: "max_grace_period: 1799: must be at least grace_period, which is 30m (1800 seconds)"},

		// Distance, staging lead of 600 s (half the distance where that is shorter), grace.
		{given: g{"ttl": 7862999}, refuse: "ttl: 7862999: must be 0 (forever) or at least 2184h10m (7863000 seconds): the longest distance between activations, the jitter, the staging lead and the grace together: raise ttl, or rotate by hand only (rotation_period=0)"},
		{given: g{"ttl": 7863000}},
		{given: g{"ttl": 1, "rotation_period": 0}},
		{given: g{"ttl": 0, "rotation_period": 60}},
		{given: g{"rotation_period": 60, "ttl": 60 + 30 + 30}},
		{given: g{"rotation_period": 60, "ttl": 60 + 30 + 29}, refuse: "at least 2m (120 seconds)"},
		{given: g{"rotation_period": 3600, "ttl": 3600 + 100 + 600 + 1800, "rotation_jitter": 100}},
		{given: g{"rotation_period": 3600, "ttl": 3600 + 100 + 600 + 1799, "rotation_jitter": 100}, refuse: "at least 1h41m40s (6100 seconds)"},
		{given: g{"rotation_period": 3600, "ttl": 3600 + 600 + 3600, "max_grace_period": 3600}},
		{given: g{"rotation_period": 3600, "ttl": 3600 + 600 + 3599, "max_grace_period": 3600}, refuse: "at least 2h10m (7800 seconds)"},
		{given: g{"rotation_schedule": "0 9 * * 1-5", "ttl": 3*day + 600 + day/2}},
		{given: g{"rotation_schedule": "0 9 * * 1-5", "ttl": 3*day + 600 + day/2 - 1}, refuse: "at least 84h10m (303000 seconds)"},
		// A distance that is no whole number of leads.
		{given: g{"rotation_period": 61, "ttl": 61 + 31 + 30}},
		{given: g{"rotation_period": 61, "ttl": 61 + 30 + 30}, refuse: "at least 2m2s (122 seconds)"},
		{typ: Dynamic, given: g{"rotation_period": 3600, "ttl": 60}},
	} {
		typ := c.typ
		if typ == "" {
			typ = Static
		}
		_, err := changed(nil, c.given, typ, mount)
		if c.refuse == "" {
			if err != nil {
				t.Errorf("%v: %v", c, err)
			}
			continue
		}
		wantRefusal(t, err, "", c.refuse)
		// What is refused at creation is refused as a change, in which another field
		// may be named for it.
		old := must(t, nil, g{}, typ)
		_, err = changed(old, c.given, typ, mount)
		wantRefusal(t, err, "")
	}
}

// A rule is told the field that was changed, so that it can say what to mend.
func TestRefusalsOfChanges(t *testing.T) {
	type g = map[string]any
	for _, c := range []struct {
		typ           string
		stored, given g
		refuse        string
	}{
		{Static, g{"rotation_period": 86400}, g{"rotation_schedule": "0 3 * * *"}, `rotation_schedule: "0 3 * * *": is exclusive with rotation_period, which is 24h (86400 seconds): write rotation_period=0 with it, or leave it out`},
		{Static, g{"rotation_schedule": "0 3 * * *"}, g{"rotation_period": 86400}, `rotation_period: 86400: is exclusive with rotation_schedule, which is "0 3 * * *": write rotation_schedule="" with it, or leave it out`},
		{Dynamic, g{"max_ttl": 3600}, g{"ttl": 3601}, "ttl: 3601: must be at most max_ttl, which is 1h (3600 seconds): lower it or raise max_ttl"},
		{Dynamic, g{"ttl": 3600}, g{"max_ttl": 3599}, "max_ttl: 3599: must be at least ttl, which is 1h (3600 seconds): raise it or lower ttl"},
		{Static, g{"max_grace_period": 86400}, g{"grace_period": 86401}, "max_grace_period: 86400: must be at least grace_period, which is 24h1s (86401 seconds)"},
		{Static, g{"rotation_period": 3600, "max_grace_period": 3600}, g{"rotation_period": 14400}, "max_grace_period: 3600: must be at least grace_period, which is 2h (7200 seconds)"},
		{Static, g{"grace_period": 86400}, g{"rotation_period": 9599}, "grace_period: 86400: must be at most nine distances between activations, 23h59m51s (86391 seconds)"},
		{Static, g{"grace_period": 86400}, g{"rotation_schedule": "* * * * *"}, "grace_period: 86400: must be at most nine distances"},
		{Static, g{"max_grace_period": 86400, "grace_period": 60}, g{"rotation_period": 9599}, "max_grace_period: 86400: must be at most nine distances"},
		{Static, g{"rotation_schedule": "0 3 * * *", "rotation_window": 7200}, g{"rotation_schedule": ""}, "rotation_window: 7200: goes with rotation_schedule, which is taken away: write rotation_window=0 with it"},
		{Static, g{"rotation_schedule": "0 3 * * *", "rotation_window": 7200}, g{"rotation_schedule": "0 1,3 * * *"}, "rotation_window: 7200: must be shorter than the shortest distance"},
		{Static, g{"rotation_jitter": 900}, g{"rotation_period": 3600}, "rotation_jitter: 900: must be less than a quarter"},
		{Static, g{"rotation_jitter": 900}, g{"rotation_schedule": "0 * * * *"}, "rotation_jitter: 900: must be less than a quarter"},
		{Static, g{"ttl": 3600, "rotation_period": 0}, g{"rotation_period": 3600}, "ttl: 3600: must be 0 (forever) or at least 1h40m (6000 seconds): the longest distance between activations, the jitter, the staging lead and the grace together: raise ttl with it, or give a shorter grace_period"},
		{Static, g{"ttl": 3600, "rotation_period": 0, "grace_period": 60}, g{"rotation_period": 3600}, "raise ttl with it, or give a shorter rotation_period"},
		{Static, g{"ttl": 3600, "rotation_period": 0, "grace_period": 60}, g{"rotation_schedule": "0 3 * * *"}, "raise ttl with it, or rotate more often"},
		{Static, g{"ttl": 6000, "rotation_period": 3600}, g{"grace_period": 1801}, "raise ttl with it, or give a shorter grace_period"},
		{Static, g{"ttl": 6000, "rotation_period": 3600}, g{"max_grace_period": 1801}, "raise ttl with it, or give a shorter max_grace_period"},
		{Static, g{"ttl": 6000, "rotation_period": 3600}, g{"rotation_jitter": 1}, "raise ttl with it, or give a shorter rotation_jitter"},
		{Static, g{"ttl": 6000, "rotation_period": 3600}, g{"ttl": 5999}, "raise ttl, or rotate by hand only (rotation_period=0)"},
	} {
		old := must(t, nil, c.stored, c.typ)
		_, err := changed(old, c.given, c.typ, mount)
		wantRefusal(t, err, "", c.refuse)
		// Once more: the refused change did not touch what it would have changed.
		_, again := changed(old, c.given, c.typ, mount)
		if err == nil || again == nil || err.Error() != again.Error() {
			t.Errorf("%v, then %v", err, again)
		}
	}
}

func TestChangesUpToABound(t *testing.T) {
	type g = map[string]any
	for _, c := range []struct {
		typ           string
		stored, given g
	}{
		{Dynamic, g{"max_ttl": 3600}, g{"ttl": 3600}},
		{Dynamic, g{"ttl": 3600}, g{"max_ttl": 3600}},
		{Static, g{"max_grace_period": 86400, "grace_period": 60}, g{"grace_period": 86400}},
		{Static, g{"grace_period": 86400}, g{"rotation_period": 9600}},
		{Static, g{"rotation_jitter": 899}, g{"rotation_period": 3600}},
		{Static, g{"ttl": 6000, "rotation_period": 0}, g{"rotation_period": 3600, "grace_period": 1800}},
	} {
		must(t, must(t, nil, c.stored, c.typ), c.given, c.typ)
	}
}

// What the mount or the world changed since keeps nobody from using the brake,
// nor from writing back what was read; a change of what is out of order is
// judged.
func TestRulesAreJudgedOnlyForWhatChanges(t *testing.T) {
	type g = map[string]any
	small := Limits{StageAhead: 30 * time.Minute, Leases: func() (time.Duration, time.Duration) { return time.Minute, 10 * time.Minute }}
	for _, c := range []struct {
		typ    string
		stored Policy
		good   []g
		bad    []g
	}{
		{
			Static,
			Policy{RotationPeriod: seconds(3600), TTL: seconds(6000)},
			[]g{{"refresh_interval": 60}, {"ttl": 6000}, {"ttl": 0}, {"rotation_period": 0}, {"ttl": 9000, "grace_period": 3000}},
			[]g{{"grace_period": 3000}, {"ttl": 6001}, {"rotation_period": 3601}},
		},
		{
			Dynamic,
			Policy{TTL: seconds(3600), MaxTTL: seconds(7200)},
			[]g{{"ttl": 3600}, {"max_ttl": 7200}, {"ttl": 600}, {"ttl": nil}, {"ttl": 60, "max_ttl": 600}, {"ttl": 3600, "max_ttl": 7200}},
			[]g{{"ttl": 3601}, {"max_ttl": 7201}, {"max_ttl": 601}, {"max_ttl": 0}},
		},
		{
			// The maximum was larger than the grace before the clocks of a zone changed.
			Static,
			Policy{RotationPeriod: seconds(7200), MaxGracePeriod: seconds(3000)},
			[]g{{"max_grace_period": 3600}, {"grace_period": 3000}},
			[]g{{"max_grace_period": 3001}, {"grace_period": 3001}, {"rotation_period": 7202}},
		},
		{
			Static,
			Policy{RotationPeriod: seconds(3600), GracePeriod: seconds(90000), RotationJitter: 1000, MaxTTL: seconds(5)},
			[]g{{"grace_period": 32400, "rotation_jitter": 899, "max_ttl": 0}, {"rotation_period": 0}},
			[]g{{"grace_period": 32401}, {"rotation_jitter": 900}, {"max_ttl": 6}, {"rotation_period": 3601}},
		},
		{
			Dynamic,
			Policy{Reveal: RevealOnce, RefreshInterval: seconds(60)},
			[]g{{"reveal": "once"}, {"reveal": "always"}, {"refresh_interval": 300}},
			[]g{{"refresh_interval": 61}},
		},
	} {
		p := &c.stored
		for _, given := range append(c.good, g{"disabled": true}, asGiven(shown(t, p, c.typ, small))) {
			if _, err := changed(p, given, c.typ, small); err != nil {
				t.Errorf("%+v: %v: %v", c.stored, given, err)
			}
		}
		for _, given := range c.bad {
			if _, err := changed(p, given, c.typ, small); refusal.In(err) == nil {
				t.Errorf("%+v: %v: %v", c.stored, given, err)
			}
		}
		if err := Check(nil, p, roleID, c.typ, small); refusal.In(err) == nil {
			t.Errorf("%+v: created: %v", c.stored, err)
		}
	}
}

func seconds(n Seconds) *Seconds { return &n }

// A mount without maximum bounds nothing.
func TestNoMaximum(t *testing.T) {
	free := Limits{Leases: func() (time.Duration, time.Duration) { return 0, 0 }}
	for _, given := range []map[string]any{{"ttl": 300000000}, {"max_ttl": 300000000}, {"ttl": 5, "max_ttl": 5}} {
		if _, err := changed(nil, given, Dynamic, free); err != nil {
			t.Errorf("%v: %v", given, err)
		}
	}
}

func TestPolicyNeverOutgrowsTheRecord(t *testing.T) {
	// Names and values of which JSON makes six bytes a character.
	name := func(i int) string { return fmt.Sprintf("%02d", i) + strings.Repeat("<", 38) }
	fill := func(n int) map[string]any {
		m := map[string]string{}
		for i := range 64 {
			m[name(i)] = strings.Repeat("<", n/64)
		}
		m[name(0)] += strings.Repeat("x", n%64)
		return map[string]any{"metadata": m}
	}
	_, err := changed(nil, fill(64*512), Static, mount)
	wantRefusal(t, err, "metadata", "the role's policy would need more than 122880 bytes", "shorten metadata, scopes or descriptions")
	// The last that fits, and the next: {"metadata":{…}} around 64 times "name":"value".
	const around, each = len(`{"metadata":{}}`) - 1, len(`"":"",`) + 2 + 6*38
	room := maxPolicySize - around - 64*each
	values := room / (64 * 6)
	rest := room - values*64*6
	m := map[string]string{}
	for i := range 64 {
		m[name(i)] = strings.Repeat("<", values)
	}
	for i := 0; rest > 0; i++ {
		n := min(rest, 100)
		m[name(i)] += strings.Repeat("x", n)
		rest -= n
	}
	p := must(t, nil, map[string]any{"metadata": m}, Static)
	_, err = changed(p, map[string]any{"metadata": map[string]any{name(63): m[name(63)] + "x"}}, Static, mount)
	wantRefusal(t, err, "metadata", "122881: the role's policy")
}

// A schedule in a zone that is no longer known is nobody's mistake here.
func TestUnreadableScheduleIsNoRefusal(t *testing.T) {
	lost := &Policy{RotationSchedule: "CRON_TZ=Mars/Olympus 0 3 * * *"}
	other := &Policy{RotationSchedule: "CRON_TZ=Mars/Elysium 0 3 * * *"}
	good, closed := &Policy{}, *lost
	closed.Disabled = true
	for _, c := range []struct{ old, next *Policy }{{nil, lost}, {good, lost}, {other, lost}} {
		err := Check(c.old, c.next, roleID, Static, mount)
		if err == nil || refusal.In(err) != nil || !strings.Contains(err.Error(), "reading the policy: ") {
			t.Errorf("%v", err)
		}
	}
	// What mends the schedule is taken, and so is what leaves it as it is: a role is
	// closed whether its plan can be read or not.
	for _, next := range []*Policy{good, &closed} {
		if err := Check(lost, next, roleID, Static, mount); err != nil {
			t.Error(err)
		}
	}
	bad, period := *lost, Seconds(86400)
	bad.RotationPeriod = &period
	if err := Check(lost, &bad, roleID, Static, mount); refusal.In(err) == nil {
		t.Errorf("another rule is broken: %v", err)
	}
	if _, err := lost.Effective(roleID, Static, mount); err == nil {
		t.Error("terms of a schedule that cannot be read")
	}
	// The way out.
	if p, _, err := lost.With(map[string]any{"rotation_schedule": ""}); err != nil || p.RotationSchedule != "" {
		t.Errorf("%v", err)
	}
}

// What no request can bring is told as the program's mistake, too.
func TestUnstorablePolicyIsNoRefusal(t *testing.T) {
	err := Check(nil, &Policy{RateLimit: math.NaN()}, roleID, Static, mount)
	if err == nil || refusal.In(err) != nil || !strings.Contains(err.Error(), "encoding the policy: ") {
		t.Errorf("%v", err)
	}
}
