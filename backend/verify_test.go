// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// ask verifies a key and returns the whole answer.
func (m *testMount) ask(key any) map[string]any {
	m.t.Helper()
	return m.write("verify", map[string]any{"key": key})
}

// expectAnswer compares some fields of an answer.
func expectAnswer(t *testing.T, got, want map[string]any) {
	t.Helper()
	for _, name := range sortedKeys(want) {
		have := got[name]
		if n, ok := want[name].(int); ok {
			if have == nil || number(t, have) != int64(n) {
				t.Errorf("%s is %v, want %v", name, have, n)
			}
			continue
		}
		if have != want[name] {
			t.Errorf("%s is %v, want %v", name, have, want[name])
		}
	}
}

var (
	answerMatched = []string{
		"cache_ttl", "code", "end", "expires_at", "key_id", "metadata", "now", "rate_limit", "reason", "role", "role_id",
		"scopes", "state", "valid", "version",
	}
	answerUnmatched = []string{"code", "now", "valid"}
	answerState     = []string{"cache_ttl", "code", "end", "expires_at", "now", "reason", "state", "valid"}
)

func expectFields(t *testing.T, got map[string]any, want []string) {
	t.Helper()
	if names := sortedKeys(got); !slices.Equal(names, want) {
		t.Errorf("fields %v, want %v", names, want)
	}
}

// Every state of a version, what makes it, and its code. Each way leaves the
// key to be asked about, at the first instant at which the answer holds; one
// second before it is that of before.
func TestVerifyStatesAndCodes(t *testing.T) {
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		role   map[string]any
		make   func(m *testMount) any // returns the key; the clock stands at the boundary afterwards
		before string                 // the code one second before, if that is another
		want   map[string]any
	}{
		"current": {
			make: func(m *testMount) any { return m.read("creds/r")["api_key"] },
			want: map[string]any{"valid": true, "code": "VALID", "state": "current", "reason": "", "expires_at": "", "end": "", "cache_ttl": 30, "version": 1},
		},
		"current with a ttl": {
			role: map[string]any{"ttl": "1h", "rotation_period": 0},
			make: func(m *testMount) any { return m.read("creds/r")["api_key"] },
			want: map[string]any{"code": "VALID", "state": "current", "expires_at": "2026-03-02T10:00:00Z", "end": "hard", "cache_ttl": 30},
		},
		"expired": {
			role: map[string]any{"ttl": "1h", "rotation_period": 0},
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.clock.advance(time.Hour)
				return key
			},
			before: "VALID",
			want:   map[string]any{"valid": false, "code": "EXPIRED", "state": "expired", "reason": "", "expires_at": "2026-03-02T10:00:00Z", "end": "hard", "cache_ttl": 10},
		},
		"previous": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("rotate/r", map[string]any{"grace_period": "1h"})
				return key
			},
			want: map[string]any{"valid": true, "code": "VALID", "state": "previous", "expires_at": "2026-03-02T10:00:00Z", "end": "planned", "version": 1},
		},
		"grace ended": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("rotate/r", map[string]any{"grace_period": "1h"})
				m.clock.advance(time.Hour)
				return key
			},
			before: "VALID",
			want:   map[string]any{"valid": false, "code": "RETIRED", "state": "retired", "reason": "grace_ended", "expires_at": "2026-03-02T10:00:00Z", "end": "planned"},
		},
		"superseded": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("rotate/r", map[string]any{"grace_period": 0})
				return key
			},
			want: map[string]any{"code": "RETIRED", "reason": "superseded", "end": "hard"},
		},
		"withdrawn": {
			make: func(m *testMount) any {
				m.write("rotate/r", nil)
				key := m.read("creds/r")["api_key"]
				m.write("rollback/r", map[string]any{"grace_period": "1h"})
				return key
			},
			want: map[string]any{"valid": true, "code": "VALID", "state": "withdrawn", "expires_at": "2026-03-02T10:00:00Z", "end": "hard", "version": 2},
		},
		"rolled back": {
			make: func(m *testMount) any {
				m.write("rotate/r", nil)
				key := m.read("creds/r")["api_key"]
				m.write("rollback/r", map[string]any{"grace_period": "1h"})
				m.clock.advance(time.Hour)
				return key
			},
			before: "VALID",
			want:   map[string]any{"code": "RETIRED", "reason": "rolled_back", "end": "hard"},
		},
		"held": {
			make: func(m *testMount) any {
				m.write("rotate/r", map[string]any{"stage": true})
				return m.read("creds/r/pending")["api_key"]
			},
			want: map[string]any{"valid": true, "code": "VALID", "state": "pending", "expires_at": "2026-03-09T09:00:00Z"},
		},
		"lapsed": {
			make: func(m *testMount) any {
				m.write("rotate/r", map[string]any{"stage": true})
				key := m.read("creds/r/pending")["api_key"]
				m.clock.advance(7 * day)
				return key
			},
			before: "VALID",
			want:   map[string]any{"code": "RETIRED", "state": "retired", "reason": "lapsed"},
		},
		"pending too early": {
			make: func(m *testMount) any {
				m.write("rotate/r", map[string]any{"activate_at": "240h"})
				key := m.read("creds/r/pending")["api_key"]
				m.clock.advance(3*day - time.Second)
				return key
			},
			want: map[string]any{"valid": false, "code": "NOT_FOUND"},
		},
		"pending within seven days": {
			make: func(m *testMount) any {
				m.write("rotate/r", map[string]any{"activate_at": "240h"})
				key := m.read("creds/r/pending")["api_key"]
				m.clock.advance(3 * day)
				return key
			},
			before: "NOT_FOUND",
			want:   map[string]any{"valid": true, "code": "VALID", "state": "pending"},
		},
		"revoked": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("revoke/r", map[string]any{"version": 1})
				return key
			},
			want: map[string]any{"valid": false, "code": "REVOKED", "state": "revoked", "reason": "unspecified", "expires_at": "2026-03-02T09:00:00Z", "end": "hard"},
		},
		"disabled": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("roles/r", map[string]any{"disabled": true})
				return key
			},
			want: map[string]any{"valid": false, "code": "DISABLED", "state": "current", "cache_ttl": 10},
		},
		"disabled and enabled again": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("roles/r", map[string]any{"disabled": true})
				m.expectVerdict(key, "DISABLED")
				m.write("roles/r", map[string]any{"disabled": false})
				return key
			},
			want: map[string]any{"code": "VALID"},
		},
		"revoked and disabled": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.write("revoke/r", map[string]any{"version": 1})
				m.write("roles/r", map[string]any{"disabled": true})
				return key
			},
			want: map[string]any{"code": "REVOKED"},
		},
		"deleted": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.must(logical.DeleteOperation, "roles/r", nil)
				return key
			},
			want: map[string]any{"valid": false, "code": "NOT_FOUND"},
		},
		"deleted and made anew": {
			make: func(m *testMount) any {
				key := m.read("creds/r")["api_key"]
				m.must(logical.DeleteOperation, "roles/r", nil)
				m.expectVerdict(key, "NOT_FOUND")
				m.write("roles/r", nil)
				return key
			},
			want: map[string]any{"valid": false, "code": "NOT_FOUND"},
		},
		"dynamic": {
			role: map[string]any{"type": "dynamic", "ttl": "30m"},
			make: func(m *testMount) any { return m.lease("r", nil).Data["api_key"] },
			want: map[string]any{"code": "VALID", "state": "current", "expires_at": "2026-03-02T09:30:00Z", "end": "hard"},
		},
		"dynamic, lease over": {
			role: map[string]any{"type": "dynamic", "ttl": "30m"},
			make: func(m *testMount) any {
				key := m.lease("r", nil).Data["api_key"]
				m.clock.advance(30 * time.Minute)
				return key
			},
			before: "VALID",
			want:   map[string]any{"code": "EXPIRED", "state": "expired", "expires_at": "2026-03-02T09:30:00Z"},
		},
		"dynamic, expired before its generation retired": {
			role: map[string]any{"type": "dynamic", "ttl": "30m"},
			make: func(m *testMount) any {
				key := m.lease("r", nil).Data["api_key"]
				m.write("rotate/r", map[string]any{"grace_period": "1h"})
				m.clock.advance(2 * time.Hour)
				return key
			},
			want: map[string]any{"code": "EXPIRED", "state": "expired", "expires_at": "2026-03-02T09:30:00Z"},
		},
		"dynamic, lease revoked": {
			role: map[string]any{"type": "dynamic"},
			make: func(m *testMount) any {
				lease := m.lease("r", nil)
				if resp, err := m.onLease(logical.RevokeOperation, lease, 0); err != nil || resp.IsError() {
					m.t.Fatal(resp, err)
				}
				return lease.Data["api_key"]
			},
			want: map[string]any{"code": "REVOKED", "state": "revoked"},
		},
		"dynamic, generation over": {
			role: map[string]any{"type": "dynamic", "ttl": "30m"},
			make: func(m *testMount) any {
				key := m.lease("r", nil).Data["api_key"]
				m.write("rotate/r", map[string]any{"grace_period": "10m", "force": true})
				m.clock.advance(10 * time.Minute)
				return key
			},
			before: "VALID",
			want:   map[string]any{"code": "RETIRED", "reason": "grace_ended", "end": "planned"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.write("roles/r", c.role)
			key := c.make(m)
			if c.before != "" {
				boundary := m.clock.Now()
				m.clock.advance(-time.Second)
				m.expectVerdict(key, c.before)
				m.clock.set(boundary)
			}
			got := m.ask(key)
			expectAnswer(t, got, c.want)
			fields := answerMatched
			if c.want["code"] == "NOT_FOUND" {
				fields = answerUnmatched
			}
			expectFields(t, got, fields)
			if bound := m.write("verify/r", map[string]any{"key": key}); !maps.EqualFunc(bound, got, sameValue) {
				t.Errorf("verify/r answers %v, verify %v", bound, got)
			}
			// A fresh process, which has nothing cached, says the same.
			if anew := m.restart().ask(key); !maps.EqualFunc(anew, got, sameValue) {
				t.Errorf("after a restart the answer is %v, before it was %v", anew, got)
			}
		})
	}
}

func sameValue(a, b any) bool {
	if x, ok := a.([]string); ok {
		y, ok := b.([]string)
		return ok && slices.Equal(x, y)
	}
	if x, ok := a.(map[string]string); ok {
		y, ok := b.(map[string]string)
		return ok && maps.Equal(x, y)
	}
	return a == b
}

func TestVerifyAnswersThePolicyInForce(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"scopes": "orders:read", "metadata": map[string]any{"team": "a"}, "rate_limit": 7})
	creds := m.read("creds/r")
	got := m.ask(creds["api_key"])
	if !sameValue(got["scopes"], []string{"orders:read"}) || !sameValue(got["metadata"], map[string]string{"team": "a"}) || got["rate_limit"] != 7.0 {
		t.Errorf("unexpected %v", got)
	}
	if got["role"] != "r" || got["key_id"] != creds["key_id"] || got["role_id"] != m.read("status/r")["role_id"] {
		t.Errorf("unexpected %v", got)
	}
	m.write("roles/r", map[string]any{"scopes": "orders:*", "metadata": map[string]any{"team": "b"}, "rate_limit": 0})
	got = m.ask(creds["api_key"])
	if !sameValue(got["scopes"], []string{"orders:*"}) || !sameValue(got["metadata"], map[string]string{"team": "b"}) || got["rate_limit"] != 0.0 {
		t.Errorf("after the update %v", got)
	}
}

func TestVerifyNarrowedKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "scopes": "orders:*,users:read"})
	key := m.lease("d", map[string]any{"scopes": "orders:read"}).Data["api_key"]
	if got := m.ask(key)["scopes"]; !sameValue(got, []string{"orders:read"}) {
		t.Errorf("scopes %v", got)
	}
	for scopes, want := range map[string]string{"orders:read": "VALID", "orders:write": "INSUFFICIENT_SCOPE", "users:read": "INSUFFICIENT_SCOPE"} {
		if got := m.write("verify", map[string]any{"key": key, "scopes": scopes})["code"]; got != want {
			t.Errorf("%s: %v, want %s", scopes, got, want)
		}
	}
	m.write("roles/d", map[string]any{"scopes": "users:read"})
	if got := m.ask(key)["scopes"]; !sameValue(got, []string{}) {
		t.Errorf("the role allows it no more, and the key has %v", got)
	}
}

func TestVerifyScopes(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"scopes": "orders:read,users:*"})
	key := m.read("creds/r")["api_key"]
	for scopes, want := range map[string]string{
		"orders:read": "VALID", "users:read": "VALID", "users:a:b": "VALID", "orders:read,users:x": "VALID",
		"orders:write": "INSUFFICIENT_SCOPE", "orders:read,orders:write": "INSUFFICIENT_SCOPE", "users": "INSUFFICIENT_SCOPE",
		"usersx:read": "INSUFFICIENT_SCOPE", "*": "INSUFFICIENT_SCOPE", "users:*": "VALID", "orders:*": "INSUFFICIENT_SCOPE",
	} {
		if got := m.write("verify", map[string]any{"key": key, "scopes": scopes}); got["code"] != want || got["valid"] != (want == "VALID") {
			t.Errorf("%q: %v, want %s", scopes, got["code"], want)
		}
	}
}

func TestVerifyByIDs(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	m.write("roles/other", nil)
	creds, roleID := m.read("creds/r"), m.read("status/r")["role_id"]
	byIDs := map[string]any{"key_id": creds["key_id"], "role_id": roleID}
	got := m.write("verify", byIDs)
	expectAnswer(t, got, map[string]any{"valid": false, "code": "STATE", "state": "current", "expires_at": "", "end": ""})
	expectFields(t, got, answerState)
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	expectAnswer(t, m.write("verify", byIDs), map[string]any{"valid": false, "code": "STATE", "state": "previous", "end": "planned"})
	m.write("revoke/r", map[string]any{"version": 1})
	expectAnswer(t, m.write("verify/r", byIDs), map[string]any{"valid": false, "code": "STATE", "state": "revoked", "end": "hard"})
	for path, ids := range map[string]map[string]any{
		"verify":       {"key_id": creds["key_id"], "role_id": m.read("status/other")["role_id"]},
		"verify/r":     {"key_id": "abcdefghijkl", "role_id": roleID},
		"verify/other": byIDs,
	} {
		got := m.write(path, ids)
		expectAnswer(t, got, map[string]any{"valid": false, "code": "NOT_FOUND"})
		expectFields(t, got, answerUnmatched)
	}
	if _, seen := m.read("status/r")["versions"].([]any)[1].(map[string]any)["usage"].(map[string]any)["last_use"]; !seen {
		t.Error("usage lacks last_use")
	}
	if use := usageIn(t, m, "r", 1); use["accepted"] != int64(0) || len(use["refused"].(map[string]any)) != 0 {
		t.Errorf("asking for a state counted as use: %v", use)
	}
}

func TestVerifyRefusedQuestions(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	for name, data := range map[string]map[string]any{
		"nothing":                  {},
		"role_id alone":            {"role_id": "x"},
		"key_id alone":             {"key_id": "abcdefghijkl"},
		"key and key_id":           {"key": key, "key_id": "abcdefghijkl", "role_id": "x"},
		"a key as its id":          {"key_id": key, "role_id": "x"},
		"no id":                    {"key_id": "../../config", "role_id": "x"},
		"scopes that are empty":    {"key": key, "scopes": ""},
		"no scopes":                {"key": key, "scopes": []any{}},
		"too many scopes":          {"key": key, "scopes": strings.Repeat("a,", 128) + "b"},
		"batch and key":            {"key": key, "batch": "{}"},
		"an empty batch":           {"batch": " \n "},
		"a broken array":           {"batch": `[{"key":"` + key + `"`},
		"an unknown field":         {"key": key, "keys": key},
		"too many items":           {"batch": strings.Repeat("{}\n", 1001)},
		"too many bytes":           {"batch": strings.Repeat(" ", 1<<20+1)},
		"a number of another sort": {"key": map[string]any{"a": key}},
	} {
		resp, err := m.do(logical.UpdateOperation, "verify", data)
		status, text := httpStatus(resp, err)
		if status != 400 {
			t.Errorf("%s: status %d (%s)", name, status, text)
		}
		if strings.Contains(text, key) || strings.Contains(text, key[len(key)-20:]) {
			t.Errorf("%s: the answer shows the key: %s", name, text)
		}
	}
	for _, op := range []logical.Operation{logical.ReadOperation, logical.ListOperation, logical.DeleteOperation} {
		if _, err := m.do(op, "verify", nil); !errors.Is(err, logical.ErrUnsupportedOperation) {
			t.Errorf("%s verify: %v", op, err)
		}
	}
}

// What is not in storage is in no answer: a record that a commit never followed
// does not come to life through a later version of the same number.
func TestVerifyKeyWithoutCommit(t *testing.T) {
	store := newProbe(&logical.InmemStorage{})
	m := mountOn(t, store, newFakeClock())
	m.write("roles/r", nil)
	minted, rec, err := m.mintKey(mustDigests(t, m), "ak")
	if err != nil {
		t.Fatal(err)
	}
	role, err := getRecord[roleRecord](t.Context(), store, rolePath("r"))
	if err != nil {
		t.Fatal(err)
	}
	rec.Role, rec.RoleID, rec.Version = "r", role.ID, 2
	plant(t, store, keyPath(rec.ID), rec)
	m.expectVerdict(minted.Reveal(), "NOT_FOUND")
	m.write("rotate/r", nil)
	m.expectVerdict(minted.Reveal(), "NOT_FOUND")
}

func mustDigests(t *testing.T, m *testMount) *digestRecord {
	t.Helper()
	d, err := m.digests(t.Context(), m.storage)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// setNode makes the node one of that kind.
func (m *testMount) setNode(state consts.ReplicationState) {
	m.System().(*logical.StaticSystemView).ReplicationStateVal = state
	m.node.Store(nil)
}

func TestVerifyWhereNothingMayBeWritten(t *testing.T) {
	for name, state := range map[string]consts.ReplicationState{
		"performance standby": consts.ReplicationPerformanceStandby, "performance secondary": consts.ReplicationPerformanceSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			store := newProbe(&logical.InmemStorage{})
			m := mountOn(t, store, newFakeClock())
			m.write("roles/r", nil)
			key := m.read("creds/r")["api_key"].(string)
			m.write("revoke/r", map[string]any{"version": 1})
			current := m.read("creds/r")["api_key"]
			m.setNode(state)
			store.reset()
			expectAnswer(t, m.ask(current), map[string]any{"code": "VALID", "cache_ttl": 5})
			expectAnswer(t, m.ask(key), map[string]any{"code": "REVOKED", "cache_ttl": 5})
			expectAnswer(t, m.ask("no\nkey"), map[string]any{"code": "MALFORMED"})
			expectAnswer(t, m.ask(strings.Repeat("k", keyformat.MaxForeignLen+1)), map[string]any{"code": "MALFORMED"})
			for _, data := range []map[string]any{
				{"key": unknownKey(t)},
				// The node may not have heard of the mount's first import.
				{"key": "imported-from-elsewhere"},
				{"key": "weak"},
				{"batch": `{"key":"` + current.(string) + `"}` + "\n" + `{"key":"` + unknownKey(t) + `"}`},
			} {
				if _, err := m.do(logical.UpdateOperation, "verify", data); err != logical.ErrReadOnly { //nolint:errorlint // a server compares the text
					t.Errorf("an unknown key: %v", err)
				}
			}
			for _, path := range []string{"usage", "lookup"} {
				if _, err := m.do(logical.UpdateOperation, path, nil); err != logical.ErrReadOnly { //nolint:errorlint // as above
					t.Errorf("%s is not forwarded: %v", path, err)
				}
			}
			m.tick()
			m.Cleanup(t.Context())
			if _, writes := store.count(); writes != 0 {
				t.Errorf("%d writes where nothing may be written", writes)
			}
		})
	}
}

// cache_ttl never reaches past a known end or change.
func TestVerifyCacheTTL(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0})
	key := m.read("creds/r")["api_key"]
	m.write("rotate/r", map[string]any{"activate_at": "40s", "grace_period": "20s"})
	pending := m.read("creds/r/pending")["api_key"]
	start := m.clock.Now()
	for at := time.Duration(0); at <= 70*time.Second; at += 250 * time.Millisecond {
		m.clock.set(start.Add(at))
		for name, k := range map[string]any{"first": key, "second": pending} {
			got := m.ask(k)
			ttl := number(t, got["cache_ttl"])
			if ttl < 0 || ttl > 30 {
				t.Fatalf("cache_ttl %d", ttl)
			}
			m.clock.set(start.Add(at + time.Duration(ttl)*time.Second - time.Nanosecond))
			later := m.ask(k)
			if ttl > 0 && (later["code"] != got["code"] || later["state"] != got["state"]) {
				t.Fatalf("%s at %s: %v %v for %d s, and then it is %v %v", name, at, got["code"], got["state"], ttl, later["code"], later["state"])
			}
			m.clock.set(start.Add(at))
			if ends, err := time.Parse(time.RFC3339, got["expires_at"].(string)); err == nil && got["valid"] == true &&
				m.clock.Now().Add(time.Duration(ttl)*time.Second).After(ends) {
				t.Fatalf("%s at %s: %d s reach past %s", name, at, ttl, ends)
			}
		}
	}
}

// A text that is no known key is told what is odd about it, and nothing else; what
// is good, or known, gets no hint.
func TestVerifyHints(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	for name, c := range map[string]struct{ text, code, hint string }{
		"good":             {key, "VALID", ""},
		"a newline behind": {key + "\n", "MALFORMED", "space"},
		"a scheme":         {"Bearer " + key, "MALFORMED", "scheme"},
		"a name":           {"API_KEY=" + key, "MALFORMED", "name"},
		"quotes":           {`"` + key + `"`, "MALFORMED", "quotes"},
		"a typing error":   {key[:len(key)-1] + "-", "MALFORMED", ""},
		"unknown":          {unknownKey(t), "NOT_FOUND", ""},
	} {
		for path, data := range map[string]map[string]any{
			"verify":   {"key": c.text},
			"verify/r": {"key": c.text},
		} {
			got := m.write(path, data)
			hint, _ := got["hint"].(string)
			if got["code"] != c.code || (c.hint == "" && hint != "" && name != "a typing error") || !strings.Contains(hint, c.hint) {
				t.Errorf("%s, %s: %v %q", path, name, got["code"], hint)
			}
			if strings.Contains(hint, key[3:15]) {
				t.Errorf("%s: the hint shows a part of the text", name)
			}
		}
	}
	// Where foreign keys may be found, a scheme may be part of one; the hint still says it.
	m.write("import", map[string]any{"batch": `{"role":"legacy","key":"sk-0123456789-from-elsewhere"}`})
	if got := m.ask("Bearer " + key); got["code"] != "NOT_FOUND" || got["hint"] == nil {
		t.Errorf("with imported keys: %v", got)
	}
}
