// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	minPeriod   = time.Minute
	maxRefresh  = 720 * time.Hour
	maxLeak     = 168 * time.Hour
	graceFactor = 9
	// maxPolicySize leaves room in a role record for the versions and the plan.
	maxPolicySize = 120 << 10
)

// policyCheck judges what a policy would become against what it is.
type policyCheck struct {
	new   *Policy
	typ   string
	lim   Limits
	terms Terms // of new
	// before and after are the policies as readers see them; before is nil for a
	// role that is being created.
	before, after map[string]any
}

// policyRule is a rule between fields, or between a field and the mount. It is
// judged only when one of its fields changes: what the mount or the time zone
// database changed since must not keep somebody from disabling a role.
type policyRule struct {
	fields []string
	check  func(c *policyCheck, field string) error
}

var policyRules = []policyRule{
	{[]string{"max_ttl"}, checkStaticOnly},
	{[]string{"refresh_interval"}, checkRefresh},
	{[]string{"reveal"}, checkReveal},
	{[]string{"leak_grace_period"}, checkLeakGrace},
	{[]string{"ttl"}, checkLeaseTTL},
	{[]string{"max_ttl", "ttl"}, checkMaxTTL},
	{[]string{"rotation_period"}, checkPeriod},
	{[]string{"rotation_jitter", "rotation_period", "rotation_schedule"}, checkJitter},
	{[]string{"grace_period", "rotation_period", "rotation_schedule"}, checkGrace},
	{[]string{"max_grace_period", "grace_period", "rotation_period", "rotation_schedule"}, checkMaxGrace},
	{[]string{"ttl", "grace_period", "max_grace_period", "rotation_period", "rotation_schedule", "rotation_jitter"}, checkStaticTTL},
}

// checkPolicy refuses a policy that breaks a rule between its fields. old is nil
// for a role that is being created.
func Check(old, p *Policy, roleID, typ string, lim Limits) error {
	t, err := p.Effective(roleID, typ, lim)
	if err != nil {
		return fmt.Errorf("reading the policy: %w", err)
	}
	c := &policyCheck{new: p, typ: typ, lim: lim, terms: t, after: p.Show(t)}
	if old != nil {
		was, err := old.Effective(roleID, typ, lim)
		if err != nil {
			return fmt.Errorf("reading the policy: %w", err)
		}
		c.before = old.Show(was)
	}
	// What these two refuse does not show: the schedule hides the period, and the
	// grace a shorter maximum.
	if err := checkExclusive(old, p); err != nil {
		return err
	}
	if n := p.MaxGracePeriod; n != nil && n.Duration() < t.Grace {
		return refusal.New("max_grace_period", *n, fmt.Sprintf("must be at least grace_period, which is %d", InSeconds(t.Grace)), "raise it or lower grace_period")
	}
	for _, rule := range policyRules {
		for _, field := range rule.fields {
			if !c.changed(field) {
				continue
			}
			if err := rule.check(c, field); err != nil {
				return err
			}
			break
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encoding the policy: %w", err)
	}
	if len(data) > maxPolicySize {
		return refusal.New("metadata", len(data), fmt.Sprintf("the role's policy would need more than %d bytes", maxPolicySize), "shorten metadata, scopes or descriptions")
	}
	return nil
}

// changed: the field becomes another than it was.
func (c *policyCheck) changed(field string) bool {
	return c.before == nil || !reflect.DeepEqual(c.before[field], c.after[field])
}

// policyIndex finds a field of a policy by the name it is stored and answered
// under.
var PolicyIndex = func() map[string]int {
	index := map[string]int{}
	t := reflect.TypeFor[Policy]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		index[name] = i
	}
	return index
}()

// sameField: the field is stored alike in both.
func SameField(name string, a, b *Policy) bool {
	i := PolicyIndex[name]
	return reflect.DeepEqual(reflect.ValueOf(a).Elem().Field(i).Interface(), reflect.ValueOf(b).Elem().Field(i).Interface())
}

func checkStaticOnly(c *policyCheck, field string) error {
	if c.typ == Static && c.new.MaxTTL != nil && *c.new.MaxTTL != 0 {
		return refusal.New(field, *c.new.MaxTTL, "a static role's key has no lease to renew", "leave it out, or use ttl")
	}
	return nil
}

func checkRefresh(c *policyCheck, field string) error {
	switch {
	case c.typ == Dynamic && c.terms.Refresh != defaultRefreshInterval:
		return refusal.New(field, *c.new.RefreshInterval, "a dynamic role's readers renew a lease instead", "leave it out")
	case c.terms.Refresh > maxRefresh:
		return refusal.New(field, *c.new.RefreshInterval, fmt.Sprintf("must be from 1 to %d seconds", InSeconds(maxRefresh)), "give a shorter one")
	}
	return nil
}

func checkReveal(c *policyCheck, field string) error {
	if c.typ == Dynamic && c.terms.Reveal != revealAlways {
		return refusal.New(field, c.terms.Reveal, "a dynamic role's key is handed out once anyway", "leave it out")
	}
	return nil
}

func checkLeakGrace(c *policyCheck, field string) error {
	if c.terms.LeakGrace > maxLeak {
		return refusal.New(field, InSeconds(c.terms.LeakGrace), fmt.Sprintf("must be at most %d seconds", InSeconds(maxLeak)), "give a shorter one")
	}
	return nil
}

func checkLeaseTTL(c *policyCheck, field string) error {
	if c.typ != Dynamic || c.new.TTL == nil {
		return nil
	}
	_, most := c.lim.Leases()
	switch ttl := *c.new.TTL; {
	case ttl == 0:
		return refusal.New(field, ttl, "a lease has a lifetime", "give at least 1 second, or leave it out for the default")
	case most > 0 && ttl.Duration() > most:
		return refusal.New(field, ttl, fmt.Sprintf("must be at most %d seconds, the mount's maximum", InSeconds(most)), "give a shorter one, or tune the mount's max_lease_ttl")
	}
	return nil
}

func checkMaxTTL(c *policyCheck, field string) error {
	if c.typ != Dynamic || c.new.MaxTTL == nil {
		return nil
	}
	_, most := c.lim.Leases()
	longest := *c.new.MaxTTL
	switch {
	case longest == 0:
		return refusal.New(field, longest, "a lease has an end", "give at least 1 second, or leave it out for the mount's maximum")
	case field == "max_ttl" && most > 0 && longest.Duration() > most:
		return refusal.New(field, longest, fmt.Sprintf("must be at most %d seconds, the mount's maximum", InSeconds(most)), "give a shorter one, or tune the mount's max_lease_ttl")
	case c.new.TTL != nil && *c.new.TTL > longest && field == "ttl":
		return refusal.New(field, *c.new.TTL, fmt.Sprintf("must be at most max_ttl, which is %d", longest), "lower it or raise max_ttl")
	case c.new.TTL != nil && *c.new.TTL > longest:
		return refusal.New(field, longest, fmt.Sprintf("must be at least ttl, which is %d", *c.new.TTL), "raise it or lower ttl")
	}
	return nil
}

func checkPeriod(c *policyCheck, field string) error {
	if p := c.new.RotationPeriod; p != nil && *p != 0 && p.Duration() < minPeriod {
		return refusal.New(field, *p, "must be 0 (only by hand) or at least 60 seconds", "give a longer one")
	}
	return nil
}

func checkExclusive(old, p *Policy) error {
	if p.RotationSchedule == "" || p.RotationPeriod == nil || *p.RotationPeriod == 0 {
		return nil
	}
	if old != nil && SameField("rotation_period", old, p) {
		return refusal.New("rotation_schedule", p.RotationSchedule, fmt.Sprintf("is exclusive with rotation_period, which is %d", *p.RotationPeriod),
			"write rotation_period=0 with it, or leave it out")
	}
	return refusal.New("rotation_period", *p.RotationPeriod, "is exclusive with rotation_schedule, which is "+refusal.Shown(p.RotationSchedule),
		`write rotation_schedule="" with it, or leave it out`)
}

func checkJitter(c *policyCheck, _ string) error {
	jitter := c.new.RotationJitter.Duration()
	if jitter == 0 || c.terms.Cadence == nil || 4*jitter < c.terms.Shortest {
		return nil
	}
	return refusal.New("rotation_jitter", c.new.RotationJitter,
		fmt.Sprintf("must be less than a quarter of the distance between activations, which is %d seconds", InSeconds(c.terms.Shortest)), "give a shorter one")
}

func checkGrace(c *policyCheck, _ string) error {
	return c.nineDistances("grace_period", c.terms.Grace)
}

func checkMaxGrace(c *policyCheck, _ string) error {
	return c.nineDistances("max_grace_period", c.terms.MaxGrace)
}

// nineDistances keeps at most ten versions alive at a time.
func (c *policyCheck) nineDistances(field string, grace time.Duration) error {
	if c.terms.Cadence == nil || grace <= graceFactor*c.terms.Shortest {
		return nil
	}
	return refusal.New(field, InSeconds(grace), fmt.Sprintf("must be at most nine distances between activations, %d seconds", InSeconds(graceFactor*c.terms.Shortest)),
		"give a shorter one, or rotate less often")
}

// checkStaticTTL makes sure that no version expires before its successor has
// taken over and its readers have had their grace.
func checkStaticTTL(c *policyCheck, field string) error {
	if c.typ != Static || c.terms.Ttl == 0 || c.terms.Cadence == nil {
		return nil
	}
	t := c.terms
	lead := keyring.Lead(c.lim.StageAhead, t.Shortest)
	need := t.Longest + c.new.RotationJitter.Duration() + lead + t.MaxGrace
	if t.Ttl >= need {
		return nil
	}
	least := (need + time.Second - 1) / time.Second
	todo := "raise ttl, or rotate by hand only (rotation_period=0)"
	if field != "ttl" {
		todo = "raise ttl with it, or give a shorter " + field
	}
	return refusal.New("ttl", InSeconds(t.Ttl), fmt.Sprintf("must be 0 (for ever) or at least %d seconds: "+
		"the longest distance between activations, the jitter, the staging lead and the grace together", least), todo)
}
