// SPDX-License-Identifier: MPL-2.0

// Package policy is what an operator wrote of a role: its fields, their
// defaults, and the rules for each field and between them. It knows neither
// storage nor requests, and never what time it is.
//
// A policy is changed by what is given of it, judged, and then read through its
// terms, in which every default is filled in:
//
//	p, _, err := stored.With(map[string]any{"owner": "team-payments", "rotation_period": 3600})
//	…
//	err = policy.Check(&stored, p, roleID, policy.Static, limits)
//	…
//	terms, err := p.Effective(roleID, policy.Static, limits)
//	next := terms.Cadence.First(now, terms.Jitter)
//	answer := p.Show(terms)
//
// With judges each field by itself, Check the fields together. What they refuse
// is a refusal.Refusal: the operator's mistake, in a text that says how to mend
// it. Any other error is the program's.
//
// The files: fields.go lists the fields, rules.go has the rules between them,
// terms.go the defaults; text.go, scopes.go, networks.go and cadence.go each
// have one kind of value with its rules, for callers that judge values of that
// kind outside of a policy, too.
package policy

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// The two types of roles.
const (
	Static  = "static"  // one key, shared by everybody who may read the role
	Dynamic = "dynamic" // a key of its own for each read, with a lease
)

// Policy is what an operator wrote. A nil pointer, like an empty Prefix,
// Reveal or OnLeak, is a field that was never written or was reset: its default
// is looked up when it is needed, so that a default may depend on other fields
// and on the mount. The zero Policy has every default.
//
// It is stored as it is; what it means is for Effective to say.
type Policy struct {
	Description        string            `json:"description,omitempty"`
	Owner              string            `json:"owner,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	Scopes             []string          `json:"scopes,omitempty"`
	Prefix             string            `json:"prefix,omitempty"`
	TTL                *Seconds          `json:"ttl,omitempty"`
	MaxTTL             *Seconds          `json:"max_ttl,omitempty"`
	RotationPeriod     *Seconds          `json:"rotation_period,omitempty"`
	RotationSchedule   string            `json:"rotation_schedule,omitempty"`
	RotationWindow     Seconds           `json:"rotation_window,omitempty"`
	RotationJitter     Seconds           `json:"rotation_jitter,omitempty"`
	RotationPaused     bool              `json:"rotation_paused,omitempty"`
	GracePeriod        *Seconds          `json:"grace_period,omitempty"`
	MaxGracePeriod     *Seconds          `json:"max_grace_period,omitempty"`
	ValidUntil         string            `json:"valid_until,omitempty"` // as written
	RefreshInterval    *Seconds          `json:"refresh_interval,omitempty"`
	Reveal             string            `json:"reveal,omitempty"`
	AllowedCIDRs       []string          `json:"allowed_cidrs,omitempty"`
	RateLimit          float64           `json:"rate_limit,omitempty"` // requests per second
	OnLeak             string            `json:"on_leak,omitempty"`
	LeakGracePeriod    *Seconds          `json:"leak_grace_period,omitempty"`
	Disabled           bool              `json:"disabled,omitempty"`
	DeletionProtection bool              `json:"deletion_protection,omitempty"`
}

// With is the policy after what is given of it, as far as each field's own rule
// goes; p stays as it is. Values are given by the field's name, in the Go type
// of the field's Kind; nil is for a field that goes back to its default, and
// resets reports whether one that was written before did. A map that replaces
// the old one is a map[string]string; one that is merged into it, where nil
// removes a name, is a map[string]any. Names that are no field's are left for
// the caller to judge.
//
// Where keys begin to be handed out once only, rotation is off unless given says
// when it is to be.
//
// A text, list or map that is what p has already is never refused: a build with
// other rules may have stored it.
//
// The error is a refusal, or says that a value has not its field's Go type.
func (p *Policy) With(given map[string]any) (next *Policy, resets bool, err error) {
	c := *p
	next = &c
	var reset []string
	for i := range Fields {
		f := &Fields[i]
		value, named := given[f.Name]
		if !named {
			continue
		}
		if value == nil {
			f.reset(next)
			reset = append(reset, f.Name)
			continue
		}
		if patch, ok := value.(map[string]any); ok && f.Kind == Map {
			if value, err = merged(p.Metadata, patch); err != nil {
				return nil, false, fmt.Errorf("policy: %s: %w", f.Name, err)
			}
		}
		if !f.Kind.holds(value) {
			return nil, false, fmt.Errorf("policy: %s: a %T is given", f.Name, value)
		}
		if err := f.set(next, value); err != nil {
			return nil, false, err
		}
	}
	if next.stopsRotation(p, given) {
		next.RotationPeriod, next.RotationSchedule = new(Seconds), ""
		if _, named := given["rotation_window"]; !named {
			next.RotationWindow = 0 // it goes with the schedule
		}
	}
	if next.RotationSchedule != "" && next.RotationPeriod != nil && *next.RotationPeriod == 0 {
		// How a scheduled role is shown; it says nothing about a later policy
		// without schedule.
		next.RotationPeriod = nil
	}
	for _, name := range reset {
		resets = resets || !SameField(name, p, next)
	}
	return next, resets, nil
}

// stopsRotation reports whether the write makes keys go out once only, or puts the
// rotation of such a policy back to its default, without saying when they are to
// rotate: then they do not. Who was handed such a key cannot read its successor.
func (p *Policy) stopsRotation(old *Policy, given map[string]any) bool {
	if p.Reveal != RevealOnce {
		return false
	}
	if schedule := given["rotation_schedule"]; given["rotation_period"] != nil || schedule != nil && schedule != "" {
		return false
	}
	if old.Reveal != RevealOnce {
		return true
	}
	// One that an older build stored without either goes on with the default of all
	// roles: nobody has asked for another.
	return p.RotationPeriod == nil && p.RotationSchedule == "" && (old.RotationPeriod != nil || old.RotationSchedule != "")
}

// Show is the policy as a reader sees it, every default filled in from its
// terms: one entry for each of Fields. Durations are int64 seconds, lists and
// maps never nil, and nothing is shared with p.
func (p *Policy) Show(t Terms) map[string]any {
	view := make(map[string]any, len(Fields)+4) // room for what a caller adds
	for i := range Fields {
		view[Fields[i].Name] = Fields[i].show(p, t)
	}
	return view
}

// SameField reports whether the field of this name is stored alike in both: not
// if one was never written and the other has the default's value, and not if
// there is no such field.
func SameField(name string, a, b *Policy) bool {
	i, known := fieldIndex[name]
	return known && reflect.DeepEqual(reflect.ValueOf(a).Elem().Field(i).Interface(), reflect.ValueOf(b).Elem().Field(i).Interface())
}

// fieldIndex finds a field of Policy by the name that it is stored and answered
// under.
var fieldIndex = func() map[string]int {
	index := map[string]int{}
	t := reflect.TypeFor[Policy]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		index[name] = i
	}
	return index
}()

// Seconds is a duration as it is written, stored and answered.
type Seconds int64

// Duration is s as the standard library measures time.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// InSeconds is d in whole seconds, as it is answered; a fraction is dropped.
func InSeconds(d time.Duration) int64 { return int64(d / time.Second) }

// OrDefault is what was written, or d where nothing was.
func OrDefault(s *Seconds, d time.Duration) time.Duration {
	if s == nil {
		return d
	}
	return s.Duration()
}
