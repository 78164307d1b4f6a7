// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Limits of the fields.
const (
	maxText         = 512
	maxMetadata     = 64
	maxMetadataName = 64
	MaxScopes       = 128
	maxScopeLength  = 128
	maxCIDRs        = 256
	maxRate         = 1e6
	maxScheduleText = 256
	// maxSeconds keeps sums of durations and dates far from overflowing: nine of
	// them are less than what a duration holds.
	maxSeconds Seconds = 10 * 366 * 24 * 3600
)

var scopeForm = regexp.MustCompile(`^([A-Za-z0-9._-]+:)*([A-Za-z0-9._-]+|\*)$`)

func setText(field string, at func(*Policy) *string) func(*Policy, any) error {
	return func(p *Policy, v any) error {
		if err := checkText(field, v.(string), maxText); err != nil {
			return err
		}
		*at(p) = keyformat.Redact(v.(string))
		return nil
	}
}

func setMetadata(p *Policy, v any) error {
	const field = "metadata"
	pairs := v.(map[string]string)
	if len(pairs) > maxMetadata {
		return refusal.New(field, len(pairs), fmt.Sprintf("has more than %d names", maxMetadata), "remove some")
	}
	m := make(map[string]string, len(pairs))
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		switch {
		case name == "":
			return refusal.New(field, name, "a name is empty", "name every value")
		case holdsKey(name):
			return refusal.New(field, name, "a name holds an API key", "use another name")
		}
		if err := checkText(field+" name", name, maxMetadataName); err != nil {
			return err
		}
		if err := checkText(field+" "+refusal.Shown(name), pairs[name], maxText); err != nil {
			return err
		}
		m[name] = keyformat.Redact(pairs[name])
	}
	if p.Metadata = m; len(m) == 0 {
		p.Metadata = nil
	}
	return nil
}

func setScopes(p *Policy, v any) error {
	const field = "scopes"
	scopes := v.([]string)
	if len(scopes) > MaxScopes {
		return refusal.New(field, len(scopes), fmt.Sprintf("has more than %d entries", MaxScopes), "combine some with *, such as orders:*")
	}
	for _, s := range scopes {
		if err := checkScope(field, s); err != nil {
			return err
		}
	}
	p.Scopes = slices.Clone(scopes)
	return nil
}

func checkScope(field, scope string) error {
	switch {
	case len(scope) > maxScopeLength:
		return refusal.New(field, scope, fmt.Sprintf("has more than %d characters", maxScopeLength), "shorten it")
	case !scopeForm.MatchString(scope):
		return refusal.New(field, scope, "must be segments of A-Z a-z 0-9 . _ - joined by colons, with * as last segment only",
			"write orders:read, orders:* or *")
	case holdsKey(scope):
		return refusal.New(field, scope, "holds an API key", "use another name")
	}
	return nil
}

func setPrefix(p *Policy, v any) error {
	if err := keyformat.ValidPrefix(v.(string)); err != nil {
		return refusal.New("prefix", v, err.Error(), "write something like ak or acme_live")
	}
	p.Prefix = v.(string)
	return nil
}

// asSeconds takes a duration of at least least seconds.
func asSeconds(field string, v any, least Seconds) (Seconds, error) {
	n := Seconds(v.(int))
	switch {
	case n < least:
		return 0, refusal.New(field, n, fmt.Sprintf("must be at least %d", least), "give a longer one")
	case n > maxSeconds:
		return 0, refusal.New(field, n, fmt.Sprintf("must be at most %d seconds", maxSeconds), "give a shorter one")
	}
	return n, nil
}

func setSeconds(field string, least Seconds, at func(*Policy) **Seconds) func(*Policy, any) error {
	return func(p *Policy, v any) error {
		n, err := asSeconds(field, v, least)
		if err != nil {
			return err
		}
		*at(p) = &n
		return nil
	}
}

func setSchedule(p *Policy, v any) error {
	const field = "rotation_schedule"
	expr := v.(string)
	if expr != "" {
		if len(expr) > maxScheduleText {
			return refusal.New(field, len(expr), fmt.Sprintf("has more than %d characters", maxScheduleText), "shorten it")
		}
		if _, err := parseSchedule(expr); err != nil {
			return refusal.New(field, expr, scheduleRule(err), `write something like "0 3 * * 1" or "CRON_TZ=Europe/Berlin 30 2 * * *"`)
		}
	}
	p.RotationSchedule = expr
	return nil
}

func scheduleRule(err error) string {
	if errors.Is(err, errScheduleNever) {
		return errScheduleNever.Error()
	}
	return err.Error()
}

func setChoice(field string, at func(*Policy) *string, choices ...string) func(*Policy, any) error {
	return func(p *Policy, v any) error {
		if !slices.Contains(choices, v.(string)) {
			return refusal.New(field, v, "must be one of "+strings.Join(choices, ", "), "choose one")
		}
		*at(p) = v.(string)
		return nil
	}
}

func setCIDRs(p *Policy, v any) error {
	const field = "allowed_cidrs"
	cidrs := v.([]string)
	if len(cidrs) > maxCIDRs {
		return refusal.New(field, len(cidrs), fmt.Sprintf("has more than %d entries", maxCIDRs), "combine some into larger networks")
	}
	for _, c := range cidrs {
		if _, err := parseNetwork(c); err != nil {
			return refusal.New(field, c, err.Error(), "write something like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")
		}
	}
	p.AllowedCIDRs = slices.Clone(cidrs)
	return nil
}

func setRate(p *Policy, v any) error {
	rate := v.(float64)
	if math.IsNaN(rate) || rate < 0 || rate > maxRate {
		return refusal.New("rate_limit", rate, fmt.Sprintf("must be from 0 to %d", int(maxRate)), "give requests per second, or 0 for no limit")
	}
	p.RateLimit = rate
	return nil
}

// With is the policy after what is given of it, as far as each field's own rule
// goes: values by the field's name, nil for one that goes back to its default.
// resets reports whether one that was written before did. A map that replaces
// the old one is a map[string]string, one that is merged into it, where nil
// removes a name, a map[string]any.
func (p *Policy) With(given map[string]any) (next *Policy, resets bool, err error) {
	c := *p
	next = &c
	for i := range Fields {
		f := &Fields[i]
		value, named := given[f.Name]
		if !named {
			continue
		}
		if value == nil {
			f.reset(next)
			resets = resets || !SameField(f.Name, p, next)
			continue
		}
		if changes, ok := value.(map[string]any); ok {
			value = merged(p.Metadata, changes)
		}
		if err := f.set(next, value); err != nil {
			return nil, false, err
		}
	}
	if next.RotationSchedule != "" && next.RotationPeriod != nil && *next.RotationPeriod == 0 {
		// How a scheduled role is shown; it says nothing about a later policy
		// without schedule.
		next.RotationPeriod = nil
	}
	return next, resets, nil
}

func merged(old map[string]string, changes map[string]any) map[string]string {
	m := shownMap(old)
	for name, v := range changes {
		if text, ok := v.(string); ok {
			m[name] = text
		} else {
			delete(m, name)
		}
	}
	return m
}

// checkText refuses what can not be stored as it is, or is too long.
func checkText(field, text string, limit int) error {
	if !utf8.ValidString(text) {
		return refusal.New(field, nil, "is not valid UTF-8", "send text in UTF-8")
	}
	if n := utf8.RuneCountInString(text); n > limit {
		return refusal.New(field, n, fmt.Sprintf("has more than %d characters", limit), "shorten it")
	}
	return nil
}

// holdsKey: one of our keys is in the text, where it could not be replaced.
func holdsKey(text string) bool { return keyformat.Redact(text) != text }
