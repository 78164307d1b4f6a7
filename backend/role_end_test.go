// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"pgregory.net/rapid"
)

// untilIn is the text of valid_until so long from now.
func (m *testMount) untilIn(d time.Duration) string {
	return m.clock.Now().Add(d).Format(time.RFC3339Nano)
}

func (m *testMount) patch(path string, data map[string]any) {
	m.t.Helper()
	m.must(logical.PatchOperation, path, data)
}

// The role ends when it is to, whatever the periodic function does, and is told of
// before; afterwards that is no problem.
func TestRoleEnds(t *testing.T) {
	m := newMount(t)
	const day = 24 * time.Hour
	start := m.clock.Now()
	end := start.Add(29*day + 250*time.Millisecond)
	text := end.In(time.FixedZone("", 2*3600)).Format(time.RFC3339Nano)
	m.write("roles/r", map[string]any{"valid_until": text, "rotation_period": "10d", "grace_period": "1d"})
	if got := m.read("roles/r")["valid_until"]; got != text {
		t.Errorf("answered as %v, written as %v", got, text)
	}
	m.run(3 * time.Minute)
	if got := m.problemList(); got != "" {
		t.Errorf("long before: %s", got)
	}
	for range 2 {
		m.clock.advance(10*day - 5*time.Minute)
		m.run(10 * time.Minute)
	}
	m.expectStates("r", "retired previous current")
	if got := m.read("status/r"); got["next_rotation"] != "" || !strings.HasPrefix(got["rotation"].(string), "no more: the role ends at ") {
		t.Errorf("after the last rotation: %v", got["rotation"])
	}
	m.clock.set(end.Add(-7*day - time.Second))
	m.tick()
	if got := m.problemList(); got != "" {
		t.Errorf("too early: %s", got)
	}
	m.clock.set(end.Add(-7*day + time.Minute))
	m.tick()
	if got := m.problemList(); got != "r" {
		t.Errorf("problems a week before: %q", got)
	}
	if got := m.read("status/r")["problems"].([]string); len(got) != 1 || !strings.HasPrefix(got[0], "the role ends at "+stamp(end)+" (valid_until)") {
		t.Errorf("problems a week before: %q", got)
	}
	if events, _ := m.calendarOf(map[string]any{"within": "8d"}); !slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "expiry r 3") }) {
		t.Errorf("the calendar has %q", events)
	}

	m.clock.set(end.Add(-20*time.Second - 250*time.Millisecond))
	creds := m.read("creds/r")
	key := creds["api_key"]
	if ttl := number(t, creds["ttl"]); ttl != 20 {
		t.Errorf("read again after %d s", ttl)
	}
	answer := m.ask(key)
	if answer["expires_at"] != stamp(end) || answer["end"] != "hard" || number(t, answer["cache_ttl"]) != 20 {
		t.Errorf("before the end: %v", answer)
	}
	m.clock.set(end.Add(-time.Nanosecond))
	m.expectVerdict(key, "VALID")
	m.clock.set(end)
	m.expectVerdict(key, "EXPIRED")
	m.refused(logical.ReadOperation, "creds/r", nil, "the role ended at "+stamp(end), "raise valid_until")
	if got := m.problemList(); got != "" {
		t.Errorf("an end is no problem: %s", got)
	}
	if got := m.read("status/r"); got["rotation"] != "never: the role ended at "+stamp(end)+" (valid_until)" || len(got["problems"].([]string)) != 0 {
		t.Errorf("after the end: %v, %v", got["rotation"], got["problems"])
	}
	m.run(3 * time.Minute)
	m.expectStates("r", "retired retired expired")
	if left := m.under(attentionPrefix); len(left) != 0 {
		t.Errorf("still in the index: %v", left)
	}
	m.clock.advance(40 * day)
	m.run(3 * time.Minute)
	if rec := m.record("r"); rec.Ring.Last != 3 || !rec.Due.IsZero() || !rec.Next.IsZero() {
		t.Errorf("after the end: version %d, filed at %s, next %s", rec.Ring.Last, rec.Due, rec.Next)
	}
}

// raises are the ways in which the end of a role may move away.
var raises = map[string]func(m *testMount){
	"later":   func(m *testMount) { m.write("roles/r", map[string]any{"valid_until": m.untilIn(time.Hour)}) },
	"patched": func(m *testMount) { m.patch("roles/r", map[string]any{"valid_until": m.untilIn(time.Hour)}) },
	"null":    func(m *testMount) { m.patch("roles/r", map[string]any{"valid_until": nil}) },
	"replace": func(m *testMount) { m.write("roles/r", map[string]any{"replace": true, "rotation_period": 0}) },
	"with the clock behind": func(m *testMount) {
		m.patch("roles/r", map[string]any{"owner": "x"})
		m.clock.advance(-8 * time.Minute)
		m.patch("roles/r", map[string]any{"valid_until": nil})
	},
	"restored": func(m *testMount) {
		id, _ := m.remove("r")
		m.write("restore/"+id, nil)
		m.patch("roles/r", map[string]any{"valid_until": nil})
	},
	"deleted before, restored after": func(m *testMount) {
		now := m.clock.Now()
		m.clock.set(m.record("r").Ring.Until.Add(-time.Second))
		id, _ := m.remove("r")
		m.clock.set(now)
		m.write("restore/"+id, nil)
		m.patch("roles/r", map[string]any{"valid_until": nil})
	},
}

// Nothing that has ended with its role comes back, though no tick has seen it end.
func TestRaisedEndRevivesNothing(t *testing.T) {
	for what, raise := range raises {
		t.Run(what, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", map[string]any{"valid_until": m.untilIn(time.Hour), "rotation_period": 0})
			first := m.read("creds/r")["api_key"]
			m.write("rotate/r", map[string]any{"grace_period": "2h"})
			second := m.read("creds/r")["api_key"]
			m.write("rotate/r", map[string]any{"stage": true})
			staged := m.read("creds/r/pending")["api_key"]
			m.clock.advance(61 * time.Minute)
			raise(m)
			for _, key := range []any{first, second, staged} {
				m.expectVerdict(key, "EXPIRED")
			}
			m.expectStates("r", "expired expired expired")
			if got := m.problemList(); got != "r" {
				t.Errorf("problems: %q", got)
			}
			for range 3 {
				m.clock.advance(time.Minute)
				m.tick()
			}
			m.expectStates("r", "expired expired expired")
			m.write("rotate/r", nil)
			m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
			m.expectVerdict(second, "EXPIRED")
		})
	}
}

// A past end is refused wherever it may be given, unless it is the one that the role
// has; then every other field can still be changed.
func TestPastEndIsRefused(t *testing.T) {
	m := newMount(t)
	past, soon := m.untilIn(-time.Second), m.untilIn(time.Minute)
	m.refused(logical.CreateOperation, "roles/new", map[string]any{"valid_until": past}, "valid_until: ", "is over", "give a later time")
	m.refused(logical.CreateOperation, "roles/new", map[string]any{"valid_until": m.untilIn(0)}, "is over")
	m.refused(logical.CreateOperation, "roles/new", map[string]any{"valid_until": ""}, "is empty")
	m.write("roles/r", map[string]any{"valid_until": soon})
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		m.refused(op, "roles/r", map[string]any{"valid_until": past}, "is over")
		m.refused(op, "roles/r", map[string]any{"valid_until": ""}, `valid_until: "": is empty`)
	}
	got := m.importItems(map[string]any{"role": "imported", "key": strings.Repeat("k7", 12), "valid_until": past})
	if got[0]["result"] != "refused" || !strings.Contains(got[0]["error"].(string), "is over") {
		t.Errorf("imported: %v", got)
	}
	got = m.importItems(map[string]any{"role": "imported", "key": strings.Repeat("k7", 12), "valid_until": ""})
	if got[0]["result"] != "refused" {
		t.Errorf("imported: %v", got)
	}
	m.clock.advance(2 * time.Minute)
	m.write("roles/r", map[string]any{"valid_until": soon, "owner": "a"})
	m.patch("roles/r", map[string]any{"owner": "b", "disabled": true})
	other := m.record("r").Ring.Until.In(time.FixedZone("", 3600)).Format(time.RFC3339Nano)
	m.write("roles/r", map[string]any{"valid_until": other})
	if got := m.read("roles/r"); got["valid_until"] != other || got["owner"] != "b" {
		t.Errorf("the same instant in other words: %v", got)
	}
	view := m.read("roles/r")
	m.write("roles/r", view)
}

// Whatever makes a version is refused once the role has ended, or for a date from
// then on; whatever ends keys is not.
func TestNothingIsMadePastTheEnd(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"valid_until": m.untilIn(time.Hour)})
	m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"activate_at": "1h"}, "activate_at", "the role ends at")
	m.write("rotate/r", map[string]any{"activate_at": "59m"})
	m.refused(logical.UpdateOperation, "promote/r", map[string]any{"activate_at": "1h"}, "activate_at", "would never be handed out")
	// An end that comes nearer lets nothing become current from then on.
	m.write("roles/r", map[string]any{"valid_until": m.untilIn(30 * time.Minute)})
	current, pending := m.read("creds/r")["api_key"], m.read("creds/r/pending")["api_key"]
	if got := m.read("status/r"); got["next_rotation"] != "" || !strings.Contains(got["rotation"].(string), "before the date of version 2") {
		t.Errorf("status: %v %v", got["next_rotation"], got["rotation"])
	}
	m.run(31 * time.Minute)
	m.expectVerdict(current, "EXPIRED")
	m.expectVerdict(pending, "EXPIRED")
	m.expectStates("r", "expired expired")
	for path, data := range map[string]map[string]any{
		"rotate/r": nil, "rotate/r ": {"stage": true}, "rotate/r  ": {"activate_at": "1m"}, "promote/r": nil, "rollback/r": nil,
	} {
		m.refused(logical.UpdateOperation, strings.TrimSpace(path), data)
	}
	got := m.importItems(map[string]any{"role": "r", "key": strings.Repeat("k7", 12)})
	if got[0]["result"] != "refused" || !strings.Contains(got[0]["error"].(string), "raise valid_until") {
		t.Errorf("imported: %v", got)
	}
	if got := m.write("revoke/r", map[string]any{"all": true}); got["replaced"] != false || number(t, got["version"]) != 0 {
		t.Errorf("revoked: %v", got)
	}
	m.expectReport(current, "recorded")
	m.run(3 * time.Minute)
	if rec := m.record("r"); rec.Ring.Last != 2 || rec.Owed {
		t.Errorf("version %d, owed %v", rec.Ring.Last, rec.Owed)
	}
}

// A replacement that is owed is not made once the role has ended.
func TestNothingIsOwedPastTheEnd(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"valid_until": m.untilIn(time.Minute)})
	m.write("revoke/r", map[string]any{"version": 1, "rotate": false})
	rec := m.record("r")
	rec.Owed = true
	plant(t, m.storage, rolePath("r"), rec)
	m = m.restart()
	m.clock.advance(2 * time.Minute)
	m.run(3 * time.Minute)
	if rec := m.record("r"); rec.Ring.Last != 1 || rec.Owed {
		t.Errorf("version %d, owed %v", rec.Ring.Last, rec.Owed)
	}
}

func TestDynamicRoleEnds(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "max_ttl": "2h", "valid_until": m.untilIn(50 * time.Minute)})
	a := m.lease("d", nil)
	if a.Secret.TTL != 30*time.Minute || a.Secret.MaxTTL != 50*time.Minute {
		t.Errorf("a lease of %s, of at most %s", a.Secret.TTL, a.Secret.MaxTTL)
	}
	m.clock.advance(25 * time.Minute)
	if r, err := m.onLease(logical.RenewOperation, a, 0); err != nil || r.IsError() || r.Secret.TTL != 25*time.Minute || r.Secret.MaxTTL != 50*time.Minute {
		t.Fatal("renewed:", r, err)
	}
	b := m.lease("d", nil)
	if b.Secret.TTL != 25*time.Minute || b.Secret.MaxTTL != 25*time.Minute || b.Secret.Renewable {
		t.Errorf("the second: %+v", b.Secret.LeaseOptions)
	}
	early := m.lease("d", map[string]any{"ttl": "1m"})
	m.write("roles/d", map[string]any{"valid_until": m.untilIn(10 * time.Minute)})
	m.clock.advance(10*time.Minute - time.Second)
	m.expectVerdict(b.Data["api_key"], "VALID")
	m.clock.advance(time.Second)
	m.expectVerdict(b.Data["api_key"], "EXPIRED")
	m.expectVerdict(early.Data["api_key"], "EXPIRED")
	if x, y := m.ask(early.Data["api_key"])["expires_at"], m.ask(b.Data["api_key"])["expires_at"]; x == y {
		t.Errorf("a lease that was over before ended with the role: %v", x)
	}
	if r, err := m.onLease(logical.RenewOperation, b, 0); err == nil && !r.IsError() {
		t.Error("renewed past the end")
	}
	m.refused(logical.ReadOperation, "creds/d", nil, "the role ended at")
	m.patch("roles/d", map[string]any{"valid_until": nil})
	m.expectVerdict(b.Data["api_key"], "EXPIRED")
	m.refused(logical.ReadOperation, "creds/d", nil, "rotate/d makes a new one")
	m.write("rotate/d", nil)
	m.expectVerdict(m.lease("d", nil).Data["api_key"], "VALID")
	m.expectVerdict(a.Data["api_key"], "EXPIRED")
}

// An import's expires_at is the end of its key, valid_until that of the role.
func TestImportWithEnds(t *testing.T) {
	m := newMount(t)
	key := strings.Repeat("k7", 12)
	until := m.untilIn(48 * time.Hour)
	got := m.importItems(map[string]any{"role": "r", "key": key, "expires_at": m.untilIn(time.Hour), "valid_until": until})
	if got[0]["result"] != "imported" {
		t.Fatal(got)
	}
	if got := m.read("roles/r")["valid_until"]; got != until {
		t.Errorf("the role ends at %v", got)
	}
	m.clock.advance(time.Hour)
	m.expectVerdict(key, "EXPIRED")
	m.write("rotate/r", nil)
	m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
	m.write("roles/other", nil)
	got = m.importItems(map[string]any{"role": "other", "key": key + "x", "valid_until": until})
	if got[0]["result"] != "refused" || !strings.Contains(got[0]["error"].(string), "update the role first") {
		t.Error("an import changed a role:", got)
	}
}

// Whatever is asked of a role, and whenever its end moves: nothing lives past it,
// nothing is planned for later, nothing that ended comes back, and after each
// commit the ring ends when the policy says.
func TestEndsUnderOperators(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMount(t)
		m.write("roles/r", map[string]any{"rotation_period": rapid.SampledFrom([]string{"0", "40m", "3h"}).Draw(rt, "period"), "grace_period": "15m"})
		ended := map[string]string{}
		keys := map[string]bool{}
		check := func() {
			rec := m.record("r")
			want := time.Time{}
			if text := rec.Policy.ValidUntil; text != "" {
				want, _ = time.Parse(time.RFC3339, text)
			}
			if !rec.Ring.Until.Equal(want) {
				rt.Fatalf("the ring ends at %s, the policy says %s", rec.Ring.Until, want)
			}
			if !want.IsZero() && !rec.Next.IsZero() && !rec.Next.Before(want) {
				rt.Fatalf("planned for %s, the role ends at %s", rec.Next, want)
			}
			if resp, err := m.do(logical.ReadOperation, "creds/r", nil); err == nil && !resp.IsError() {
				keys[resp.Data["api_key"].(string)] = true
			}
			if resp, err := m.do(logical.ReadOperation, "creds/r/pending", nil); err == nil && resp != nil && !resp.IsError() {
				keys[resp.Data["api_key"].(string)] = true
			}
			for key := range keys {
				code := m.verdict(key)
				dead := code == "EXPIRED" || code == "RETIRED" || code == "REVOKED"
				if before := ended[key]; before != "" && !dead {
					rt.Fatalf("a key that was %s is %s", before, code)
				}
				if !want.IsZero() && !m.clock.Now().Before(want) && !dead {
					rt.Fatalf("%s after the end of the role", code)
				}
				if dead {
					ended[key] = code
				}
			}
		}
		try := func(op logical.Operation, path string, data map[string]any) {
			if resp, err := m.do(op, path, data); err != nil {
				if status, text := httpStatus(resp, err); status >= 500 {
					rt.Fatalf("%s %s %v: %s", op, path, data, text)
				}
			}
		}
		span := rapid.SampledFrom([]string{"1s", "5m", "20m", "1h", "5h"})
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"time": func(rt *rapid.T) {
				d, _ := time.ParseDuration(span.Draw(rt, "step"))
				m.clock.advance(d)
			},
			"tick": func(*rapid.T) { m.clock.advance(time.Minute); m.tick() },
			"end": func(rt *rapid.T) {
				d, _ := time.ParseDuration(span.Draw(rt, "in"))
				try(logical.PatchOperation, "roles/r", map[string]any{"valid_until": m.untilIn(d)})
			},
			"no end": func(*rapid.T) { try(logical.PatchOperation, "roles/r", map[string]any{"valid_until": nil}) },
			"rotate": func(*rapid.T) { try(logical.UpdateOperation, "rotate/r", map[string]any{"force": true}) },
			"stage":  func(*rapid.T) { try(logical.UpdateOperation, "rotate/r", map[string]any{"stage": true, "force": true}) },
			"promote": func(rt *rapid.T) {
				try(logical.UpdateOperation, "promote/r", map[string]any{"activate_at": span.Draw(rt, "at")})
			},
			"rollback": func(*rapid.T) { try(logical.UpdateOperation, "rollback/r", nil) },
			"revoke":   func(*rapid.T) { try(logical.UpdateOperation, "revoke/r", map[string]any{"all": true}) },
			"restart":  func(*rapid.T) { m = m.restart() },
			"restore": func(rt *rapid.T) {
				id := m.record("r").ID
				try(logical.DeleteOperation, "roles/r", nil)
				d, _ := time.ParseDuration(span.Draw(rt, "gone for"))
				m.clock.advance(d)
				try(logical.UpdateOperation, "restore/"+id, nil)
			},
		})
	})
}

// The end is in the record in the form in which it was written, and as an instant.
func TestEndIsStored(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"valid_until": "2099-01-31T08:00:00+02:00"})
	data, err := json.Marshal(m.record("r"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"valid_until":"2099-01-31T08:00:00+02:00"`, `"until":"2099-01-31T06:00:00Z"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is not in %s", part, data)
		}
	}
}
