// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// lease asks for a key of a dynamic role, as a server does.
func (m *testMount) lease(role string, data map[string]any) *logical.Response {
	m.t.Helper()
	op := logical.Operation(logical.ReadOperation)
	if data != nil {
		op = logical.UpdateOperation
	}
	resp, err := m.do(op, "creds/"+role, data)
	if err != nil || resp.IsError() || resp.Secret == nil {
		m.t.Fatalf("creds/%s: %v %v", role, err, resp)
	}
	resp.Secret.IssueTime = m.clock.Now()
	return resp
}

// onLease sends renew or revoke for a lease, with what a host stores of it.
func (m *testMount) onLease(op logical.Operation, resp *logical.Response, increment time.Duration) (*logical.Response, error) {
	m.t.Helper()
	secret := *resp.Secret
	secret.Increment = increment
	return m.HandleRequest(context.Background(), &logical.Request{
		Operation: op, Path: "creds/any", Storage: m.storage, Secret: &secret, Data: resp.Data,
	})
}

func TestDynamicLease(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "max_ttl": "2h", "scopes": "orders:*"})
	a, b := m.lease("d", nil), m.lease("d", nil)
	if a.Data["api_key"] == b.Data["api_key"] {
		t.Fatal("two readers got one key")
	}
	want := []string{"api_key", "key_id", "role", "scopes", "version"}
	if got := sortedKeys(a.Data); !slices.Equal(got, want) {
		t.Fatalf("fields %v, want %v", got, want)
	}
	if a.Secret.TTL != 30*time.Minute || a.Secret.MaxTTL != 2*time.Hour || !a.Secret.Renewable {
		t.Fatalf("lease %v of at most %v, renewable %v", a.Secret.TTL, a.Secret.MaxTTL, a.Secret.Renewable)
	}
	if resp, err := m.onLease(logical.RevokeOperation, a, 0); err != nil || resp.IsError() {
		t.Fatal(resp, err)
	}
	m.expectVerdict(a.Data["api_key"], "REVOKED")
	m.expectVerdict(b.Data["api_key"], "VALID")
	if resp, err := m.onLease(logical.RevokeOperation, a, 0); err != nil || resp.IsError() {
		t.Fatal("a repeated revocation:", resp, err)
	}
	if resp, err := m.onLease(logical.RenewOperation, a, 0); err == nil && !resp.IsError() {
		t.Fatal("a dead key was renewed")
	}

	m.clock.advance(20 * time.Minute)
	renewed, err := m.onLease(logical.RenewOperation, b, time.Hour)
	if err != nil || renewed.IsError() || renewed.Secret.TTL != time.Hour {
		t.Fatalf("renewing: %v %v", renewed, err)
	}
	if renewed.Secret.InternalData["key_id"] != b.Data["key_id"] {
		t.Fatal("the renewed lease lost its internal data")
	}
	m.clock.advance(time.Hour - time.Second)
	m.expectVerdict(b.Data["api_key"], "VALID")
	m.clock.advance(time.Second)
	m.expectVerdict(b.Data["api_key"], "EXPIRED")
}

func TestDynamicRenewalStopsAtMaxTTL(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "max_ttl": "1h"})
	a := m.lease("d", nil)
	m.clock.advance(25 * time.Minute)
	r, err := m.onLease(logical.RenewOperation, a, 10*time.Hour)
	if err != nil || r.Secret.TTL != 35*time.Minute {
		t.Fatalf("renewed for %v, want what is left of max_ttl (%v)", r.Secret.TTL, err)
	}
	m.clock.advance(35 * time.Minute)
	m.expectVerdict(a.Data["api_key"], "EXPIRED")
	if r, err := m.onLease(logical.RenewOperation, a, 0); err == nil && !r.IsError() {
		t.Fatal("renewed past its end")
	}
}

func TestDynamicNarrowing(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "scopes": "orders:*,users:read"})
	a := m.lease("d", map[string]any{"scopes": "orders:read", "ttl": "5m", "label": "batch 7"})
	if !slices.Equal(a.Data["scopes"].([]string), []string{"orders:read"}) || a.Secret.TTL != 5*time.Minute {
		t.Fatalf("scopes %v, ttl %v", a.Data["scopes"], a.Secret.TTL)
	}
	m.refused(logical.UpdateOperation, "creds/d", map[string]any{"scopes": "billing:read"}, `scopes: "billing:read"`)
	m.refused(logical.UpdateOperation, "creds/d", map[string]any{"ttl": "31m"}, "ttl: 1860")
	m.refused(logical.UpdateOperation, "creds/d", map[string]any{"label": strings.Repeat("ü", 129)}, "label: 129: has more than 128 characters")
	m.lease("d", map[string]any{"label": strings.Repeat("ü", 128)})
	// What the role loses, the key loses.
	m.write("roles/d", map[string]any{"scopes": "users:read"})
	got := m.write("verify", map[string]any{"key": a.Data["api_key"], "scopes": "orders:read"})
	if got["code"] != "INSUFFICIENT_SCOPE" {
		t.Fatal(got["code"])
	}
	m.write("roles/s", nil)
	m.refused(logical.UpdateOperation, "creds/s", map[string]any{"ttl": "1m"}, "static role")
}

// What a reader asks of its key may be missing, but is never guessed: nothing is
// issued where it cannot be read.
func TestCredsIssuesWhatIsAskedOrNothing(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "scopes": "*"})
	m.write("roles/s", nil)
	for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		got, err := m.do(op, "creds/d", map[string]any{"scopes": "orders:read,orders:write", "ttl": "300", "label": "nightly"})
		if err != nil || got.IsError() || got.Secret.TTL != 5*time.Minute || !slices.Equal(got.Data["scopes"].([]string), []string{"orders:read", "orders:write"}) {
			t.Fatalf("%s: %v %v", op, got, err)
		}
		// Absent, null and an empty label are nothing.
		got, err = m.do(op, "creds/d", map[string]any{"scopes": nil, "ttl": nil, "label": ""})
		if err != nil || got.IsError() || got.Secret.TTL != 30*time.Minute || !slices.Equal(got.Data["scopes"].([]string), []string{"*"}) {
			t.Fatalf("%s: %v %v", op, got, err)
		}
	}
	_, issued, _ := m.listed("keys/d", nil)
	for _, c := range []struct {
		data  map[string]any
		parts []string
	}{
		{map[string]any{"scopes": ""}, []string{"scopes: is empty"}},
		{map[string]any{"scopes": "  "}, []string{"scopes: is empty"}},
		{map[string]any{"scopes": []any{}}, []string{"scopes: is empty"}},
		{map[string]any{"scopes": "[]"}, []string{"scopes: is empty"}},
		{map[string]any{"scopes": "a,,b"}, []string{"scopes: ", "an empty element"}},
		{map[string]any{"scopes": "a\x00b"}, []string{"scopes: ", "must be segments"}},
		{map[string]any{"ttl": ""}, []string{"ttl: is empty"}},
		{map[string]any{"ttl": 0}, []string{"ttl: 0: must be from 1s to 30m (1800"}},
		{map[string]any{"ttl": "0.5s"}, []string{"ttl: ", "whole number of seconds"}},
		{map[string]any{"ttl": -60}, []string{"ttl: -60: must not be negative"}},
		// Times a second in nanoseconds, this is no more than a minute again.
		{map[string]any{"ttl": 1<<52 + 60}, []string{"ttl: ", "longer than any duration"}},
		{map[string]any{"label": strings.Repeat("ü", 129)}, []string{"label: 129", "characters"}},
		{map[string]any{"label": "a\x1b[31m"}, []string{"label: ", "control character"}},
		{map[string]any{"label": true}, []string{"label: true: is not a text"}},
		{map[string]any{"version": "1"}, []string{"version: unknown field"}},
		{map[string]any{"scope": "orders:read"}, []string{"scope: unknown field", "did you mean scopes"}},
		{map[string]any{m.read("creds/s")["api_key"].(string): "1"}, []string{"field: unknown field"}},
		{map[string]any{"AKIA7QX2ZK4EXAMPLE": "1"}, []string{"field: unknown field"}},
	} {
		m.refused(logical.ReadOperation, "creds/d", c.data, c.parts...)
		m.refused(logical.UpdateOperation, "creds/d", c.data, c.parts...)
	}
	m.lease("d", map[string]any{"label": strings.Repeat("ü", 128)})
	if _, now, _ := m.listed("keys/d", nil); len(now) != len(issued)+1 {
		t.Errorf("%d keys were issued by what was refused", len(now)-len(issued)-1)
	}
	// A version has a path of its own: it is never answered by another's.
	m.write("rotate/s", nil)
	m.refused(logical.ReadOperation, "creds/s", map[string]any{"version": "1"}, "version: unknown field")
	m.refused(logical.ReadOperation, "creds/s/1", map[string]any{"version": "2"}, "version: unknown field")
	for _, field := range []string{"scopes", "ttl", "label"} {
		m.refused(logical.ReadOperation, "creds/s", map[string]any{field: "60"}, field+": ", "a static role hands out one key")
	}
}

func TestOneRotationSupersedesEveryIssuedKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "max_ttl": "2h", "grace_period": "40m"})
	old := m.lease("d", nil)
	resp, err := m.do(logical.UpdateOperation, "rotate/d", map[string]any{"grace_period": "10m"})
	if err != nil || len(resp.Warnings) == 0 {
		t.Fatalf("a grace shorter than the leases is lengthened, and said: %v %v", resp, err)
	}
	if got := resp.Data["previous_valid_until"]; got != stamp(m.clock.Now().Add(30*time.Minute)) {
		t.Fatalf("previous generation until %v", got)
	}
	fresh := m.lease("d", nil)
	if number(t, fresh.Data["version"]) != 2 {
		t.Fatalf("issued in generation %v", fresh.Data["version"])
	}
	r, err := m.onLease(logical.RenewOperation, old, time.Hour)
	if err != nil || r.Secret.TTL > 30*time.Minute || r.Secret.MaxTTL > 30*time.Minute {
		t.Fatalf("a renewal goes beyond the generation: %v %v", r, err)
	}
	m.clock.advance(30 * time.Minute)
	if got := m.verdict(old.Data["api_key"]); got != "RETIRED" && got != "EXPIRED" {
		t.Fatal(got)
	}
	m.expectVerdict(fresh.Data["api_key"], "EXPIRED")
	again := m.lease("d", nil)
	m.write("rotate/d", map[string]any{"grace_period": 0, "force": true})
	m.expectVerdict(again.Data["api_key"], "RETIRED")
}

func TestRevokingOneDynamicKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.write("roles/e", map[string]any{"type": "dynamic"})
	a, b := m.lease("d", nil), m.lease("d", nil)
	resp, err := m.do(logical.UpdateOperation, "revoke/e", map[string]any{"key_id": a.Data["key_id"]})
	if status, _ := httpStatus(resp, err); status != 404 {
		t.Fatalf("another role's key: status %d", status)
	}
	m.write("revoke/d", map[string]any{"key_id": a.Data["key_id"], "reason": "lost laptop"})
	m.write("revoke/d", map[string]any{"key_id": a.Data["key_id"]})
	m.expectVerdict(a.Data["api_key"], "REVOKED")
	m.expectVerdict(b.Data["api_key"], "VALID")
	m.write("revoke/d", map[string]any{"all": true})
	m.expectVerdict(b.Data["api_key"], "REVOKED")
	m.expectVerdict(m.lease("d", nil).Data["api_key"], "VALID")
}

func TestRevocationOfWhatIsGone(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": 0})
	m.write("roles/d", map[string]any{"type": "dynamic"})
	a := m.lease("d", nil)
	m.must(logical.DeleteOperation, "roles/d", nil)
	m.expectVerdict(a.Data["api_key"], "NOT_FOUND")
	if resp, err := m.onLease(logical.RevokeOperation, a, 0); err != nil || resp.IsError() {
		t.Fatal(resp, err)
	}
	if resp, err := m.onLease(logical.RenewOperation, a, 0); err == nil && !resp.IsError() {
		t.Fatal("renewed the key of a role that is gone")
	}
	// A role of the same name does not revive it.
	m.write("roles/d", map[string]any{"type": "dynamic"})
	m.expectVerdict(a.Data["api_key"], "NOT_FOUND")
}

func TestAnExpiredKeyIsNotRevivedByAClockThatGoesBack(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m"})
	a := m.lease("d", nil)
	m.clock.advance(30 * time.Minute)
	m.expectVerdict(a.Data["api_key"], "EXPIRED")
	if resp, err := m.onLease(logical.RevokeOperation, a, 0); err != nil || resp.IsError() {
		t.Fatal(resp, err)
	}
	m.clock.advance(-24 * time.Hour)
	m.expectVerdict(a.Data["api_key"], "EXPIRED")
	m.restart().expectVerdict(a.Data["api_key"], "EXPIRED")
	if resp, err := m.onLease(logical.RenewOperation, a, 0); err == nil && !resp.IsError() {
		t.Fatal("renewed a key that had expired")
	}
}
