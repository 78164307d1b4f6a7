// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// Limits of the fields that are numbers.
const (
	maxRate = 1e6
	// maxSeconds keeps sums of durations and dates far from overflowing: nine of
	// them are less than what a duration holds.
	maxSeconds   Seconds = 10 * 366 * 24 * 3600
	minPeriod    Seconds = 60
	maxRefresh   Seconds = 720 * 3600
	maxLeakGrace Seconds = 168 * 3600
	minWindow    Seconds = 3600
)

// Kind is what a field's value is.
type Kind uint8

// The kinds of fields, and the Go type in which With takes their values.
const (
	Text     Kind = iota // string
	Choice               // string, one of Choices
	List                 // []string
	Map                  // map[string]string, or map[string]any to merge
	Switch               // bool
	Duration             // int, whole seconds
	Number               // float64
)

// holds reports whether value has the kind's Go type.
func (k Kind) holds(value any) (ok bool) {
	switch k {
	case Text, Choice:
		_, ok = value.(string)
	case List:
		_, ok = value.([]string)
	case Map:
		_, ok = value.(map[string]string)
	case Switch:
		_, ok = value.(bool)
	case Duration:
		_, ok = value.(int)
	case Number:
		_, ok = value.(float64)
	}
	return ok
}

// Field is one field of a role's policy: how it is documented, taken from a
// request, reset and shown.
type Field struct {
	Name    string
	Kind    Kind
	About   string   // the field's documentation
	Default any      // as it is documented, in the kind's Go type; nil where it depends on more
	Choices []string // of a Choice
	// Clears reports whether the empty text, which is refused elsewhere, clears
	// the field.
	Clears bool
	// Blank: whether the empty text is taken is for the field's own rule.
	Blank bool

	// set takes a value that the kind holds and refuses what breaks the field's
	// own rule. Rules between fields are for Check.
	set   func(p *Policy, v any) error
	reset func(p *Policy)
	show  func(p *Policy, t Terms) any
}

// Fields lists them in the order in which refusals are looked for. It never
// changes.
var Fields = []Field{
	{
		Name:   "description",
		Clears: true,
		Kind:   Text,
		About:  "What the key is for; at most 512 characters, several lines if need be.",
		set:    setText("description", true, func(p *Policy) *string { return &p.Description }),
		reset:  func(p *Policy) { p.Description = "" },
		show:   func(p *Policy, _ Terms) any { return p.Description },
	},
	{
		Name:   "owner",
		Clears: true,
		Kind:   Text,
		About:  "Whom to page about this key: a team, an address; at most 512 characters.",
		set:    setText("owner", false, func(p *Policy) *string { return &p.Owner }),
		reset:  func(p *Policy) { p.Owner = "" },
		show:   func(p *Policy, _ Terms) any { return p.Owner },
	},
	{
		Name:   "metadata",
		Clears: true,
		Kind:   Map,
		About: "Names and values that verify returns with a good key: at most 64, names of 64 and values of 512 characters at most. " +
			"A create or update replaces the whole map; a patch merges into it, where null removes a name.",
		set:   setMetadata,
		reset: func(p *Policy) { p.Metadata = nil },
		show:  func(p *Policy, _ Terms) any { return shownMap(p.Metadata) },
	},
	{
		Name:   "scopes",
		Clears: true,
		Kind:   List,
		About: "What the key may be used for, in the order given: at most 128 such as orders:read, orders:* or *, each of 128 characters at most. " +
			"Segments of A-Z a-z 0-9 . _ - are joined by colons; * stands for anything, as last segment only.",
		set:   setScopes,
		reset: func(p *Policy) { p.Scopes = nil },
		show:  func(p *Policy, _ Terms) any { return append([]string{}, p.Scopes...) },
	},
	{
		Name: "prefix",
		Kind: Text, Default: defaultPrefix,
		About: "First part of every key made from now on: parts of a lower-case letter and 1 to 15 lower-case letters or digits, " +
			"joined by _, such as acme_live; at most 32 characters.",
		set:   setPrefix,
		reset: func(p *Policy) { p.Prefix = "" },
		show:  func(_ *Policy, t Terms) any { return t.Prefix },
	},
	{
		Name: "ttl",
		Kind: Duration,
		About: "How long one key may live. Static role: 0, the default, is forever; with rotation on at least the longest distance between " +
			"activations, the jitter, the staging lead and the grace together. Dynamic role: the TTL of a lease; default 1h, or the mount's default where that is shorter.",
		set:   setSeconds("ttl", 0, maxSeconds, func(p *Policy, n Seconds) { p.TTL = &n }),
		reset: func(p *Policy) { p.TTL = nil },
		show:  showTTL,
	},
	{
		Name: "max_ttl",
		Kind: Duration,
		About: "How far renewals of a dynamic role's lease reach: at least ttl, at most the mount's maximum, which is the default. " +
			"A static role has none (0).",
		set:   setSeconds("max_ttl", 0, maxSeconds, func(p *Policy, n Seconds) { p.MaxTTL = &n }),
		reset: func(p *Policy) { p.MaxTTL = nil },
		show:  showMaxTTL,
	},
	{
		Name: "rotation_period",
		Kind: Duration,
		About: "Distance between automatic rotations: 0 (by hand only) or at least 60s; exclusive with rotation_schedule. " +
			"Default: 2160h for a static role, 0 for a dynamic one. From 5 minutes up activations are exact to the second.",
		set:   setPeriod,
		reset: func(p *Policy) { p.RotationPeriod = nil },
		show:  func(_ *Policy, t Terms) any { return InSeconds(t.period) },
	},
	{
		Name:   "rotation_schedule",
		Clears: true,
		Kind:   Text,
		About: "When to rotate, as a cron expression of five fields (minute, hour, day of month, month, day of week), in UTC unless CRON_TZ=<zone> " +
			"stands before them; exclusive with rotation_period; empty: none. Times that the clocks skip come up together at the end of the gap, those that they repeat in the first pass only; " +
			"a schedule of every hour just goes on.",
		set:   setSchedule,
		reset: func(p *Policy) { p.RotationSchedule = "" },
		show:  func(p *Policy, _ Terms) any { return p.RotationSchedule },
	},
	{
		Name: "rotation_window",
		Kind: Duration, Default: 0,
		About: "How long after each time of rotation_schedule an automatic rotation may still come: at least 1h and shorter than the shortest distance " +
			"between activations; 0, the default, is as long as it takes. A rotation that was missed waits for the next time, unless the key would end before.",
		set:   setWindow,
		reset: func(p *Policy) { p.RotationWindow = 0 },
		show:  func(p *Policy, _ Terms) any { return int64(p.RotationWindow) },
	},
	{
		Name: "rotation_jitter",
		Kind: Duration,
		About: "Shifts the role's rotations by a fixed part of this, derived from role_id, so that roles with one plan do not all rotate at once: " +
			"less than a quarter of the distance between activations. Default: 0.",
		set:   setSeconds("rotation_jitter", 0, maxSeconds, func(p *Policy, n Seconds) { p.RotationJitter = n }),
		reset: func(p *Policy) { p.RotationJitter = 0 },
		show:  func(p *Policy, _ Terms) any { return int64(p.RotationJitter) },
	},
	{
		Name:  "rotation_paused",
		Kind:  Switch,
		About: "Automatic rotation off for now; rotate/<role> still works. Default: false.",
		set:   func(p *Policy, v any) error { p.RotationPaused = v.(bool); return nil },
		reset: func(p *Policy) { p.RotationPaused = false },
		show:  func(p *Policy, _ Terms) any { return p.RotationPaused },
	},
	{
		Name: "grace_period",
		Kind: Duration,
		About: "How long the previous version stays valid after a rotation that names no other grace: at most nine distances between activations. " +
			"Default: 24h, or half that distance where it is shorter.",
		set:   setSeconds("grace_period", 0, maxSeconds, func(p *Policy, n Seconds) { p.GracePeriod = &n }),
		reset: func(p *Policy) { p.GracePeriod = nil },
		show:  func(_ *Policy, t Terms) any { return InSeconds(t.Grace) },
	},
	{
		Name: "max_grace_period",
		Kind: Duration,
		About: "If larger than grace_period: the grace of an automatic rotation is prolonged step by step, up to this, while the previous version " +
			"is still in use. At most nine distances between activations. Default: grace_period.",
		set:   setSeconds("max_grace_period", 0, maxSeconds, func(p *Policy, n Seconds) { p.MaxGracePeriod = &n }),
		reset: func(p *Policy) { p.MaxGracePeriod = nil },
		show:  func(_ *Policy, t Terms) any { return InSeconds(t.MaxGrace) },
	},
	{
		Name: "valid_until",
		Kind: Text, Blank: true,
		About: "The end of the role (RFC 3339), answered as it was written; none by default. All its keys expire then, and none is made or issued from then on. " +
			"Raising it later brings no key back. Only null in a patch, or replace=true, takes it away.",
		set:   setValidUntil,
		reset: func(p *Policy) { p.ValidUntil = "" },
		show:  func(p *Policy, _ Terms) any { return p.ValidUntil },
	},
	{
		Name: "refresh_interval",
		Kind: Duration, Default: int(defaultRefreshInterval / time.Second),
		About: "Upper bound of the ttl that creds/<role> tells the readers of a static role: how fast a manual rotation reaches every consumer. 1s to 720h.",
		set:   setSeconds("refresh_interval", 1, maxRefresh, func(p *Policy, n Seconds) { p.RefreshInterval = &n }),
		reset: func(p *Policy) { p.RefreshInterval = nil },
		show:  func(_ *Policy, t Terms) any { return InSeconds(t.Refresh) },
	},
	{
		Name: "reveal",
		Kind: Choice, Default: RevealAlways, Choices: []string{RevealAlways, RevealOnce},
		About: "always: everybody who may read the role gets the key. once: the first read of a version hands it out and erases it, as for customers' keys. Static roles only. " +
			"The write that chooses once turns automatic rotation off (rotation_period 0) unless it names a period or a schedule: nobody but the customer can come for the next key.",
		set:   setChoice("reveal", func(p *Policy) *string { return &p.Reveal }, RevealAlways, RevealOnce),
		reset: func(p *Policy) { p.Reveal = "" },
		show:  func(_ *Policy, t Terms) any { return t.Reveal },
	},
	{
		Name: "allowed_cidrs",
		Kind: List,
		About: "Networks from which the key may be used; verify answers FORBIDDEN_IP for any other address and for none. At most 256, such as 10.0.0.0/8 or " +
			"2001:db8::/32; an address without a length is that one address. Empty: no restriction.",
		set:   setCIDRs,
		reset: func(p *Policy) { p.AllowedCIDRs = nil },
		show:  func(p *Policy, _ Terms) any { return append([]string{}, p.AllowedCIDRs...) },
	},
	{
		Name:  "rate_limit",
		Kind:  Number,
		About: "Requests per second for the role as a whole, old and new version together, in each verifying process; 0, the default, is no limit.",
		set:   setRate,
		reset: func(p *Policy) { p.RateLimit = 0 },
		show:  func(p *Policy, _ Terms) any { return p.RateLimit },
	},
	{
		Name: "on_leak",
		Kind: Choice, Default: LeakRevoke, Choices: []string{LeakRevoke, LeakRotate, LeakAlert},
		About: "What a report of the key does: revoke (killed and replaced at once), rotate (replaced; the old one lives for leak_grace_period) or alert (nothing but the record).",
		set:   setChoice("on_leak", func(p *Policy) *string { return &p.OnLeak }, LeakRevoke, LeakRotate, LeakAlert),
		reset: func(p *Policy) { p.OnLeak = "" },
		show:  func(_ *Policy, t Terms) any { return t.OnLeak },
	},
	{
		Name: "leak_grace_period",
		Kind: Duration, Default: int(DefaultLeakGrace / time.Second),
		About: "How long a reported key lives on where on_leak is rotate: at most 168h.",
		set:   setSeconds("leak_grace_period", 0, maxLeakGrace, func(p *Policy, n Seconds) { p.LeakGracePeriod = &n }),
		reset: func(p *Policy) { p.LeakGracePeriod = nil },
		show:  func(_ *Policy, t Terms) any { return InSeconds(t.LeakGrace) },
	},
	{
		Name:  "disabled",
		Kind:  Switch,
		About: "verify answers DISABLED for every key of the role; reversible, nothing is destroyed. Default: false.",
		set:   func(p *Policy, v any) error { p.Disabled = v.(bool); return nil },
		reset: func(p *Policy) { p.Disabled = false },
		show:  func(p *Policy, _ Terms) any { return p.Disabled },
	},
	{
		Name:  "deletion_protection",
		Kind:  Switch,
		About: "The role cannot be deleted while this is set. Default: false.",
		set:   func(p *Policy, v any) error { p.DeletionProtection = v.(bool); return nil },
		reset: func(p *Policy) { p.DeletionProtection = false },
		show:  func(p *Policy, _ Terms) any { return p.DeletionProtection },
	},
}

// showTTL and showMaxTTL show what was written even where the mount's maximum
// has become smaller since: what a reader wrote must not seem to have changed.
func showTTL(p *Policy, t Terms) any {
	if p.TTL != nil {
		return int64(*p.TTL)
	}
	return InSeconds(t.TTL)
}

func showMaxTTL(p *Policy, t Terms) any {
	if p.MaxTTL != nil {
		return int64(*p.MaxTTL)
	}
	return InSeconds(t.MaxTTL)
}

func setPrefix(p *Policy, v any) error {
	if err := keyformat.ValidPrefix(v.(string)); err != nil {
		return refusal.New("prefix", v, err.Error(), "write something like ak or acme_live")
	}
	p.Prefix = v.(string)
	return nil
}

// setSeconds takes a duration from least to most.
func setSeconds(field string, least, most Seconds, assign func(*Policy, Seconds)) func(*Policy, any) error {
	return func(p *Policy, v any) error {
		n := Seconds(v.(int))
		switch {
		case n < least:
			return refusal.New(field, n, "must be at least "+refusal.Duration(least.Duration()), "give a longer one")
		case n > most:
			return refusal.New(field, n, "must be at most "+refusal.Duration(most.Duration()), "give a shorter one")
		}
		assign(p, n)
		return nil
	}
}

func setPeriod(p *Policy, v any) error {
	const field = "rotation_period"
	if n := Seconds(v.(int)); n != 0 && n < minPeriod {
		return refusal.New(field, n, "must be 0 (only by hand) or at least "+refusal.Duration(minPeriod.Duration()), "give a longer one")
	}
	return setSeconds(field, 0, maxSeconds, func(p *Policy, n Seconds) { p.RotationPeriod = &n })(p, v)
}

func setWindow(p *Policy, v any) error {
	const field = "rotation_window"
	if n := Seconds(v.(int)); n != 0 && n < minWindow {
		return refusal.New(field, n, "must be 0 (none) or at least "+refusal.Duration(minWindow.Duration()), "give a longer one")
	}
	return setSeconds(field, 0, maxSeconds, func(p *Policy, n Seconds) { p.RotationWindow = n })(p, v)
}

// setValidUntil takes a time as it is written. Whether that is over is for who knows
// the time. The empty text is what a reader of a role without an end got; it takes
// no end away.
func setValidUntil(p *Policy, v any) error {
	const field = "valid_until"
	text := v.(string)
	switch _, err := instantOf(text); {
	case text == p.ValidUntil:
	case text == "":
		return refusal.New(field, text, "is empty", "leave it out; null in a patch takes the end away")
	case err != nil:
		return refusal.New(field, text, err.Error(), "give a time such as 2027-01-31T08:00:00Z")
	}
	p.ValidUntil = text
	return nil
}

var (
	errNoInstant  = errors.New("is not a time as RFC 3339 writes it")
	errNoneToCome = errors.New("is no time that can come")
)

// Until is when the role ends; zero if it does not.
func (p *Policy) Until() time.Time {
	until, err := instantOf(p.ValidUntil)
	if err != nil {
		return time.Time{} // no such policy is stored
	}
	return until
}

// instantOf is the instant that a text names; zero for none.
func instantOf(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errNoInstant
	}
	if at = at.UTC(); at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, errNoneToCome
	}
	return at, nil
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

func setRate(p *Policy, v any) error {
	rate := v.(float64)
	if math.IsNaN(rate) || rate < 0 || rate > maxRate {
		return refusal.New("rate_limit", rate, fmt.Sprintf("must be from 0 to %d", int(maxRate)), "give requests per second, or 0 for no limit")
	}
	p.RateLimit = rate
	return nil
}
