// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestLookup(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"owner": "team-a@example.com", "description": "the shop"})
	creds := m.read("creds/r")
	start := m.clock.Now()
	m.clock.advance(time.Hour)
	m.ask(creds["api_key"])
	m.write("rotate/r", map[string]any{"grace_period": "1h"})
	for _, data := range []map[string]any{{"key_id": creds["key_id"]}, {"key": creds["api_key"]}} {
		got := m.write("lookup", data)
		expectAnswer(t, got, map[string]any{
			"role": "r", "type": "static", "owner": "team-a@example.com", "description": "the shop", "version": 1, "state": "previous",
			"key_id": creds["key_id"], "issued": stamp(start), "expires": stamp(m.clock.Now().Add(time.Hour)), "ended": "", "reason": "",
			"last_use": stamp(m.clock.Now()), "disabled": false, "role_deleted": "", "reported": "", "role_id": m.read("status/r")["role_id"],
		})
	}
	m.write("revoke/r", map[string]any{"version": 1})
	expectAnswer(t, m.write("lookup", map[string]any{"key_id": creds["key_id"]}),
		map[string]any{"state": "revoked", "expires": "", "ended": stamp(m.clock.Now())})
	m.must(logical.DeleteOperation, "roles/r", nil)
	expectAnswer(t, m.write("lookup", map[string]any{"key_id": creds["key_id"]}),
		map[string]any{"role": "r", "owner": "team-a@example.com", "role_deleted": stamp(m.clock.Now())})
}

// The use of a key in one line, for people.
func TestLookupTellsUseInOneLine(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"trusted_reporters": "*"})
	m.write("roles/r", map[string]any{"scopes": "orders:read"})
	creds := m.read("creds/r")
	said := func(want string) {
		t.Helper()
		if got := m.write("lookup", map[string]any{"key_id": creds["key_id"]})["used"]; got != want {
			t.Errorf("used is %q, want %q", got, want)
		}
	}
	said("no use is known")
	m.clock.advance(time.Hour)
	m.write("verify", map[string]any{"key": creds["api_key"], "scopes": "orders:write", "client": "shop"})
	said("1 refused, last 2026-03-02T10:00:00Z")
	m.write("verify", map[string]any{"key": creds["api_key"], "client": "portal"})
	m.clock.advance(time.Hour)
	m.write("verify", map[string]any{"key": creds["api_key"], "client": "batch"})
	said("2 accepted, last 2026-03-02T11:00:00Z by batch; 1 refused")
	m.clock.advance(time.Hour)
	m.write("verify", map[string]any{"key": creds["api_key"]})
	said("3 accepted, last 2026-03-02T12:00:00Z; 1 refused")
	m.write("usage", map[string]any{
		"instance": "a", "sequence": 1,
		"batch": fmt.Sprintf(`{"key_id":%q,"client":"edge","accepted":7,"last":%d}`, creds["key_id"], m.clock.Now().Unix()),
	})
	said("3 accepted, last 2026-03-02T12:00:00Z; 1 refused; reported: 7 accepted, last 2026-03-02T12:00:00Z by edge")
}

func TestLookupOfADynamicKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "owner": "team-b"})
	m.request.EntityID, m.request.DisplayName = "entity-7", "token-build"
	lease := m.lease("d", map[string]any{"label": "nightly"})
	got := m.write("lookup", map[string]any{"key_id": lease.Data["key_id"]})
	expectAnswer(t, got, map[string]any{
		"role": "d", "type": "dynamic", "state": "current", "issued": stamp(m.clock.Now()), "expires": stamp(m.clock.Now().Add(30 * time.Minute)), "last_use": "",
	})
	expectAnswer(t, got["issued_to"].(map[string]any), map[string]any{"entity_id": "entity-7", "display_name": "token-build", "label": "nightly"})
	other := m.lease("d", nil)
	m.clock.advance(time.Minute)
	m.ask(lease.Data["api_key"])
	if use := m.write("lookup", map[string]any{"key_id": lease.Data["key_id"]}); use["last_use"] != stamp(m.clock.Now()) {
		t.Errorf("last use %v", use["last_use"])
	}
	if use := m.write("lookup", map[string]any{"key_id": other.Data["key_id"]}); use["last_use"] != "" {
		t.Errorf("the other key was used at %v", use["last_use"])
	}
	if resp, err := m.onLease(logical.RevokeOperation, lease, 0); err != nil || resp.IsError() {
		t.Fatal(resp, err)
	}
	expectAnswer(t, m.write("lookup", map[string]any{"key_id": lease.Data["key_id"]}), map[string]any{"state": "revoked", "reason": causeLease})
}

func TestLookupOfNothing(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"].(string)
	wrong := withID(t, m.idOf(key))
	for _, data := range []map[string]any{
		{"key_id": "abcdefghijkl"}, {"key": unknownKey(t)}, {"key": wrong}, {"key": "garbage"}, {"key": key[:len(key)-1] + "!"},
	} {
		resp, err := m.do(logical.UpdateOperation, "lookup", data)
		if status, text := httpStatus(resp, err); status != 404 || text != "no such key is known" {
			t.Errorf("status %d (%s)", status, text)
		}
	}
	cost := func(key string) (int, int64) {
		fresh := m.restart()
		fresh.ask(unknownKey(t))
		p.reset()
		before := fresh.hmacs.Load()
		if _, err := fresh.do(logical.UpdateOperation, "lookup", map[string]any{"key": key}); err == nil {
			t.Error("found")
		}
		calls, _ := p.count()
		return calls, fresh.hmacs.Load() - before
	}
	unknownCalls, unknownMACs := cost(unknownKey(t))
	wrongCalls, wrongMACs := cost(wrong)
	if unknownCalls != wrongCalls || unknownMACs != wrongMACs || unknownMACs != 1 {
		t.Errorf("an unknown key costs %d calls and %d MACs, a wrong secret %d and %d", unknownCalls, unknownMACs, wrongCalls, wrongMACs)
	}
	for _, data := range []map[string]any{{}, {"key": key, "key_id": "abcdefghijkl"}, {"key_id": key}, {"key_id": "x/../y"}} {
		resp, err := m.do(logical.UpdateOperation, "lookup", data)
		if status, text := httpStatus(resp, err); status != 400 || strings.Contains(text, key) {
			t.Errorf("%v: status %d (%s)", sortedKeys(data), status, text)
		}
	}
}
