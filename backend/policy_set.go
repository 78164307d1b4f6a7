// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Limits of the fields.
const (
	maxText         = 512
	maxMetadata     = 64
	maxMetadataName = 64
	maxScopes       = 128
	maxScopeLength  = 128
	maxCIDRs        = 256
	maxRate         = 1e6
	maxScheduleText = 256
	// maxSeconds keeps sums of durations and dates far from overflowing: nine of
	// them are less than what a duration holds.
	maxSeconds seconds = 10 * 366 * 24 * 3600
)

var scopeForm = regexp.MustCompile(`^([A-Za-z0-9._-]+:)*([A-Za-z0-9._-]+|\*)$`)

func setText(field string, at func(*policy) *string) func(*policy, any) error {
	return func(p *policy, v any) error {
		if err := checkText(field, v.(string), maxText); err != nil {
			return err
		}
		*at(p) = keyformat.Redact(v.(string))
		return nil
	}
}

func setMetadata(p *policy, v any) error {
	const field = "metadata"
	pairs := v.(map[string]string)
	if len(pairs) > maxMetadata {
		return refusal.New(field, len(pairs), fmt.Sprintf("has more than %d names", maxMetadata), "remove some")
	}
	m := make(map[string]string, len(pairs))
	for _, name := range sortedKeys(pairs) {
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

func setScopes(p *policy, v any) error {
	const field = "scopes"
	scopes := v.([]string)
	if len(scopes) > maxScopes {
		return refusal.New(field, len(scopes), fmt.Sprintf("has more than %d entries", maxScopes), "combine some with *, such as orders:*")
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

func setPrefix(p *policy, v any) error {
	if err := keyformat.ValidPrefix(v.(string)); err != nil {
		return refusal.New("prefix", v, err.Error(), "write something like ak or acme_live")
	}
	p.Prefix = v.(string)
	return nil
}

// asSeconds takes a duration of at least least seconds.
func asSeconds(field string, v any, least seconds) (seconds, error) {
	n := seconds(v.(int))
	switch {
	case n < least:
		return 0, refusal.New(field, n, fmt.Sprintf("must be at least %d", least), "give a longer one")
	case n > maxSeconds:
		return 0, refusal.New(field, n, fmt.Sprintf("must be at most %d seconds", maxSeconds), "give a shorter one")
	}
	return n, nil
}

func setSeconds(field string, least seconds, at func(*policy) **seconds) func(*policy, any) error {
	return func(p *policy, v any) error {
		n, err := asSeconds(field, v, least)
		if err != nil {
			return err
		}
		*at(p) = &n
		return nil
	}
}

func setSchedule(p *policy, v any) error {
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

func setChoice(field string, at func(*policy) *string, choices ...string) func(*policy, any) error {
	return func(p *policy, v any) error {
		if !slices.Contains(choices, v.(string)) {
			return refusal.New(field, v, "must be one of "+strings.Join(choices, ", "), "choose one")
		}
		*at(p) = v.(string)
		return nil
	}
}

func setCIDRs(p *policy, v any) error {
	const field = "allowed_cidrs"
	cidrs := v.([]string)
	if len(cidrs) > maxCIDRs {
		return refusal.New(field, len(cidrs), fmt.Sprintf("has more than %d entries", maxCIDRs), "combine some into larger networks")
	}
	for _, c := range cidrs {
		if _, err := parseCIDR(c); err != nil {
			return refusal.New(field, c, err.Error(), "write something like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")
		}
	}
	p.AllowedCIDRs = slices.Clone(cidrs)
	return nil
}

var (
	errCIDR   = errors.New("must be a network or an address")
	errMapped = errors.New("is an IPv4 address in an IPv6 one's form, which nothing would match")
)

// parseCIDR reads a network, or an address, which is the network of just it.
func parseCIDR(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errCIDR
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, errMapped
	}
	return prefix.Masked(), nil
}

func setRate(p *policy, v any) error {
	rate := v.(float64)
	if math.IsNaN(rate) || rate < 0 || rate > maxRate {
		return refusal.New("rate_limit", rate, fmt.Sprintf("must be from 0 to %d", int(maxRate)), "give requests per second, or 0 for no limit")
	}
	p.RateLimit = rate
	return nil
}
