// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// states lists the role's versions with their states, oldest first.
func (m *testMount) states(role string) string {
	m.t.Helper()
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath(role))
	if err != nil || rec == nil {
		m.t.Fatalf("role %s: %v %v", role, rec, err)
	}
	var out []string
	for _, v := range rec.Ring.Versions {
		st, _ := rec.Ring.Status(v.N, m.now(rec.Committed))
		out = append(out, string(st.State))
	}
	return strings.Join(out, " ")
}

func (m *testMount) expectStates(role, want string) {
	m.t.Helper()
	if got := m.states(role); got != want {
		m.t.Fatalf("versions are %q, want %q", got, want)
	}
}

// verdict is the code that a presented key gets.
func (m *testMount) verdict(key any) string {
	m.t.Helper()
	return m.write("verify", map[string]any{"key": key})["code"].(string)
}

func (m *testMount) expectVerdict(key any, want string) {
	m.t.Helper()
	if got := m.verdict(key); got != want {
		m.t.Fatalf("verify says %s, want %s", got, want)
	}
}

func TestManualRotation(t *testing.T) {
	m := newMount(t)
	m.write("roles/orders", map[string]any{"grace_period": "1h", "scopes": "orders:read"})
	first := m.read("creds/orders")
	got := m.write("rotate/orders", map[string]any{"reason": "new quarter"})
	if number(t, got["version"]) != 2 || number(t, got["previous_version"]) != 1 ||
		got["previous_valid_until"] != stamp(m.clock.Now().Add(time.Hour)) ||
		got["next_rotation"] != stamp(m.clock.Now().Add(90*24*time.Hour)) {
		t.Fatalf("unexpected answer %v", got)
	}
	for _, v := range got {
		if s, ok := v.(string); ok && strings.Contains(s, first["api_key"].(string)) {
			t.Fatal("the answer of a rotation holds a key")
		}
	}
	second := m.read("creds/orders")
	if second["api_key"] == first["api_key"] || number(t, second["version"]) != 2 {
		t.Fatalf("the new version is not handed out: version %v", second["version"])
	}
	m.expectVerdict(first["api_key"], "VALID")
	m.expectVerdict(second["api_key"], "VALID")
	m.clock.advance(time.Hour - time.Nanosecond)
	m.expectVerdict(first["api_key"], "VALID")
	m.clock.advance(time.Nanosecond)
	m.expectVerdict(first["api_key"], "RETIRED") // by the clock alone
	m.expectVerdict(second["api_key"], "VALID")

	// The plaintext goes an hour after the planned end, not before.
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("orders"))
	if err != nil {
		t.Fatal(err)
	}
	stored := func() bool {
		e, err := m.storage.Get(context.Background(), secretPath(rec.ID, 1))
		if err != nil {
			t.Fatal(err)
		}
		return e != nil
	}
	m.run(59 * time.Minute)
	if !stored() {
		t.Fatal("the plaintext went too early")
	}
	m.run(3 * time.Minute)
	if stored() {
		t.Fatal("the plaintext is still there")
	}
}

func TestCredsAnswersExactly(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	want := []string{"api_key", "key_id", "last_vault_rotation", "role", "rotation_period", "scopes", "ttl", "version"}
	if got := sortedKeys(m.read("creds/r")); !slices.Equal(got, want) {
		t.Fatalf("fields %v, want %v", got, want)
	}
	m.write("roles/s", map[string]any{"rotation_schedule": "0 3 * * *"})
	got := m.read("creds/s")
	want = slices.Sorted(slices.Values(append(want, "rotation_schedule")))
	if keys := sortedKeys(got); !slices.Equal(keys, want) {
		t.Fatalf("fields %v, want %v", keys, want)
	}
	if number(t, got["rotation_period"]) != 86400 {
		t.Fatalf("rotation_period %v, want the distance of a day", got["rotation_period"])
	}
	m.write("roles/manual", map[string]any{"rotation_period": 0})
	got = m.read("creds/manual")
	if number(t, got["rotation_period"]) != number(t, got["ttl"]) || number(t, got["ttl"]) != 300 {
		t.Fatalf("without a future activation: ttl %v, rotation_period %v", got["ttl"], got["rotation_period"])
	}
	if resp, err := m.do(logical.ReadOperation, "creds/none", nil); resp != nil || err != nil {
		t.Fatalf("an absent role: %v %v", resp, err)
	}
}

func TestAutomaticRotationIsExact(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	start := m.clock.Now()
	first := m.read("creds/r")["api_key"]
	m.run(49 * time.Minute)
	m.expectStates("r", "current")
	m.run(2 * time.Minute)
	m.expectStates("r", "current pending")
	pending := m.read("creds/r/pending")
	if pending["activates_at"] != stamp(start.Add(time.Hour)) {
		t.Fatalf("staged for %v", pending["activates_at"])
	}
	m.expectVerdict(pending["api_key"], "VALID")

	// No tick from here on: the clock alone activates.
	m.clock.set(start.Add(time.Hour - time.Second))
	got := m.read("creds/r")
	if got["api_key"] != first || number(t, got["ttl"]) != 1 {
		t.Fatalf("a second before: version %v, ttl %v", got["version"], got["ttl"])
	}
	m.clock.set(start.Add(time.Hour))
	got = m.read("creds/r")
	if got["api_key"] != pending["api_key"] || got["last_vault_rotation"] != start.Add(time.Hour).Format(time.RFC3339Nano) {
		t.Fatalf("at the activation: version %v since %v", got["version"], got["last_vault_rotation"])
	}
	if ttl := number(t, got["ttl"]); ttl != 300 {
		t.Fatalf("ttl %d", ttl)
	}
	m.expectVerdict(first, "VALID")
	m.clock.advance(10 * time.Minute)
	m.expectVerdict(first, "RETIRED")
	m.run(55 * time.Minute)
	m.expectStates("r", "retired previous current")
}

func TestOverdueRotatesOnce(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h"})
	start := m.clock.Now()
	m.clock.advance(30*24*time.Hour + 10*time.Minute)
	m = m.restart()
	if ttl := number(t, m.read("creds/r")["ttl"]); ttl != 60 {
		t.Fatalf("overdue: ttl %d, want 60", ttl)
	}
	m.tick()
	m.tick()
	m.expectStates("r", "previous current")
	// The phase is kept.
	if got := m.read("status/r")["next_rotation"]; got != stamp(start.Add(30*24*time.Hour+time.Hour)) {
		t.Fatalf("next rotation %v", got)
	}
}

func TestHeldVersion(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "24h", "grace_period": "1h"})
	m.write("rotate/r", map[string]any{"stage": true})
	m.expectStates("r", "current pending")
	m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"stage": true}, "version 2")
	key := m.read("creds/r/pending")["api_key"]
	m.run(30 * time.Hour) // automatic rotation is due, and waits
	m.expectStates("r", "current pending")
	if got := m.read("status/r")["rotation"].(string); !strings.Contains(got, "version 2 is held") {
		t.Fatalf("status says %q", got)
	}
	got := m.write("promote/r", nil)
	if number(t, got["version"]) != 2 {
		t.Fatalf("promoted %v", got)
	}
	if m.read("creds/r")["api_key"] != key {
		t.Fatal("the promoted version is not handed out")
	}
	m.refused(logical.UpdateOperation, "promote/r", nil, "no version is pending")

	m.write("rotate/r", map[string]any{"stage": true})
	third := m.read("creds/r/pending")["api_key"]
	m.clock.advance(keyring.PendingWindow)
	m.expectVerdict(third, "RETIRED")
	m.tick()
	if !strings.HasPrefix(m.states("r"), "retired previous retired current") && !strings.HasPrefix(m.states("r"), "retired") {
		t.Fatal(m.states("r"))
	}
}

func TestRollback(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": "1h"})
	first := m.read("creds/r")
	m.clock.advance(time.Minute)
	m.write("rotate/r", nil)
	second := m.read("creds/r")
	m.clock.advance(time.Minute)
	got := m.write("rollback/r", map[string]any{"grace_period": "10m", "pause": true})
	if number(t, got["version"]) != 1 || number(t, got["withdrawn_version"]) != 2 ||
		got["withdrawn_valid_until"] != stamp(m.clock.Now().Add(10*time.Minute)) || got["next_rotation"] != "" {
		t.Fatalf("unexpected answer %v", got)
	}
	back := m.read("creds/r")
	if back["api_key"] != first["api_key"] || back["last_vault_rotation"] != m.clock.Now().Format(time.RFC3339Nano) {
		t.Fatalf("after the rollback: version %v since %v", back["version"], back["last_vault_rotation"])
	}
	m.expectVerdict(second["api_key"], "VALID")
	m.refused(logical.UpdateOperation, "rollback/r", nil, "to_version")
	m.clock.advance(10 * time.Minute)
	m.expectVerdict(second["api_key"], "RETIRED")
	m.clock.advance(24 * time.Hour)
	m.expectVerdict(first["api_key"], "VALID")
	m.write("rotate/r", nil)
	m.expectStates("r", "previous retired current")
}

func TestRevokeReplaces(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	first := m.read("creds/r")
	m.write("rotate/r", map[string]any{"stage": true})
	got := m.write("revoke/r", map[string]any{"version": 1, "reason": "leaked"})
	if got["replaced"] != true || number(t, got["version"]) != 3 {
		t.Fatalf("unexpected answer %v", got)
	}
	m.expectVerdict(first["api_key"], "REVOKED")
	m.expectStates("r", "revoked revoked current")
	again := m.write("revoke/r", map[string]any{"key_id": first["key_id"]})
	if again["replaced"] != false || number(t, again["version"]) != 3 {
		t.Fatalf("a repetition: %v", again)
	}
	m.write("revoke/r", map[string]any{"version": 3, "rotate": false})
	m.refused(logical.ReadOperation, "creds/r", nil, "version 3 is revoked", "rotate/r")
}

func TestKillDoesNotFailWithItsReplacement(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	key := m.read("creds/r")["api_key"]
	s := newProbe(m.storage)
	s.onlyWrites = true
	m.storage = s
	s.arm(1, faultFail) // the replacement's plaintext cannot be written
	resp, err := m.do(logical.UpdateOperation, "revoke/r", map[string]any{"version": 1})
	if err != nil || len(resp.Warnings) == 0 || resp.Data["replaced"] != false {
		t.Fatalf("%v %v", resp, err)
	}
	m.expectVerdict(key, "REVOKED")
	m.refused(logical.ReadOperation, "creds/r", nil, "version 1 is revoked")

	// What it owes is made by the periodic function, paused or not.
	m.must(logical.PatchOperation, "roles/r", map[string]any{"rotation_paused": true})
	m.run(2 * time.Minute)
	m.expectVerdict(m.read("creds/r")["api_key"], "VALID")
	m.run(2 * time.Minute)
	m.expectStates("r", "revoked current")
}

func TestKillWithoutReplacementTakesThePendingVersionAlong(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	m.write("rotate/r", map[string]any{"activate_at": "1h"})
	pending := m.read("creds/r/pending")["api_key"]
	s := newProbe(m.storage)
	s.onlyWrites = true
	m.storage = s
	s.arm(1, faultFail)
	m.write("revoke/r", map[string]any{"version": 1})
	m.expectVerdict(pending, "REVOKED")
}

func TestRevokeAllIsRepeatable(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	m.write("rotate/r", nil)
	m.write("rotate/r", map[string]any{"stage": true})
	m.write("revoke/r", map[string]any{"all": true})
	m.expectStates("r", "revoked revoked revoked current")
	again := m.write("revoke/r", map[string]any{"all": true})
	if again["replayed"] != true {
		t.Fatalf("a repetition: %v", again)
	}
	m.expectStates("r", "revoked revoked revoked current")
	m.clock.advance(revokeAllRepeat)
	m.write("revoke/r", map[string]any{"all": true})
	m.expectStates("r", "revoked revoked revoked revoked current")
}

func TestRequestID(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	params := map[string]any{"request_id": "deploy-4711", "grace_period": "1h"}
	first := m.write("rotate/r", params)
	m.clock.advance(time.Minute)
	again := m.write("rotate/r", params)
	if again["replayed"] != true || number(t, again["version"]) != number(t, first["version"]) ||
		again["replayed_at"] != stamp(m.clock.Now().Add(-time.Minute)) {
		t.Fatalf("a repetition: %v", again)
	}
	m.expectStates("r", "previous current")
	m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"request_id": "deploy-4711"}, "request_id", stamp(m.clock.Now().Add(-time.Minute)))
	// It belongs to the operation and to the caller.
	m.write("revoke/r", map[string]any{"request_id": "deploy-4711", "version": 1})
	m.request.ClientTokenAccessor = "accessor-2"
	if got := m.write("rotate/r", params); number(t, got["version"]) != 3 {
		t.Fatalf("another caller: %v", got)
	}
	for _, bad := range []string{"short", strings.Repeat("x", 129), "has spaces in it"} {
		m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"request_id": bad}, "request_id")
	}
}

func TestCAS(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"cas": 2}, "cas: 2", "current version is 1")
	m.expectStates("r", "current")
	m.write("rotate/r", map[string]any{"cas": 1})
	m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"cas": 1}, "current version is 2")
}

func TestActionsOnNothing(t *testing.T) {
	m := newMount(t)
	for _, path := range []string{"rotate/none", "promote/none", "rollback/none", "revoke/none", "creds/none"} {
		data := map[string]any{}
		if strings.HasPrefix(path, "revoke") {
			data["version"] = 1
		}
		resp, err := m.do(logical.UpdateOperation, path, data)
		if status, text := httpStatus(resp, err); status != 404 {
			t.Errorf("%s: status %d %s", path, status, text)
		}
	}
	for _, path := range []string{"rotate/none", "promote/none", "rollback/none", "revoke/none", "verify"} {
		_, err := m.do(logical.ReadOperation, path, nil)
		if err != logical.ErrUnsupportedOperation { //nolint:errorlint // servers compare it so
			t.Errorf("GET %s: %v", path, err)
		}
	}
}

func TestRefusedRotations(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"ttl": 0, "rotation_period": "1h"})
	for _, c := range []struct {
		data map[string]any
		want string
	}{
		{map[string]any{"grace_period": "10h"}, "grace_period: 36000: is more than 9h (32400 seconds)"},
		{map[string]any{"grace_period": "-1s"}, "grace_period"},
		{map[string]any{"activate_at": "yesterday"}, `activate_at: "yesterday": is neither`},
		{map[string]any{"activate_at": "2020-01-01T00:00:00Z"}, "is in the past"},
		{map[string]any{"activate_at": "9000h"}, "more than 366 days"},
		{map[string]any{"activate_at": "1h", "stage": true}, "excludes stage"},
		{map[string]any{"colour": "red"}, `colour: unknown field`},
		{map[string]any{"stage": "perhaps"}, "stage"},
		{map[string]any{"reason": strings.Repeat("x", 513)}, "reason"},
	} {
		m.refused(logical.UpdateOperation, "rotate/r", c.data, c.want)
	}
	m.expectStates("r", "current")
	if calls := m.read("history/r"); calls == nil {
		t.Fatal("no history")
	}
}

func TestTooManyLiveVersions(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": "24h"})
	for range keyring.MaxLive - 1 {
		m.clock.advance(time.Minute)
		m.write("rotate/r", nil)
	}
	m.refused(logical.UpdateOperation, "rotate/r", nil, "role: too many live versions: 10 of 10", "force=true")
	m.write("rotate/r", map[string]any{"force": true})
	if got := m.states("r"); !strings.HasPrefix(got, "retired previous") || strings.Count(got, " ") != 10 {
		t.Fatal(got)
	}
}

func TestGraceZeroEndsAtOnceWhateverTheClockSays(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{})
	key := m.read("creds/r")["api_key"]
	resp, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"grace_period": 0})
	if err != nil || len(resp.Warnings) == 0 {
		t.Fatalf("an operator who cuts readers off is told so: %v %v", resp, err)
	}
	m.expectVerdict(key, "RETIRED")
	m.clock.advance(-24 * time.Hour)
	m.expectVerdict(key, "RETIRED")
}

func TestRevealOnce(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"reveal": "once"})
	key := m.read("creds/r")["api_key"]
	m.expectVerdict(key, "VALID")
	m.refused(logical.ReadOperation, "creds/r", nil, "version 1 was handed out at "+stamp(m.clock.Now()), "rotate/r")
	m.expectVerdict(key, "VALID")
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("r"))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := m.storage.Get(context.Background(), secretPath(rec.ID, 1)); e != nil || err != nil {
		t.Fatalf("the plaintext is kept: %v", err)
	}
	m.write("rotate/r", nil)
	if m.read("creds/r")["api_key"] == key {
		t.Fatal("the same key again")
	}
}

// noArchive is a storage that cannot write pages of the archive.
type noArchive struct{ logical.Storage }

func (s noArchive) Put(ctx context.Context, e *logical.StorageEntry) error {
	if strings.HasPrefix(e.Key, archivePrefix) {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

func TestKillDoesNotWaitForTheArchive(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("r"))
	if err != nil {
		t.Fatal(err)
	}
	for range maxHistory {
		rec.History = append(rec.History, historyEntry{Time: m.clock.Now(), Kind: eventRoleUpdated, Reason: strings.Repeat("x", sizeGoal/maxHistory)})
	}
	plant(t, m.storage, rolePath("r"), rec)
	m.storage = noArchive{m.storage}
	if _, err := m.do(logical.UpdateOperation, "rotate/r", nil); err == nil {
		t.Fatal("a rotation dropped history that it could not archive")
	}
	m.write("revoke/r", map[string]any{"version": 1})
	m.expectVerdict(key, "REVOKED")
}

// After a rollback there is no previous version: who looks for one is told where
// the version is that was in use.
func TestWithdrawnVersionsAreFound(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	absent := func() string {
		t.Helper()
		resp, err := m.do(logical.ReadOperation, "creds/r/previous", nil)
		if resp != nil {
			t.Fatal(resp)
		}
		status, text := httpStatus(resp, err)
		return strings.TrimSpace(fmt.Sprint(status, " ", text))
	}
	if got := absent(); got != "404" {
		t.Errorf("without any: %s", got)
	}
	m.write("rotate/r", nil)
	taken := m.read("creds/r")["api_key"]
	m.write("rollback/r", map[string]any{"grace_period": "1h"})
	if got := absent(); got != "404 role r has no previous version: version 2 was taken back at 2026-03-02T09:00:00Z and is accepted until 2026-03-02T10:00:00Z: read creds/r/2" {
		t.Errorf("after a rollback: %s", got)
	}
	if m.read("creds/r/2")["api_key"] != taken {
		t.Error("the version taken back is not there")
	}
	m.clock.advance(time.Hour)
	if got := absent(); got != "404" {
		t.Errorf("after its end: %s", got)
	}
}
