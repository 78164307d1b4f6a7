// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

func (m *testMount) codes(key any, n int) map[string]int {
	m.t.Helper()
	out := map[string]int{}
	for range n {
		out[m.verdict(key)]++
	}
	return out
}

func TestRateLimitIsSharedByTheRole(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rate_limit": 4})
	m.write("roles/other", map[string]any{"rate_limit": 4})
	old := m.read("creds/r")["api_key"]
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	current := m.read("creds/r")["api_key"]
	if got := m.codes(old, 3); got["VALID"] != 3 {
		t.Errorf("old key: %v", got)
	}
	if got := m.codes(current, 3); got["VALID"] != 1 || got["RATE_LIMITED"] != 2 {
		t.Errorf("new key: %v", got)
	}
	expectAnswer(t, m.ask(old), map[string]any{"valid": false, "code": "RATE_LIMITED", "state": "previous", "cache_ttl": 1, "rate_limit": 4.0})
	if got := m.codes(m.read("creds/other")["api_key"], 4); got["VALID"] != 4 {
		t.Errorf("another role: %v", got)
	}
	m.clock.advance(500 * time.Millisecond)
	if got := m.codes(old, 3); got["VALID"] != 2 {
		t.Errorf("half a second later: %v", got)
	}
}

// Only what is good but for the rate takes a token.
func TestRateLimitIsTakenLast(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rate_limit": 1, "scopes": "a", "allowed_cidrs": "10.0.0.0/8"})
	creds := m.read("creds/r")
	key := creds["api_key"].(string)
	ids := map[string]any{"key_id": creds["key_id"], "role_id": m.read("status/r")["role_id"]}
	for range 3 {
		m.write("verify", map[string]any{"key": key, "scopes": "b", "remote_addr": "10.0.0.1"})
		m.write("verify", map[string]any{"key": key})
		m.write("verify/other", map[string]any{"key": key, "remote_addr": "10.0.0.1"})
		m.write("verify", map[string]any{"key": withID(t, m.idOf(key)), "remote_addr": "10.0.0.1"})
		m.write("verify", ids)
		m.write("lookup", map[string]any{"key": key})
	}
	good := map[string]any{"key": key, "scopes": "a", "remote_addr": "10.0.0.1"}
	if got := m.write("verify", good)["code"]; got != "VALID" {
		t.Errorf("the first good request is %v", got)
	}
	if got := m.write("verify", good)["code"]; got != "RATE_LIMITED" {
		t.Errorf("the second one is %v", got)
	}
}

func TestRateLimitChanges(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rate_limit": 1})
	key := m.read("creds/r")["api_key"]
	if got := m.codes(key, 3); got["VALID"] != 1 {
		t.Errorf("at one: %v", got)
	}
	m.write("roles/r", map[string]any{"rate_limit": 100})
	m.clock.advance(time.Second)
	if got := m.codes(key, 150); got["VALID"] != 100 {
		t.Errorf("at a hundred: %v", got)
	}
	m.write("roles/r", map[string]any{"rate_limit": 0})
	if got := m.codes(key, 150); got["VALID"] != 150 {
		t.Errorf("without limit: %v", got)
	}
	m.write("roles/r", map[string]any{"rate_limit": 0.1})
	m.clock.advance(time.Minute)
	if got := m.codes(key, 3); got["VALID"] != 1 {
		t.Errorf("at one in ten seconds: %v", got)
	}
	m.clock.advance(9 * time.Second)
	m.expectVerdict(key, "RATE_LIMITED")
	m.clock.advance(time.Second)
	m.expectVerdict(key, "VALID")
}

// The mark holds an operation's time while the clock catches up; tokens come
// back all the same.
func TestRateLimitWhileTheClockCatchesUp(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rate_limit": 1})
	key := m.read("creds/r")["api_key"]
	m.tick()
	m.clock.advance(-5 * time.Minute)
	m.expectVerdict(key, "VALID")
	m.expectVerdict(key, "RATE_LIMITED")
	m.clock.advance(time.Second)
	m.expectVerdict(key, "VALID")
}

func TestRateLimitsAreBounded(t *testing.T) {
	r := newRateLimits(newFakeClock())
	for i := range defaultCacheSize + 10 {
		r.take(&roleRecord{ID: string(rune('a'+i%26)) + time.Duration(i).String(), Policy: policy.Policy{RateLimit: 1}})
	}
	if n := r.buckets.Len(); n != defaultCacheSize {
		t.Errorf("%d buckets, want %d", n, defaultCacheSize)
	}
}

// An exhausted bucket is remembered where there is an idle one to forget: the
// roles of a flood must not win their tokens back by being many.
func TestExhaustedLimitsOutliveIdleOnes(t *testing.T) {
	clock := newFakeClock()
	r := newRateLimits(clock)
	r.resize(300)
	role := func(id string) *roleRecord {
		return &roleRecord{ID: id, Policy: policy.Policy{RateLimit: 1}}
	}
	spent := func(id string) bool { return !r.take(role(id)) }
	r.take(role("exhausted"))
	for i := range 10000 {
		clock.advance(10 * time.Millisecond)
		if i%10 == 0 { // once it refilled, spend it again
			r.take(role("exhausted"))
		}
		r.take(role(fmt.Sprint("idle-", i)))
		if n := r.buckets.Len(); n > 300 {
			t.Fatalf("%d buckets", n)
		}
		if i%10 == 5 && !spent("exhausted") {
			t.Fatalf("after %d other roles the exhausted bucket is full again", i)
		}
	}
}

// The bound follows cache_size, up and down.
func TestLimitsFollowTheCacheSize(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"cache_size": 150})
	for i := range 400 {
		m.rates.take(&roleRecord{ID: fmt.Sprint(i), Policy: policy.Policy{RateLimit: 1}})
	}
	if n := m.rates.buckets.Len(); n != 150 {
		t.Errorf("%d buckets, want 150", n)
	}
	m.write("config", map[string]any{"cache_size": 100})
	if n := m.rates.buckets.Len(); n != 100 {
		t.Errorf("%d buckets after cache_size went down, want 100", n)
	}
}
