// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	// graceDistances keeps at most ten versions alive at a time.
	graceDistances = 9
	// maxPolicySize, in bytes of JSON, leaves room in a role's record for the
	// versions and the plan.
	maxPolicySize = 120 << 10
)

// transition is what a policy would become, next, against what it is, old,
// which is nil for a role that is being created.
type transition struct {
	old, next *Policy
	typ       string
	lim       Limits
	terms     Terms // of next
	// before and after are the policies as readers see them.
	before, after map[string]any
}

// rule is one between fields, or between a field and the mount. It is judged
// only when one of its fields changes, and is told the first that does: what the
// mount or the time zone database changed since must not keep somebody from
// disabling a role.
type rule struct {
	fields []string
	check  func(c *transition, field string) error
}

var rules = []rule{
	{[]string{"max_ttl"}, checkStaticOnly},
	{[]string{"refresh_interval"}, checkRefresh},
	{[]string{"reveal"}, checkReveal},
	{[]string{"ttl"}, checkLeaseTTL},
	{[]string{"max_ttl", "ttl"}, checkMaxTTL},
	{[]string{"rotation_window", "rotation_period", "rotation_schedule"}, checkWindow},
	{[]string{"rotation_jitter", "rotation_period", "rotation_schedule"}, checkJitter},
	{[]string{"grace_period", "rotation_period", "rotation_schedule"}, checkGrace},
	{[]string{"max_grace_period", "grace_period", "rotation_period", "rotation_schedule"}, checkMaxGrace},
	{[]string{"ttl", "grace_period", "max_grace_period", "rotation_period", "rotation_schedule", "rotation_jitter"}, checkStaticTTL},
}

// Check refuses a policy that breaks a rule between its fields or with the
// mount, next being the result of With. old is what it replaces, nil for a role
// that is being created: what both show alike is not judged again, and a schedule
// that cannot be read and stays not at all.
func Check(old, next *Policy, roleID, typ string, lim Limits) error {
	t, err := next.Effective(roleID, typ, lim)
	if err != nil && (old == nil || old.RotationSchedule != next.RotationSchedule || old.ValidUntil != next.ValidUntil) {
		return fmt.Errorf("reading the policy: %w", err)
	}
	c := &transition{old: old, next: next, typ: typ, lim: lim, terms: t, after: next.Show(t)}
	if old != nil {
		was, _ := old.Effective(roleID, typ, lim) // as far as it can be read
		c.before = old.Show(was)
	}
	if err := checkExclusive(c); err != nil {
		return err
	}
	if err := checkGraceOrder(c); err != nil {
		return err
	}
	for _, r := range rules {
		if i := slices.IndexFunc(r.fields, c.changes); i >= 0 {
			if err := r.check(c, r.fields[i]); err != nil {
				return err
			}
		}
	}
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encoding the policy: %w", err)
	}
	if len(data) > maxPolicySize {
		return refusal.New("metadata", len(data), fmt.Sprintf("the role's policy would need more than %d bytes", maxPolicySize), "shorten metadata, scopes or descriptions")
	}
	return nil
}

// changes reports whether the field becomes another than it was.
func (c *transition) changes(field string) bool {
	return c.old == nil || !reflect.DeepEqual(c.before[field], c.after[field])
}

func checkStaticOnly(c *transition, field string) error {
	if c.typ == Static && c.next.MaxTTL != nil && *c.next.MaxTTL != 0 {
		return refusal.New(field, *c.next.MaxTTL, "a static role's key has no lease to renew", "leave it out, or use ttl")
	}
	return nil
}

func checkRefresh(c *transition, field string) error {
	if c.typ == Dynamic && c.terms.Refresh != defaultRefreshInterval {
		return refusal.New(field, *c.next.RefreshInterval, "a dynamic role's readers renew a lease instead", "leave it out")
	}
	return nil
}

func checkReveal(c *transition, field string) error {
	if c.typ == Dynamic && c.terms.Reveal != RevealAlways {
		return refusal.New(field, c.terms.Reveal, "a dynamic role's key is handed out once anyway", "leave it out")
	}
	return nil
}

func checkLeaseTTL(c *transition, field string) error {
	if c.typ != Dynamic || c.next.TTL == nil {
		return nil
	}
	_, most := c.lim.Leases()
	switch ttl := *c.next.TTL; {
	case ttl == 0:
		return refusal.New(field, ttl, "a lease has a lifetime", "give at least 1 second, or leave it out for the default")
	case most > 0 && ttl.Duration() > most:
		return refusal.New(field, ttl, "must be at most "+refusal.Duration(most)+", the mount's maximum", "give a shorter one, or tune the mount's max_lease_ttl")
	}
	return nil
}

func checkMaxTTL(c *transition, field string) error {
	if c.typ != Dynamic || c.next.MaxTTL == nil {
		return nil
	}
	_, most := c.lim.Leases()
	longest := *c.next.MaxTTL
	switch {
	case longest == 0:
		return refusal.New(field, longest, "a lease has an end", "give at least 1 second, or leave it out for the mount's maximum")
	case field == "max_ttl" && most > 0 && longest.Duration() > most:
		return refusal.New(field, longest, "must be at most "+refusal.Duration(most)+", the mount's maximum", "give a shorter one, or tune the mount's max_lease_ttl")
	case c.next.TTL != nil && *c.next.TTL > longest && field == "ttl":
		return refusal.New(field, *c.next.TTL, "must be at most max_ttl, which is "+refusal.Duration(longest.Duration()), "lower it or raise max_ttl")
	case c.next.TTL != nil && *c.next.TTL > longest:
		return refusal.New(field, longest, "must be at least ttl, which is "+refusal.Duration(c.next.TTL.Duration()), "raise it or lower ttl")
	}
	return nil
}

// checkExclusive does not wait for a change: where there is a schedule, the
// period does not show.
func checkExclusive(c *transition) error {
	p := c.next
	if p.RotationSchedule == "" || p.RotationPeriod == nil || *p.RotationPeriod == 0 {
		return nil
	}
	if c.old != nil && SameField("rotation_period", c.old, p) {
		return refusal.New("rotation_schedule", p.RotationSchedule, "is exclusive with rotation_period, which is "+refusal.Duration(p.RotationPeriod.Duration()),
			"write rotation_period=0 with it, or leave it out")
	}
	return refusal.New("rotation_period", *p.RotationPeriod, "is exclusive with rotation_schedule, which is "+refusal.Shown(p.RotationSchedule),
		`write rotation_schedule="" with it, or leave it out`)
}

// checkGraceOrder looks at what was written: a maximum below the grace does not
// show.
func checkGraceOrder(c *transition) error {
	most := c.next.MaxGracePeriod
	if most == nil || most.Duration() >= c.terms.Grace {
		return nil
	}
	if c.old != nil && SameField("max_grace_period", c.old, c.next) && !c.changes("grace_period") {
		return nil
	}
	return refusal.New("max_grace_period", *most, "must be at least grace_period, which is "+refusal.Duration(c.terms.Grace), "raise it or lower grace_period")
}

func checkWindow(c *transition, field string) error {
	window := c.next.RotationWindow
	switch {
	case window == 0:
		return nil
	case c.next.RotationSchedule == "" && field == "rotation_window":
		return refusal.New("rotation_window", window, "goes with rotation_schedule, and the role has none", "give a schedule, or leave it out")
	case c.next.RotationSchedule == "":
		return refusal.New("rotation_window", window, "goes with rotation_schedule, which is taken away", "write rotation_window=0 with it")
	case window.Duration() >= c.terms.Shortest:
		return refusal.New("rotation_window", window, "must be shorter than the shortest distance between activations, which is "+refusal.Duration(c.terms.Shortest),
			"give a shorter one, or rotate less often")
	}
	return nil
}

func checkJitter(c *transition, _ string) error {
	jitter := c.next.RotationJitter.Duration()
	if jitter == 0 || c.terms.Cadence == nil || 4*jitter < c.terms.Shortest {
		return nil
	}
	return refusal.New("rotation_jitter", c.next.RotationJitter,
		"must be less than a quarter of the distance between activations, which is "+refusal.Duration(c.terms.Shortest), "give a shorter one")
}

func checkGrace(c *transition, _ string) error {
	return c.nineDistances("grace_period", c.terms.Grace)
}

func checkMaxGrace(c *transition, _ string) error {
	return c.nineDistances("max_grace_period", c.terms.MaxGrace)
}

func (c *transition) nineDistances(field string, grace time.Duration) error {
	if c.terms.Cadence == nil || grace <= graceDistances*c.terms.Shortest {
		return nil
	}
	return refusal.New(field, InSeconds(grace), "must be at most nine distances between activations, "+refusal.Duration(graceDistances*c.terms.Shortest),
		"give a shorter one, or rotate less often")
}

// checkStaticTTL makes sure that no version expires before its successor has
// taken over and its readers have had their grace.
func checkStaticTTL(c *transition, field string) error {
	if c.typ != Static || c.terms.TTL == 0 || c.terms.Cadence == nil {
		return nil
	}
	t := c.terms
	lead := keyring.Lead(c.lim.StageAhead, t.Shortest)
	need := t.Longest + c.next.RotationJitter.Duration() + lead + t.MaxGrace
	if t.TTL >= need {
		return nil
	}
	least := (need + time.Second - 1).Truncate(time.Second)
	todo := "raise ttl with it, or give a shorter " + field
	switch field {
	case "ttl":
		todo = "raise ttl, or rotate by hand only (rotation_period=0)"
	case "rotation_schedule":
		todo = "raise ttl with it, or rotate more often"
	}
	return refusal.New("ttl", InSeconds(t.TTL), "must be 0 (forever) or at least "+refusal.Duration(least)+": "+
		"the longest distance between activations, the jitter, the staging lead and the grace together", todo)
}
