// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func effective(t *testing.T, p Policy, typ string, lim Limits) Terms {
	t.Helper()
	terms, err := p.Effective(roleID, typ, lim)
	if err != nil {
		t.Fatal(err)
	}
	return terms
}

func TestDefaults(t *testing.T) {
	static := map[string]any{
		"description": "", "owner": "", "metadata": map[string]string{}, "scopes": []string{}, "prefix": "ak", "ttl": int64(0), "max_ttl": int64(0),
		"rotation_period": int64(90 * 86400), "rotation_schedule": "", "rotation_window": int64(0), "rotation_jitter": int64(0), "rotation_paused": false, "valid_until": "",
		"grace_period": int64(86400), "max_grace_period": int64(86400), "refresh_interval": int64(300), "reveal": "always",
		"allowed_cidrs": []string{}, "rate_limit": 0.0, "on_leak": "revoke", "leak_grace_period": int64(3600), "disabled": false, "deletion_protection": false,
	}
	noLeases := Limits{Leases: func() (time.Duration, time.Duration) {
		t.Error("a static role asks for the mount's leases")
		return 0, 0
	}}
	if got := shown(t, &Policy{}, Static, noLeases); !reflect.DeepEqual(got, static) {
		t.Errorf("static: %v, want %v", got, static)
	}
	dynamic := maps.Clone(static)
	dynamic["ttl"], dynamic["max_ttl"], dynamic["rotation_period"] = int64(3600), int64(172800), int64(0)
	if got := shown(t, &Policy{}, Dynamic, mount); !reflect.DeepEqual(got, dynamic) {
		t.Errorf("dynamic: %v, want %v", got, dynamic)
	}
}

func TestEffective(t *testing.T) {
	const day = 24 * time.Hour
	terms := effective(t, Policy{}, Static, mount)
	want := Terms{
		Cadence: periodCadence(90 * day), Longest: 90 * day, Shortest: 90 * day, Lead: 10 * time.Minute, Grace: day, MaxGrace: day,
		Refresh: 5 * time.Minute, LeakGrace: time.Hour, Prefix: "ak", Reveal: RevealAlways, OnLeak: LeakRevoke, period: 90 * day,
	}
	if terms != want {
		t.Errorf("%+v, want %+v", terms, want)
	}
	terms = effective(t, Policy{
		Prefix: "bk", TTL: seconds(400000), RotationSchedule: "0 9 * * 1-5", RotationWindow: 7200, ValidUntil: "2027-01-31T10:00:00.5+02:00", RotationJitter: 3600, RotationPaused: true, GracePeriod: seconds(60), MaxGracePeriod: seconds(90),
		RefreshInterval: seconds(7), Reveal: RevealOnce, OnLeak: LeakAlert, LeakGracePeriod: seconds(0),
	}, Static, mount)
	want = Terms{
		TTL: 400000 * time.Second, Cadence: schedule(t, "0 9 * * 1-5"), AutoPaused: true, Longest: 3 * day, Shortest: day, Jitter: keyring.Jitter(roleID, time.Hour),
		Lead: 10 * time.Minute, Grace: time.Minute, MaxGrace: 90 * time.Second, Refresh: 7 * time.Second, Prefix: "bk", Reveal: RevealOnce, OnLeak: LeakAlert,
		Window: 2 * time.Hour, Until: time.Date(2027, 1, 31, 8, 0, 0, 500000000, time.UTC),
	}
	if terms != want {
		t.Errorf("%+v, want %+v", terms, want)
	}
	if terms.Jitter <= 0 || terms.Jitter >= time.Hour {
		t.Errorf("jitter %s", terms.Jitter)
	}
	terms = effective(t, Policy{RotationPeriod: seconds(0)}, Static, mount)
	if terms.Cadence != nil || terms.Longest != 0 || terms.Shortest != 0 || terms.Grace != day || terms.Lead != 0 {
		t.Errorf("by hand only: %+v", terms)
	}
}

func TestGraceFollowsTheDistance(t *testing.T) {
	for _, c := range []struct {
		p               Policy
		grace, maxGrace time.Duration
	}{
		{Policy{RotationPeriod: seconds(48 * 3600)}, 24 * time.Hour, 24 * time.Hour},
		{Policy{RotationPeriod: seconds(48*3600 - 2)}, 24*time.Hour - time.Second, 24*time.Hour - time.Second},
		{Policy{RotationPeriod: seconds(61)}, 30 * time.Second, 30 * time.Second}, // whole seconds
		{Policy{RotationPeriod: seconds(3600), MaxGracePeriod: seconds(7200)}, 30 * time.Minute, 2 * time.Hour},
		{Policy{RotationPeriod: seconds(3600), GracePeriod: seconds(7200)}, 2 * time.Hour, 2 * time.Hour},
		{Policy{GracePeriod: seconds(7200), MaxGracePeriod: seconds(3600)}, 2 * time.Hour, 2 * time.Hour}, // no rule takes it, no store should hold it
		{Policy{GracePeriod: seconds(0)}, 0, 0},
		{Policy{GracePeriod: seconds(0), MaxGracePeriod: seconds(60)}, 0, time.Minute},
		{Policy{RotationSchedule: "0 1,2 * * *"}, 30 * time.Minute, 30 * time.Minute},
	} {
		if got := effective(t, c.p, Static, mount); got.Grace != c.grace || got.MaxGrace != c.maxGrace {
			t.Errorf("%+v: %s to %s, want %s to %s", c.p, got.Grace, got.MaxGrace, c.grace, c.maxGrace)
		}
	}
}

func TestLeases(t *testing.T) {
	for _, c := range []struct {
		ttl, maxTTL         *Seconds
		mount, most         int // seconds
		want, wantMax       int
		shownTTL, shownMost int64
	}{
		{nil, nil, 86400, 172800, 3600, 172800, 3600, 172800},
		{nil, nil, 3599, 172800, 3599, 172800, 3599, 172800},
		{nil, nil, 0, 0, 3600, 0, 3600, 0},
		{nil, nil, 86400, 600, 600, 600, 600, 600},
		{seconds(7200), nil, 3600, 172800, 7200, 172800, 7200, 172800},
		{seconds(0), seconds(0), 86400, 172800, 3600, 172800, 0, 0}, // no rule takes it
		{nil, seconds(600), 86400, 172800, 600, 600, 600, 600},
		{nil, seconds(7200), 86400, 0, 3600, 7200, 3600, 7200},
		{seconds(1), seconds(172799), 86400, 172800, 1, 172799, 1, 172799},
		// What was written shows, also where the mount has become smaller since.
		{seconds(7200), seconds(9000), 3600, 600, 600, 600, 7200, 9000},
	} {
		lim := Limits{Leases: func() (time.Duration, time.Duration) {
			return time.Duration(c.mount) * time.Second, time.Duration(c.most) * time.Second
		}}
		p := Policy{TTL: c.ttl, MaxTTL: c.maxTTL}
		terms := effective(t, p, Dynamic, lim)
		if terms.TTL != time.Duration(c.want)*time.Second || terms.MaxTTL != time.Duration(c.wantMax)*time.Second {
			t.Errorf("%+v: %s, at most %s", c, terms.TTL, terms.MaxTTL)
		}
		if view := p.Show(terms); view["ttl"] != c.shownTTL || view["max_ttl"] != c.shownMost {
			t.Errorf("%+v: shown as %v, %v", c, view["ttl"], view["max_ttl"])
		}
	}
}

// A stage_ahead that was raised after the ttl was checked must not let a version
// expire before its successor has taken over.
func TestLeadGivesWayToTheTTL(t *testing.T) {
	hourly := Policy{RotationPeriod: seconds(3600), RotationJitter: 100}
	for _, c := range []struct {
		ttl   Seconds
		ahead time.Duration
		want  time.Duration
	}{
		{0, 20 * time.Minute, 20 * time.Minute},
		{6300, 20 * time.Minute, 800 * time.Second},
		{6301, 20 * time.Minute, 801 * time.Second},
		{7000, 20 * time.Minute, 20 * time.Minute},
		{5500, 20 * time.Minute, 0},
		{5000, 20 * time.Minute, 0},
	} {
		p := hourly
		p.TTL = seconds(c.ttl)
		if got := effective(t, p, Static, Limits{StageAhead: c.ahead}).Lead; got != c.want {
			t.Errorf("ttl %d, %s ahead: %s, want %s", c.ttl, c.ahead, got, c.want)
		}
	}
}

func TestBound(t *testing.T) {
	for _, c := range []struct{ refresh, grace, want time.Duration }{
		{5 * time.Minute, time.Hour, 5 * time.Minute},
		{time.Hour, time.Hour, 30 * time.Minute},
		{time.Hour, 2 * time.Hour, time.Hour},
		{time.Hour, 1, 0},
		{time.Hour, 0, time.Hour},
	} {
		if got := (Terms{Refresh: c.refresh, Grace: c.grace}).Bound(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
