// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The end of a version that is on its way out is moved both ways; verify knows it at
// once, and after that history and status.
func TestGraceIsChanged(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "1h"})
	first := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	expect := func(data, got map[string]any, in time.Duration, end string) {
		t.Helper()
		until := stamp(m.clock.Now().Add(in))
		if got["valid_until"] != until || number(t, got["version"]) != 1 {
			t.Errorf("%v: %v, want %s", data, got, until)
		}
		if answer := m.ask(first); answer["expires_at"] != until || answer["end"] != end {
			t.Errorf("%v: verify says %v, want %s, %s", data, answer, until, end)
		}
	}
	for _, c := range []struct {
		until string
		in    time.Duration
		end   string
	}{{"3h", 3 * time.Hour, "planned"}, {"10m", 10 * time.Minute, "hard"}, {"2h", 2 * time.Hour, "hard"}, {"100h", 100 * time.Hour, "planned"}} {
		data := map[string]any{"valid_until": c.until, "reason": "somebody is late"}
		expect(data, m.write("grace/r", data), c.in, c.end)
	}
	data := map[string]any{"valid_until": stamp(m.clock.Now().Add(time.Hour)), "version": 1, "cas": 2}
	expect(data, m.write("grace/r", data), time.Hour, "hard")
	entries, _ := m.entriesOf("history/r", nil)
	if e := entries[0]; e["kind"] != "end_set" || e["reason"] != "somebody is late" && e["reason"] != "" || e["until"] != stamp(m.clock.Now().Add(time.Hour)) || e["cause"] != "request" {
		t.Errorf("history: %v", e)
	}
	versions := m.read("status/r")["versions"].([]any)
	if v := versions[1].(map[string]any); v["ends"] != stamp(m.clock.Now().Add(time.Hour)) {
		t.Errorf("status: %v", v)
	}
	m.run(61 * time.Minute)
	m.expectVerdict(first, "RETIRED")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "1h", "version": 1}, "version: 1: ", "is retired")

	second := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	got := m.write("grace/r", map[string]any{"valid_until": 0})
	if got["state"] != "retired" || got["valid_until"] != stamp(m.clock.Now()) || got["previous_valid_until"] != stamp(m.clock.Now().Add(time.Hour)) {
		t.Errorf("ended at once: %v", got)
	}
	m.expectVerdict(second, "RETIRED")
	m.clock.advance(-time.Minute)
	m.expectVerdict(second, "RETIRED")
	for _, path := range m.under(secretPrefix) {
		if strings.HasSuffix(path, "/2") {
			t.Error("the plaintext of a version that was ended is still there")
		}
	}
}

// Which version is meant where the request does not say.
func TestGraceOfWhich(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "10h"})
	until := map[string]any{"valid_until": "5h"}
	m.refused(logical.UpdateOperation, "grace/r", until, "version: no version is on its way out")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"version": 1}, "valid_until: is missing")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "2h", "version": 1}, "version 1 is current", "revoke/r kills any")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "2h", "version": 7}, "version: 7: is not a version of this role")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "2020-01-01T00:00:00Z", "version": 1}, "valid_until", "is in the past")
	m.write("rotate/r", nil)
	if got := m.write("grace/r", until); number(t, got["version"]) != 1 {
		t.Error("the only one:", got)
	}
	m.write("rotate/r", nil)
	m.refused(logical.UpdateOperation, "grace/r", until, "version: is missing, and versions 1, 2 are on their way out")
	asked := map[string]any{"valid_until": "6h", "request_id": "grace-request-1"}
	got := m.write("grace/r", asked)
	if number(t, got["version"]) != 2 {
		t.Error("with a request id:", got)
	}
	// A repetition answers as the first time, whatever is on its way out by then.
	m.clock.advance(time.Hour)
	m.write("rotate/r", nil)
	again := m.write("grace/r", asked)
	if again["replayed"] != true || again["valid_until"] != got["valid_until"] || number(t, again["version"]) != 2 {
		t.Errorf("repeated: %v, the first time %v", again, got)
	}
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "6h", "version": 2, "cas": 3}, "cas: 3: the current version is 4")
	m.write("rollback/r", nil)
	m.expectStates("r", "previous previous current withdrawn")
	if got := m.write("grace/r", map[string]any{"version": 4, "valid_until": "20h"}); got["state"] != "withdrawn" || got["valid_until"] != stamp(m.clock.Now().Add(20*time.Hour)) {
		t.Errorf("withdrawn: %v", got)
	}
	if status := m.status(logical.ReadOperation, "grace/r", nil); status != 405 {
		t.Errorf("GET is answered with %d", status)
	}
	if status := m.status(logical.UpdateOperation, "grace/absent", until); status != 404 {
		t.Errorf("an absent role is answered with %d", status)
	}
}

// No end is later than a rotation could have given, the version's own, the role's,
// or that of a version that was reported.
func TestGraceIsBounded(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "2h", "grace_period": "1h", "ttl": "15h"})
	m.write("rotate/r", nil)
	m.clock.advance(10 * time.Minute)
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "15h"}, "valid_until", "with its own ttl")
	m.write("roles/r", map[string]any{"ttl": 0})
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "18h1s", "version": 2}, "valid_until", "is more than 18h", "nine times the shortest distance", "was superseded or withdrawn")
	m.clock.advance(10 * time.Minute)
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "17h51m", "version": 2}, "is more than 18h")
	m.write("roles/r", map[string]any{"valid_until": m.untilIn(12 * time.Hour)})
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "12h1s", "version": 2}, "with its role")
	got := m.write("grace/r", map[string]any{"valid_until": "12h", "version": 2})
	if got["valid_until"] != stamp(m.clock.Now().Add(12*time.Hour)) {
		t.Error(got)
	}
	m.write("roles/r", map[string]any{"on_leak": "rotate", "leak_grace_period": "3h"})
	m.expectReport(m.read("creds/r/2")["api_key"], "acted")
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "3h1s", "version": 2}, "reported as leaked")
	m.write("grace/r", map[string]any{"valid_until": "2h", "version": 2})
	m.refused(logical.UpdateOperation, "grace/r", map[string]any{"valid_until": "3h", "version": 2}, "reported as leaked")
}

// Nothing prolongs an end that somebody set earlier; one set later counts as a grace
// that is prolonged.
func TestEarlierEndIsFinal(t *testing.T) {
	for until, want := range map[string]string{"30m": "RETIRED", "90m": "VALID"} {
		m := newMount(t)
		m.write("roles/r", map[string]any{"rotation_period": "10h", "grace_period": "1h", "max_grace_period": "5h"})
		key := m.read("creds/r")["api_key"]
		m.run(10*time.Hour + time.Minute)
		m.expectVerdict(key, "VALID")
		m.write("grace/r", map[string]any{"valid_until": until})
		for range 120 {
			m.verdict(key)
			m.run(time.Minute)
		}
		if got := m.verdict(key); got != want {
			t.Errorf("%s: used all the time it is %s after two hours", until, got)
		}
	}
}

// A generation ends before its leases may be over with force only.
func TestGraceOfGeneration(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "2h", "max_ttl": "10h", "grace_period": "5h"})
	a, b := m.lease("d", nil), m.lease("d", nil)
	m.write("rotate/d", nil)
	m.refused(logical.UpdateOperation, "grace/d", map[string]any{"valid_until": "119m"}, "force: ", "may have leases until "+stamp(m.clock.Now().Add(2*time.Hour)))
	m.write("grace/d", map[string]any{"valid_until": "2h"})
	warnings := m.warned("grace/d", map[string]any{"valid_until": "1h", "force": true})
	if !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "which it cuts off") }) {
		t.Errorf("the warnings are %q", warnings)
	}
	m.refused(logical.UpdateOperation, "grace/d", map[string]any{"valid_until": "50m"}, "may have leases until "+stamp(m.clock.Now().Add(time.Hour)))
	m.expectVerdict(a.Data["api_key"], "VALID")
	if r, err := m.onLease(logical.RenewOperation, a, 5*time.Hour); err != nil || r.IsError() || r.Secret.TTL != time.Hour {
		t.Error("renewed past the end:", r, err)
	}
	m.clock.advance(time.Hour)
	m.expectVerdict(a.Data["api_key"], "EXPIRED") // as the host was told
	m.expectVerdict(b.Data["api_key"], "RETIRED")
}

// A rotation that cuts the previous version's grace short says what mends it, and
// that does.
func TestCutGraceIsMended(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "10h"})
	first := m.read("creds/r")["api_key"]
	m.write("rotate/r", map[string]any{"activate_at": "1h", "grace_period": "2h"})
	warnings := strings.Join(m.warned("rotate/r", map[string]any{"activate_at": "4h"}), " ")
	mend := "promote/r activate_at=" + stamp(m.clock.Now().Add(4*time.Hour)) + " with a grace_period"
	if !strings.Contains(warnings, "grace_period is 0 seconds instead of") || !strings.Contains(warnings, mend) {
		t.Errorf("the warnings are %q", warnings)
	}
	m.write("promote/r", map[string]any{"activate_at": stamp(m.clock.Now().Add(4 * time.Hour)), "grace_period": "10h"})
	if got := m.ask(first); got["expires_at"] != stamp(m.clock.Now().Add(14*time.Hour)) {
		t.Errorf("promoted: %v", got["expires_at"])
	}
	warnings = strings.Join(m.warned("rotate/r", map[string]any{"grace_period": "20h"}), " ")
	if !strings.Contains(warnings, "grace/r version=1 gives it a later one") {
		t.Errorf("the warnings are %q", warnings)
	}
	m.write("grace/r", map[string]any{"version": 1, "valid_until": "20h"})
	if got := m.ask(first); got["expires_at"] != stamp(m.clock.Now().Add(20*time.Hour)) {
		t.Errorf("with another end: %v", got["expires_at"])
	}
}
